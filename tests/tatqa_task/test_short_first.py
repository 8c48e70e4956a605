"""The model that gives short replies first: its replies are those of lm-eval's `hf`."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from tatqa_task import short_first

BASE = Path(__file__).resolve().parents[2] / "train" / "bases" / "tiny-tatqa"
PROMPTS = ["Count to ten: one", "The revenue of 2019 was 12 and of 2018", "A", "B" * 40, "A"]


@pytest.fixture(scope="module")
def models() -> tuple[HFLM, short_first.ShortFirst]:
    given = {"pretrained": str(BASE), "device": "cpu", "batch_size": 2}
    return HFLM(**given), short_first.ShortFirst(**given)


def requests(**settings: Any) -> list[Instance]:
    found = []
    for number, prompt in enumerate(PROMPTS):
        given = {"until": [], "do_sample": False, "max_gen_toks": 40} | settings
        found.append(Instance("generate_until", {}, (prompt, given), number))
    return found


@pytest.mark.parametrize("settings", [{}, {"until": ['"', "\n\n"]}, {"max_gen_toks": 3}])
@pytest.mark.parametrize("first", [1, 5, 400])
def test_replies_are_those_of_hf(
    models: tuple[HFLM, short_first.ShortFirst],
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
    first: int,
) -> None:
    monkeypatch.setattr(short_first, "FIRST_TOKENS", first)
    plain, ours = models
    wanted = plain.generate_until(requests(**settings), disable_tqdm=True)
    assert ours.generate_until(requests(**settings), disable_tqdm=True) == wanted


@pytest.mark.parametrize(
    "settings",
    [
        {"do_sample": True},
        {"temperature": 0.7},
        {"top_p": 0.9},
        {"until": "x"},
        {"until": ["x", ""]},  # ends a reply of `hf` after one token
        {"max_gen_toks": 0},
        {"max_gen_toks": 8192},  # no room for a prompt: `hf` refuses
        {"max_gen_toks": "5"},
    ],
)
def test_what_is_not_plain_greedy_decoding_is_left_to_hf(
    models: tuple[HFLM, short_first.ShortFirst],
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
) -> None:
    monkeypatch.setattr(HFLM, "generate_until", lambda self, asked, quiet=False: ["hf"])
    assert models[1].generate_until(requests(**settings)) == ["hf"]


@pytest.mark.parametrize(("size", "used"), [("auto", "16"), (2, "2")])
def test_hf_itself_does_not_look_for_a_batch_size(
    models: tuple[HFLM, short_first.ShortFirst],
    monkeypatch: pytest.MonkeyPatch,
    size: str | int,
    used: str,
) -> None:
    """It tries the longest prompt that the model reads: minutes on a CPU."""
    monkeypatch.setattr(
        HFLM, "generate_until", lambda self, asked, quiet=False: [str(self.batch_size)]
    )
    monkeypatch.setattr(models[1], "batch_size_per_gpu", size)
    assert models[1].generate_until(requests(do_sample=True)) == [used]
    assert models[1].batch_size == size


class TooLarge:
    """`_generated` on a device with memory for so many padded tokens."""

    def __init__(
        self, model: short_first.ShortFirst, memory: int, error: RuntimeError | None = None
    ) -> None:
        self.generated, self.memory = model._generated, memory
        self.error = error or torch.OutOfMemoryError("CUDA out of memory")
        self.sizes: list[int] = []

    def __call__(self, rows: list[list[int]], tokens: int) -> list[list[int]]:
        if len(rows) * (max(map(len, rows)) + tokens) > self.memory:
            raise self.error
        self.sizes.append(len(rows))
        return self.generated(rows, tokens)


@pytest.mark.parametrize("size", ["auto", 5])
def test_a_batch_that_is_too_large_is_made_in_parts(
    models: tuple[HFLM, short_first.ShortFirst], monkeypatch: pytest.MonkeyPatch, size: str | int
) -> None:
    plain, ours = models
    device = TooLarge(ours, memory=150)
    monkeypatch.setattr(ours, "_generated", device)
    monkeypatch.setattr(ours, "batch_size_per_gpu", size)
    monkeypatch.setattr(ours, "room", None)
    wanted = plain.generate_until(requests(), disable_tqdm=True)
    assert ours.generate_until(requests(), disable_tqdm=True) == wanted
    assert max(device.sizes) > 1


@pytest.mark.parametrize(
    "words",
    [
        "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried",
        "MPS backend out of memory (MPS allocated: 8.2 GB)",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    ],
)
def test_devices_without_an_error_of_their_own_for_it_are_understood(
    models: tuple[HFLM, short_first.ShortFirst], monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    device = TooLarge(models[1], memory=150, error=RuntimeError(words))
    monkeypatch.setattr(models[1], "_generated", device)
    monkeypatch.setattr(models[1], "batch_size_per_gpu", 5)
    monkeypatch.setattr(models[1], "room", None)
    models[1].generate_until(requests(max_gen_toks=3), disable_tqdm=True)
    assert max(device.sizes) > 1


def test_another_fault_is_raised(
    models: tuple[HFLM, short_first.ShortFirst], monkeypatch: pytest.MonkeyPatch
) -> None:
    device = TooLarge(models[1], memory=10, error=RuntimeError("a device-side assert"))
    monkeypatch.setattr(models[1], "_generated", device)
    monkeypatch.setattr(models[1], "room", None)
    with pytest.raises(RuntimeError, match="device-side assert"):
        models[1].generate_until(requests(), disable_tqdm=True)
    assert models[1].room is None


def test_a_reply_ends_with_a_token_that_ends_it(
    models: tuple[HFLM, short_first.ShortFirst],
) -> None:
    """Pads follow it. A pad that the model says itself ends no reply of `hf`."""
    ours = models[1]
    pad, end = ours.tokenizer.pad_token_id, ours.eot_token_id
    assert pad != end
    word = ours.tok_encode("A")[0]
    limits = short_first.Limits(9, [], {end})
    for reply, text in (([word, pad], None), ([word, end], "A"), ([word, end, pad], "A")):
        assert ours._ended(short_first.Open(0, "", [], reply), limits) == text


def test_replies_are_kept_for_use_cache(
    models: tuple[HFLM, short_first.ShortFirst], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[tuple[str, Any, str]] = []

    class Hook:
        def add_partial(self, kind: str, asked: Any, reply: str) -> None:
            kept.append((kind, asked, reply))

    monkeypatch.setattr(models[1], "cache_hook", Hook())
    asked = requests(max_gen_toks=3)
    replies = models[1].generate_until(asked, disable_tqdm=True)
    wanted = [
        ("generate_until", one.args, reply) for one, reply in zip(asked, replies, strict=True)
    ]
    assert kept == wanted


def test_memory_too_short_for_one_prompt_is_an_error(
    models: tuple[HFLM, short_first.ShortFirst], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models[1], "_generated", TooLarge(models[1], memory=10))
    monkeypatch.setattr(models[1], "room", None)
    with pytest.raises(torch.OutOfMemoryError):
        models[1].generate_until(requests(), disable_tqdm=True)


def test_auto_is_one_batch_where_there_is_memory(
    models: tuple[HFLM, short_first.ShortFirst], monkeypatch: pytest.MonkeyPatch
) -> None:
    device = TooLarge(models[1], memory=10**9)
    monkeypatch.setattr(models[1], "_generated", device)
    monkeypatch.setattr(models[1], "batch_size_per_gpu", "auto")
    models[1].generate_until(requests(max_gen_toks=3), disable_tqdm=True)
    assert device.sizes == [len(PROMPTS)]


def test_no_request_gets_no_reply(models: tuple[HFLM, short_first.ShortFirst]) -> None:
    assert models[1].generate_until([], disable_tqdm=True) == []
