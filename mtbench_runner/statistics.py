"""Means and errors of judged turns, the turns of a question as one cluster."""

from collections.abc import Callable, Sequence
from math import sqrt
from typing import NamedTuple, TypeVar

from mtbench_runner.rows import QuestionId

T = TypeVar("T")
Z_95 = 1.959964  # the normal distribution's 97.5 % point


class Item(NamedTuple):
    """The value of one judged turn."""

    question: QuestionId
    turn: int
    category: str
    value: float


def grouped(
    items: Sequence[Item], field: str, statistic: Callable[[list[Item]], T]
) -> dict[str, T]:
    """A statistic of the items of each question, turn or category."""
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(str(getattr(item, field)), []).append(item)
    names = groups if field == "question" else sorted(groups)
    return {name: statistic(groups[name]) for name in names}


def by_turn(items: Sequence[Item]) -> dict[str, float | None]:
    return grouped(items, "turn", mean)


def mean(items: Sequence[Item]) -> float | None:
    if not items:
        return None
    return sum(item.value for item in items) / len(items)


def clustered_stderr(items: Sequence[Item]) -> float | None:
    """Standard error of the mean, questions as clusters; None below two questions.

    sqrt(G / (G - 1) * sum over questions of (sum of deviations)^2) / n: the cluster-robust
    variance of a mean with the usual correction for few clusters (Cameron and Miller 2015, eq. 11).
    """
    centre = mean(items) or 0.0

    def deviation(turns: list[Item]) -> float:
        return sum(item.value - centre for item in turns)

    sums = list(grouped(items, "question", deviation).values())
    clusters = len(sums)
    if clusters < 2:
        return None
    return sqrt(clusters / (clusters - 1) * sum(s * s for s in sums)) / len(items)


def wilson(items: Sequence[Item], z: float = Z_95) -> list[float] | None:
    """Wilson's interval of a rate for clustered values.

    With n such that the binomial error is the clustered one (Wilson 1927; effective sample size as
    in Korn and Graubard 1998).
    """
    rate = mean(items)
    error = clustered_stderr(items)
    if rate is None or error is None:
        return None
    if error and 0 < rate < 1:
        n = rate * (1 - rate) / error**2
    else:
        n = len({item.question for item in items})
    middle = rate + z * z / (2 * n)
    spread = z * sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return [(middle - spread) / scale, (middle + spread) / scale]
