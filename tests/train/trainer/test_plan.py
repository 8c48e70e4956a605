"""What a run is said to take: the tokens that sharing saves, by hand."""

from pathlib import Path

from train.pairs.pair import Pair
from train.pairs.tokens import TokenPair
from train.recipe import Recipe
from train.trainer.plan import computed_tokens, sharing


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
