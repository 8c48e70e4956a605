"""Scores, strict ratings, win rates: against hand-computed values, and properties."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtbench_runner.__main__ import main
from mtbench_runner.ratings import strict_rating
from mtbench_runner.statistics import Item, clustered_stderr, mean, win_interval


def items(*values: tuple[int, int, float]) -> list[Item]:
    return [Item(question, turn, "stem", value) for question, turn, value in values]


def test_clustered_stderr_by_hand() -> None:
    """Question sums of deviations from the mean 6 are -2, 4, -2: sqrt(3/2 * 24) / 6 = 1."""
    data = items((1, 1, 4), (1, 2, 6), (2, 1, 7), (2, 2, 9), (3, 1, 5), (3, 2, 5))
    assert mean(data) == 6
    assert clustered_stderr(data) == pytest.approx(1.0)


@given(st.lists(st.integers(1, 10), min_size=2, max_size=30))
def test_with_one_turn_a_question_it_is_the_usual_standard_error(values: list[int]) -> None:
    data = items(*((question, 1, value) for question, value in enumerate(values)))
    centre = sum(values) / len(values)
    usual = math.sqrt(sum((v - centre) ** 2 for v in values) / (len(values) - 1) / len(values))
    assert clustered_stderr(data) == pytest.approx(usual)


@given(st.lists(st.tuples(st.integers(1, 10), st.integers(1, 10)), min_size=2, max_size=30))
def test_with_two_turns_it_is_that_of_the_questions_means(values: list[tuple[int, int]]) -> None:
    both = items(*((q, turn, v) for q, pair in enumerate(values) for turn, v in enumerate(pair, 1)))
    means = items(*((q, 1, sum(pair) / 2) for q, pair in enumerate(values)))
    assert clustered_stderr(both) == pytest.approx(clustered_stderr(means))


def test_too_little_for_an_error() -> None:
    assert clustered_stderr([]) is clustered_stderr(items((1, 1, 5), (1, 2, 7))) is None
    assert mean([]) is None
    assert win_interval([]) is None


def verdicts(*counts: tuple[int, float]) -> list[Item]:
    """So many comparisons of each value, a question each."""
    values = [value for number, value in counts for _ in range(number)]
    return items(*((q, 1, value) for q, value in enumerate(values)))


def test_a_win_rate_without_ties_has_clopper_and_pearsons_interval() -> None:
    """8 wins of 10: 0.4439 to 0.9748, a little wider by G / (G - 1) in the clustered error."""
    low, high = win_interval(verdicts((8, 1.0), (2, 0.0))) or [0, 0]
    assert low == pytest.approx(0.4439, abs=0.03)
    assert high == pytest.approx(0.9748, abs=0.01)
    low, high = win_interval(verdicts((10, 1.0))) or [0, 0]
    assert (low, high) == pytest.approx((0.025**0.1, 1.0))


def test_ties_say_nothing_of_which_is_better() -> None:
    """4 wins of 160 and no loss are a sign test's p of 0.125: one half stays inside."""
    low, high = win_interval(verdicts((4, 1.0), (156, 0.5))) or [0, 0]
    assert (low, high) == pytest.approx((0.5 + (0.025**0.25 - 0.5) / 40, 0.5125))
    assert low < 0.5
    low, high = win_interval(verdicts((6, 1.0), (154, 0.5))) or [0, 0]
    assert 0.5 < low < high
    assert win_interval(verdicts((160, 0.5))) == pytest.approx([0.5 - 1.5 / 160, 0.5 + 1.5 / 160])


@pytest.mark.parametrize(
    ("judgment", "rating", "flags"),
    [
        ("Rating: [[7]]", 7, []),
        ("[[6.5]] it is. Rating: [[6.5]]", 6.5, []),
        ("The answer [[1]] is wrong. Rating: [[4]]", 4, ["disagree"]),
        ("`[[1]]` is right. Rating: [[9]]", 9, ["quoted"]),
        ("```\nm = [[1]]\n```\nRating: [[9]]", 9, ["quoted"]),
        ("[[1, 2], [3, 4]] is the product. Rating: [[8]]", 8, ["quoted"]),
        ("Rating: [[15]]", None, ["range"]),
        ("Rating: [[0]]", None, ["range"]),
        ("Rating: [[10/10]]", 10, []),
        ("Rating: [[08]]", 8, []),
        ("x[0] should be x[1].", None, ["quoted"]),  # FastChat's fallback would take 0
        ("No rating.", None, []),
    ],
)
def test_strict_rating(judgment: str, rating: float | None, flags: list[str]) -> None:
    assert strict_rating(judgment) == (rating, flags)


@pytest.mark.parametrize("start", ["[[", "[", "[[1."])
def test_a_judgment_of_very_many_digits_is_read(start: str) -> None:
    digits = "9" * 200_000  # twice as many may not take four times as long
    assert strict_rating(start + digits) == (None, [])


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
