"""Means and errors of judged turns, the turns of a question as one cluster."""

from collections.abc import Callable, Sequence
from math import sqrt
from typing import NamedTuple, TypeVar

from scipy import stats

from mtbench_runner.rows import QuestionId

T = TypeVar("T")


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


def t_95(clusters: int) -> float:
    """Student's 97.5 % point for a spread estimated from so many clusters, at least two."""
    return float(stats.t.ppf(0.975, clusters - 1))


def win_interval(items: Sequence[Item]) -> list[float] | None:
    """95 % interval of a win rate in which a tie is half a win; None below two questions.

    Ties say nothing of which model is better, so the interval is that of the share of wins among
    the decided comparisons (above or below one half), drawn towards one half by the share of ties.
    Clopper and Pearson's, with n such that the binomial error is the clustered one (Korn and
    Graubard 1998). Without a decided comparison three are assumed, which 95 % of such runs have at
    most.
    """
    if len({item.question for item in items}) < 2:
        return None
    decided = [item for item in items if item.value != 0.5]
    share = max(len(decided), min(3, len(items))) / len(items)
    low, high = _share_interval(decided) if decided else (0.0, 1.0)
    return [0.5 + share * (low - 0.5), 0.5 + share * (high - 0.5)]


def _share_interval(items: Sequence[Item]) -> tuple[float, float]:
    """Clopper and Pearson's interval of a mean of clustered values from 0 to 1."""
    rate = mean(items) or 0.0
    error = clustered_stderr(items)
    n = float(len({item.question for item in items}))
    if error and 0 < rate < 1:
        n = min(rate * (1 - rate) / error**2, float(len(items)))
    wins = rate * n
    low = float(stats.beta.ppf(0.025, wins, n - wins + 1)) if wins > 0 else 0.0
    high = float(stats.beta.ppf(0.975, wins + 1, n - wins)) if wins < n else 1.0
    return low, high
