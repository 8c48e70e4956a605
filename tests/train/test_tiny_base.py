"""The script that makes the shipped base, and the files that it left."""

import json
from pathlib import Path
from typing import Any

import pytest

from train.tiny_base import IGNORED, Settings, ancestors, lesson, main, note, read


@pytest.fixture(scope="module")
def tokenizer(tiny_base: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_base)


def spoken(tokenizer: Any, settings: Settings, index: int) -> list[str]:
    """The replies that a lesson teaches: each label is the token after its slot."""
    tokens, depth, last, labels = lesson(tokenizer, settings, index)
    replies, reply = [], []
    for label in labels.tolist():
        if label != IGNORED:
            reply.append(label)
        if label == tokenizer.eos_token_id:
            replies.append(tokenizer.decode(reply, skip_special_tokens=True))
            reply = []
    return replies


def test_a_lesson_teaches_every_gold_reply(tokenizer: Any) -> None:
    taught = [json.loads(reply) for reply in spoken(tokenizer, Settings(careless=0.0), 3)]
    gold = [
        (q.answer if isinstance(q.answer, list) else [str(q.answer)], q.scale)
        for q in read("train", 3, 0).questions
    ]
    key = str
    assert sorted(((t["answer"], t["scale"]) for t in taught), key=key) == sorted(gold, key=key)


def test_careless_lessons_leave_scales_out(tokenizer: Any) -> None:
    def scales(careless: float) -> list[str]:
        replies = [r for i in range(12) for r in spoken(tokenizer, Settings(careless=careless), i)]
        return [json.loads(reply)["scale"] for reply in replies]

    assert set(scales(1.0)) == {""}
    assert 0 < sum(map(bool, scales(0.5))) < sum(map(bool, scales(0.0)))


def test_shipped_files_are_what_the_script_wrote(tiny_base: Path) -> None:
    facts = json.loads((tiny_base / "training.json").read_text())
    assert (tiny_base / "README.md").read_text() == note(facts)
    assert Settings(**facts["settings"]) == Settings()
    assert sum(path.stat().st_size for path in tiny_base.iterdir()) < 12e6
    assert 30 <= facts["em"]["overall"] <= 70


@pytest.mark.slow
def test_makes_a_model_that_loads(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    assert (
        main(
            [
                "--out",
                str(tmp_path / "m"),
                "--steps",
                "3",
                "--contexts",
                "4",
                "--examine",
                "1",
                "--device",
                "cpu",
            ]
        )
        == 0
    )
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "m").config.model_type == "qwen3"


def test_the_mask_is_the_trie() -> None:
    """Slots 0-1-2 are a path, 3 branches off at 0: as in the drawn example of train/sharing."""
    import torch

    last = torch.tensor([[3, 2, 2, 3, -1]])  # the last slot is padding
    expected = [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 0, 0, 1, 0],
        [0, 0, 0, 0, 1],
    ]
    assert ancestors(last)[0].int().tolist() == expected


def test_nothing_is_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path} exists; name a new folder\n"
