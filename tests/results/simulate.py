"""Coverage and false verdicts where the truth is known.

`python tests/results/simulate.py [SWEEPS]` prints the table of docs/STATISTICS.md, which
test_simulations.py (slow) makes again.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from results import statistics as s

Array = NDArray[np.float64]
Whole = NDArray[np.int64]
Draw = Callable[[np.random.Generator], list[s.Difference]]
WHOLE = 0.003  # of a cluster's size is the chance that all of it gains
LARGE, LARGE_GAINS = 40, 0.3  # a size, and how often clusters above it gain as a whole


@dataclass(frozen=True)
class Scenario:
    """A family of comparisons whose true differences are known."""

    name: str
    draw: Draw
    truth: tuple[float, ...]


def gains(gain: Array, cluster: Whole, span: float = 1, rare: bool = False) -> s.Difference:
    """The difference of gains that have a cluster each."""
    names = cluster.astype(str).tolist()
    return s.paired([0.0] * len(gain), gain.tolist(), names, span, rare=rare)


def contexts(rng: np.random.Generator, count: int) -> Whole:
    """The context of each question: 1 to 11 questions a context, 6 on average."""
    return np.arange(count).repeat(rng.integers(1, 12, count))


def exact_match(count: int, effect: float) -> Draw:
    """Right and wrong before and after: a third of the questions change, contexts differ."""

    def draw(rng: np.random.Generator) -> list[s.Difference]:
        cluster = contexts(rng, count)
        shared = rng.normal(0, 0.1, count)[cluster]
        up = np.clip(1 / 6 + (effect + shared) / 2, 0, 1)
        down = np.clip(1 / 6 - (effect + shared) / 2, 0, 1)
        u = rng.random(len(cluster))
        return [gains(np.where(u < up, 1.0, np.where(u < up + down, -1.0, 0.0)), cluster)]

    return draw


def rare_changes(count: int, rate: float, sign: float) -> Draw:
    """Single questions change in a few contexts; `sign` is the mean direction."""

    def draw(rng: np.random.Generator) -> list[s.Difference]:
        cluster = contexts(rng, count)
        first = np.flatnonzero(np.diff(cluster, prepend=-1))
        gain = np.zeros(len(cluster))
        changed = first[rng.random(count) < rate]
        gain[changed] = np.where(rng.random(len(changed)) < (1 + sign) / 2, 1.0, -1.0)
        return [gains(gain, cluster)]

    return draw


def judged(count: int, loss: float, rate: float, runs: int = 1, noise: float = 0.6) -> Draw:
    """Ratings of no true difference: rare losses of `loss` points, small gains elsewhere.

    The difference of two ratings of one question has a standard deviation of `noise`.
    """

    def draw(rng: np.random.Generator) -> list[s.Difference]:
        found = []
        for _ in range(runs):
            rare = rng.random(count) < rate
            gain = rng.normal(0, noise, count) + np.where(rare, -loss, loss * rate / (1 - rate))
            found.append(gains(gain, np.arange(count), 9, rare=True))
        return found

    return draw


def family(size: int, effect: float) -> Draw:
    """So many runs against one base, on the same questions; the first one alone has an effect."""

    def draw(rng: np.random.Generator) -> list[s.Difference]:
        cluster = np.arange(120).repeat(4)
        shared = rng.normal(0, 0.3, len(cluster))
        found = []
        for run in range(size):
            gain = shared + rng.normal(effect if run == 0 else 0.0, 0.5, len(cluster))
            found.append(gains(gain, cluster, 9))
        return found

    return draw


def seeds(count: int, spread: float, recipes: int = 1) -> Draw:
    """Recipes trained with several seeds each; `spread` in standard errors of the questions."""

    def draw(rng: np.random.Generator) -> list[s.Difference]:
        cluster = np.arange(200).repeat(2).astype(str).tolist()
        error = 0.5 / np.sqrt(200)
        question = rng.normal(0, 0.5, 200).repeat(2)
        found = []
        for _ in range(recipes):
            runs = [
                (question + rng.normal(0, spread * error) + rng.normal(0, 0.4, 400)).tolist()
                for _ in range(count)
            ]
            found.append(s.over_runs([[0.0] * 400], runs, cluster, 9))
        return found

    return draw


def trained(count: int, points: float, before: int = 1) -> Draw:
    """TAT-QA with as many seeds after, whose true exact match has a deviation of `points`.

    Before is one base, which has no seed, or several seeds of another recipe. 278 contexts of six
    questions, two thirds of which fall alike in all runs of a recipe.
    """

    def draw(rng: np.random.Generator) -> list[s.Difference]:
        cluster = np.arange(278).repeat(6)
        shared = rng.normal(0, 0.08, 278)[cluster]
        return [
            s.over_runs(
                readings(rng, 0.3 + shared, before, points if before > 1 else 0.0),
                readings(rng, 0.6 + shared, count, points),
                cluster.astype(str).tolist(),
            )
        ]

    return draw


def readings(
    rng: np.random.Generator, chance: Array, count: int, points: float
) -> list[list[float]]:
    """Right and wrong of runs, [runs][questions]: two thirds of the questions fall alike in all."""
    n = len(chance)
    alike, common = rng.random(n) < 2 / 3, rng.random(n)
    found = []
    for shift in rng.normal(0, points / 100, count):
        drawn = np.where(alike, common, rng.random(n))
        found.append((drawn < chance + shift).astype(float).tolist())
    return found


def votes(count: int, noise: float, mood: float = 0.0) -> Draw:
    """Ratings of 80 questions, as the mean of several votes on the replies after.

    A vote has an error of `noise` points on each question, and of `mood` points on all of them.
    """

    def draw(rng: np.random.Generator) -> list[s.Difference]:
        question = rng.normal(0, 1.5, 80)
        before = rng.normal(0, noise, 80).tolist()
        after = [
            (question + rng.normal(0, noise, 80) + rng.normal(0, mood)).tolist()
            for _ in range(count)
        ]
        names = np.arange(80).astype(str).tolist()
        return [s.over_runs([before], after, names, 9, rare=True)]

    return draw


def unequal(count: int, spread: float) -> Draw:
    """Clusters of lognormal size, whose scores share a fifth of their variance."""

    def draw(rng: np.random.Generator) -> list[s.Difference]:
        sizes = np.maximum(1, np.round(rng.lognormal(1.5, spread, count))).astype(int)
        cluster = np.arange(count).repeat(sizes)
        gain = rng.normal(0, 0.5, count)[cluster] + rng.normal(0, 1, len(cluster))
        return [gains(gain, cluster, 99)]

    return draw


def giant(rng: np.random.Generator) -> list[s.Difference]:
    """One cluster of 300 scores and 60 of 5."""
    cluster = np.concatenate([np.zeros(300, int), np.arange(1, 61).repeat(5)])
    gain = rng.normal(0, 0.3, 61)[cluster] + rng.normal(0, 1, 600)
    return [gains(gain, cluster, 99)]


def in_proportion(sizes: Array) -> Array:
    """The chance that a cluster gains, in proportion to its size."""
    return np.minimum(1, WHOLE * sizes)


def large_alone(sizes: Array) -> Array:
    """The chance that a cluster gains where only large ones do."""
    return np.where(sizes > LARGE, LARGE_GAINS, 0.0)


def lognormal_sizes(rng: np.random.Generator, count: int) -> Array:
    """Sizes of clusters, a few of which are very large."""
    return np.maximum(1, np.round(rng.lognormal(1, 1.3, count)))


def whole_clusters(chance: Callable[[Array], Array]) -> Draw:
    """Some of 200 clusters of lognormal size gain as a whole, by a chance that size decides."""

    def draw(rng: np.random.Generator) -> list[s.Difference]:
        sizes = lognormal_sizes(rng, 200)
        changed = rng.random(200) < chance(sizes)
        cluster = np.arange(200).repeat(sizes.astype(int))
        return [gains(changed[cluster].astype(float), cluster)]

    return draw


def whole_truth(chance: Callable[[Array], Array]) -> float:
    """The share of questions in clusters that gain, over very many of them."""
    sizes = lognormal_sizes(np.random.default_rng(0), 1_000_000)
    return float(np.sum(chance(sizes) * sizes) / np.sum(sizes))


def format_kept(count: int, rate: float) -> Draw:
    """A format that no reply had before, and almost all have after."""

    def draw(rng: np.random.Generator) -> list[s.Difference]:
        return [gains((rng.random(count) < rate).astype(float), np.arange(count))]

    return draw


def repeated(rng: np.random.Generator) -> list[s.Difference]:
    """150 questions that stand there 1 to 40 times, the copies of one as a cluster."""
    copies = np.minimum(rng.zipf(2.0, 150), 40)
    gain = rng.choice([-1.0, 0.0, 1.0], 150, p=[0.15, 0.7, 0.15])
    cluster = np.arange(150).repeat(copies)
    return [gains(gain[cluster], cluster)]


SCENARIOS = [
    Scenario("exact match, 278 contexts, no effect", exact_match(278, 0.0), (0.0,)),
    Scenario("exact match, 278 contexts, effect 0.05", exact_match(278, 0.05), (0.05,)),
    Scenario("exact match, 12 contexts, effect 0.05", exact_match(12, 0.05), (0.05,)),
    Scenario("3 contexts in 278 change, both ways", rare_changes(278, 0.01, 0), (0.0,)),
    Scenario("17 contexts in 278 change, all upward", rare_changes(278, 0.06, 1), (0.01,)),
    Scenario("80 ratings, symmetric", judged(80, 0, 0.05, noise=2.0), (0.0,)),
    Scenario("80 ratings, 1 in 20 loses 6 points", judged(80, 6, 0.05), (0.0,)),
    Scenario("80 ratings, 1 in 10 loses 6 points", judged(80, 6, 0.10), (0.0,)),
    Scenario("80 ratings, 1 in 33 loses 6 points", judged(80, 6, 0.03), (0.0,)),
    Scenario("10 runs, 80 ratings, 1 in 33 loses 6 points", judged(80, 6, 0.03, 10), (0.0,) * 10),
    Scenario("10 runs, 80 ratings, 1 in 20 loses 6 points", judged(80, 6, 0.05, 10), (0.0,) * 10),
    Scenario("family of 7 runs, one with an effect", family(7, 0.2), (0.2,) + (0.0,) * 6),
    Scenario("family of 7 runs, no effect", family(7, 0.0), (0.0,) * 7),
    Scenario("3 seeds, no spread between them", seeds(3, 0), (0.0,)),
    Scenario("3 seeds, as large as the questions' error", seeds(3, 1), (0.0,)),
    Scenario("3 seeds, three times the questions' error", seeds(3, 3), (0.0,)),
    Scenario("2 seeds, no spread between them", seeds(2, 0), (0.0,)),
    Scenario("2 seeds, as large as the questions' error", seeds(2, 1), (0.0,)),
    Scenario("2 seeds, three times the questions' error", seeds(2, 3), (0.0,)),
    Scenario("2 seeds, ten times the questions' error", seeds(2, 10), (0.0,)),
    Scenario("5 seeds, as large as the questions' error", seeds(5, 1), (0.0,)),
    Scenario("10 recipes of 2 seeds, twice the error", seeds(2, 2, 10), (0.0,) * 10),
    Scenario("10 recipes of 2 seeds, five times the error", seeds(2, 5, 10), (0.0,) * 10),
    *(
        Scenario(f"{count} seeds, {points:g} points apart, TAT-QA", trained(count, points), (0.3,))
        for count in (2, 3, 5)
        for points in (0.3, 1.0, 3.0)
    ),
    Scenario("3 against 3 seeds, 1 point apart, TAT-QA", trained(3, 1.0, 3), (0.3,)),
    Scenario("2 against 5 seeds, 3 points apart, TAT-QA", trained(5, 3.0, 2), (0.3,)),
    Scenario("3 votes of a judge, error 1 point", votes(3, 1.0), (0.0,)),
    Scenario("3 votes of a judge, error 2 points", votes(3, 2.0), (0.0,)),
    Scenario("5 votes of a judge, error 2 points", votes(5, 2.0), (0.0,)),
    Scenario("3 votes of a judge, error 1 point, mood 0.2", votes(3, 1.0, 0.2), (0.0,)),
    Scenario("5 clusters of very unequal size", unequal(5, 1.5), (0.0,)),
    Scenario("8 clusters of very unequal size", unequal(8, 1.5), (0.0,)),
    Scenario("20 clusters of very unequal size", unequal(20, 1.5), (0.0,)),
    Scenario("50 clusters of very unequal size", unequal(50, 1.5), (0.0,)),
    Scenario("one cluster with half of the questions", giant, (0.0,)),
    Scenario(
        "whole clusters gain, large ones more often",
        whole_clusters(in_proportion),
        (whole_truth(in_proportion),),
    ),
    Scenario(
        "whole clusters gain, only large ones",
        whole_clusters(large_alone),
        (whole_truth(large_alone),),
    ),
    Scenario("format from 0 to 98 %, 30 questions", format_kept(30, 0.98), (0.98,)),
    Scenario("format from 0 to 99.5 %, 80 questions", format_kept(80, 0.995), (0.995,)),
    Scenario("format from 0 to 99.8 %, 278 questions", format_kept(278, 0.998), (0.998,)),
    Scenario("150 questions with up to 40 copies", repeated, (0.0,)),
]


def measured(scenario: Scenario, sweeps: int) -> tuple[float, float]:
    """Share of sweeps in which all intervals hold, and in which a verdict is false.

    False is a verdict of better or worse where there is no difference, or in the wrong direction.
    """
    rng = np.random.default_rng(len(scenario.name))
    held = false = 0
    for _ in range(sweeps):
        found = list(zip(s.in_family(scenario.draw(rng)), scenario.truth, strict=True))
        held += all(d.low <= truth <= d.high for d, truth in found)
        false += any(is_false(s.verdict(d, 0), truth) for d, truth in found)
    return held / sweeps, false / sweeps


def is_false(word: str, truth: float) -> bool:
    if word == "better":
        return truth <= 0
    return word == "worse" and truth >= 0


def table(sweeps: int) -> str:
    """The table as markdown."""
    lines = ["| scenario | all intervals hold, % | a false verdict, % |", "| --- | --- | --- |"]
    for scenario in SCENARIOS:
        held, false = measured(scenario, sweeps)
        lines.append(f"| {scenario.name} | {100 * held:.1f} | {100 * false:.1f} |")
        sys.stderr.write(lines[-1] + "\n")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(table(int(sys.argv[1]) if len(sys.argv) > 1 else 1000) + "\n")
