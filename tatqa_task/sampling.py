"""A part of a split that stands for the whole: contexts with its shares of answer types.

lm-eval's `--limit` takes the first questions of each subtask and weighs subtasks by what it took; a
sample of contexts keeps the weights, and the clusters that an interval is resampled by.
"""

from collections import Counter
from collections.abc import Sequence
from random import Random

from tatqa_task.files import DataError
from tatqa_task.types import ANSWER_TYPES, Context, questions_of

DRAWS = 200  # samples that are drawn, of which the most typical is taken


def typical(contexts: Sequence[Context], n: int, seed: int) -> list[Context]:
    """`n` contexts in their old order: of 200 random draws the one nearest to the shares of all.

    A draw that has every answer type comes before one that lacks some, whatever its distance: a
    subtask without a question cannot be scored. The distance is Pearson's chi-squared of the counts
    of answer types. Raises DataError for an impossible n.
    """
    if type(n) is not int or not 0 < n <= len(contexts):
        raise DataError(f"contexts must be a number from 1 to {len(contexts)}, found {n!r}")
    if type(seed) is not int:
        raise DataError(f"seed must be a whole number, found {seed!r}")
    counts = [type_counts([context]) for context in contexts]
    total = type_counts(contexts)
    rng = Random(seed)
    best: list[int] = []
    lowest = (len(ANSWER_TYPES) + 1, 0.0)  # above every rank
    for _ in range(DRAWS):
        places = rng.sample(range(len(contexts)), n)
        drawn = [counts[place] for place in places]
        rank = (missing_types(drawn, total), chi_squared(drawn, total))
        if rank < lowest:
            best, lowest = places, rank
    return [contexts[place] for place in sorted(best)]


def type_counts(contexts: Sequence[Context]) -> Counter[str]:
    """Questions by answer type."""
    found: Counter[str] = Counter()
    for question in questions_of(contexts):
        found[question.answer_type] += 1
    return found


def missing_types(drawn: Sequence[Counter[str]], total: Counter[str]) -> int:
    """How many of the answer types of all are in none of the drawn contexts."""
    found = sum(drawn, Counter[str]())
    return len(total.keys() - found.keys())


def chi_squared(drawn: Sequence[Counter[str]], total: Counter[str]) -> float:
    """How far the counts of a draw are from the shares of all."""
    found: Counter[str] = Counter()
    for counts in drawn:
        found.update(counts)
    distance = 0.0
    for answer_type in ANSWER_TYPES:
        expected = found.total() * total[answer_type] / total.total()
        if expected:
            distance += (found[answer_type] - expected) ** 2 / expected
    return distance
