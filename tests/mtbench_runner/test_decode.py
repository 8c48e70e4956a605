"""The captured decoding loop against transformers' own generate and warpers, on a CPU."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig, TopKLogitsWarper, TopPLogitsWarper

from mtbench_runner.decode import (
    WINDOW,
    Batch,
    Decoding,
    decode,
    fused_norms,
    is_plain_rms_norm,
    plain,
    sample,
    supports,
)

LENGTHS = [300, 290, 100, 1, 150, 299]


@pytest.fixture(scope="module")
def model(tiny_base: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32).eval()


def prompts(model: Any) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    ids = torch.randint(3, model.config.vocab_size, (len(LENGTHS), max(LENGTHS)))
    mask = torch.zeros_like(ids)
    for row, length in enumerate(LENGTHS):
        mask[row, -length:] = 1
    return ids * mask, mask


@pytest.mark.parametrize("ends", [None, 2, list(range(100, 200))], ids=["never", "one", "many"])
def test_greedy_tokens_are_those_of_generate(model: Any, ends: Any) -> None:
    model.generation_config.eos_token_id = ends
    new = WINDOW + 60  # crosses a window
    batch = Batch(*prompts(model), [0.0] * len(LENGTHS), new)
    ours, theirs = decode(model, batch), plain(model, batch)
    assert ours.tolist() == theirs[:, : ours.shape[1]].tolist()
    assert not theirs[:, ours.shape[1] :].any()


def test_a_greedy_row_does_not_care_about_its_neighbours(model: Any) -> None:
    model.generation_config.eos_token_id = None
    ids, mask = prompts(model)
    mixed = decode(model, Batch(ids, mask, [0.0, 0.7, 0.0, 0.1, 0.7, 0.0], 40))
    alone = decode(model, Batch(ids[2:3, -100:], mask[2:3, -100:], [0.0], 40))
    assert mixed[2].tolist() == alone[0].tolist()


def test_rows_that_are_done_leave_the_batch_and_change_nothing(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tokens that rows say at different times end a reply, several windows of 8 tokens apart."""
    batch = Batch(*prompts(model), [0.0] * len(LENGTHS), 40)
    model.generation_config.eos_token_id = None
    endless = plain(model, batch)
    ends = [int(endless[row, at]) for row, at in ((0, 3), (1, 13), (2, 23))]
    model.generation_config.eos_token_id = ends
    expected = plain(model, batch)
    monkeypatch.setattr("mtbench_runner.decode.WINDOW", 8)
    sizes: list[int] = []
    forward = Decoding._forward

    def spy(self: Decoding, tokens: torch.Tensor, *rest: Any, **more: Any) -> torch.Tensor:
        sizes.append(len(tokens))
        return forward(self, tokens, *rest, **more)

    monkeypatch.setattr(Decoding, "_forward", spy)
    ours = decode(model, batch)
    assert ours.tolist() == expected[:, : ours.shape[1]].tolist()
    assert not expected[:, ours.shape[1] :].any()
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) > 1


def test_sampling_is_reproducible_and_follows_the_seed(model: Any) -> None:
    model.generation_config.eos_token_id = None
    batch = Batch(*prompts(model), [0.7] * len(LENGTHS), 20)
    runs = [decode(model, batch._replace(seed=seed)).tolist() for seed in (0, 0, 1)]
    assert runs[0] == runs[1] != runs[2]


@pytest.mark.parametrize(
    ("top_k", "top_p"), [(20, 0.95), (5, 0.5), (0, 0.9), (3, 1.0), (None, None)]
)
def test_sampling_draws_from_what_the_warpers_of_transformers_leave(
    top_k: int | None, top_p: float | None
) -> None:
    torch.manual_seed(0)
    logits = torch.randn(1, 80) * 2
    kept = logits / 0.7
    for warper in [TopKLogitsWarper(50 if top_k is None else top_k)] if top_k != 0 else []:
        kept = warper(None, kept)
    kept = TopPLogitsWarper(top_p)(None, kept) if top_p else kept
    expected = kept.softmax(-1)[0]
    config = GenerationConfig(top_k=top_k, top_p=top_p)
    draws = sample(logits.expand(200_000, -1), torch.full((200_000, 1), 0.7), config)
    shares = torch.bincount(draws, minlength=80) / len(draws)
    assert not shares[expected == 0].any()
    assert (shares - expected).abs().max() < 0.005


def test_a_step_reads_nothing_back_to_the_host(model: Any, tiny_base: Path) -> None:
    """A CUDA graph could not be captured otherwise. Meta tensors have nothing to read."""
    own = AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32).eval()
    ids = torch.ones(3, 30, dtype=torch.long)
    with torch.inference_mode():
        run = Decoding(own, Batch(ids, torch.ones_like(ids), [0.0, 0.1, 0.7], 40))
        own.to("meta")
        for layer in run.layers:
            layer.keys, layer.values = layer.keys.to("meta"), layer.values.to("meta")
            layer.cumulative_length = layer.cumulative_length.to("meta")
        for name, value in list(vars(run).items()):
            if isinstance(value, torch.Tensor):
                setattr(run, name, value.to("meta"))
        run._step(window=70)
    with pytest.raises(RuntimeError, match="meta"):
        run.count.item()


def test_every_position_attends_to_something_also_padding(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty row of a mask is NaN in some kernels, and NaN times a weight of zero is NaN."""
    masks: list[torch.Tensor] = []
    forward = Decoding._forward

    def spy(self: Decoding, tokens: Any, positions: Any, mask: torch.Tensor, cache: Any) -> Any:
        masks.append(mask if mask.dtype == torch.bool else mask == 0)
        return forward(self, tokens, positions, mask, cache)

    monkeypatch.setattr(Decoding, "_forward", spy)
    decode(model, Batch(*prompts(model), [0.0] * len(LENGTHS), 3))
    assert len(masks) == 3
    assert all(mask.any(-1).all() for mask in masks)


def test_prompts_are_read_in_parts_of_like_length_and_change_nothing(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.generation_config.eos_token_id = None
    batch = Batch(*prompts(model), [0.0] * len(LENGTHS), 20)
    whole = decode(model, batch).tolist()
    read: list[tuple[int, ...]] = []
    forward = Decoding._forward

    def spy(self: Decoding, tokens: torch.Tensor, *rest: Any) -> Any:
        read.append(tuple(tokens.shape))
        return forward(self, tokens, *rest)

    monkeypatch.setattr("mtbench_runner.decode.PREFILL_ROWS", 2)
    monkeypatch.setattr(Decoding, "_forward", spy)
    assert decode(model, batch).tolist() == whole
    assert read[:3] == [(2, 112), (2, 300), (2, 300)]  # 1, 100; 150, 290; 299, 300


def test_padding_that_all_remaining_rows_share_leaves_the_cache(model: Any) -> None:
    """The rows of 100 and 1 tokens outlive the others: of 200 positions of padding 192 go."""
    model.generation_config.eos_token_id = None
    batch = Batch(*prompts(model), [0.0] * len(LENGTHS), 12)
    expected = plain(model, batch)
    with torch.inference_mode():
        run = Decoding(model, batch)
        run.steps(5, window=306)
        run.finished[[0, 1, 4, 5]] = True
        run.compact()
        assert run.trimmed == 192
        assert run.layers[0].keys.shape[2] == 312 - 192
        run.steps(6, window=312 - 192)
        tokens = run.result()
    assert tokens[2:4].tolist() == expected[2:4].tolist()


def test_norms_are_fused_while_decoding_and_only_plain_ones(model: Any) -> None:
    class ShiftedRMSNorm(torch.nn.Module):  # type: ignore[misc]  # Gemma's
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.full((8,), 0.5))
            self.variance_epsilon = 1e-6

        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            scale = torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
            return hidden * scale * (1 + self.weight)

    assert not is_plain_rms_norm(ShiftedRMSNorm())
    norm = model.model.norm
    hidden = torch.randn(3, norm.weight.shape[0])
    own = norm(hidden)
    with fused_norms(model):
        assert "forward" in vars(norm)
        torch.testing.assert_close(norm(hidden), own)
    assert "forward" not in vars(norm)


def test_models_that_the_loop_does_not_know_are_left_to_generate(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert supports(model)
    with monkeypatch.context() as changed:
        changed.setattr(model.generation_config, "repetition_penalty", 1.1)
        assert not supports(model)
    monkeypatch.setattr(model.config, "layer_types", ["full_attention", "sliding_attention"])
    assert not supports(model)


@pytest.mark.gpu
def test_on_a_gpu_replayed_graphs_give_the_tokens_of_generate(tiny_base: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32).eval().cuda()
    model.generation_config.eos_token_id = None
    ids, mask = (part.cuda() for part in prompts(model))
    batch = Batch(ids, mask, [0.0] * len(LENGTHS), 600)
    assert decode(model, batch).tolist() == plain(model, batch).tolist()
