"""What a paired before/after comparison can support: interval, p, detectable difference, verdict.

Scores come in clusters (TAT-QA questions in their context, MT-Bench turns in their question), and
the scores of a cluster are not independent. So every figure here is made from one sum and one size
per cluster. Comparisons that are read together are one family, and all four figures hold for the
whole family: docs/STATISTICS.md says how, with simulations.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats

ALPHA = 0.05  # of a whole family: of false differences, and of intervals that miss
POWER = 0.80  # of the detectable difference
EXACT = 13  # up to so many clusters that differ, p tries all 2**13 sign patterns
SPARSE = 30  # fewer clusters that differ than this: the interval also counts changes not yet seen
SMALLEST_P = 1e-12  # no tail of a t distribution is worth more than this; p is never 0
Array = NDArray[np.float64]
Interval = tuple[float, float]


@dataclass(frozen=True)
class Estimate:
    """A paired difference, after minus before, in the scores' unit, before a family is chosen.

    Attributes:
        n: Scores on each side; `clusters` of them are independent.
        before: Weighted mean before; `after` likewise.
        se: Standard error of `delta`, with `df` degrees of freedom.
        skewness: Of delta's sampling distribution (0 for a symmetric one).
        p: Two-sided p of no difference, for this comparison alone.
        span: The largest difference there can be.
        unseen: What changes that the sample does not show can add at a given alpha; None where
            enough clusters changed.
        runs: Training runs that were averaged; `se_runs` is their part of `se`.
    """

    n: int
    clusters: int
    before: float
    after: float
    delta: float
    se: float
    df: float
    skewness: float
    p: float
    span: float = math.inf
    unseen: "Changes | None" = None
    runs: int = 1
    se_runs: float = 0.0

    def interval(self, alpha: float) -> Interval:
        """The interval that misses with probability alpha; nothing is known of one cluster."""
        if self.clusters < 2:
            return -math.inf, math.inf
        low, high = t_interval(self.delta, self.se, self.df, self.skewness, alpha)
        if self.unseen is not None:
            below, above = self.unseen.interval(alpha)
            low, high = min(low, below), max(high, above)
        return max(low, -self.span), min(high, self.span)

    def detectable(self, alpha: float) -> float:
        """The true difference that a two-sided test at alpha finds with 80 % power."""
        low, high = self.interval(alpha)
        if self.clusters < 2:
            return math.inf
        found = detectable_difference(self.se, self.df, alpha)
        return found if self.unseen is None else max(found, (high - low) / 2)


@dataclass(frozen=True)
class Difference:
    """An estimate as one of a family: `p` is adjusted (Holm), `low` to `high` is simultaneous.

    All intervals of the family hold together with probability 95 % (Bonferroni), and `detectable`
    is at the level that the family leaves to one comparison.
    """

    n: int
    clusters: int
    before: float
    after: float
    delta: float
    se: float
    df: float
    low: float
    high: float
    p: float
    p_alone: float
    detectable: float
    family: int
    runs: int
    se_runs: float


def paired(
    before: Sequence[float],
    after: Sequence[float],
    cluster: Sequence[str],
    span: float = 1,
) -> Difference:
    """Compare two score lists of the same questions, as a family of one; see `estimate`."""
    return in_family([estimate(before, after, cluster, span)])[0]


def estimate(
    before: Sequence[float],
    after: Sequence[float],
    cluster: Sequence[str],
    span: float = 1,
    weight: Sequence[float] | None = None,
) -> Estimate:
    """A paired difference of two score lists.

    Args:
        before: A score for each question; `after` likewise, in the same order.
        cluster: The cluster of each question.
        span: The largest change that one score can make (1 for exact match).
        weight: What each score counts for in the mean (words of a text); 1 if not given.

    Raises:
        ValueError: The lengths differ, or are 0.
    """
    if not len(before) == len(after) == len(cluster) > 0:
        raise ValueError(
            "paired scores need one length above 0, got "
            f"{len(before)}, {len(after)}, {len(cluster)}"
        )
    a, b = np.asarray(before, float), np.asarray(after, float)
    w = np.ones(len(a)) if weight is None else np.asarray(weight, float)
    sums, sizes = cluster_sums(b - a, cluster, w)
    total = float(sizes.sum())
    return Estimate(
        n=len(a),
        clusters=len(sums),
        before=float((w * a).sum()) / total,
        after=float((w * b).sum()) / total,
        delta=float(sums.sum()) / total,
        se=standard_error(sums, sizes),
        df=len(sums) - 1,
        skewness=skewness(sums, sizes),
        p=p_value(sums, sizes),
        span=span,
        unseen=Changes.of(sums, sizes, span),
    )


def cluster_sums(
    values: Array, cluster: Sequence[str], weight: Array | None = None
) -> tuple[Array, Array]:
    """Weighted sum of the values and sum of the weights in each cluster, both [clusters]."""
    w = np.ones(len(values)) if weight is None else weight
    _, index = np.unique(np.asarray(cluster), return_inverse=True)
    sums = np.bincount(index, weights=values * w).astype(float)
    return sums, np.bincount(index, weights=w).astype(float)


def standard_error(sums: Array, sizes: Array) -> float:
    """Cluster-robust standard error of the mean over all values; the only one of this room.

    The mean is a ratio of sums, so residuals are taken from the ratio (Cochran 1977, Sampling
    Techniques, eq. 6.9; the same as Miller 2024, Adding Error Bars to Evals, section 2.2, times
    the factor n / (n - 1) for a finite number of clusters). NaN for one cluster.
    """
    n = len(sums)
    if n < 2:
        return math.nan
    residual = sums - sums.sum() / sizes.sum() * sizes
    return float(math.sqrt(n / (n - 1) * np.sum(residual**2)) / sizes.sum())


def skewness(sums: Array, sizes: Array) -> float:
    """Skewness of the mean's sampling distribution: that of the residuals over sqrt(clusters)."""
    residual = sums - sums.sum() / sizes.sum() * sizes
    variance = float(np.mean(residual**2))
    if variance <= 0:
        return 0.0
    return float(np.mean(residual**3)) / variance**1.5 / math.sqrt(len(sums))


def t_interval(delta: float, se: float, df: float, skew: float, alpha: float) -> Interval:
    """Student's interval, widened on the side to which the scores are skewed.

    Hall (1992, On the removal of skewness by transformation) makes the studentized mean T almost
    symmetric by the cubic g(T) = T + k (T^2 / 3 + 1 / 6) + k^2 T^3 / 27, with k the skewness of
    the mean; its inverse takes the t quantiles back. The wider of both limits is taken on either
    side, because k is itself an estimate.
    """
    if se == 0:
        return delta, delta
    quantile = float(stats.t.ppf(1 - alpha / 2, df))
    upper = max(quantile, -skew_inverse(-quantile, skew))
    lower = max(quantile, skew_inverse(quantile, skew))
    return delta - lower * se, delta + upper * se


def skew_transform(t: float, skew: float) -> float:
    """Hall's g: what a studentized mean of skewed scores corresponds to on a symmetric scale."""
    return t + skew * (t * t / 3 + 1 / 6) + skew * skew * t**3 / 27


def skew_inverse(x: float, skew: float) -> float:
    """The t with g(t) = x; g rises everywhere, so there is one."""
    if abs(skew) < 1e-9:
        return x
    return float(3 / skew * (np.cbrt(1 + skew * (x - skew / 6)) - 1))


@dataclass(frozen=True)
class Changes:
    """Few clusters that changed: how many gained and lost how much, in shares of all scores.

    Attributes:
        clusters: All clusters.
        gained: Clusters whose sum rose, `gain` their mean rise over all `clusters`.
        lost: Clusters whose sum fell, `loss` their mean fall (positive) over all `clusters`.
        span: The change of a cluster all of whose scores change as far as they can.
    """

    clusters: int
    gained: int
    gain: float
    lost: int
    loss: float
    span: float

    @classmethod
    def of(cls, sums: Array, sizes: Array, span: float) -> "Changes | None":
        """The changes, or None where enough clusters changed for Student's interval alone."""
        changed = int(np.count_nonzero(sums))
        n = len(sums)
        if changed >= SPARSE or 2 * changed >= n:
            return None
        change = sums / sizes.mean()
        gain, loss = change[change > 0], -change[change < 0]
        return cls(n, len(gain), float(gain.sum()) / n, len(loss), float(loss.sum()) / n, span)

    def interval(self, alpha: float) -> Interval:
        """Limits of gain minus loss from exact limits of either count.

        Newcombe's (1998) and Zou and Donner's (2008) square-and-add: the distance to each limit
        is the root of the squared distances of the parts. With no change at all it is the exact
        binomial bound: the share of changing clusters that shows none in n draws with probability
        alpha / 2, each changing by `span`.
        """
        gain_down, gain_up = self._distances(self.gained, self.gain, alpha)
        loss_down, loss_up = self._distances(self.lost, self.loss, alpha)
        delta = self.gain - self.loss
        return delta - math.hypot(gain_down, loss_up), delta + math.hypot(gain_up, loss_down)

    def _distances(self, count: int, amount: float, alpha: float) -> Interval:
        """From an amount down to its lower and up to its upper limit.

        The size of a change not yet seen is the mean of those seen and one of `span`.
        """
        low, high = clopper_pearson(count, self.clusters, alpha)
        share = count / self.clusters
        seen = amount / share if count else 0.0
        unseen = (seen * count + self.span) / (count + 1)
        return seen * (share - low), unseen * (high - share)


def clopper_pearson(count: int, n: int, alpha: float) -> Interval:
    """Exact limits of a binomial share (Clopper and Pearson 1934)."""
    low = float(stats.beta.ppf(alpha / 2, count, n - count + 1)) if count > 0 else 0.0
    high = float(stats.beta.ppf(1 - alpha / 2, count + 1, n - count)) if count < n else 1.0
    return low, high


def p_value(sums: Array, sizes: Array) -> float:
    """Two-sided p of no difference for one comparison.

    Where few clusters differ, before and after are swapped within clusters in every possible way
    (sign-flip permutation, exact). Beyond, it is the alpha at which `t_interval` just reaches 0.
    """
    if np.count_nonzero(sums) <= EXACT:
        return sign_flip_p(sums)
    se = standard_error(sums, sizes)
    delta = float(sums.sum() / sizes.sum())
    return t_test_p(delta, se, len(sums) - 1, skewness(sums, sizes))


def sign_flip_p(sums: Array) -> float:
    """Exact share of the 2**m sign patterns of m differing clusters whose sum is as far from 0."""
    sums = sums[sums != 0]
    bits = np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums)) & 1
    flipped = (1 - 2.0 * bits) @ sums
    return float(np.mean(np.abs(flipped) >= abs(sums.sum()) * (1 - 1e-12)))


def t_test_p(delta: float, se: float, df: float, skew: float = 0.0) -> float:
    """Two-sided p of Student's test and of the one corrected for skewness: the larger of both."""
    if se == 0:
        return SMALLEST_P if delta else 1.0
    t = delta / se
    plain = 2 * float(stats.t.sf(abs(t), df))
    corrected = skew_transform(t, skew)
    if corrected * t <= 0:  # the correction alone explains the difference
        return 1.0
    skewed = 2 * float(stats.t.sf(abs(corrected), df))
    return max(plain, skewed, SMALLEST_P)


def detectable_difference(se: float, df: float, alpha: float = ALPHA) -> float:
    """The true difference that a two-sided t test at alpha finds with 80 % power, given its se."""
    quantiles = stats.t.ppf(1 - alpha / 2, df) + stats.t.ppf(POWER, df)
    return float(quantiles * se)


def over_runs(
    before: Sequence[Sequence[float]],
    after: Sequence[Sequence[float]],
    cluster: Sequence[str],
    span: float = 1,
    weight: Sequence[float] | None = None,
) -> Estimate:
    """A paired difference of recipes: several runs a side (training seeds, or repeated readings).

    Args:
        before: Scores [runs][questions]; `after` likewise. Runs of a side are exchangeable.

    The estimate is the difference of the means over runs. Questions and runs are crossed, so its
    variance is that of the questions plus that of the runs, less their interaction, which is in
    both (two-way analysis of variance; Cameron, Gelbach and Miller 2011 for clusters). Degrees of
    freedom are Satterthwaite's (1946). With one run a side it is `estimate`: then it holds for
    these runs, not for their recipes.
    """
    one = estimate(_mean(before), _mean(after), cluster, span, weight)
    sides = [side for side in (before, after) if len(side) > 1]
    if not sides or one.clusters < 2:
        return one
    runs, interaction, per_df = 0.0, 0.0, one.se**4 / one.df
    for side in sides:
        variance, mixed = _run_variance(side, cluster, weight)
        runs += variance
        interaction += mixed
        per_df += variance**2 / (len(side) - 1)
    total = max(one.se**2 + runs - interaction, one.se**2, runs)
    if total == 0:
        return one
    df = total**2 / per_df
    skew = one.skewness * (one.se**2 / total) ** 1.5
    se = math.sqrt(total)
    return replace(
        one,
        se=se,
        df=df,
        skewness=skew,
        p=max(one.p, t_test_p(one.delta, se, df, skew)),
        runs=max(len(before), len(after)),
        se_runs=math.sqrt(max(total - one.se**2, 0.0)),
    )


def _mean(runs: Sequence[Sequence[float]]) -> list[float]:
    """Mean over runs of each question's score."""
    return [float(x) for x in np.mean(np.asarray(runs, float), axis=0)]


def _run_variance(
    runs: Sequence[Sequence[float]], cluster: Sequence[str], weight: Sequence[float] | None
) -> Interval:
    """Variance of the mean over runs from the spread between runs, and the interaction in it."""
    w = None if weight is None else np.asarray(weight, float)
    summed = [cluster_sums(np.asarray(run, float), cluster, w) for run in runs]
    share = np.array([sums / sizes.sum() for sums, sizes in summed])  # [runs, clusters]
    count, clusters = share.shape
    means = share.sum(axis=1)
    between = float(np.var(means, ddof=1)) / count
    residual = share - share.mean(axis=0) - (means - means.mean())[:, None] / clusters
    freedom = (count - 1) * (clusters - 1)
    mixed = float(np.sum(residual**2)) / freedom * clusters / count
    return between, min(mixed, between)


def in_family(estimates: Sequence[Estimate]) -> list[Difference]:
    """Comparisons that are read together: Holm's p, Bonferroni's intervals, one level for all."""
    alpha = ALPHA / max(len(estimates), 1)
    adjusted = holm([one.p for one in estimates])
    found = []
    for one, p in zip(estimates, adjusted, strict=True):
        low, high = one.interval(alpha)
        found.append(
            Difference(
                n=one.n,
                clusters=one.clusters,
                before=one.before,
                after=one.after,
                delta=one.delta,
                se=one.se,
                df=one.df,
                low=low,
                high=high,
                p=p,
                p_alone=one.p,
                detectable=one.detectable(alpha),
                family=len(estimates),
                runs=one.runs,
                se_runs=one.se_runs,
            )
        )
    return found


def holm(p: Sequence[float]) -> list[float]:
    """Adjusted p-values of one family (Holm 1979), in the order given."""
    order = np.argsort(p, kind="stable")
    scaled = np.asarray(p, float)[order] * np.arange(len(p), 0, -1)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1)
    return [float(x) for x in adjusted]


def verdict(d: Difference, margin: float, higher_is_better: bool = True) -> str:
    """What the comparison supports, in one word or two.

    "better" or "worse" if the simultaneous interval leaves out 0 and the adjusted p is below 0.05;
    "no difference" if the interval stays within the margin both ways, "smaller than the margin" if
    it also leaves out 0; else "cannot tell".
    """
    leaves_out_0 = d.low > 0 or d.high < 0
    if d.p < ALPHA and leaves_out_0:
        return "better" if (d.delta > 0) == higher_is_better else "worse"
    if max(-d.low, d.high) <= margin:
        return "smaller than the margin" if leaves_out_0 else "no difference"
    return "cannot tell"
