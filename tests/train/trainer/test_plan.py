"""What a run is said to take: the tokens that sharing saves, by hand."""

import os
from pathlib import Path

import pytest

from train.pairs.pair import Counts, Pair
from train.pairs.tokens import TokenPair
from train.recipe import Recipe, RecipeError
from train.trainer.plan import (
    computed_tokens,
    describe,
    empty_model,
    memory,
    micro_batch,
    micro_batches,
    sharing,
)


def row(context: str, prompt: list[int], chosen: list[int], rejected: list[int]) -> TokenPair:
    return TokenPair(Pair("q", context, "any", "given", "", "", ""), prompt, chosen, rejected)


ROWS = [
    row("a", [1, 2, 3, 4], [5], [6, 7]),
    row("a", [1, 2, 3, 9], [5, 5], [6]),
    row("b", [1, 8], [5], [6]),
]


def test_distinct_prefixes_are_computed_once() -> None:
    # 1 2 3, then 4 with 5 and 6 7, then 9 with 5 5 and 6: 3 + 4 + 4
    assert computed_tokens(ROWS[:2], share=True) == 11
    assert computed_tokens(ROWS, share=True) == 14
    assert computed_tokens(ROWS[:2], share=False) == 2 * 2 * 6


def test_sharing_is_told_in_tokens_of_an_epoch(mini: Path) -> None:
    recipe = Recipe(model_name_or_path=str(mini), effective_batch_size=4)
    assert sharing(recipe, ROWS, 4) == "28 with every prompt twice, 14 computed (2.0 to 1)"
    apart = recipe.model_copy(update={"share_prefixes": False})
    assert sharing(apart, ROWS, 4) == "28 with every prompt twice, 36 computed (0.8 to 1)"


def test_several_processes_are_counted_together(
    mini: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Context a goes to one, b to the other; the token that both begin with is computed twice."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    recipe = Recipe(model_name_or_path=str(mini), effective_batch_size=4)
    assert list(micro_batches(recipe, ROWS, 2)) == [ROWS[2:], ROWS[:2]]
    assert sharing(recipe, ROWS, 2) == "28 with every prompt twice, 15 computed (1.9 to 1)"
    model = empty_model(recipe)
    whole = memory(recipe, model, ROWS[:2], 2)  # a step of two pairs, one for each
    assert memory(recipe, model, ROWS, 2) > whole
    assert "each about 2 pairs x 1 micro-batches x 2 processes" in describe(
        recipe, ROWS, Counts(), 2
    )


def test_a_prompt_too_long_for_the_machine_is_refused(
    mini: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """45,000 tokens took 20 GiB of a dense mask, until the system ended the run."""
    recipe = Recipe(model_name_or_path=str(mini), effective_batch_size=4)
    rows = [row("a", [n] * 20_000, [5], [6]) for n in range(4)]
    needed = memory(recipe, empty_model(recipe), rows, 1)
    pages = needed / os.sysconf("SC_PAGE_SIZE")
    own = os.sysconf
    monkeypatch.setattr(os, "sysconf", lambda name: pages if name == "SC_PHYS_PAGES" else own(name))
    assert micro_batch(recipe, rows[:1] * 4) == 4
    assert micro_batch(recipe, rows) == 1
    pages /= 2
    with pytest.raises(RecipeError, match=r"needed for a pair of 20,001 tokens.*set max_length"):
        micro_batch(recipe, rows)
