"""What a paired before/after comparison can support: interval, p-value, smallest detectable difference, verdict.

Scores come in clusters (TAT-QA questions in their context, MT-Bench turns in their question). The estimate is the mean
difference over the scores; a whole cluster is resampled or has its sign flipped, since its scores are not independent.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

ALPHA, POWER, RESAMPLES = 0.05, 0.80, 9_999
EXACT = 13  # up to so many clusters that differ all 2**13 sign patterns are tried; beyond, RESAMPLES are drawn
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """A paired difference, after minus before, in the scores' unit; `p` is two-sided, `low` to `high` hold 95 %."""

    n: int
    clusters: int
    before: float
    after: float
    delta: float
    se: float
    low: float
    high: float
    p: float
    detectable: float


def paired(
    before: Sequence[float],
    after: Sequence[float],
    cluster: Sequence[str],
    span: float = 1,
    resamples: int = RESAMPLES,
) -> Difference:
    """Compare two score lists of the same questions; `span` is the largest change one score can make (1 for EM)."""
    if not len(before) == len(after) == len(cluster) > 0:
        raise ValueError(
            f"paired scores need one length above 0, got {len(before)}, {len(after)}, {len(cluster)}"
        )
    a, b = np.asarray(before, float), np.asarray(after, float)
    sums, sizes = cluster_sums(b - a, cluster)
    delta, se = float(sums.sum() / sizes.sum()), standard_error(sums, sizes)
    low, high = interval(sums, sizes, span, resamples)
    detectable = (
        detectable_difference(se, len(sums)) if se > 0 else high
    )  # high where se is 0 or unknown
    p = sign_flip_p(sums, resamples)
    return Difference(
        len(a), len(sums), float(a.mean()), float(b.mean()), delta, se, low, high, p, detectable
    )


def cluster_sums(values: Array, cluster: Sequence[str]) -> tuple[Array, Array]:
    """Sum and count of the values in each cluster, both [clusters]."""
    _, index = np.unique(np.asarray(cluster), return_inverse=True)
    return np.bincount(index, weights=values).astype(float), np.bincount(index).astype(float)


def standard_error(sums: Array, sizes: Array) -> float:
    """Cluster-robust standard error of the mean over all values (ratio estimator, Cochran 1977, eq. 6.9)."""
    n = len(sums)
    residual = sums - sums.sum() / sizes.sum() * sizes
    return float(math.sqrt(n / (n - 1) * np.sum(residual**2)) / sizes.sum()) if n > 1 else math.nan


def interval(
    sums: Array, sizes: Array, span: float, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """95 % interval of the mean difference: cluster bootstrap, percentiles expanded for few clusters.

    Plain percentiles are too narrow by sqrt((n-1)/n) and by normal for t quantiles; the level is widened for both
    (Hesterberg 2015, "What Teachers Should Know About the Bootstrap", expanded percentile interval). Where no cluster
    changed the bootstrap would say [0, 0]; the bound is then the largest share of changing clusters that shows none in
    n draws with probability 2.5 % (the two-sided rule of three), each changing by `span`. One cluster says nothing.
    """
    n = len(sums)
    if n < 2:
        return -math.inf, math.inf
    if not sums.any():
        bound = span * (1 - (ALPHA / 2) ** (1 / n))
        return -bound, bound
    draw = np.random.default_rng(0).integers(0, n, (resamples, n))
    means = sums[draw].sum(1) / sizes[draw].sum(1)
    tail = stats.norm.cdf(math.sqrt(n / (n - 1)) * stats.t.ppf(ALPHA / 2, n - 1))
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def sign_flip_p(sums: Array, resamples: int = RESAMPLES) -> float:
    """Two-sided p of no difference: before and after swapped at random within clusters; exact where few differ."""
    sums = sums[sums != 0]
    if exact := len(sums) <= EXACT:
        signs = 1 - 2.0 * (np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums)) & 1)
    else:
        signs = np.random.default_rng(0).choice([-1.0, 1.0], (resamples, len(sums)))
    hits = int(np.sum(np.abs(signs @ sums) >= abs(sums.sum()) * (1 - 1e-12)))
    return hits / len(signs) if exact else (hits + 1) / (resamples + 1)


def detectable_difference(se: float, clusters: int) -> float:
    """The true difference that a two-sided test at 5 % finds with 80 % power, given this standard error."""
    return float(stats.t.ppf([1 - ALPHA / 2, POWER], clusters - 1).sum() * se)


def holm(p: Sequence[float]) -> list[float]:
    """Adjusted p-values of one family (Holm 1979), in the order given."""
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(
        np.maximum.accumulate(np.asarray(p, float)[order] * np.arange(len(p), 0, -1)), 1
    )
    return [float(x) for x in adjusted]


def verdict(d: Difference, p: float, margin: float) -> str:
    """Better or worse if interval and adjusted p say so; no difference if the interval stays within the margin."""
    if p < ALPHA and (d.low > 0 or d.high < 0):
        return "better" if d.low > 0 else "worse"
    return "no difference" if max(-d.low, d.high) <= margin else "cannot tell"
