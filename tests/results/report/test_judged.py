"""Judged replies for the page: from score files, from FastChat's files, with verdicts on pairs."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from results.report import judged, questions

Output = Callable[..., Path]
BENCHES = Path(__file__).resolve().parents[3] / "mtbench_runner" / "benches"
BIDI = "\u202e<script>"


def vote(judge: str, number: int, score: float | None, *flags: str) -> dict[str, Any]:
    text = f"{judge} says {BIDI}"
    return {"judge": judge, "vote": number, "score": score, "text": text, "flags": [*flags]}


def scored(folder: Path) -> Path:
    """A judged stage's folder whose score file has a page: two judges, one of them asked twice."""
    folder.mkdir(parents=True)
    first = {
        "turn": 1,
        "question": "Why?",
        "answer": "So.",
        "thinking": "Hm. So.",
        "finish": "length",
        "judgments": [
            vote("a", 1, 8.0),
            vote("a", 2, None, "unrated"),
            vote("org/b", 1, 11, "range"),
        ],
    }
    second = {"turn": 2, "question": "And?", "answer": None, "judgments": []}
    page = {"questions": [{"id": "81", "category": "writing", "turns": [first, second]}]}
    content = {"page": page, "per_question": {"81": {"1": 8.0}}}
    (folder / "score.json").write_text(json.dumps(content))
    (folder / "question.jsonl").write_text("{}\n")
    return folder


def compared(folder: Path) -> None:
    """Beside it, the score file of a comparison with another model."""
    orders = [
        {"first": "run", "winner": "run", "text": "A is better"},
        {"first": "gpt-4", "winner": None, "text": "hard to say"},
    ]
    verdicts = [{"judge": "a", "vote": 1, "outcome": None, "orders": orders}]
    turn = {"turn": 1, "question": "Why?", "answers": ["So.", "Thus."], "verdicts": verdicts}
    page = {"questions": [{"id": "81", "category": "writing", "turns": [turn]}]}
    (folder / "pairwise.json").write_text(json.dumps({"page": page, "baseline": "gpt-4"}))


def test_every_vote_of_every_judge_is_shown(tmp_path: Path) -> None:
    (turn,) = judged.turns(scored(tmp_path / "mtbench"))
    assert (turn.question, turn.number, turn.category, turn.score) == ("81", 1, "writing", 8)
    assert turn.notes == (
        ("cut off", "the reply reached the limit of new tokens"),
        ("with its thinking", "Hm. So."),
        ("a: 8", f"a says {BIDI}"),
        ("a, vote 2: no rating", f"a says {BIDI}"),
        ("org/b: 11, range", f"org/b says {BIDI}"),
    )


def test_a_verdict_on_two_replies_stands_with_both_orders(tmp_path: Path) -> None:
    compared(scored(tmp_path / "mtbench"))
    (turn,) = judged.turns(tmp_path / "mtbench")
    assert turn.notes[-1] == (
        "a against gpt-4: no verdict",
        "run first, winner run:\nA is better\n\ngpt-4 first, winner not named:\nhard to say",
    )


def test_rows_of_another_program_are_joined_by_turn(mtbench_output: Output) -> None:
    folder = mtbench_output("mtbench", [4] * 8)
    rows = (folder / "model_judgment" / "stand-in-judge_single.jsonl").read_text().splitlines()
    other = folder / "model_judgment" / "org" / "big_single.jsonl"
    other.parent.mkdir()
    encoded = other.parent / "new%2Fbig_single.jsonl"  # as mtbench_runner names it
    encoded.write_text("".join(row + "\n" for row in rows))
    again = [{**json.loads(row), "score": 8, "judgment": "fine"} for row in rows]
    other.write_text("".join(json.dumps(row) + "\n" for row in again))
    found = list(judged.turns(folder))
    assert len(found) == 16
    assert {round(turn.score or 0, 3) for turn in found} == {round(16 / 3, 3)}
    assert found[0].notes == (
        ("org/big", "fine"),
        ("org/new/big", "Rating: [[4]]"),
        ("stand-in-judge", "Rating: [[4]]"),
    )


def test_what_is_still_being_judged_has_no_turns_yet(tmp_path: Path) -> None:
    scored(tmp_path / "mtbench")
    (tmp_path / "mtbench" / "question.jsonl").unlink()
    assert list(judged.turns(tmp_path / "mtbench")) == []


@pytest.mark.parametrize("page", [None, [], {}, {"questions": [{"id": 1}]}, {"questions": 3}])
def test_a_page_of_another_shape_is_one_line(tmp_path: Path, page: Any) -> None:
    folder = scored(tmp_path / "run" / "mtbench")
    (folder / "score.json").write_text(json.dumps({"page": page, "per_question": {}}))
    found, problems = questions.answered(tmp_path / "run")
    assert found == []
    assert len(problems) == 1
    assert str(folder) in problems[0]


def test_the_page_that_mtbench_runner_writes_is_read(mtbench_output: Output) -> None:
    from mtbench_runner.__main__ import main

    folder = mtbench_output("mtbench", [4] * 8)
    shutil.copy(BENCHES / "demo" / "judge_prompts.jsonl", folder)
    arguments = ["--data", str(folder), "--model-id", "m", "--judge-model", "stand-in-judge"]
    assert main(["score", *arguments, "--json", str(folder / "score.json")]) == 0
    assert "page" in json.loads((folder / "score.json").read_text())
    found = list(judged.turns(folder))
    assert len(found) == 16
    assert found[0].score == 4
    assert found[0].notes == (("stand-in-judge: 4", "Rating: [[4]]"),)
