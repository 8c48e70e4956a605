"""Ways to join the chance of questions with that of training seeds, side by side.

`python tests/results/joins.py` prints a table of docs/STATISTICS.md, which test_simulations.py
makes again: the least and the most that an interval of 95 % covers, over all ratios of the two
variances. The questions' variance is 1 and known; the runs' is estimated, with one degree of
freedom less than there are seeds.
"""

import sys
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from results import statistics as s

Array = NDArray[np.float64]
Half = Callable[[Array, int], Array]  # half a width from the estimated variance of the runs
ALPHA = 0.05
SEEDS = (2, 3, 5)
RATIOS = np.geomspace(0.001, 10_000, 57)  # of the runs' variance to the questions'
LEVELS = (np.arange(1000) + 0.5) / 1000  # at which the estimated variance is taken
VARIANCES = np.geomspace(1e-6, 1e7, 300)  # between which the generalised interval is interpolated
NARROWED = 0.2  # of the questions' variance; the least that helps two seeds


def z() -> float:
    return s.t_quantile(np.inf, ALPHA)


def square_and_add(variance: Array, df: int) -> Array:
    return np.hypot(z(), s.t_quantile(df, ALPHA) * np.sqrt(variance))


def satterthwaite(variance: Array, df: int, power: float = 2) -> Array:
    """One t for the sum of both variances."""
    found = df * ((1 + variance) / variance) ** power
    half: Array = -special.stdtrit(found, ALPHA / 2) * np.sqrt(1 + variance)
    return half


def slower(variance: Array, df: int) -> Array:
    """The same with fewer degrees of freedom where the runs' part is small."""
    return satterthwaite(variance, df, 1)


def generalised(variance: Array, df: int) -> Array:
    """Weerahandi's generalised interval, which is Fisher's and Behrens's here."""
    share = df / special.chdtri(df, LEVELS)

    def outside(half: float, estimate: float) -> float:
        found = 2 * special.ndtr(-half / np.sqrt(1 + estimate * share))
        return float(np.mean(found)) - ALPHA

    known = [optimize.brentq(outside, 1, 1e7, args=(estimate,)) for estimate in VARIANCES]
    return np.exp(np.interp(np.log(variance), np.log(VARIANCES), np.log(known)))


def calibrated(variance: Array, df: int) -> Array:
    """The interval of this package."""
    exponent = s.join_exponent(df, ALPHA)
    runs = s.t_quantile(df, ALPHA) * np.sqrt(variance)
    return np.array([s.joined([z(), distance], exponent) for distance in runs.ravel()]).reshape(
        runs.shape
    )


def narrowed(variance: Array, df: int) -> Array:
    """The larger of both distances, the runs' made shorter where their part is small."""
    runs = s.t_quantile(df, ALPHA) * variance / np.sqrt(variance + NARROWED)
    return np.maximum(z(), runs)


METHODS: dict[str, Half] = {
    "one t, Satterthwaite's degrees of freedom": satterthwaite,
    "one t, fewer degrees of freedom": slower,
    "generalised (Weerahandi; Behrens and Fisher)": generalised,
    "square-and-add": square_and_add,
    "calibrated join": calibrated,
    "larger of both, the runs' narrowed": narrowed,
}


def coverage(method: Half, seeds: int) -> Array:
    """How often the interval holds the truth, for each of RATIOS."""
    df = seeds - 1
    found = special.chdtri(df, LEVELS) / df
    half = method(np.multiply.outer(RATIOS, found), df)
    held: Array = np.mean(2 * special.ndtr(half / np.sqrt(1 + RATIOS)[:, None]) - 1, axis=1)
    return held


def table() -> str:
    """The table as markdown."""
    lines = ["| way to join | 2 seeds | 3 seeds | 5 seeds |", "| --- | --- | --- | --- |"]
    for name, method in METHODS.items():
        cells = []
        for seeds in SEEDS:
            found = 100 * coverage(method, seeds)
            cells.append(f"{found.min():.1f} to {found.max():.1f}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(f"{table()}\n")
