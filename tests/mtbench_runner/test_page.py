"""The data for a page: answers, judgments and verdicts of every question and turn."""

import json
from pathlib import Path
from typing import Any

from mtbench_runner.__main__ import main

from .conftest import reply_with, write_answers


def page(bench: Path, capsys: Any, *arguments: str) -> list[dict[str, Any]]:
    capsys.readouterr()
    named = ["--data", str(bench), "--model-id", "m", "--judge-model", "j", "--json", "-"]
    main([*arguments, *named])
    found = json.loads(capsys.readouterr().out)["page"]
    assert found["version"] == 1
    return list(found["questions"])


def test_scores(judge: Any, bench: Path, capsys: Any) -> None:
    judge.fault = lambda number, request: reply_with("Cut [[11]]", "length")
    named = ["--data", str(bench), "--model-id", "m", "--judge-model", "j"]
    assert main(["judge", *named, "--votes", "2"]) == 0
    questions = page(bench, capsys, "score")
    assert [question["id"] for question in questions] == [str(i) for i in range(1, 9)]
    first = questions[0]["turns"][0]
    assert first["answer"] == "An answer. 1.1"
    assert (first["turn"], first["thinking"], first["finish"]) == (1, None, None)
    assert first["characters"] == len("An answer. 1.1")
    assert [judgment["vote"] for judgment in first["judgments"]] == [1, 2]
    assert first["judgments"][0] == {
        "judge": "j",
        "vote": 1,
        "score": 11,
        "text": "Cut [[11]]",
        "flags": ["truncated", "range"],
    }


def test_pairs(judge: Any, bench: Path, capsys: Any) -> None:
    write_answers(bench, "base", "Another answer.")
    judge.reply = "[[A]]"
    questions = page(bench, capsys, "pairwise", "--baseline", "base")
    turn = questions[3]["turns"][1]
    assert turn["answers"] == ["An answer. 4.2", "Another answer. 4.2"]
    assert turn["verdicts"] == [
        {
            "judge": "j",
            "vote": 1,
            "outcome": "tie",
            "orders": [
                {"first": "m", "winner": "m", "text": "[[A]]"},
                {"first": "base", "winner": "base", "text": "[[A]]"},
            ],
        }
    ]
