"""What a paired before/after comparison can support: interval, p, detectable difference, verdict.

Scores come in clusters (TAT-QA questions in their context, MT-Bench turns in their question), and
the scores of a cluster are not independent. So every figure here is made from one sum and one size
per cluster. The interval is the only inference: p is the level at which it just reaches 0, and the
verdict is read off it. Comparisons that are read together are one family, whose intervals hold
together: docs/STATISTICS.md says how, with simulations.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

ALPHA = 0.05  # of a whole family: of false differences, and of intervals that miss
POWER = 0.80  # of the detectable difference
EXACT = 13  # up to so many clusters that differ, all 2**13 sign patterns are tried
SMALLEST_P = 1e-12  # no tail of a t distribution is worth more than this; p is never 0
GRID = 1024  # quantiles of what is estimated, over which power is averaged
EXCESS = 0.06  # of alpha, by which an interval over runs may miss more often: 0.3 points of 5 %
MOST_EXPONENT = 32.0  # of `joined`: within 2.2 % of the largest distance
RATIOS = np.geomspace(0.01, 1000, 21)  # of the runs' variance to the questions'
RUN_GRID = (np.arange(128) + 0.5) / 128  # levels at which an estimated variance of runs is taken
Array = NDArray[np.float64]
Interval = tuple[float, float]


@dataclass(frozen=True)
class Part:
    """One source of chance: its standard error, and the degrees of freedom that this has."""

    se: float
    df: float


@dataclass(frozen=True)
class Difference:
    """A paired difference, after minus before, in the scores' unit, as one of a family.

    The intervals `low` to `high` of the family hold together with probability 95 %, `p` is below
    0.05 just where this one leaves out 0 (Bonferroni, both), and `detectable` is at the level that
    the family leaves to one of them.

    Attributes:
        n: Scores on each side; `clusters` of them are independent.
        before: Weighted mean before; `after` likewise.
        questions: Standard error of `delta` from the choice of questions.
        skewness: Of delta's sampling distribution (0 for a symmetric one).
        flips: Share of the sign patterns of the clusters that differ whose delta is as far from 0;
            0 where more than EXACT clusters differ.
        span: The largest difference there can be.
        changes: What clusters that differ from most others add; None where most do.
        runs: Training runs that were averaged; `seeds` is the chance from them, a part for each
            side that has several.
        unpaired: Share of the scores that one side lacks: they may have changed by `span`.
        beyond: How much further than any cluster did one could go, down and up; 0 where changes
            larger than any seen are not allowed for.
        family: Comparisons that are read together with this one, itself included.
    """

    n: int
    clusters: int
    before: float
    after: float
    delta: float
    questions: Part
    skewness: float
    flips: float
    span: float = math.inf
    changes: "Changes | None" = None
    runs: int = 1
    seeds: tuple[Part, ...] = ()
    unpaired: float = 0.0
    beyond: Interval = (0.0, 0.0)
    family: int = 1

    @cached_property
    def limits(self) -> Interval:
        """The interval at the level that the family leaves."""
        return self.interval(ALPHA / self.family)

    @property
    def low(self) -> float:
        """Lower limit of the simultaneous interval."""
        return self.limits[0]

    @property
    def high(self) -> float:
        """Upper limit of the simultaneous interval."""
        return self.limits[1]

    @property
    def p(self) -> float:
        """Two-sided p of no difference, adjusted for the family."""
        return min(self.p_alone * self.family, 1.0)

    @cached_property
    def detectable(self) -> float:
        """The true difference that this comparison finds with 80 % power within its family."""
        return self.detectable_at(ALPHA / self.family)

    @property
    def se(self) -> float:
        """Standard error of `delta` from questions and runs together."""
        return math.hypot(self.questions.se, self.se_runs)

    @property
    def se_runs(self) -> float:
        """The part of `se` that comes from the runs; 0 for a single run a side."""
        return math.hypot(*(part.se for part in self.seeds))

    @property
    def df(self) -> float:
        """Degrees of freedom of the questions' part."""
        return self.questions.df

    @property
    def df_runs(self) -> float:
        """Degrees of freedom of the runs' part, both sides together."""
        return sum(part.df for part in self.seeds)

    @cached_property
    def p_alone(self) -> float:
        """Two-sided p of no difference: the alpha at which `interval` just reaches 0."""
        if self.clusters < 2:
            return 1.0

        def beyond_0(exponent: float) -> float:
            low, high = self._limits(10**exponent)
            return low if self.delta > 0 else -high

        least = math.log10(SMALLEST_P)
        if beyond_0(0.0) <= 0:
            return 1.0
        if beyond_0(least) >= 0:
            return max(self.flips, SMALLEST_P)
        return max(self.flips, float(10 ** optimize.brentq(beyond_0, least, 0.0)))

    def interval(self, alpha: float) -> Interval:
        """The interval that misses with probability alpha; nothing is known of one cluster."""
        if self.clusters < 2:
            return -math.inf, math.inf
        low, high = self._limits(alpha)
        if alpha <= self.flips:  # chance alone gives such signs as often as this
            low, high = min(low, 0.0), max(high, 0.0)
        return max(low, -self.span), min(high, self.span)

    def _limits(self, alpha: float) -> Interval:
        """Limits from questions and runs, whose distances are `joined`."""
        below, above = t_distances(self.questions.se, self.questions.df, self.skewness, alpha)
        down, up = self._unseen(alpha)
        below, above = math.hypot(below, down), math.hypot(above, up)
        if self.changes is not None:
            fewer, more = self.changes.distances(alpha)
            below, above = max(below, fewer), max(above, more)
        seeds = [t_quantile(part.df, alpha) * part.se for part in self.seeds]
        exponent = exponent_of([part.df for part in self.seeds], alpha)
        low = self.delta - joined([below, *seeds], exponent)
        high = self.delta + joined([above, *seeds], exponent)
        if self.unpaired == 0:
            return low, high
        paired = 1 - self.unpaired
        return paired * low - self.unpaired * self.span, paired * high + self.unpaired * self.span

    def _unseen(self, alpha: float) -> Interval:
        """What changes larger than any seen could add, down and up.

        They can be no more frequent than the rule of three says.
        """
        share = clopper_pearson(0, self.questions.df + 1, alpha)[1]
        return share * self.beyond[0], share * self.beyond[1]

    def detectable_at(self, alpha: float) -> float:
        """The true difference whose interval at alpha leaves out 0 with 80 % power.

        Infinite where there is none: with so few clusters that sign flips decide, or beyond the
        largest there can be.
        """
        if self.clusters <= max(EXACT, fewest_flips(alpha)):
            return math.inf
        found = detectable_difference(
            [self.questions, *self.seeds],
            alpha,
            chance_skewness(self.clusters),
            max(self._unseen(alpha)),
        )
        if self.changes is not None:
            found = max(found, self.changes.detectable_at(alpha))
        if self.unpaired > 0:
            found = (found + self.unpaired * self.span) / (1 - self.unpaired)
        return found if found <= self.span else math.inf


def paired(
    before: Sequence[float],
    after: Sequence[float],
    cluster: Sequence[str],
    span: float = 1,
    weight: Sequence[float] | None = None,
    rare: bool = False,
) -> Difference:
    """A paired difference of two score lists, each [questions], as a family of one.

    Args:
        before: A score for each question; `after` likewise, in the same order.
        cluster: The cluster of each question.
        span: The largest change that one score can make (1 for exact match).
        weight: What each score counts for in the mean (words of a text); 1 if not given.
        rare: Whether to allow for rare changes that are larger than any seen, up to `span` (a
            judge's ratings, whose losses are).

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
    change = sums / sizes
    return Difference(
        n=len(a),
        clusters=len(sums),
        before=float((w * a).sum()) / total,
        after=float((w * b).sum()) / total,
        delta=float(sums.sum()) / total,
        questions=Part(standard_error(sums, sizes), effective_clusters(sizes) - 1),
        skewness=skewness(sums, sizes),
        flips=sign_flips(sums),
        span=span,
        changes=Changes.of(sums, sizes, span),
        beyond=(span + float(change.min()), span - float(change.max())) if rare else (0.0, 0.0),
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

    The jackknife over clusters (CV3): how far the mean moves as each cluster in turn is left out
    (Cameron and Miller 2015, A Practitioner's Guide to Cluster-Robust Inference, section VI.B;
    MacKinnon, Nielsen and Webb 2023, Cluster-robust inference: a guide to empirical practice). For
    clusters of equal size it is the textbook's, which Miller 2024, Adding Error Bars to Evals, has
    in section 2.2, with the factor n / (n - 1). NaN for one cluster.
    """
    n = len(sums)
    if n < 2:
        return math.nan
    without = (sums.sum() - sums) / (sizes.sum() - sizes)
    moved = without - sums.sum() / sizes.sum()
    return math.sqrt((n - 1) / n * float(np.sum(moved**2)))


def effective_clusters(sizes: Array) -> float:
    """How many clusters of equal size say as much as these: n^2 / sum of the squared sizes.

    Carter, Schnepel and Steigerwald (2017, Asymptotic Behavior of a t-Test Robust to Cluster
    Heterogeneity, eq. 9) for a mean whose scores are independent; t has one degree less.
    """
    return float(sizes.sum() ** 2 / np.sum(sizes**2))


def clusters_for_changes(shares: Array, changed: Array) -> float:
    """How many equal clusters tell as much of the share of scores in clusters that change.

    Large clusters may change more often than small ones, so it is the changed ones that count, and
    one more that the sample has not shown (compare Fay and Feuer 1997, Confidence intervals for
    directly standardized rates: a weighted count has the variance of its weights' squares, and one
    event more). In equal clusters this is their number.

    Args:
        shares: The part of all scores that each cluster has, [clusters].
        changed: The same of those that changed, [changed clusters].
    """
    unseen = 1 / clusters_without_changes(shares)
    found = (changed.sum() + unseen) / (np.sum(changed**2) + unseen**2)
    return min(effective_clusters(shares), float(found))


def clusters_without_changes(shares: Array) -> float:
    """How many equal clusters rule out as large a change as these do if none of them changed.

    Of all chances to change, one for each cluster, that leave a sample without any change with
    probability ALPHA / 2, the worst have the largest share of scores in clusters that change:
    1 - level / share for each share above a level, 0 below.
    """
    logarithms = np.log(np.sort(shares)[::-1])
    count = np.arange(1, len(shares) + 1)
    levels = (np.cumsum(logarithms) + math.log(ALPHA / 2)) / count
    level = np.exp(levels[logarithms > levels][-1])
    unchanged = float(np.sum(np.minimum(shares, level)))
    return math.log(ALPHA / 2) / math.log(unchanged)


def skewness(sums: Array, sizes: Array) -> float:
    """Skewness of the mean's sampling distribution: that of the residuals over sqrt(clusters)."""
    residual = sums - sums.sum() / sizes.sum() * sizes
    variance = float(np.mean(residual**2))
    if variance <= 0:
        return 0.0
    return float(np.mean(residual**3) / variance**1.5 / math.sqrt(len(sums)))


def chance_skewness(clusters: int) -> float:
    """Standard deviation of `skewness` where the scores have none (Fisher 1930)."""
    n = clusters
    return math.sqrt(6 * (n - 2) / ((n + 1) * (n + 3)) / n)


def t_quantile(df: float, alpha: float) -> float:
    """The t that Student's distribution exceeds either way with probability alpha."""
    return float(-special.stdtrit(df, alpha / 2))


def t_distances(se: float, df: float, skew: float, alpha: float) -> Interval:
    """From a mean to the limits of Student's interval, wider on the side of the skew.

    Hall (1992, On the removal of skewness by transformation) makes the studentized mean T almost
    symmetric by the cubic g(T) = T + k (T^2 / 3 + 1 / 6) + k^2 T^3 / 27, with k the skewness of
    the mean; its inverse takes the t quantiles back. The wider of both limits is taken on either
    side, because k is itself an estimate.
    """
    quantile = t_quantile(df, alpha)
    upper = max(quantile, -skew_inverse(-quantile, skew))
    lower = max(quantile, skew_inverse(quantile, skew))
    return lower * se, upper * se


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
    """More than half of the clusters changed by one amount; how the others deviate from it.

    Mostly that amount is 0: few clusters changed at all. It is 1 where a format that nobody kept
    is kept by almost everybody. What the sample does not show matters then: with no deviation at
    all, this is the rule of three.

    Attributes:
        effective: Number of equal clusters that rule out as much.
        common: The change of most clusters, in the scores' unit.
        above: Share of the scores in clusters that changed by more, `rise` their surplus over all
            scores.
        below: Share of the scores in clusters that changed by less, `fall` what they lack.
        span: The largest change that one score can make.
        gained: Share of the scores in clusters whose mean rose; `lost` likewise.
        moved: Mean of the clusters' absolute changes over all scores.
    """

    effective: float
    common: float
    above: float
    rise: float
    below: float
    fall: float
    span: float
    gained: float
    lost: float
    moved: float

    @classmethod
    def of(cls, sums: Array, sizes: Array, span: float) -> "Changes | None":
        """The deviations, or None where no amount is that of more than half of the clusters."""
        change = np.round(sums / sizes, 12)
        amounts, count = np.unique(change, return_counts=True)
        if 2 * count.max() <= len(sums):
            return None
        common = float(amounts[np.argmax(count)])
        share = sizes / sizes.sum()
        surplus = (change - common) * share
        up, down = change > common, change < common
        return cls(
            effective=clusters_for_changes(share, share[change != common]),
            common=common,
            above=float(share[up].sum()),
            rise=float(surplus[up].sum()),
            below=float(share[down].sum()),
            fall=float(-surplus[down].sum()),
            span=span,
            gained=float(share[change > 0].sum()),
            lost=float(share[change < 0].sum()),
            moved=float(np.sum(np.abs(change) * share)),
        )

    def distances(self, alpha: float) -> Interval:
        """From the difference down to its lower and up to its upper limit.

        Exact limits of both shares are joined by square-and-add (Newcombe 1998; Zou and Donner
        2008): the distance to a limit is the root of the squared distances of the parts.
        """
        rise_down, rise_up = self._distances(self.above, self.rise, self.span - self.common, alpha)
        fall_down, fall_up = self._distances(self.below, self.fall, self.span + self.common, alpha)
        return math.hypot(rise_down, fall_up), math.hypot(rise_up, fall_down)

    def _distances(self, share: float, amount: float, largest: float, alpha: float) -> Interval:
        """From an amount down to its lower and up to its upper limit."""
        low, high = clopper_pearson(share * self.effective, self.effective, alpha)
        seen = amount / share if share > 0 else 0.0
        unseen = max(seen, self.unseen(largest))
        return seen * (share - low), unseen * (high - share)

    def unseen(self, largest: float) -> float:
        """The size of a deviation not yet seen: the mean of all seen and of one that is largest."""
        size = self._size(self.above + self.below, self.rise + self.fall, largest)
        return min(size, largest)

    def _size(self, share: float, amount: float, largest: float) -> float:
        """Mean size of what changed in a share of the clusters, and of one change more."""
        return (amount * self.effective + largest) / (share * self.effective + 1)

    def detectable_at(self, alpha: float) -> float:
        """The surplus of gains that leaves 0 out of the interval at alpha with 80 % power.

        As many clusters as are seen to go both ways go on doing so, and all changes have the size
        of one not yet seen. Infinite where no share is enough.
        """
        if not math.isfinite(self.span):
            return math.inf
        both = min(self.gained, self.lost)
        size = self._size(self.gained + self.lost, self.moved, self.span)

        def margin(share: float) -> float:
            """How far the lower limit lies above 0, less what POWER asks for."""
            gained = both + share
            up, down = gained * size, both * size
            there = replace(self, common=0, above=gained, rise=up, below=both, fall=down)
            noise = math.sqrt((share + 2 * both - share**2) / self.effective) * size
            lower = there.distances(alpha)[0]
            return float(share * size - lower - special.ndtri(POWER) * noise)

        most = 1 - 2 * both
        least = self._share_of_flips(alpha)
        if least > most or margin(most) <= 0:
            return math.inf
        found = float(optimize.brentq(margin, 0.0, most))
        return max(found, least) * size

    def _share_of_flips(self, alpha: float) -> float:
        """The share of changing clusters of which sign flips see enough with 80 % power."""
        fewest = fewest_flips(alpha)
        if fewest > self.effective:
            return math.inf
        return float(special.betaincinv(fewest, self.effective - fewest + 1, POWER))


def clopper_pearson(count: float, n: float, alpha: float) -> Interval:
    """Exact limits of a binomial share (Clopper and Pearson 1934).

    Count and n need not be whole: of clusters of unequal size, n is their effective number and
    count its part (Korn and Graubard 1998).
    """
    low = float(special.betaincinv(count, n - count + 1, alpha / 2)) if count > 0 else 0.0
    high = float(special.betaincinv(count + 1, n - count, 1 - alpha / 2)) if count < n else 1.0
    return low, high


def sign_flips(sums: Array) -> float:
    """Exact share of the 2**m sign patterns of m differing clusters whose sum is as far from 0.

    Before and after are swapped within clusters in every possible way. 0 for m above EXACT.
    """
    sums = sums[sums != 0]
    if len(sums) > EXACT:
        return 0.0
    patterns = np.arange(2 ** len(sums))[:, None]
    swapped = patterns >> np.arange(len(sums)) & 1  # [patterns, clusters], 0 or 1
    totals = (1 - 2.0 * swapped) @ sums
    least = abs(sums.sum()) * (1 - 1e-12)
    return float(np.mean(np.abs(totals) >= least))


def fewest_flips(alpha: float) -> int:
    """The fewest clusters, all changing one way, whose share of sign patterns is below alpha."""
    return math.floor(1 - math.log2(alpha)) + 1


def detectable_difference(
    parts: Sequence[Part], alpha: float = ALPHA, skewness_error: float = 0.0, unseen: float = 0.0
) -> float:
    """The true difference that a two-sided test at alpha finds with 80 % power.

    The test is that of the interval: critical distances of the questions' part, the first, and of
    the runs', `joined`. With one part this is the noncentral t distribution's. Power is averaged
    over quantiles of the variances that samples give, and of the skewness, which widens the
    interval even by chance: the first part's, whose standard deviation is `skewness_error`.
    `unseen` is a distance that square-and-add joins to the first.
    """
    noise = math.hypot(*(part.se for part in parts))
    if noise == 0:
        return unseen
    questions, runs = parts[0], parts[1:]
    each = math.ceil(GRID ** (1 / (len(parts) + 1)))
    level = (np.arange(each) + 0.5) / each
    chance = (skewness_error * special.ndtri(level)).tolist()
    widened = np.array([t_distances(1, questions.df, skew, alpha)[0] for skew in chance])
    exponent = exponent_of([part.df for part in runs], alpha)
    first = np.multiply.outer(widened, errors_found(questions, level)).ravel() / noise
    powers = np.hypot(first, unseen / noise) ** exponent
    for part in runs:
        distance = t_quantile(part.df, alpha) * errors_found(part, level) / noise
        powers = np.add.outer(powers, distance**exponent).ravel()
    critical = powers ** (1 / exponent)

    def lacking(difference: float) -> float:
        return float(np.mean(special.ndtr(difference - critical))) - POWER

    return noise * float(optimize.brentq(lacking, 0.0, float(critical.max()) + 10))


def errors_found(part: Part, level: Array) -> Array:
    """The standard errors that samples give of a part, at these levels of their distribution."""
    found: Array = np.sqrt(special.chdtri(part.df, level) / part.df) * part.se
    return found


def joined(distances: Sequence[float], exponent: float) -> float:
    """One distance made of several: the root of the sum of their powers.

    Square-and-add (Zou and Donner 2008) where the exponent is 2; the largest distance at infinity.
    """
    largest = max(distances)
    if largest == 0 or math.isinf(largest):
        return largest
    powers = [(distance / largest) ** exponent for distance in distances]
    return largest * float(math.fsum(powers) ** (1 / exponent))


def exponent_of(df_runs: Sequence[float], alpha: float) -> float:
    """By which the distances of questions and of runs are joined; of two sides the safer one."""
    return join_exponent(min(df_runs), alpha) if df_runs else 2.0


@cache
def join_exponent(df: float, alpha: float) -> float:
    """The largest exponent of `joined` that keeps what an interval at alpha promises.

    The questions' variance is known, the runs' is estimated with df degrees of freedom. Whatever
    their ratio, the interval may miss with probability alpha, and EXCESS of that more.
    Square-and-add promises more than is asked for: it misses in 2.3 % where there are three runs
    and the ratio is 1. MOST_EXPONENT where every exponent keeps it: two runs, or a small alpha.
    """

    def excess(exponent: float) -> float:
        return most_misses(df, alpha, exponent) - alpha * (1 + EXCESS)

    if alpha * (1 + EXCESS) >= 1 or excess(MOST_EXPONENT) <= 0:
        return MOST_EXPONENT
    if excess(2.0) >= 0:
        return 2.0
    return float(optimize.brentq(excess, 2.0, MOST_EXPONENT, xtol=1e-4))


def most_misses(df: float, alpha: float, exponent: float) -> float:
    """How often the interval misses at that ratio of the variances at which it does most often."""
    of_questions = t_quantile(math.inf, alpha)
    found = np.sqrt(np.multiply.outer(RATIOS, special.chdtri(df, RUN_GRID) / df))
    of_runs = t_quantile(df, alpha) * found
    largest = np.maximum(of_questions, of_runs)
    powers = (of_questions / largest) ** exponent + (of_runs / largest) ** exponent
    critical = largest * powers ** (1 / exponent) / np.sqrt(1 + RATIOS)[:, None]
    return float(np.max(np.mean(2 * special.ndtr(-critical), axis=1)))


def over_runs(
    before: Sequence[Sequence[float]],
    after: Sequence[Sequence[float]],
    cluster: Sequence[str],
    span: float = 1,
    weight: Sequence[float] | None = None,
    rare: bool = False,
    stepwise: bool = False,
) -> Difference:
    """A paired difference of recipes: several runs a side (training seeds, or repeated readings).

    Args:
        before: Scores, [runs][questions]; `after` likewise. Runs of a side are exchangeable.
        stepwise: Whether each run after was trained on from the run before in its place: then it
            is their differences that vary from run to run.

    The estimate is the difference of the means over runs. Its chance comes from questions and from
    runs, each with degrees of freedom of its own (a side of k runs has k - 1), and the distances
    to the limits are joined by the exponent that is calibrated for them: a variance from two runs
    is hardly known, and one t for the sum of both would take it at its word. What questions and
    runs do together is in the runs' part, and taken out of the questions'. With one run a side it
    is `paired`: then it holds for these runs, not for their recipes.
    """
    one = paired(_mean(before), _mean(after), cluster, span, weight, rare)
    sides = [np.subtract(after, before).tolist()] if stepwise else [before, after]
    of_several = [side for side in sides if len(side) > 1]
    if not of_several or one.clusters < 2:
        return one
    seeds = tuple(spread_of_runs(side, weight) for side in of_several)
    twice = sum(together(side, cluster, weight) for side in of_several)
    alone = math.sqrt(max(one.questions.se**2 - twice, 0.0))
    return replace(
        one,
        runs=max(len(before), len(after)),
        questions=replace(one.questions, se=alone),
        seeds=seeds,
    )


def _mean(runs: Sequence[Sequence[float]]) -> list[float]:
    """Mean over runs of each question's score."""
    means: list[float] = np.mean(np.asarray(runs, float), axis=0).tolist()
    return means


def spread_of_runs(runs: Sequence[Sequence[float]], weight: Sequence[float] | None) -> Part:
    """Standard error of the mean over runs from how far their own means lie apart.

    What questions and runs do together (a question that one run happens to answer) is in it.
    """
    means = np.average(np.asarray(runs, float), axis=1, weights=weight)
    error = float(np.std(means, ddof=1)) / math.sqrt(len(means))
    return Part(error, len(means) - 1)


def together(
    runs: Sequence[Sequence[float]], cluster: Sequence[str], weight: Sequence[float] | None
) -> float:
    """The variance of the mean over runs that questions and runs have together.

    The interaction of a two-way layout (clusters times runs): how far clusters move apart from one
    run to another. It is both in the variance of the clusters' means and in that of the runs'.
    """
    scores = np.asarray(runs, float)
    deviations = scores - scores.mean(axis=0)
    w = None if weight is None else np.asarray(weight, float)
    squared = [standard_error(*cluster_sums(row, cluster, w)) ** 2 for row in deviations]
    count = len(scores)
    return math.fsum(squared) / (count * (count - 1))


def in_family(differences: Sequence[Difference]) -> list[Difference]:
    """Comparisons that are read together: one level is divided among them (Bonferroni)."""
    return [replace(one, family=len(differences)) for one in differences]


def holm(p: Sequence[float]) -> list[float]:
    """Adjusted p-values of one family (Holm 1979), in the order given."""
    order = np.argsort(p, kind="stable")
    scaled = np.asarray(p, float)[order] * np.arange(len(p), 0, -1)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1)
    found: list[float] = adjusted.tolist()
    return found


def verdict(d: Difference, margin: float, higher_is_better: bool = True) -> str:
    """What the comparison supports, in one word or two, read off the simultaneous interval.

    "better" or "worse" if it leaves out 0 (p is below 0.05 just then); "no difference" if it stays
    within the margin both ways; else "cannot tell".
    """
    if d.low > 0 or d.high < 0:
        return "better" if (d.delta > 0) == higher_is_better else "worse"
    return "no difference" if max(-d.low, d.high) <= margin else "cannot tell"
