"""Which spellings name a scale, in a table, a paragraph or the question."""

from pathlib import Path

import pytest

from tatqa_task import data
from tatqa_task.types import Context, Question, Scale
from train.pairs.scale_markers import shows_scale


def shown(scale: Scale, text: str) -> bool:
    question = Question("q", "How much?", ["5"], "span", "table", scale, "", 1)
    return shows_scale(Context("c", [["", "2019"], ["Sales", "5"]], [text], [question]), question)


@pytest.mark.parametrize(
    ("scale", "markers", "others"),
    [
        (
            "thousand",
            ["in thousands", "$'000", "000’s", "US$000", "(000)"],
            ["$1,000", "2000", "5.000"],
        ),
        (
            "million",
            ["$ Millions", "£m", "(m)", "5.2m", "12 mn", "USD mm", "€ M"],
            ["I'm", "3,5 mg"],
        ),
        ("billion", ["a billion", "$5.3bn", "£b", "RMB bn"], ["bnb", "(c) 5 by"]),
        ("percent", ["5%", "per cent", "percentage", "percent", "pct"], ["percept", "5"]),
    ],
)  # fmt: skip
def test_markers(scale: Scale, markers: list[str], others: list[str]) -> None:
    assert [text for text in markers if not shown(scale, text)] == []
    assert [text for text in others if shown(scale, text)] == []


def test_a_marker_may_stand_in_a_cell_or_in_the_question() -> None:
    question = Question("q", "How many thousands?", ["5"], "span", "table", "thousand", "", 1)
    assert shows_scale(Context("c", [], [], [question]), question)
    plain = Question("q", "How many?", ["5"], "span", "table", "thousand", "", 1)
    assert shows_scale(Context("c", [["(in thousands)"]], [], [plain]), plain)
    assert not shows_scale(Context("c", [["5"]], ["5 million"], [plain]), plain)


def test_no_scale_needs_no_marker() -> None:
    assert shown("", "nothing")


@pytest.mark.real
def test_nearly_every_validation_question_shows_its_scale(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TATQA_DATA", str(shared_data / "tatqa"))
    missing: dict[str, int] = {}
    for context in data.load("validation"):
        for question in context.questions:
            if not shows_scale(context, question):
                missing[question.scale] = missing.get(question.scale, 0) + 1
    assert missing == {"thousand": 19, "percent": 4}
