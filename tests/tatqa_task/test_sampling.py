"""Samples of whole contexts."""

from collections import Counter

import pytest

from tatqa_task import data
from tatqa_task.sampling import chi_squared, type_counts, typical


def test_whole_contexts_in_order_the_same_for_a_seed() -> None:
    contexts = data.load("validation", "synthetic")
    drawn = typical(contexts, 20, seed=1)
    assert len(drawn) == 20
    assert drawn == [context for context in contexts if context in drawn]
    assert typical(contexts, 20, seed=1) == drawn
    assert typical(contexts, 20, seed=2) != drawn
    assert typical(contexts, len(contexts), seed=3) == contexts


def test_answer_types_have_the_shares_of_the_split() -> None:
    contexts = data.load("validation", "synthetic")
    total, drawn = type_counts(contexts), type_counts(typical(contexts, 30, seed=1))
    for kind in data.ANSWER_TYPES:
        assert drawn[kind] / drawn.total() == pytest.approx(total[kind] / total.total(), abs=0.02)


@pytest.mark.parametrize("seed", range(20))
def test_even_one_context_has_every_answer_type(seed: int) -> None:
    """The one context nearest to the shares of all has no rare type."""
    contexts = data.load("validation", "synthetic")
    assert set(type_counts(typical(contexts, 1, seed))) == set(data.ANSWER_TYPES)


def test_chi_squared() -> None:
    """5 and 5 where 7.5 and 2.5 are expected: 2.5^2 / 7.5 + 2.5^2 / 2.5."""
    total = Counter({"span": 75, "count": 25})
    assert chi_squared([Counter({"span": 5}), Counter({"count": 5})], total) == pytest.approx(
        3.3333, abs=1e-4
    )
    assert chi_squared([Counter({"span": 3, "count": 1})], total) == 0


@pytest.mark.parametrize("n", [0, -1, 101, "many", True, 2.5])
def test_an_impossible_number(n: object) -> None:
    contexts = data.load("validation", "synthetic")
    with pytest.raises(data.DataError, match=r"contexts must be a number from 1 to 100, found "):
        typical(contexts, n, seed=0)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", ["one", [1], None, 1.5, True])
def test_an_impossible_seed(seed: object) -> None:
    contexts = data.load("validation", "synthetic")
    with pytest.raises(data.DataError, match=r"seed must be a whole number, found "):
        typical(contexts, 3, seed)  # type: ignore[arg-type]
