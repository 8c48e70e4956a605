"""Prompts and the length of a model's context, with words for tokens."""

from pathlib import Path

import pytest

from tatqa_task import budget
from tatqa_task.files import DataError
from tatqa_task.types import Context

CONTEXT = Context("c", [["a"]], ["one two three"], [])


def words(text: str) -> int:
    return len(text.split())


def test_prompts_that_fit() -> None:
    budget.check_room(["a b", "a b c"], ["a", "a"], 3, words)
    budget.check_room([], [], 3, words)


REFUSED = [
    (
        ["a", "a b", "a"],
        """; drop paragraphs with --metadata '{"context_budget": 2}', or let lm-eval cut off the """
        """instruction with --metadata '{"allow_cut": true}'""",
    ),
    (
        ["a", "a b", "a b c"],
        """, 1 even without text; take a model of longer context, or let lm-eval cut off the """
        """instruction of these: --metadata '{"context_budget": 2, "allow_cut": true}'""",
    ),
]


@pytest.mark.parametrize(("without_text", "way"), REFUSED)
def test_prompts_that_are_too_long_are_counted_and_the_way_on_is_named(
    without_text: list[str], way: str
) -> None:
    with pytest.raises(DataError) as refused:
        budget.check_room(["a b", "a b c", "a b c d"], without_text, 2, words)
    told = "2 of 3 prompts are longer than the 2 tokens that this model has for them"
    assert str(refused.value) == told + way


def test_no_room_at_all() -> None:
    with pytest.raises(DataError, match="no room for a prompt beside a reply"):
        budget.check_room(["a"], ["a"], 0, words)


def test_a_budget_that_is_no_number_or_has_no_tokenizer() -> None:
    with pytest.raises(DataError, match="must be a number of tokens, found 0"):
        budget.fitted(CONTEXT, "?", "direct", 0, words)
    with pytest.raises(DataError, match="must be a number of tokens, found True"):
        budget.fitted(CONTEXT, "?", "direct", True, words)
    with pytest.raises(DataError, match="needs a tokenizer"):
        budget.fitted(CONTEXT, "?", "direct", 9, None)
    assert budget.fitted(CONTEXT, "?", "direct", 9, words).paragraphs == []


def test_the_length_of_a_model(tiny_base: Path) -> None:
    assert budget.context_length({"max_length": "512", "pretrained": str(tiny_base)}) == 512
    assert budget.context_length({"pretrained": str(tiny_base)}) == 8192
    assert budget.context_length({"base_url": "http://127.0.0.1:9"}) is None
    assert budget.context_length({"pretrained": str(tiny_base / "nowhere")}) is None
    assert budget.token_counter({}) is None
