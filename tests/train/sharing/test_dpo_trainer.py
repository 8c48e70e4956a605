"""The drop-in against plain TRL, on data that is not TAT-QA: the same curves."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset, IterableDataset
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)
from trl import DPOConfig, DPOTrainer

from train.sharing import SharingError
from train.sharing.dpo_trainer import SharedPrefixDPOTrainer

QUESTIONS = ("Which is larger?", "What is the sum?", "And the difference?", "How many are there?")
PAIRS = [
    {"prompt": f"Two and three. {question}", "chosen": f" {i} of them.", "rejected": " None."}
    for i, question in enumerate(QUESTIONS)
]
NAMES = ("loss", "rewards/margins", "rewards/chosen", "grad_norm", "logps/rejected", "num_tokens")


def experts() -> Any:
    """A mixture of experts whose auxiliary loss weighs as much as DPO's."""
    config = Qwen3MoeConfig(
        vocab_size=1400, hidden_size=32, intermediate_size=48, moe_intermediate_size=16,
        num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=8,
        num_experts=4, num_experts_per_tok=2, router_aux_loss_coef=0.5, initializer_range=0.2,
    )  # fmt: skip
    return Qwen3MoeForCausalLM(config)


def trainer(kind: Any, mini: Path, out: Path, how: str) -> Any:
    """Two steps of two pairs and an evaluation."""
    torch.manual_seed(0)
    model = experts() if how == "experts" else AutoModelForCausalLM.from_pretrained(mini)
    given: dict[str, Any] = {}
    if how == "experts":
        given["peft_config"] = LoraConfig(r=4, target_modules=["q_proj", "v_proj"])
    elif how != "reference model":
        given["peft_config"] = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    else:
        other = AutoModelForCausalLM.from_pretrained(mini)
        for parameter in other.parameters():
            parameter.data *= 0.9
        given["ref_model"] = other
    return kind(
        model=model,
        args=DPOConfig(
            output_dir=str(out), use_cpu=True, bf16=False, report_to="none", max_length=None,
            per_device_train_batch_size=2, num_train_epochs=1, logging_steps=1, learning_rate=1e-2,
            save_strategy="no", disable_tqdm=True, gradient_checkpointing=how == "checkpointing",
            precompute_ref_log_probs=how == "precomputed", seed=1,
        ),
        train_dataset=Dataset.from_list(PAIRS),
        eval_dataset=Dataset.from_list(PAIRS[:2]),
        processing_class=AutoTokenizer.from_pretrained(mini),
        **given,
    )  # fmt: skip


def assert_bare_calls_are_the_models_own(made: Any) -> None:
    """Whatever else a script asks the model for between two steps, tensors among it."""
    model = made.model.eval()
    ids = torch.tensor([[5, 6, 7, 8], [5, 6, 9, 9]])
    calls = [
        {"input_ids": ids, "position_ids": torch.arange(4)[None]},
        {"inputs_embeds": model.get_input_embeddings()(ids)},
        {"input_ids": ids, "output_hidden_states": True},
        {"input_ids": ids, "attention_mask": torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1]])},
    ]
    with torch.no_grad():
        for call in calls:
            shared = model(**call, use_cache=False).logits
            sharing = made.sharings[0]
            with unwrapped(sharing):
                torch.testing.assert_close(shared, model(**call, use_cache=False).logits)
        model.generate(input_ids=ids, max_new_tokens=2, do_sample=False, use_cache=False)


@contextlib.contextmanager
def unwrapped(sharing: Any) -> Iterator[None]:
    """The backbone's own forward for a while."""
    wrapped = sharing._backbone.forward
    sharing._backbone.forward = sharing._forward
    yield
    sharing._backbone.forward = wrapped


@pytest.mark.parametrize(
    "how", ["peft", "reference model", "precomputed", "checkpointing", "experts"]
)
def test_equals_plain_trl(how: str, mini: Path, tmp_path: Path) -> None:
    histories, evaluations = [], []
    for kind in (DPOTrainer, SharedPrefixDPOTrainer):
        made = trainer(kind, mini, tmp_path / kind.__name__, how)
        made.train()
        histories.append([entry for entry in made.state.log_history if "loss" in entry])
        evaluations.append(made.evaluate())
    assert len(histories[0]) == len(histories[1]) == 2
    for plain, shared in zip(*histories, strict=True):
        for name in NAMES:
            assert shared[name] == pytest.approx(plain[name], rel=1e-3, abs=1e-5), name
    for name in ("eval_loss", "eval_rewards/margins"):
        plain_value = evaluations[0][name]
        assert evaluations[1][name] == pytest.approx(plain_value, rel=1e-3, abs=1e-5), name
    assert made.sharings[0].shapes
    assert_bare_calls_are_the_models_own(made)
    assert made.aux_loss_enabled == (how == "experts")
    ids = torch.tensor([[5, 6, 7, 8]])
    shared_reply = made.model.generate(input_ids=ids, max_new_tokens=3, do_sample=False)
    made.stop_sharing()
    assert torch.equal(
        shared_reply, made.model.generate(input_ids=ids, max_new_tokens=3, do_sample=False)
    )


def made_of(mini: Path, out: Path, rows: Any, model: Any = None, **args: Any) -> Any:
    """A trainer that is not run."""
    given = {} if model else {"peft_config": LoraConfig(r=4, task_type="CAUSAL_LM")}
    return SharedPrefixDPOTrainer(
        model=model or str(mini),
        args=DPOConfig(output_dir=str(out), use_cpu=True, bf16=False, report_to="none", **args),
        train_dataset=rows,
        processing_class=AutoTokenizer.from_pretrained(mini),
        **given,
    )


def test_checkpointed_layers_are_not_recorded(mini: Path, tmp_path: Path) -> None:
    """TRL checkpoints unless it is told not to."""
    with pytest.raises(SharingError, match="set gradient_checkpointing=False"):
        SharedPrefixDPOTrainer(
            model=str(mini),
            args=DPOConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to="none"),
            train_dataset=Dataset.from_list(PAIRS),
            processing_class=AutoTokenizer.from_pretrained(mini),
            sharing_options={"graphs": True},
        )


def test_a_stream_of_pairs_can_be_trained_on(mini: Path, tmp_path: Path) -> None:
    stream = IterableDataset.from_generator(lambda: iter(PAIRS))
    made = made_of(mini, tmp_path, stream, max_steps=1, save_strategy="no")
    made.train()
    assert made.sharings[0].shapes


def test_what_stands_in_every_row_is_refused_before_training(mini: Path, tmp_path: Path) -> None:
    """Noise that depends on a row's length, and learned vectors before each row."""
    rows = Dataset.from_list(PAIRS)
    with pytest.raises(SharingError, match="NEFTune"):
        made_of(mini, tmp_path, rows, neftune_noise_alpha=5.0)
    tuning = PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM")
    tuned = get_peft_model(AutoModelForCausalLM.from_pretrained(mini), tuning)
    with pytest.raises(SharingError, match="PROMPT_TUNING cannot share prefixes"):
        made_of(mini, tmp_path, rows, tuned)
