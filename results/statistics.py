"""What a paired before/after comparison can support: interval, p-value, smallest detectable difference, verdict.

Scores come in clusters (TAT-QA questions in their context, MT-Bench turns in their question). The estimate is the mean
difference over the scores; what is resampled, or has its sign flipped, is a whole cluster, since scores of one cluster
are not independent. Pure functions on numbers: `python -m results compare` and `report` are what calls them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

ALPHA, POWER = 0.05, 0.80
RESAMPLES = 9_999
EXACT_CLUSTERS = 13  # 2**13 sign patterns are all tried; with more clusters that differ, RESAMPLES are drawn

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """A paired difference, after minus before, in the unit of the scores; `p` is two-sided."""

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
    span: float = 1.0,
    resamples: int = RESAMPLES,
) -> Difference:
    """Compare two score lists of the same questions; `span` is the largest change one score can make (1 for EM)."""
    if not len(before) == len(after) == len(cluster) > 0:
        raise ValueError(f"paired scores need one length above 0, got {len(before)}, {len(after)}, {len(cluster)}")
    a, b = np.asarray(before, float), np.asarray(after, float)
    sums, sizes = cluster_sums(b - a, cluster)
    delta, se = float(sums.sum() / sizes.sum()), standard_error(sums, sizes)
    low, high = interval(sums, sizes, span, resamples)
    detectable = detectable_difference(se, len(sums)) if se > 0 else (high - low) / 2
    p = sign_flip_p(sums, resamples)
    return Difference(len(a), len(sums), float(a.mean()), float(b.mean()), delta, se, low, high, p, detectable)


def cluster_sums(values: Array, cluster: Sequence[str]) -> tuple[Array, Array]:
    """Sum and count of the values in each cluster, both [clusters]."""
    _, index = np.unique(np.asarray(cluster), return_inverse=True)
    return np.bincount(index, weights=values).astype(float), np.bincount(index).astype(float)


def standard_error(sums: Array, sizes: Array) -> float:
    """Cluster-robust standard error of the mean over all values (ratio estimator, Cochran 1977, eq. 6.9)."""
    n = len(sums)
    if n < 2:
        return math.nan
    residual = sums - sums.sum() / sizes.sum() * sizes
    return float(math.sqrt(n / (n - 1) * np.sum(residual**2)) / sizes.sum())


def interval(sums: Array, sizes: Array, span: float, resamples: int = RESAMPLES) -> tuple[float, float]:
    """95 % interval of the mean difference: cluster bootstrap, percentiles expanded for few clusters.

    Plain percentiles are too narrow by sqrt((n-1)/n) and by normal instead of t quantiles; the level is widened for
    both (Hesterberg 2015, "What Teachers Should Know About the Bootstrap", expanded percentile interval). Where no
    cluster changed at all the bootstrap would say [0, 0]; the bound is then the largest share of changing clusters that
    shows none in n draws with probability 2.5 % (the two-sided rule of three), each of them changing by `span`.
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
    if not len(sums):
        return 1.0
    exact = len(sums) <= EXACT_CLUSTERS
    if exact:
        signs = 1 - 2.0 * (np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums)) & 1)
    else:
        signs = np.random.default_rng(0).choice([-1.0, 1.0], (resamples, len(sums)))
    observed = abs(sums.sum()) * (1 - 1e-12)
    hits = int(np.sum(np.abs(signs @ sums) >= observed))
    return hits / len(signs) if exact else (hits + 1) / (resamples + 1)


def detectable_difference(se: float, clusters: int) -> float:
    """The true difference that a two-sided test at 5 % finds with 80 % power, given this standard error."""
    if clusters < 2:
        return math.inf
    return float(stats.t.ppf([1 - ALPHA / 2, POWER], clusters - 1).sum() * se)


def holm(p: Sequence[float]) -> list[float]:
    """Adjusted p-values of one family (Holm 1979), in the order given."""
    order = np.argsort(p, kind="stable")
    scaled = np.asarray(p, float)[order] * np.arange(len(p), 0, -1)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1)
    return [float(x) for x in adjusted]


def verdict(d: Difference, p: float, margin: float) -> str:
    """Better or worse if interval and adjusted p say so; no difference if the interval stays within the margin."""
    if p < ALPHA and d.low > 0:
        return "better"
    if p < ALPHA and d.high < 0:
        return "worse"
    return "no difference" if max(-d.low, d.high) <= margin else "cannot tell"
