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
        name = str(getattr(item, field))
        groups.setdefault(name, []).append(item)
    names = groups if field == "question" else sorted(groups)
    return {name: statistic(groups[name]) for name in names}


def by_turn(items: Sequence[Item]) -> dict[str, float | None]:
    """The mean of each turn."""
    return grouped(items, "turn", mean)


def mean(items: Sequence[Item]) -> float | None:
    """The mean value; None without items."""
    return average([item.value for item in items]) if items else None


def average(values: Sequence[float]) -> float:
    """The mean of numbers, of which there is at least one."""
    return sum(values) / len(values)


def squared_deviations(values: Sequence[float], centre: float) -> float:
    """The sum of the squared distances from a centre."""
    return sum((value - centre) ** 2 for value in values)


def number_of_questions(items: Sequence[Item]) -> int:
    """How many clusters there are."""
    return len({item.question for item in items})


def clustered_stderr(items: Sequence[Item]) -> float | None:
    """Standard error of the mean, questions as clusters; None below two questions.

    sqrt(G / (G - 1) * sum over questions of (sum of deviations)^2) / n: the cluster-robust
    variance of a mean with the usual correction for few clusters (Cameron and Miller 2015, eq. 11).
    """
    clusters = number_of_questions(items)
    if clusters < 2:
        return None
    centre = average([item.value for item in items])
    deviations: dict[QuestionId, list[float]] = {}
    for item in items:
        deviations.setdefault(item.question, []).append(item.value - centre)
    totals = list(map(sum, deviations.values()))
    squares = sum(total * total for total in totals)
    return sqrt(clusters / (clusters - 1) * squares) / len(items)


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
    if number_of_questions(items) < 2:
        return None
    decided = [item for item in items if item.value != 0.5]
    low, high = _share_interval(decided) if decided else (0.0, 1.0)
    at_least = min(3, len(items))
    share = max(len(decided), at_least) / len(items)
    low = 0.5 + share * (low - 0.5)
    high = 0.5 + share * (high - 0.5)
    return [low, high]


def _share_interval(items: Sequence[Item]) -> tuple[float, float]:
    """Clopper and Pearson's interval of a mean of clustered values from 0 to 1."""
    rate = mean(items) or 0.0
    error = clustered_stderr(items)
    n = float(number_of_questions(items))
    if error and 0 < rate < 1:
        n = min(rate * (1 - rate) / error**2, float(len(items)))
    wins = rate * n
    low, high = 0.0, 1.0
    if wins > 0:
        low = float(stats.beta.ppf(0.025, wins, n - wins + 1))
    if wins < n:
        high = float(stats.beta.ppf(0.975, wins + 1, n - wins))
    return low, high
