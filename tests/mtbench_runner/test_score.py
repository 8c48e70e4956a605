"""The score of a model: its file, its table, and what is said of it."""

import json
from pathlib import Path
from typing import Any

import pytest

from mtbench_runner.__main__ import main


def write_judgments(bench: Path, ratings: dict[tuple[int, int], str]) -> None:
    from fastchat.llm_judge.common import one_score_pattern

    path = bench / "model_judgment" / "j_single.jsonl"
    path.parent.mkdir()
    with path.open("w") as file:
        for (question, turn), text in ratings.items():
            found = one_score_pattern.search(text)
            row = {
                "question_id": question,
                "model": "m",
                "judge": ["j", "single-v1"],
                "user_prompt": "",
                "turn": turn,
            }
            file.write(
                json.dumps(row | {"judgment": text, "score": float(found[1]) if found else -1})
                + "\n"
            )


def score(bench: Path, *more: str) -> int:
    return main(["score", "--data", str(bench), "--model-id", "m", "--judge-model", "j", *more])


def test_the_whole_result(bench: Path, capsys: Any) -> None:
    ratings = {(q, t): f"[[{q + t}]]" for q in range(1, 9) for t in (1, 2)}
    ratings[(1, 1)] = "[[1]] as a matrix. [[9]]"
    ratings[(8, 2)] = "no rating"
    del ratings[(7, 2)]
    write_judgments(bench, ratings)
    assert score(bench, "--json", "-", "--rating", "strict", "--prices", "1", "2") == 1
    result = json.loads(capsys.readouterr().out)
    turn_1, turn_2 = [1, 4 - 1, 4, 5, 6, 7, 8, 9], [3, 4, 5, 6, 7, 8]
    assert result["turns"] == {"1": sum(turn_1) / 8, "2": sum(turn_2) / 6}
    assert result["overall"] == sum(turn_1 + turn_2) / 14
    assert result["categories"]["math"] == 5.5
    assert result["category_turns"]["math"] == {"1": 5, "2": 6}
    assert result["success_rate"] == 5 / 14
    assert (
        result["missing"],
        result["unparsable"],
        result["n_expected"],
        result["n_questions"],
    ) == (1, 1, 16, 8)
    assert result["per_question"]["8"] == {"1": 9}
    assert result["strict"]["flagged"] == {"quoted": [], "range": [], "disagree": [[1, 1]]}
    assert result["strict"]["change"] == pytest.approx(8 / 14)
    assert (result["stand_in"], result["cost_usd"]) == (False, None)
    assert score(bench, "--rating", "strict") == 1
    table = capsys.readouterr().out
    assert "turns: 16, missing: 1, without a rating: 1" in table
    assert "disagree: 1 turn 1" in table
    assert "math               5.00     6.00     5.50" in table


def test_nothing_judged_yet(bench: Path, capsys: Any) -> None:
    assert score(bench) == 2
    assert (
        capsys.readouterr().err
        == f"error: {bench}/model_judgment/j_single.jsonl has no judgments of m, nor of any other; "
        "judge first\n"
    )


def test_a_name_that_was_not_judged_is_told_which_were(
    bench: Path, judge: Any, capsys: Any
) -> None:
    assert main(["judge", "--data", str(bench), "--model-id", "m", "--judge-model", "j"]) == 0
    assert main(["score", "--data", str(bench), "--model-id", "mm", "--judge-model", "j"]) == 2
    assert "has no judgments of mm on these questions; it has those of m" in capsys.readouterr().err


def test_a_judge_that_tells_nothing_apart_is_said_to(bench: Path, judge: Any, capsys: Any) -> None:
    arguments = ["--data", str(bench), "--model-id", "m", "--judge-model", "j"]
    assert main(["judge", *arguments]) == 0
    assert score(bench) == 0
    assert "every rating is the same: this judge tells nothing apart" in capsys.readouterr().out


def test_turns_that_only_some_judges_rated_are_counted(
    bench: Path, judge: Any, capsys: Any
) -> None:
    """Such a turn counts with fewer judges, so that a severe one's silence would raise the mean."""
    arguments = ["--data", str(bench), "--model-id", "m", "--judge-model", "a", "b"]
    judge.reply = lambda request: (
        "no" if request["model"] == "b" and "An answer. 3.2" in str(request) else "[[7]]"
    )
    assert main(["judge", *arguments]) == 0
    assert main(["score", *arguments]) == 0
    assert "1 turns that not all judges rated" in capsys.readouterr().out


def test_show_prints_both_models_and_no_control_characters(
    bench: Path, answers: Any, judge: Any, capsys: Any
) -> None:
    answers(bench, "base", "A \x1b[31mred\x1b[0m answer\r\x07.")
    judge.reply = "Good.\x1b]0;owned\x07\u202e\x9b31m Rating: [[7]]"
    for model in ("m", "base"):
        assert main(["judge", "--data", str(bench), "--model-id", model, "--judge-model", "j"]) == 0
    arguments = [
        "show",
        "--data",
        str(bench),
        "--model-id",
        "m",
        "--baseline",
        "base",
        "--judge-model",
        "j",
    ]
    assert main([*arguments, "--question", "3"]) == 0
    out = capsys.readouterr().out
    assert "An answer. 3.2" in out
    assert "\\x1b[31mred" in out
    assert out.count("[j: 7]") == 4
    assert all(character.isprintable() or character == "\n" for character in out)
    assert main([*arguments, "--question", "99"]) == 2
    (bench / "model_answer" / "base.jsonl").unlink()
    assert main([*arguments, "--question", "3"]) == 0
    assert "(not answered)" in capsys.readouterr().out
    assert main(arguments) == 2
    figure = bench / "figures" / "radar.png"
    assert main([*arguments, "--figure", str(figure)]) == 0
    assert figure.read_bytes().startswith(b"\x89PNG")
    capsys.readouterr()
    assert main([*arguments, "--figure", str(figure)]) == 2
    assert capsys.readouterr().err == f"error: {figure} is there already; name another file\n"


def test_the_stand_in_says_so_everywhere(
    bench: Path, answers: Any, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mtbench_runner.stand_in_judge import Server

    answers(bench, "base", "A rather longer answer, with more words than the other has,")
    with Server() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        common = ["--data", str(bench), "--model-id", "base", "--judge-model", "stand-in-judge"]
        assert main(["judge", *common]) == 0
        assert main(["score", *common, "--json", str(bench / "score.json")]) == 0
        assert "MEASURE NOTHING" in capsys.readouterr().out
        assert json.loads((bench / "score.json").read_text())["stand_in"] is True
        assert main(["pairwise", *common, "--baseline", "m"]) == 0
        assert "MEASURE NOTHING" in (out := capsys.readouterr().out)
        assert "win 16, tie 0, loss 0" in out
