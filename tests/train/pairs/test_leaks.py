"""Which training contexts count as seen in an evaluated split."""

import pytest

from tatqa_task.types import Context
from train.pairs.leaks import LONG, Evaluated

TABLE = [["", "2019"], ["Sales", "5"]]
LONG_TEXT = "The Company's revenue grew in every region. " * 5
EVALUATED = Context("e", TABLE, ["Short and shared.", LONG_TEXT], [])


def context(table: list[list[str]], *paragraphs: str) -> Context:
    return Context("t", table, list(paragraphs), [])


@pytest.mark.parametrize(
    ("other", "leaked"),
    [
        (context(TABLE, "other"), True),
        (context([[" ", "2019 "], ["SALES", "5"]], "other"), True),
        (context([["x"]], LONG_TEXT.upper()), True),
        (context([["x"]], "before", LONG_TEXT, "after"), True),
        (context([["x"]], "Short and shared.", LONG_TEXT), True),
        (context([["x"]], "Short and shared."), False),
        (context([["x"]]), False),
        (context([], ""), False),
    ],
)
def test_what_is_the_same_document(other: Context, leaked: bool) -> None:
    assert Evaluated([EVALUATED]).hold(other) is leaked


def test_a_short_text_counts_as_a_whole_alone() -> None:
    evaluated = Evaluated([context([["y"]], "Only this.")])
    assert evaluated.hold(context([["x"]], "Only this."))
    assert not evaluated.hold(context([["x"]], "Only this.", "And more."))


def test_long_paragraphs_are_documents_of_their_own() -> None:
    for length, leaked in ((LONG - 1, False), (LONG, True)):
        text = "x" * length
        evaluated = Evaluated([context([["y"]], text, "more")])
        assert evaluated.hold(context([["x"]], "else", text)) is leaked
    assert LONG == 200
