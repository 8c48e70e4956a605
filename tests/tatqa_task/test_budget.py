"""Prompts and the length of a model's context, with words for tokens."""

from pathlib import Path

import pytest

from tatqa_task import budget
from tatqa_task.files import DataError
from tatqa_task.types import Context

CONTEXT = Context("c", [["a"]], ["one two three"], [])


def words(text: str) -> int:
    return len(text.split())


def test_prompts_that_are_too_long_are_counted_and_the_budget_is_named() -> None:
    assert budget.too_long(["a b", "a b c"], 3, words) is None
    warning = budget.too_long(["a b", "a b c", "a b c d"], 2, words)
    assert warning is not None
    assert warning.startswith("2 of 3 prompts are longer than the 2 tokens that the model's length")
    assert warning.endswith("""--metadata '{"context_budget": 2}'""")


def test_a_budget_that_is_no_number_or_has_no_tokenizer() -> None:
    with pytest.raises(DataError, match="must be a number of tokens, found 0"):
        budget.fitted(CONTEXT, "?", "direct", 0, words)
    with pytest.raises(DataError, match="needs a tokenizer"):
        budget.fitted(CONTEXT, "?", "direct", 9, None)
    assert budget.fitted(CONTEXT, "?", "direct", 9, words).paragraphs == []


def test_the_length_of_a_model(tiny_base: Path) -> None:
    assert budget.context_length({"max_length": "512", "pretrained": str(tiny_base)}) == 512
    assert budget.context_length({"pretrained": str(tiny_base)}) == 8192
    assert budget.context_length({"base_url": "http://127.0.0.1:9"}) is None
    assert budget.context_length({"pretrained": str(tiny_base / "nowhere")}) is None
    assert budget.token_counter({}) is None
