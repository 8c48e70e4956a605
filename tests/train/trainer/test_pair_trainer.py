"""The trainer against plain TRL, and each thing it does beyond TRL."""

import math
import os
import signal
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig
from transformers import AutoTokenizer, TrainerCallback
from trl import DPOConfig, DPOTrainer

from train.callbacks import Accounts, EpochOrder
from train.folder import BEGUN
from train.pairs import build as pairs
from train.pairs.pair import Counts, Pair
from train.pairs.tokens import TokenPair, tokenize
from train.recipe import Recipe, RecipeError
from train.sharing.lengths import distinct_tokens
from train.trainer import assemble
from train.trainer.batches import ContextSampler, sequences
from train.trainer.config import config, fsdp_policy
from train.trainer.pair_trainer import PairTrainer, TrainError
from train.trainer.reference import attach_reference, compute_reference
from train.trainer.refusals import refuse_embeddings
from train.trainer.step import StepTotals

pytestmark = pytest.mark.usefixtures("small_data")
History = list[dict[str, float]]


@pytest.fixture(scope="module")
def tokenizer(mini: Path) -> Any:
    return AutoTokenizer.from_pretrained(mini)


def rows_of(recipe: Recipe, tokenizer: Any, n: int = 20) -> list[TokenPair]:
    made = pairs.stratified(list(pairs.build(recipe, Counts())), n, 0)
    return tokenize(made, tokenizer, recipe.max_prompt_length, recipe.max_length, Counter())


def trainer_for(
    recipe: Recipe, tokenizer: Any, out: Path, micro: int = 4, n: int = 20
) -> PairTrainer:
    return assemble.make_trainer(
        recipe, rows_of(recipe, tokenizer, n), tokenizer, config(recipe, out, micro, 1)
    )


def trained(trainer: DPOTrainer) -> History:
    if isinstance(trainer, PairTrainer):
        trainer.add_callback(EpochOrder(trainer))
        trainer.add_callback(Accounts(trainer))
    trainer.train()
    return [entry for entry in trainer.state.log_history if "loss" in entry]


def small(mini: Path, **fields: Any) -> Recipe:
    given = {
        "learning_rate": 1e-3,
        "effective_batch_size": 8,
        "lora_r": 4,
        "lora_alpha": 8,
        "order": "random",
    }
    return Recipe(model_name_or_path=str(mini), **{**given, **fields})


def assert_same_curves(ours: History, theirs: History, tolerance: float = 1e-5) -> None:
    assert len(ours) == len(theirs) > 1
    for name in (
        "loss",
        "rewards/chosen",
        "rewards/rejected",
        "rewards/margins",
        "rewards/accuracies",
        "grad_norm",
    ):
        for a, b in zip(ours, theirs, strict=True):
            assert a[name] == pytest.approx(b[name], abs=tolerance), (name, a["step"])


class InOrder(DPOTrainer):  # type: ignore[misc]
    """Plain TRL, shown the pairs in a given order."""

    order: Sequence[int] = ()

    def _get_train_sampler(self, *args: Any) -> Any:
        return list(self.order)


@pytest.mark.parametrize(
    ("share", "loss_type"),
    [(False, ["sigmoid"]), (True, ["sigmoid"]), (True, ["sigmoid", "sft"])],
)
def test_equals_a_plain_trl_script_step_by_step(
    mini: Path, tokenizer: Any, tmp_path: Path, share: bool, loss_type: list[str]
) -> None:
    recipe = small(mini, share_prefixes=share, loss_type=loss_type, learning_rate=3e-2, beta=0.3)
    rows = rows_of(recipe, tokenizer, 16)
    ours = assemble.make_trainer(recipe, rows, tokenizer, config(recipe, tmp_path / "a", 4, 1))
    from datasets import Dataset

    plain = InOrder(
        model=str(mini),
        args=DPOConfig(
            output_dir=str(tmp_path / "b"), beta=0.3, loss_type=loss_type, learning_rate=3e-2,
            seed=42, bf16=False,
            per_device_train_batch_size=8, gradient_accumulation_steps=1, num_train_epochs=1,
            max_length=None,
            logging_steps=1, save_strategy="no", report_to="none", use_cpu=True, disable_tqdm=True,
            model_init_kwargs={"dtype": "float32"}, activation_checkpointing=False,
        ),
        train_dataset=Dataset.from_list([row.pair.row() for row in rows]),
        processing_class=tokenizer,
        peft_config=LoraConfig(
            r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"
        ),
    )  # fmt: skip
    plain.order = list(ours.order)
    history = trained(ours)
    assert_same_curves(history, trained(plain))
    assert abs(history[-1]["rewards/margins"]) > 3e-4


def test_unequal_micro_batches_weigh_pairs_equally(
    mini: Path, tokenizer: Any, tmp_path: Path
) -> None:
    """13 pairs in steps of 8: micro-batches of 4, 4 and 4, 1, or 8 and 5, give one curve."""
    recipe = small(mini)
    curves = [
        trained(trainer_for(recipe, tokenizer, tmp_path / str(m), m, n=13)) for m in (4, 8, 1)
    ]
    assert len(curves[0]) == 2
    assert_same_curves(curves[0], curves[1])
    assert_same_curves(curves[0], curves[2])


@pytest.mark.parametrize("loss_type", [["sft"], ["sigmoid", "sft"]])
def test_supervised_terms_weigh_tokens_equally_whatever_the_micro_batch(
    mini: Path, tokenizer: Any, tmp_path: Path, loss_type: list[str]
) -> None:
    """A mean over all chosen tokens of a step; TRL's is one of each micro-batch, 14 % off here."""
    recipe = small(mini, loss_type=loss_type, loss_weights=[0.5] * len(loss_type))
    gradients = []
    for micro in (8, 2, 1):
        trainer = trainer_for(recipe, tokenizer, tmp_path / str(micro), micro, n=16)
        trainer.precompute_ref_logps = not recipe.needs_reference
        history = trained(trainer)
        gradients.append([entry[name] for entry in history for name in ("loss", "grad_norm")])
    assert gradients[1] == pytest.approx(gradients[0], abs=1e-5)
    assert gradients[2] == pytest.approx(gradients[0], abs=1e-5)


def test_supervised_training_computes_no_rejected_reply(
    mini: Path, tokenizer: Any, tmp_path: Path
) -> None:
    recipe = small(mini, loss_type=["sft"])
    trainer = trainer_for(recipe, tokenizer, tmp_path, n=16)
    trainer.precompute_ref_logps = True
    distinct: set[tuple[int, ...]] = set()
    for row in rows_of(recipe, tokenizer, 16)[:1]:
        whole = row.prompt_ids + row.chosen_ids
        distinct |= {tuple(whole[: i + 1]) for i in range(len(whole))}
    batch = trainer.data_collator([trainer.train_dataset[0]])
    assert batch["packed"][0].numel() == len(distinct)
    history = trained(trainer)
    assert not {"rewards/margins", "logps/rejected", "logits/rejected"} & set(history[0])
    assert history[-1]["logps/chosen"] > history[0]["logps/chosen"]


def test_packed_lengths_hold_the_batches_of_later_epochs_too(
    mini: Path, tokenizer: Any, tmp_path: Path
) -> None:
    """A longer batch in a later epoch would compile once more in the middle of the run."""
    recipe = small(mini, num_train_epochs=3)
    trainer = trainer_for(recipe, tokenizer, tmp_path, n=21)
    rows = rows_of(recipe, tokenizer, 21)
    lengths = assemble.packed_lengths(trainer, rows, recording=0)
    needed = []
    for epoch in range(3):
        trainer.order.set_epoch(epoch)
        for batch in trainer.get_train_dataloader().batch_sampler:
            needed.append(distinct_tokens(row for i in batch for row in sequences(rows[i])))
    assert lengths == sorted({-(-tokens // 128) * 128 for tokens in needed})
    trainer.order.set_epoch(0)
    assert list(trainer.order) == list(assemble.pair_order(recipe, rows))


def test_a_mixture_of_experts_says_that_its_auxiliary_loss_is_left_out(
    mini: Path, tokenizer: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its layers are those of the small model, each with two experts."""
    from transformers import AutoConfig, Qwen3MoeConfig, Qwen3MoeForCausalLM

    shape = AutoConfig.from_pretrained(mini).to_dict()
    for name in ("architectures", "model_type", "layer_types"):
        shape.pop(name)
    moe = Qwen3MoeConfig(**shape, num_experts=2, num_experts_per_tok=1, moe_intermediate_size=16)
    Qwen3MoeForCausalLM(moe).save_pretrained(tmp_path / "moe")
    tokenizer.save_pretrained(tmp_path / "moe")
    trainer_for(small(tmp_path / "moe"), tokenizer, tmp_path / "out")
    assert "auxiliary loss" in caplog.text
    caplog.clear()
    trainer_for(small(mini), tokenizer, tmp_path / "plain")
    assert "auxiliary loss" not in caplog.text


def test_attention_dropout_is_off(mini: Path, tokenizer: Any, tmp_path: Path) -> None:
    """TRL's disable_dropout reaches Dropout modules only; attention keeps its rate as a number."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(mini, attention_dropout=0.5)
    model.save_pretrained(tmp_path / "noisy")
    recipe = small(tmp_path / "noisy")
    trainer = trainer_for(recipe, tokenizer, tmp_path / "out", n=8)
    rates = [
        m.attention_dropout for m in trainer.model.modules() if hasattr(m, "attention_dropout")
    ]
    assert len(rates) == 2
    assert not any(rates)
    first, again = (compute_reference(trainer) for _ in range(2))
    assert (first == again).all()


def test_weights_that_are_no_numbers_are_not_saved(
    mini: Path, tokenizer: Any, tmp_path: Path
) -> None:
    trainer = trainer_for(small(mini), tokenizer, tmp_path, n=8)
    next(p for p in trainer.model.parameters() if p.requires_grad).data.fill_(float("nan"))
    with pytest.raises(TrainError, match="is no number after step 0"):
        trainer.save_model(str(tmp_path / "adapter"))
    assert not (tmp_path / "adapter").exists()
    with pytest.raises(TrainError, match="grad_norm is nan"):
        trainer.log({"loss": 0.5, "grad_norm": float("nan")})


def test_lora_weights_train_in_fp32_on_a_4bit_base_and_move(
    mini: Path, tokenizer: Any, tmp_path: Path
) -> None:
    """QLoRA at the log's rate; in bf16, as TRL leaves the adapter, most entries would stay."""
    recipe = small(mini, load_in_4bit=True, dtype="bfloat16", learning_rate=5e-6, lora_r=16)
    trainer = trainer_for(recipe, tokenizer, tmp_path)
    assert trainer.model.get_base_model().is_loaded_in_4bit
    weights = {name: p for name, p in trainer.model.named_parameters() if p.requires_grad}
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    history = trained(trainer)
    assert len(history) == 3
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    moved = torch.cat(
        [(before[name] != weight).flatten() for name, weight in weights.items() if "lora_A" in name]
    )
    assert moved[: len(moved)].float().mean() > 0.95
    in_bf16 = torch.cat(
        [
            (before[n].bfloat16() != w.bfloat16()).flatten()
            for n, w in weights.items()
            if "lora_A" in n
        ]
    )
    assert in_bf16.float().mean() < 0.5


def test_lora_dropout_works_and_leaves_the_reference_alone(
    mini: Path, tokenizer: Any, tmp_path: Path
) -> None:
    without = trained(trainer_for(small(mini), tokenizer, tmp_path / "a"))
    trainer = trainer_for(small(mini, lora_dropout=0.5), tokenizer, tmp_path / "b")
    dropouts = [m.p for name, m in trainer.model.named_modules() if isinstance(m, torch.nn.Dropout)]
    assert set(dropouts) == {0.5}
    history = trained(trainer)
    assert history[0]["loss"] == pytest.approx(
        math.log(2), abs=1e-6
    )  # B is zero: policy and reference agree
    assert history[2]["rewards/margins"] != pytest.approx(without[2]["rewards/margins"], rel=1e-3)


def test_beta_schedule_reaches_the_loss_and_is_logged(
    mini: Path, tokenizer: Any, tmp_path: Path
) -> None:
    recipe = small(mini, beta=0.1, beta_end=0.3, beta_schedule="linear", learning_rate=1e-2)
    history = trained(trainer_for(recipe, tokenizer, tmp_path / "a"))
    assert [entry["beta"] for entry in history] == pytest.approx([0.1, 0.2, 0.3])
    constant = trained(
        trainer_for(small(mini, beta=0.1, learning_rate=1e-2), tokenizer, tmp_path / "b")
    )
    # the first step's gradient is the same; the second's rewards carry the new beta
    ratio = history[1]["rewards/chosen"] / constant[1]["rewards/chosen"]
    assert ratio == pytest.approx(2, rel=1e-2)


def test_beta_by_type_reaches_each_pair(mini: Path, tokenizer: Any, tmp_path: Path) -> None:
    """Rewards are beta times log ratios: one type's beta at 10 times lets only its own grow."""
    by_type = {"arithmetic": 1.0}
    recipe = small(
        mini, beta=0.1, beta_by_type=by_type, learning_rate=1e-2, effective_batch_size=20
    )
    trainer = trainer_for(recipe, tokenizer, tmp_path, micro=20)
    batch = next(iter(trainer.get_train_dataloader()))
    order = [trainer.train_dataset[i] for i in trainer.order]
    assert batch["beta"].tolist() == pytest.approx([row["beta"] for row in order])
    kinds = [row.pair.answer_type for row in rows_of(recipe, tokenizer)]
    expected = [by_type.get(kinds[i], 0.1) for i in trainer.order]
    assert batch["beta"].tolist() == pytest.approx(expected)
    with torch.no_grad():
        for name, weight in trainer.model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.5, generator=torch.Generator().manual_seed(1))
    losses = {}
    for name, beta in {
        "mixed": batch["beta"],
        "low": torch.full((20,), 0.1),
        "high": torch.full((20,), 1.0),
    }.items():
        inputs = {**batch, "beta": beta}
        trainer.current_gradient_accumulation_steps = 1
        losses[name] = trainer.compute_loss(trainer.model, inputs, num_items_in_batch=20).item()
    assert len({round(loss, 6) for loss in losses.values()}) == 3
    assert trainer._metrics["train"]["beta/arithmetic"] == [1.0] * 3


class Modes(TrainerCallback):  # type: ignore[misc]
    """Switches the model, or what of it another object holds, to evaluation after each step."""

    def __init__(self, switched: torch.nn.Module) -> None:
        self.switched = switched

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.switched.eval()


def test_a_model_is_walked_through_only_where_something_evaluated_it(
    mini: Path, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In every step all modules are in training mode, whatever a callback did between two."""
    trainer = trainer_for(small(mini), tokenizer, tmp_path, n=24)
    layer = trainer.model.get_base_model().model.layers[1].mlp
    modes: list[bool] = []
    layer.register_forward_pre_hook(lambda module, args: modes.append(module.training))
    walks: list[bool] = []
    train = torch.nn.Module.train

    def counted(module: torch.nn.Module, mode: bool = True) -> torch.nn.Module:
        if module is layer:
            walks.append(mode)
        return train(module, mode)

    monkeypatch.setattr(torch.nn.Module, "train", counted)
    trainer.train()
    assert not walks  # the pre-flight left it in training mode
    trainer.add_callback(Modes(trainer.model))
    trainer.train()
    assert walks == [False, True, False, True, False]
    assert len(modes) >= 6
    assert all(modes)
    assert "train" not in vars(trainer.model)


def test_evaluation_of_a_wrapped_model_is_noticed(
    mini: Path, tokenizer: Any, tmp_path: Path
) -> None:
    """DistributedDataParallel stays in training mode when the model inside it is evaluated."""

    class Around(torch.nn.Module):  # type: ignore[misc]
        def __init__(self, module: torch.nn.Module) -> None:
            super().__init__()
            self.module = module

        def forward(self, *args: Any, **kwargs: Any) -> Any:
            return self.module(*args, **kwargs)

    trainer = trainer_for(small(mini), tokenizer, tmp_path, micro=8)
    trainer.create_optimizer()
    trainer.current_gradient_accumulation_steps = 1
    trainer.state.max_steps = 1
    around = Around(trainer.model).train()
    trainer.model.eval()
    batches, pairs = trainer.get_batch_samples(iter(trainer.get_train_dataloader()), 1, "cpu")
    trainer.training_step(around, batches[0], pairs)
    assert all(module.training for module in trainer.model.modules())


def test_an_optimizer_that_ran_over_is_not_saved(
    mini: Path, tokenizer: Any, tmp_path: Path
) -> None:
    """A squared gradient of inf stops a weight for good, while loss and weights stay finite."""
    trainer = trainer_for(small(mini), tokenizer, tmp_path, n=8)
    trained(trainer)
    parameter = next(p for p in trainer.model.parameters() if p.requires_grad)
    trainer.optimizer.state[parameter]["exp_avg_sq"].fill_(math.inf)
    with pytest.raises(TrainError, match=r"lora_A.*exp_avg_sq.* is no number after step 1"):
        trainer.save_model(str(tmp_path / "adapter"))


def test_embeddings_are_known_by_the_model_not_by_their_name(
    mini: Path, tokenizer: Any, tmp_path: Path
) -> None:
    recipe = small(mini)
    trainer = trainer_for(recipe, tokenizer, tmp_path, n=8)
    base = trainer.model.get_base_model()
    base.model.layers[0].self_attn.q_proj.base_layer = base.get_input_embeddings()
    with pytest.raises(ValueError, match="q_proj is an embedding or the head"):
        refuse_embeddings(trainer.model)


def test_a_tokenizer_of_another_model_is_refused(
    mini: Path, tokenizer: Any, tmp_path: Path
) -> None:
    recipe = small(mini)
    rows = rows_of(recipe, tokenizer, 4)
    rows[2].chosen_ids.append(10**6)
    with pytest.raises(RecipeError, match=r"gives token 1000000, the model knows \d+: they do not"):
        assemble.make_trainer(recipe, rows, tokenizer, config(recipe, tmp_path, 4, 1))


def loss_and_gradient(
    trainer: PairTrainer, pairs: Sequence[int], pairs_a_process: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of a micro-batch of these pairs."""
    inputs = trainer._prepare_inputs(
        trainer.data_collator([trainer.train_dataset[i] for i in pairs])
    )
    loss = trainer.compute_loss(trainer.model, inputs, num_items_in_batch=pairs_a_process)
    trained = [parameter for parameter in trainer.model.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(loss, trained)
    return loss.detach(), torch.cat([gradient.flatten() for gradient in gradients])


def test_unequal_shares_of_two_processes_average_to_the_whole_step(
    mini: Path, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 4 pairs one process has 3, the other 1: they count 3 / 2 and 1 / 2, means over both 1."""
    recipe = small(mini, loss_type=["sigmoid", "sft"], beta=0.3)
    trainer = trainer_for(recipe, tokenizer, tmp_path, micro=8, n=4)
    for name, parameter in trainer.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    attach_reference(trainer, None)
    trainer.model.train()
    trainer.state.max_steps = trainer.current_gradient_accumulation_steps = 1
    batch = trainer.data_collator(list(trainer.train_dataset))
    trainer.step_totals = StepTotals.of([batch], trainer.accelerator)
    whole = loss_and_gradient(trainer, range(4), 4)
    monkeypatch.setattr(type(trainer.args), "world_size", 2)
    first = loss_and_gradient(trainer, range(3), 2)
    second = loss_and_gradient(trainer, [3], 2)
    for of_whole, one, other in zip(whole, first, second, strict=True):
        assert torch.allclose((one + other) / 2, of_whole, atol=1e-6)
    metrics = trainer._metrics["train"]
    assert metrics["beta"] == pytest.approx([0.3, 0.3 * 3 / 2, 0.3 * 1 / 2])
    for name in ("rewards/chosen", "rewards/margins", "logps/rejected"):
        of_whole, one, other = metrics[name]
        assert (one + other) / 2 == pytest.approx(of_whole, rel=1e-5), name


def test_no_process_writes_into_a_checkpoint_before_it_is_begun(
    mini: Path, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process's random state was there first, and taken for a file of somebody else's."""
    trainer = trainer_for(small(mini), tokenizer, tmp_path)
    found: list[list[str]] = []

    def wait() -> None:
        found.append([path.name for path in (tmp_path / "checkpoint-1").iterdir()])

    monkeypatch.setattr(trainer.accelerator, "wait_for_everyone", wait)
    trainer.save_model(str(tmp_path / "checkpoint-1"), _internal_call=True)
    assert found[0] == [BEGUN]
    assert (tmp_path / "checkpoint-1" / "adapter_model.safetensors").exists()


def test_non_finite_loss_is_refused(mini: Path, tokenizer: Any, tmp_path: Path) -> None:
    trainer = trainer_for(small(mini), tokenizer, tmp_path)
    with torch.no_grad():
        next(p for name, p in trainer.model.named_parameters() if "lora_B" in name).fill_(math.inf)
    with pytest.raises(TrainError, match=r"loss is nan at step 1; look at beta, loss_weights"):
        trained(trainer)
    assert not list(tmp_path.glob("checkpoint-*"))


def test_each_epoch_has_its_own_order_also_when_resumed() -> None:
    orders = []
    for epoch in (0.0, 1.0, 1.5, 2.0):  # 1.5: on_epoch_begin of a run resumed in the middle
        order = ContextSampler(range(50), [1] * 50, 8, seed=0)
        trainer: Any = SimpleNamespace(order=order)
        EpochOrder(trainer).on_epoch_begin(None, SimpleNamespace(epoch=epoch), None)
        orders.append(list(order))
    assert orders[1] == orders[2]
    assert len({tuple(order) for order in orders}) == 3


def test_prompts_are_cut_from_the_left_and_long_pairs_counted(tokenizer: Any) -> None:
    made = list(pairs.build(Recipe(model_name_or_path=""), Counts()))[:10]
    whole = tokenize(made, tokenizer, None, None, Counter())
    dropped: Counter[str] = Counter()
    cut = tokenize(made, tokenizer, 50, None, dropped)
    assert [row.prompt_ids for row in cut] == [row.prompt_ids[-50:] for row in whole]
    assert [row.chosen_ids for row in cut] == [row.chosen_ids for row in whole]
    assert not dropped
    limit = sorted(row.length for row in whole)[4]
    kept = tokenize(made, tokenizer, None, limit, dropped)
    assert len(kept) + dropped["longer than max_length"] == 10
    assert max(row.length for row in kept) <= limit


@pytest.mark.parametrize("template", ["shipped", pytest.param("qwen3", marks=pytest.mark.real)])
def test_ids_are_what_trl_would_make(
    template: str, mini: Path, tokenizer: Any, tmp_path: Path, shared_data: Path
) -> None:
    from datasets import Dataset

    recipe = small(mini)
    trainer = trainer_for(recipe, tokenizer, tmp_path, n=8)
    if template == "qwen3":
        tokenizer = AutoTokenizer.from_pretrained(shared_data / "qwen3")
    rows = rows_of(recipe, tokenizer, 8)
    theirs = DPOTrainer._prepare_dataset(
        trainer,
        Dataset.from_list([row.pair.row() for row in rows]),
        tokenizer,
        trainer.args,
        "train",
    )
    for ours, trl in zip(rows, theirs, strict=True):
        assert (ours.prompt_ids, ours.chosen_ids, ours.rejected_ids) == (
            trl["prompt_ids"], trl["chosen_ids"], trl["rejected_ids"],
        )  # fmt: skip


SWITCH = (  # a template with a thinking switch, thinking by default, as Qwen3's
    "{% for m in messages %}[{{ m.role }}] {{ m.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}[assistant] "
    "{% if enable_thinking is defined and not enable_thinking %}(no thoughts){% endif %}{% endif %}"
)


@pytest.mark.parametrize(
    "template", ["shipped", "switch", pytest.param("qwen3", marks=pytest.mark.real)]
)
def test_prompt_ids_are_those_that_lm_eval_sends(
    template: str, mini: Path, tmp_path: Path, shared_data: Path, tokenizer: Any
) -> None:
    """Chat template, thinking off: HFLM's own rendering and encoding of the task's prompt."""
    from lm_eval.models.huggingface import HFLM

    if template == "qwen3":
        tokenizer = AutoTokenizer.from_pretrained(shared_data / "qwen3")
    if template == "switch":
        tokenizer = AutoTokenizer.from_pretrained(mini)
        tokenizer.chat_template = SWITCH
    lm = HFLM(pretrained=str(mini), tokenizer=tokenizer, device="cpu", enable_thinking=False)
    pair = next(iter(pairs.build(Recipe(model_name_or_path=""), Counts())))
    sent = lm.apply_chat_template([{"role": "user", "content": pair.prompt}])
    ids = lm.tok_encode(sent, add_special_tokens=False)
    batch, _ = lm.tok_batch_encode([sent])
    row = tokenize([pair], tokenizer, None, None, Counter())[0]
    assert row.prompt_ids == list(ids) == batch[0].tolist()
    assert isinstance(row.pair, Pair)
    assert tokenizer.decode(row.chosen_ids).startswith(pair.chosen)
    if template == "switch":
        assert sent.endswith("(no thoughts)")
    if template == "qwen3":
        assert tokenizer.decode(row.prompt_ids).endswith("<think>\n\n</think>\n\n")


def test_fsdp_leaves_log_probabilities_in_fp32(
    mini: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import torch.distributed as dist
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
    from transformers import AutoModelForCausalLM
    from trl.trainer.utils import add_fused_lm_head

    ids = torch.arange(20, 60)[None]

    def log_probs(policy: MixedPrecisionPolicy | None) -> torch.Tensor:
        model = AutoModelForCausalLM.from_pretrained(mini)
        add_fused_lm_head(model)
        if policy:
            fully_shard(model, mesh=dist.init_device_mesh("cpu", (1,)), mp_policy=policy)
        return model(
            input_ids=ids, labels=ids, fused_lm_head=True, use_cache=False
        ).log_probs.detach()

    dist.init_process_group(
        "gloo", store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1
    )
    try:
        exact, ours = log_probs(None), log_probs(fsdp_policy(True))
        theirs = log_probs(MixedPrecisionPolicy(torch.bfloat16, torch.bfloat16, torch.bfloat16))
    finally:
        dist.destroy_process_group()
    assert (ours.dtype, theirs.dtype) == (torch.float32, torch.bfloat16)
    assert float((ours - exact).abs().max()) < 0.1 < float(exact.abs().max())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_whole_job_leaves_the_loaders_workers_alone(
    mini: Path, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    trainer = trainer_for(small(mini), tokenizer, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(
            torch.cuda, "is_available", lambda: True
        )  # a loader without a GPU has no workers
        loader = trainer.loader([[i] for i in range(20)])
    batches = iter(loader)
    found = [next(batches)]
    for worker in batches._workers:
        os.kill(worker.pid, number)
    found.extend(batches)
    assert len(found) == 20
