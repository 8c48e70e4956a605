"""Shared prefixes against the plain forward: TRL's own loss, rewards and gradients, in fp32."""

import runpy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from train.sharing.forward import share_prefixes
from train.sharing.layout import SharingError
from train.sharing.mask import FLEX_BLOCK

VOCABULARY = 48
Pair = tuple[list[int], list[int], list[int]]  # prompt, chosen, rejected


def tiny(kind: str, head_dim: int = 8) -> Any:
    """A two-layer model of each supported family, in fp32."""
    import transformers as tf

    shape: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "pad_token_id": 0,
    }
    shape |= {
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": head_dim,
    }
    shape |= {"initializer_range": 0.2}
    config = {
        "qwen3": lambda: tf.Qwen3Config(**shape),
        "llama": lambda: tf.LlamaConfig(**shape),
        "mistral": lambda: tf.MistralConfig(**shape, sliding_window=6),  # every layer slides
        "gemma3": lambda: tf.Gemma3TextConfig(
            **shape, sliding_window=6, layer_types=["sliding_attention", "full_attention"]
        ),
    }[kind]()
    return tf.AutoModelForCausalLM.from_config(config)


def trl_trainer(model: Any, tokenizer: Path, out: Path, on_cpu: bool, dora: bool = False) -> Any:
    """TRL's DPOTrainer over a LoRA model whose policy already differs from its reference."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    torch.manual_seed(0)
    made = DPOTrainer(
        model=model,
        args=DPOConfig(
            output_dir=str(out), use_cpu=on_cpu, bf16=False, report_to="none", max_length=None,
            beta=0.3,
            gradient_checkpointing=False,
        ),
        train_dataset=Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}]),
        processing_class=AutoTokenizer.from_pretrained(tokenizer),
        peft_config=LoraConfig(
            r=4, target_modules="all-linear", use_dora=dora, task_type="CAUSAL_LM"
        ),
    )  # fmt: skip
    for parameter in made.model.parameters():
        if parameter.requires_grad:
            parameter.data = 0.3 * torch.randn_like(parameter)
    return made


@pytest.fixture(scope="module", params=["qwen3", "llama", "mistral", "gemma3"])
def trainer(
    request: pytest.FixtureRequest, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    return trl_trainer(tiny(request.param), tiny_base, tmp_path_factory.mktemp("trl"), on_cpu=True)


@pytest.fixture(scope="module", params=["qwen3", "llama", "mistral", "gemma3"])
def trainer_in_float64(
    request: pytest.FixtureRequest, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """Norms and TRL's head stay in fp32, all else rounds to nothing."""
    model = tiny(request.param)
    made = trl_trainer(model, tiny_base, tmp_path_factory.mktemp("trl"), on_cpu=True)
    made.model.double()
    return made


def outcome(trainer: Any, pairs: list[Pair], collate: Any) -> tuple[float, dict[str, float], Any]:
    """Loss, logged metrics and all LoRA gradients of one batch."""
    import torch

    trainer._metrics["train"].clear()
    trainer.model.zero_grad()
    trainer.model.train()
    examples = [
        dict(zip(("prompt_ids", "chosen_ids", "rejected_ids"), pair, strict=True)) for pair in pairs
    ]
    loss = trainer.compute_loss(trainer.model, trainer._prepare_inputs(collate(examples)))
    loss.backward()
    metrics = {
        name: values[0]
        for name, values in trainer._metrics["train"].items()
        if name != "num_tokens"
    }
    grads = [p.grad.flatten() for p in trainer.model.parameters() if p.requires_grad]
    return float(loss.detach()), metrics, torch.cat(grads)


def assert_equal_to_plain(trainer: Any, pairs: list[Pair], gradients: float = 1e-5) -> None:
    """With and without the collator's packing, everything is TRL's to 1e-5."""
    collator = trainer.data_collator
    plain = outcome(trainer, pairs, collator)
    for pack in (False, True):
        sharing = share_prefixes(trainer.model, "sdpa")
        shared = outcome(trainer, pairs, sharing.collate(collator) if pack else collator)
        sharing.remove()
        assert shared[0] == pytest.approx(plain[0], rel=1e-5)
        assert shared[1] == pytest.approx(plain[1], rel=1e-4, abs=1e-5)
        assert float((shared[2] - plain[2]).norm()) <= gradients * float(plain[2].norm()) + 1e-6


CONTEXT = list(range(1, 21))
CASES: dict[str, list[Pair]] = {
    "one context": [(CONTEXT + [30 + i], [40, 41, 2], [40, 42, 2]) for i in range(4)],
    "nothing shared": [([i, 7, 8], [9 + i, 2], [20 + i, 21, 2]) for i in range(1, 4)],
    "one pair": [(CONTEXT, [40, 2], [41, 2])],
    "duplicated pairs": [(CONTEXT, [40, 2], [41, 2])] * 3,
    "completion a prefix of the other": [(CONTEXT, [40, 41], [40, 41, 42, 2])],
    "completions of one token": [(CONTEXT, [40], [41]), (CONTEXT[:4], [2], [3])],
    "prompt a prefix of another": [(CONTEXT[:5], [40, 2], [41, 2]), (CONTEXT, [40, 2], [41, 2])],
    "prompts cut from the left": [(CONTEXT[i:], [40, 2], [41, 2]) for i in range(4)],
    "prompts of one token": [([5], [40, 2], [41, 42, 2]), ([6], [40], [41])],
}


@pytest.mark.parametrize("case", CASES)
def test_equals_plain_trl(trainer: Any, case: str) -> None:
    assert_equal_to_plain(trainer, CASES[case])


@st.composite
def batches(draw: st.DrawFn) -> list[Pair]:
    base = draw(st.lists(st.integers(1, VOCABULARY - 1), min_size=12, max_size=12))
    completion = st.lists(st.integers(1, 5), min_size=1, max_size=5)
    own = st.lists(st.integers(1, 5), min_size=1, max_size=4)
    pair = st.tuples(
        st.integers(0, 12).flatmap(lambda n: own.map(lambda rest: base[:n] + rest)),
        completion,
        completion,
    )
    return draw(st.lists(pair, min_size=1, max_size=6))


@given(pairs=batches())
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_equals_plain_trl_on_random_batches(trainer_in_float64: Any, pairs: list[Pair]) -> None:
    """The largest distance in 240 batches was 8e-7 of the gradient."""
    assert_equal_to_plain(trainer_in_float64, pairs, gradients=3e-6)


@pytest.mark.parametrize("recompute", [False, True])
def test_compiled_layers_and_recomputation_change_nothing(trainer: Any, recompute: bool) -> None:
    import torch

    plain = outcome(trainer, CASES["one context"], trainer.data_collator)
    sharing = share_prefixes(trainer.model, "sdpa", compile_layers=True, recompute=recompute)
    try:
        shared = outcome(trainer, CASES["one context"], sharing.collate(trainer.data_collator))
    finally:
        sharing.remove()
        torch._dynamo.reset()
    assert shared[0] == pytest.approx(plain[0], rel=1e-5)
    assert float((shared[2] - plain[2]).norm()) <= 1e-5 * float(plain[2].norm())
    # 20 of the context, 4 last prompt tokens, 5 of each pair of completions
    assert sharing.shapes == {44}


def state_of(model: Any) -> list[Any]:
    """What sharing could leave behind on a model: attributes of instances, hooks, kernel."""
    modules = list(model.modules())
    return [
        model.config._attn_implementation,
        [sorted(vars(module)) for module in modules],
        [len(module._forward_hooks) for module in modules],
    ]


def test_generation_and_bare_calls_are_the_models_own_and_remove_leaves_no_trace(
    trainer: Any,
) -> None:
    import torch

    model = trainer.model.eval()
    ids = torch.tensor([CONTEXT, CONTEXT[::-1]])
    padded = torch.ones_like(ids)
    padded[1, :5] = 0  # on the left, as for generation

    def calls() -> list[Any]:
        with torch.no_grad():
            return [
                model(input_ids=ids).logits,
                model(ids).logits,
                model(input_ids=ids, attention_mask=padded, use_cache=False).logits,
                model(input_ids=ids, use_cache=False).logits,
                model(input_ids=ids, output_hidden_states=True).hidden_states[-1],
                model.generate(input_ids=ids, attention_mask=padded, max_new_tokens=4),
            ]

    plain = calls()
    before = state_of(model)
    sharing = share_prefixes(model)
    shared = calls()
    sharing.remove()
    for a, b in zip(plain, shared, strict=True):
        assert torch.allclose(a, b, atol=2e-5)
    assert state_of(model) == before


def test_flex_attention_is_compiled_for_as_many_lengths_as_a_run_has(tiny_base: Path) -> None:
    """Beyond dynamo's limit of 8 it would run uncompiled, and could not be recorded."""
    import torch

    before = torch._dynamo.config.recompile_limit
    sharing = share_prefixes(tiny("qwen3"), "flex")
    assert torch._dynamo.config.recompile_limit >= 256
    sharing.remove()
    assert torch._dynamo.config.recompile_limit == before


def test_a_packed_batch_cannot_give_more_than_hidden_states(trainer: Any) -> None:
    sharing = share_prefixes(trainer.model, "sdpa")
    batch = sharing.collate(trainer.data_collator)(
        [{"prompt_ids": CONTEXT, "chosen_ids": [40, 2], "rejected_ids": [41, 2]}]
    )
    batch.pop("completion_mask")
    try:
        with pytest.raises(SharingError, match="has no output_hidden_states"):
            trainer.model(**batch, output_hidden_states=True, use_cache=False)
    finally:
        sharing.remove()


def test_a_recording_is_known_by_all_that_decides_what_it_does(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Adapter on and off, both without gradients and of one length: never each other's graph."""
    import torch

    trainer = trl_trainer(tiny("qwen3"), tiny_base, tmp_path, on_cpu=True)
    stand_in_for_graphs(monkeypatch)
    examples = [
        dict(zip(("prompt_ids", "chosen_ids", "rejected_ids"), pair, strict=True))
        for pair in CASES["one context"]
    ]

    def log_probs(collate: Any) -> list[torch.Tensor]:
        batch = trainer._prepare_inputs(collate(examples))
        with trainer.model.disable_adapter():
            off = torch.stack(trainer.compute_ref_log_probs(trainer.model, batch))
        trainer.ref_model = trainer.model  # TRL then leaves the adapter on
        on = torch.stack(trainer.compute_ref_log_probs(trainer.model, batch))
        trainer.ref_model = None
        return [off, on]

    plain = log_probs(trainer.data_collator)
    sharing = share_prefixes(trainer.model, "sdpa", bucket=FLEX_BLOCK, graphs=True)
    shared = log_probs(sharing.collate(trainer.data_collator))
    assert len(sharing.recorded) == 2
    assert sharing._key(128, True, {}) != sharing._key(128, True, {"output_router_logits": False})
    single = sharing._key(128, True, {})
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: True)
    assert sharing._key(128, True, {}) != single
    monkeypatch.undo()
    assert not torch.allclose(plain[0], plain[1], atol=1)
    for a, b in zip(plain, shared, strict=True):
        assert torch.allclose(a, b, atol=1e-4)


def test_the_key_of_a_recording_by_hand(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Length, gradients, training mode, adapters (switched off?, names), options, autocast."""
    import torch

    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: device == "cuda")
    monkeypatch.setattr(torch, "get_autocast_dtype", {"cuda": torch.bfloat16}.get)
    bare = tiny("qwen3").eval()
    sharing = share_prefixes(bare, "sdpa")
    options, autocast = (("a", "2"), ("b", "None")), (True, torch.bfloat16)
    expected = (128, True, False, (), options, autocast)
    assert sharing._key(128, True, {"b": None, "a": 2}) == expected
    bare.train()
    assert sharing._key(256, False, {}) == (256, False, True, (), (), autocast)
    trainer = trl_trainer(tiny("qwen3"), tiny_base, tmp_path, on_cpu=True)
    sharing = share_prefixes(trainer.model, "sdpa")
    assert sharing._key(128, True, {})[3] == (False, "default")
    with trainer.model.disable_adapter():
        assert sharing._key(128, True, {})[3] == (True, "default")


def stand_in_for_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace CUDA graphs by what records and replays operations on a CPU."""
    import torch

    program = runpy.run_path(str(Path(__file__).with_name("graphs_on_cpu.py")))
    for name, value in program["STAND_INS"].items():
        monkeypatch.setattr(torch.cuda, name, value)


def assert_recorded_passes_are_those_of_trl(
    trainer: Any, kernel: str, loss: float, gradients: float
) -> None:
    """Several batches of one packed length and of others, to the given relative tolerances."""
    import torch

    other = [([i, *CONTEXT], [40 + i, 2], [39, i, 2]) for i in range(1, 4)]
    long = [([*CONTEXT, *CONTEXT[::-1], i, *CONTEXT * 3], [40, 2], [41, 2]) for i in range(30, 35)]
    batches = [
        CASES["one context"],
        other,
        long,
        CASES["one context"],
        CASES["completion a prefix of the other"],
    ]
    plain = [outcome(trainer, pairs, trainer.data_collator) for pairs in batches]
    sharing = share_prefixes(trainer.model, kernel, bucket=FLEX_BLOCK, graphs=True)
    collate = sharing.collate(trainer.data_collator)
    for pairs, expected in zip(batches, plain, strict=True):
        found = outcome(trainer, pairs, collate)
        assert found[0] == pytest.approx(expected[0], rel=loss)
        assert float((found[2] - expected[2]).norm()) <= gradients * float(expected[2].norm())
    assert len(sharing.shapes) == 2
    assert {key[1] for key in sharing.recorded} == {False, True}, (
        "reference and policy are recorded apart"
    )
    assert len(sharing.recorded) == 2 * len(sharing.shapes)
    trained = [parameter for parameter in trainer.model.parameters() if parameter.requires_grad]
    before = outcome(trainer, batches[0], collate)[2]
    handed_out = [parameter.grad for parameter in trained]
    outcome(trainer, batches[1], collate)
    assert torch.equal(torch.cat([gradient.flatten() for gradient in handed_out]), before), (
        "a replay wrote over them"
    )
    sharing.remove()


@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
def test_recorded_passes_give_the_gradients_of_trl(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dora: bool
) -> None:
    trainer = trl_trainer(tiny("qwen3"), tiny_base, tmp_path, on_cpu=True, dora=dora)
    stand_in_for_graphs(monkeypatch)
    assert_recorded_passes_are_those_of_trl(trainer, "sdpa", 1e-5, 1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["qwen3", "mistral", "gemma3"])
def test_on_a_gpu_recorded_graphs_give_the_gradients_of_trl(
    tiny_base: Path, tmp_path: Path, kind: str
) -> None:
    """Full attention, sliding windows in every layer, and both kinds in turn."""
    import torch

    if torch.cuda.device_count() > 1:
        pytest.skip("TRL takes one visible GPU a process: set CUDA_VISIBLE_DEVICES=0")
    trainer = trl_trainer(tiny(kind, head_dim=16), tiny_base, tmp_path, on_cpu=False)
    assert_recorded_passes_are_those_of_trl(trainer, "flex", 1e-3, 5e-3)


# --- what is refused ---


def refused() -> dict[str, tuple[Any, str]]:
    import transformers as tf

    small: dict[str, Any] = {
        "hidden_size": 32,
        "num_attention_heads": 4,
        "vocab_size": 50,
        "num_hidden_layers": 2,
    }
    llama: dict[str, Any] = {**small, "num_key_value_heads": 2, "intermediate_size": 48}
    bert: dict[str, Any] = {**small, "intermediate_size": 48}
    return {
        "encoder-decoder": (
            tf.T5ForConditionalGeneration(tf.T5Config(d_model=32, num_layers=1)),
            "encoder-decoder",
        ),
        "linear attention": (
            tf.Qwen3NextForCausalLM(tf.Qwen3NextConfig(**llama, num_experts=2)),
            "linear_attention",
        ),
        "bidirectional": (tf.BertLMHeadModel(tf.BertConfig(**bert)), "bidirectional"),
        "no positions": (
            tf.BloomForCausalLM(tf.BloomConfig(hidden_size=32, n_head=4, n_layer=1)),
            "position_ids",
        ),
        "no window": (
            tf.LlamaForCausalLM(tf.LlamaConfig(**llama, layer_types=["sliding_attention"] * 2)),
            "no sliding_window",
        ),
    }


@pytest.mark.parametrize(
    "name", ["encoder-decoder", "linear attention", "bidirectional", "no positions", "no window"]
)
def test_models_that_would_be_computed_wrongly_are_refused(name: str) -> None:
    model, reason = refused()[name]
    with pytest.raises(SharingError, match=reason) as error:
        share_prefixes(model)
    assert "share_prefixes: false" in str(error.value)
    assert "\n" not in str(error.value)
