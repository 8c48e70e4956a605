"""The statistics by hand, against scipy and statsmodels' formulas, and where the truth is known.

Numbers in the first part were worked out on paper (or are a textbook's); none comes from the code
under test. Simulations of coverage are in test_simulations.py.
"""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from results import statistics as s

SUMS, SIZES = np.array([1.0, 0.0, 2.0]), np.array([2.0, 1.0, 1.0])  # mean 3 / 4


def test_constants_of_the_verdict() -> None:
    assert (s.ALPHA, s.POWER) == (0.05, 0.80)
    assert s.EXACT == 13
    assert s.SMALLEST_P == 1e-12


def test_standard_error_by_hand() -> None:
    # means without each: 1, 1, 1 / 3; from 3 / 4: squares 0.2986111; times 2 / 3; root
    assert s.standard_error(SUMS, SIZES) == pytest.approx(0.4461772)
    assert math.isnan(s.standard_error(SUMS[:1], SIZES[:1]))


def test_equal_clusters_give_the_textbook_standard_error() -> None:
    values = np.random.default_rng(7).normal(size=30)
    assert s.standard_error(values, np.ones(30)) == pytest.approx(stats.sem(values))


def test_effective_clusters_by_hand() -> None:
    assert s.effective_clusters(SIZES) == pytest.approx(16 / 6)
    assert s.effective_clusters(np.full(278, 6.0)) == pytest.approx(278)
    assert s.effective_clusters(np.array([900.0] + [1.0] * 100)) == pytest.approx(1.2344, abs=1e-4)


def test_degrees_of_freedom_are_those_of_the_effective_clusters() -> None:
    assert s.paired([0] * 4, [1, 0, 0, 1], ["a", "a", "b", "c"]).df == pytest.approx(16 / 6 - 1)


def test_skewness_by_hand() -> None:
    # cubes -0.125 - 0.421875 + 1.953125, mean 0.46875; variance 0.791667; over sqrt(3)
    assert s.skewness(SUMS, SIZES) == pytest.approx(0.46875 / 0.7916667**1.5 / 3**0.5)
    assert s.skewness(np.ones(4), np.ones(4)) == 0
    values = np.random.default_rng(1).exponential(size=50)
    assert s.skewness(values, np.ones(50)) == pytest.approx(stats.skew(values) / 50**0.5)


def test_cluster_sums_with_and_without_weights() -> None:
    values = np.array([1.0, 0.0, 1.0])
    sums, sizes = s.cluster_sums(values, ["a", "b", "a"])
    assert (sums.tolist(), sizes.tolist()) == ([2, 0], [2, 1])
    sums, sizes = s.cluster_sums(values, ["a", "b", "a"], np.array([2.0, 3.0, 4.0]))
    assert (sums.tolist(), sizes.tolist()) == ([6, 0], [6, 3])


def test_halls_transformation_by_hand() -> None:
    # 2 + 0.3 (4 / 3 + 1 / 6) + 0.09 * 8 / 27
    assert s.skew_transform(2, 0.3) == pytest.approx(2.4766667)
    assert s.skew_inverse(2.4766667, 0.3) == pytest.approx(2)
    assert s.skew_inverse(1.5, 0) == 1.5


@given(st.floats(-6, 6), st.floats(-2, 2))
def test_halls_transformation_is_inverted(t: float, skew: float) -> None:
    back = s.skew_inverse(s.skew_transform(t, skew), skew)
    assert back == pytest.approx(t, abs=2e-3)


def test_students_distances_by_hand() -> None:
    # t table: 2.228139 at 10 degrees of freedom and 5 %
    assert s.t_quantile(10, 0.05) == pytest.approx(2.228139)
    assert s.t_distances(0.02, 10, 0, 0.05) == pytest.approx((0.04456278, 0.04456278))
    # above: 10 (1 - (1 - 0.3 * 2.278139)**(1 / 3)) = 3.18467; below the plain quantile is wider
    below, above = s.t_distances(0.02, 10, 0.3, 0.05)
    assert (below, above) == pytest.approx((0.04456278, 0.0636934), abs=1e-6)
    assert s.t_distances(0.02, 10, -0.3, 0.05) == pytest.approx((above, below))


def known(
    delta: float = 0.04,
    se: float = 0.02,
    df: float = 10,
    skewness: float = 0.0,
    flips: float = 0.0,
    span: float = math.inf,
    seeds: tuple[s.Part, ...] = (),
    unpaired: float = 0.0,
) -> s.Difference:
    """A difference of 20 clusters with these figures."""
    return s.Difference(
        n=100, clusters=20, before=0, after=delta, delta=delta, questions=s.Part(se, df),
        skewness=skewness, flips=flips, span=span, seeds=seeds, unpaired=unpaired,
    )  # fmt: skip


def test_p_of_the_t_test_by_hand() -> None:
    # t table: t = 2 with 10 degrees of freedom has two-sided p 0.07339
    assert known().p_alone == pytest.approx(0.07338803, rel=1e-4)
    assert known(delta=-0.04).p_alone == pytest.approx(0.07338803, rel=1e-4)
    assert known(skewness=0.3).p_alone == pytest.approx(0.07338803, rel=1e-4)  # the larger
    against = 2 * stats.t.sf(2 - 0.45 + 0.09 * 8 / 27, 10)  # skew -0.3 takes 0.45 off
    assert known(skewness=-0.3).p_alone == pytest.approx(against, rel=1e-4)
    assert known(delta=0.0, se=0.0).p_alone == 1
    assert known(delta=100.0, se=0.1, df=500).p_alone == s.SMALLEST_P  # never 0
    assert known(delta=0.001, skewness=-5).p_alone == 1  # the correction alone is more than that
    assert known(flips=0.2).p_alone == 0.2
    assert known(delta=100.0, flips=0.2).p_alone == 0.2


@given(
    st.floats(-8, 8),
    st.floats(2, 300),
    st.floats(-0.5, 0.5),
    st.sampled_from([0.0, 0.03]),
    st.sampled_from([1, 10]),
)
def test_p_is_below_five_percent_just_where_the_interval_leaves_out_0(
    t: float, df: float, skew: float, flips: float, family: int
) -> None:
    d = s.in_family([known(t, 1, df, skew, flips)] * family)[0]
    if abs(d.p - 0.05) > 1e-4:
        assert (d.p < 0.05) == (d.low > 0 or d.high < 0)


@given(
    st.lists(st.sampled_from([-1.0, 0.0, 0.0, 0.0, 1.0, 1.0]), min_size=2, max_size=40),
    st.integers(1, 3),
    st.sampled_from([1, 10]),
)
def test_p_interval_and_verdict_agree_where_few_clusters_changed(
    gain: list[float], size: int, family: int
) -> None:
    cluster = [str(i // size) for i in range(len(gain))]
    d = s.in_family([s.paired([0.0] * len(gain), gain, cluster)] * family)[0]
    leaves_out_0 = d.low > 0 or d.high < 0
    assert (s.verdict(d, 0) in ("better", "worse")) == leaves_out_0
    assert d.low <= d.delta <= d.high
    if abs(d.p - 0.05) > 1e-4:
        assert (d.p < 0.05) == leaves_out_0


def test_detectable_difference_is_the_noncentral_ts() -> None:
    for df, alpha in ((1, 0.05), (4, 0.05), (30, 0.05), (30, 0.01)):
        found = s.detectable_difference([s.Part(0.02, df)], alpha) / 0.02
        critical = stats.t.ppf(1 - alpha / 2, df)
        assert stats.nct.sf(critical, df, found) == pytest.approx(0.80, abs=0.001)
    assert s.detectable_difference([s.Part(0.0, 30)]) == 0


@pytest.mark.parametrize(("se", "df"), [(0.5, 1), (2.0, 4)])
def test_detectable_difference_of_seeds_has_eighty_percent_power(se: float, df: int) -> None:
    rng = np.random.default_rng(8)
    effect = s.detectable_difference([s.Part(1.0, 200), s.Part(se, df)])
    found = rng.normal(effect, math.hypot(1, se), 40_000)
    seeds = se * np.sqrt(rng.chisquare(df, 40_000) / df)  # what runs say of their spread
    exponent = s.join_exponent(df, 0.05)
    pairs = np.stack([np.full(40_000, stats.t.ppf(0.975, 200)), stats.t.ppf(0.975, df) * seeds])
    critical = np.sum(pairs**exponent, axis=0) ** (1 / exponent)
    assert np.mean(found > critical) == pytest.approx(0.80, abs=0.01)


def test_chance_skewness_is_that_of_normal_samples() -> None:
    # 6 * 12 / (15 * 17) = 0.2823529; over 14; root
    assert s.chance_skewness(14) == pytest.approx(0.1420143, abs=1e-6)
    samples = np.random.default_rng(4).normal(size=(4000, 14))
    found = [s.skewness(sample, np.ones(14)) for sample in samples]
    assert np.std(found) == pytest.approx(s.chance_skewness(14), rel=0.05)


@pytest.mark.parametrize("alpha", [0.05, 0.005])
def test_detectable_difference_allows_for_chance_skewness(alpha: float) -> None:
    rng, n = np.random.default_rng(8), 14
    effect = s.detectable_difference([s.Part(1 / n**0.5, n - 1)], alpha, s.chance_skewness(n))
    sizes, found = np.ones(n), 0
    for sample in rng.normal(effect, 1, (2000, n)):
        skew = s.skewness(sample, sizes)
        below, _ = s.t_distances(s.standard_error(sample, sizes), n - 1, skew, alpha)
        found += sample.mean() > below
    assert found / 2000 == pytest.approx(0.80, abs=0.03)  # 0.70 at 0.5 % without


def test_detectable_difference_has_eighty_percent_power() -> None:
    rng, n = np.random.default_rng(8), 40
    effect = s.detectable_difference([s.Part(1 / math.sqrt(n), n - 1)])
    p = stats.ttest_1samp(rng.normal(effect, 1, (4000, n)), 0, axis=1).pvalue
    assert np.mean(p < 0.05) == pytest.approx(0.80, abs=0.025)


def test_fewest_clusters_that_sign_flips_can_tell() -> None:
    # 2 / 2**6 = 0.03125; 2 / 2**5 = 0.0625 is not below 0.0625; 2 / 2**9 = 0.0039
    assert [s.fewest_flips(alpha) for alpha in (0.05, 0.0625, 0.063, 0.005)] == [6, 6, 5, 9]


def test_nothing_is_detectable_with_a_handful_of_clusters() -> None:
    gain = [1 + 0.01 * i for i in range(14)]
    cluster = [str(i) for i in range(14)]
    few = s.paired([0.0] * 13, gain[:13], cluster[:13], 9)
    enough = s.paired([0.0] * 14, gain, cluster, 9)
    assert few.detectable == math.inf
    assert 0 < enough.detectable < 1
    assert s.in_family([enough] * 200)[0].detectable < 1  # at 0.025 % sign flips need 13
    assert s.in_family([enough] * 400)[0].detectable == math.inf  # and here 14
    assert s.paired([0.0] * 14, gain, cluster, 0.01).detectable == math.inf  # beyond what there is


def test_binomial_limits_are_the_textbooks() -> None:
    assert s.clopper_pearson(1, 10, 0.05) == pytest.approx((0.0025286, 0.4450161), abs=1e-6)
    assert s.clopper_pearson(0, 32, 0.05) == pytest.approx((0, 0.1088812), abs=1e-6)
    assert s.clopper_pearson(4, 4, 0.05) == pytest.approx((0.025**0.25, 1))


def changes(
    above: float = 0, rise: float = 0, below: float = 0, fall: float = 0, common: float = 0
) -> s.Changes:
    """Changes of 10 clusters, at most 1 a score."""
    return s.Changes(10, common, above, rise, below, fall, 1, 0, 0, 0)  # the last for power only


def test_few_changes_by_hand() -> None:
    # up: 0.4450161 - 0.1; down: 0.1 - 0.0025286, and losses not seen up to 0.3084971
    down = math.hypot(0.1 - 0.0025286, 0.3084971)
    assert changes(0.1, 0.1).distances(0.05) == pytest.approx((down, 0.3450161), abs=1e-6)
    # a change not yet seen is as large as (0.5 + 1) / 2
    down, up = 0.75 * 0.3450161, math.hypot(0.5 * (0.1 - 0.0025286), 0.75 * 0.3084971)
    assert changes(below=0.1, fall=0.05).distances(0.05) == pytest.approx((down, up), abs=1e-6)
    # one of 1 up, two of 0.25 down: not yet seen (1 + 0.5 + 1) / 4, or what was seen if larger
    found = changes(0.1, 0.1, 0.2, 0.05).distances(0.05)
    down = math.hypot(0.1 - 0.0025286, 0.625 * (0.5560955 - 0.2))
    up = math.hypot(0.3450161, 0.25 * (0.2 - 0.0252107))
    assert found == pytest.approx((down, up), abs=1e-6)


def test_changes_around_another_amount_than_0_by_hand() -> None:
    # all gained the whole point: no more is possible, and a loss would be two points less
    assert changes(common=1).distances(0.05) == pytest.approx((2 * 0.3084971, 0), abs=1e-6)
    # one of ten lost it instead: nothing can lie above
    found = changes(below=0.1, fall=0.2, common=1).distances(0.05)
    expected = (2 * 0.3450161, 2 * (0.1 - 0.0025286))
    assert found == pytest.approx(expected, abs=1e-6)


def test_changes_are_those_from_what_most_clusters_did() -> None:
    sums = np.array([1.0, 0, 0, 0])  # in clusters of 1, 3, 2 and 2 scores
    found = s.Changes.of(sums, np.array([1.0, 3, 2, 2]), 1)
    assert found == s.Changes(64 / 18, 0, 0.125, 0.125, 0, 0, 1, 0.125, 0, 0.125)
    kept = s.Changes.of(np.array([2.0, 2, 2, -1]), np.full(4, 2.0), 1)
    expected = [4, 1, 0, 0, 0.25, 0.375, 1, 0.75, 0.25, 0.875]
    assert list(vars(kept).values()) == pytest.approx(expected)
    assert s.Changes.of(np.array([1.0, -1, 0, 0]), np.ones(4), 1) is None  # half is not most
    assert s.Changes.of(np.array([1.0, -1, 0, 0, 0]), np.ones(5), 1) is not None


def test_clusters_without_changes_by_hand() -> None:
    assert s.clusters_without_changes(np.full(7, 1 / 7)) == pytest.approx(7)
    # level .0921: 1 - .0921 / .5 of the first changes, and so on; .2763 does not
    assert s.clusters_without_changes(np.array([0.25, 0.5, 0.25])) == pytest.approx(2.8679123)
    # of the small one, below the level of .0245, nothing changes: .98 x .025 + .02 does not
    assert s.clusters_without_changes(np.array([0.98, 0.02])) == pytest.approx(1.1852712)


@given(st.lists(st.floats(0.1, 100), min_size=2, max_size=8), st.integers(0, 2**32))
def test_no_chances_to_change_hide_more_than_clusters_without_changes_allow(
    sizes: list[float], seed: int
) -> None:
    shares = np.array(sizes) / sum(sizes)
    allowed = 1 - 0.025 ** (1 / s.clusters_without_changes(shares))
    # chances not to change, whose product is 2.5 %
    stay = 0.025 ** np.random.default_rng(seed).dirichlet(np.ones(len(sizes)))
    assert float(np.sum((1 - stay) * shares)) <= allowed + 1e-9


def test_clusters_for_changes_by_hand() -> None:
    equal = np.full(7, 1 / 7)
    for count in range(8):
        assert s.clusters_for_changes(equal, equal[:count]) == pytest.approx(7)
    # two of .05 and 90 of .01, which rule out as much as 41.7 if none changed
    shares = np.array([0.05] * 2 + [0.01] * 90)
    assert s.clusters_for_changes(shares, np.zeros(0)) == pytest.approx(41.68680)
    # (.06 + 1 / 41.7) / (.05**2 + .01**2 + 1 / 41.7**2)
    assert s.clusters_for_changes(shares, np.array([0.05, 0.01])) == pytest.approx(26.44936)
    # many small ones changed: no more than 1 / sum of the squared shares
    assert s.clusters_for_changes(shares, np.full(20, 0.01)) == pytest.approx(1 / 0.014)
    found = s.Changes.of(np.array([5.0, 0] + [-1.0] + [0] * 89), shares * 100, 1)
    assert found is not None
    assert found.effective == pytest.approx(26.44936)


def test_rare_changes_by_hand() -> None:
    before, after = [5.0] * 20, [4.0, 6.0] * 10
    names = [str(i) for i in range(20)]
    d = s.paired(before, after, names, 9, rare=True)
    assert d.beyond == (8, 8)
    # t 2.0930241 x sqrt(20 / 19 / 20), and 8 x .1684335 by the rule of three
    expected = math.hypot(2.0930241 * math.sqrt(1 / 19), 8 * 0.1684335)
    assert (d.low, d.high) == pytest.approx((-expected, expected), rel=1e-6)
    uneven = s.paired(before, [4.0, 8.0] * 10, names, 9, rare=True)
    assert uneven.beyond == (8, 6)
    student = 2.0930241 * 2 / math.sqrt(19)
    assert 1 - uneven.low == pytest.approx(math.hypot(student, 8 * 0.1684335), rel=1e-6)
    assert uneven.high - 1 == pytest.approx(math.hypot(student, 6 * 0.1684335), rel=1e-6)
    assert s.paired(before, after, names, 9).high == pytest.approx(2.0930241 * math.sqrt(1 / 19))
    halves = [str(i // 2) for i in range(20)]  # clusters of two change by -1 and 3 a score
    two = s.paired(before, [4.0, 4.0, 8.0, 8.0] * 5, halves, 9, rare=True)
    assert two.beyond == (8, 6)
    fallen = s.paired([9.0] * 20, [1.0, *[9.0] * 18, 8.5], names, 9, rare=True)
    assert fallen.beyond == (1, 9)
    both = s.over_runs([before], [after, after[1:] + [3.0]], names, 9, rare=True)
    assert both.beyond == (8.5, 9)  # means over runs: one fell by .5, none rose


def test_detectable_allows_for_rare_changes() -> None:
    part = s.Part(0.1, 1e9)
    plain = s.detectable_difference([part])
    assert plain == pytest.approx(0.1 * (1.9599640 + 0.8416212), abs=1e-4)
    found = s.detectable_difference([part], unseen=0.3)
    assert found == pytest.approx(math.hypot(0.19599640, 0.3) + 0.08416212, abs=1e-4)
    assert s.detectable_difference([s.Part(0.0, 30)], unseen=0.3) == 0.3
    names = [str(i) for i in range(80)]
    scores = [5.0] * 80, [4.0, 6.0] * 40
    one, other = (s.paired(*scores, names, 9, rare=rare) for rare in (False, True))
    assert one.detectable < 0.4 < other.detectable < 0.6
    uneven = s.paired([5.0] * 80, [4.0, 8.0] * 40, names, 9, rare=True)  # down by 8 more, up by 6
    unseen = 8 * (1 - 0.025 ** (1 / 80))
    chance = s.chance_skewness(80)
    expected = s.detectable_difference([uneven.questions], 0.05, chance, unseen)
    assert uneven.detectable == pytest.approx(expected)


def test_no_interval_has_zero_width() -> None:
    everything = s.paired([0.0] * 30, [1.0] * 30, [str(i) for i in range(30)])
    # the rule of three: 1 - 0.025**(1 / 30) = 0.1157 may have lost the point instead
    assert (everything.low, everything.high) == pytest.approx((1 - 2 * 0.1157033, 1), abs=1e-6)
    alike = s.paired([5.0] * 20, [5.3] * 20, [str(i) for i in range(20)], 9)
    assert alike.low < 0.3 - 0.168 * 8 < 0.3 + 0.168 * 8 < alike.high
    constant = s.paired([100.0] * 20, [100.0] * 20, [str(i) for i in range(20)], math.inf)
    assert (constant.low, constant.high) == (-math.inf, math.inf)
    assert constant.detectable == math.inf


def test_a_cluster_as_large_as_all_others_says_little() -> None:
    cluster = ["giant"] * 900 + [str(i) for i in range(100)]
    nothing = s.paired([0.0] * 1000, [0.0] * 1000, cluster)
    # the exact limit of 0 out of 1.2344 clusters
    assert nothing.high == pytest.approx(1 - 0.025 ** (810_100 / 1_000_000), abs=1e-6)


def gained(clusters: int, count: int, size: int = 1) -> s.Difference:
    """One score gains in so many of the clusters, which have `size` scores each."""
    after = [0.0] * (clusters * size)
    for i in range(count):
        after[i * size] = 1.0
    return s.paired([0.0] * len(after), after, [str(i // size) for i in range(len(after))])


def test_nothing_changed_is_not_certainty() -> None:
    d = gained(32, 0)
    assert d.high == pytest.approx(0.1088812, abs=1e-6)  # stats.binomtest(0, 32).proportion_ci()
    assert d.p == 1
    assert s.verdict(d, 0.03) == "cannot tell"


def test_one_change_rules_out_hardly_more_than_none() -> None:
    none, one = gained(278, 0, 6), gained(278, 1, 6)
    assert none.high == pytest.approx(1 - 0.025 ** (1 / 278))  # 1.3 points
    assert one.high > 0.75 * none.high
    assert one.low < -0.5 * none.high


def test_changes_all_one_way_are_a_difference() -> None:
    for count in (8, 13, 14, 17, 23, 29, 30):
        d = gained(278, count, 6)
        assert d.p < 0.05
        assert s.verdict(d, 0.03) == "better"
    assert s.verdict(gained(278, 5, 6), 0.03) == "no difference"
    # five of 278 alone: sign flips, 2 / 2**5, hold the limit at 0
    assert gained(278, 5).interval(0.0625)[0] == 0
    assert gained(278, 5).interval(0.0626)[0] > 0
    assert gained(278, 5).p == 0.0625


def test_limits_move_smoothly_as_more_clusters_change() -> None:
    lows = [gained(278, count, 6).low for count in range(6, 150)]
    steps = np.diff(lows)
    assert steps.max() < 0.0013  # the estimate itself moves by 0.0006 a cluster
    assert steps.min() > -0.0004


@pytest.mark.parametrize(("clusters", "size"), [(278, 1), (100, 1), (278, 6)])
def test_few_changes_are_found_four_times_out_of_five(clusters: int, size: int) -> None:
    found = gained(clusters, 0 if size == 1 else 12, size)
    rate = found.detectable * size
    counts = range(clusters // 5)
    verdicts = [s.verdict(gained(clusters, count, size), 0) for count in counts]
    chance = stats.binom.pmf(counts, clusters, rate)
    power = sum(p for p, word in zip(chance, verdicts, strict=True) if word == "better")
    assert 0.78 < power < 0.9 if size == 1 else power > 0.9  # 1 in 6, taken for a little more


def test_changes_both_ways_hide_a_difference() -> None:
    def changed(up: int, down: int) -> s.Difference:
        after = [1.0] * up + [-1.0] * down + [0.0] * (278 - up - down)
        return s.paired([0.0] * 278, after, [str(i) for i in range(278)])

    effect = changed(20, 20).changes
    assert effect is not None
    rate = effect.detectable_at(0.05)
    rng = np.random.default_rng(3)
    found = 0
    for up in rng.binomial(278, 20 / 278 + rate, 400):
        found += s.verdict(changed(int(up), int(rng.binomial(278, 20 / 278))), 0) == "better"
    assert found / 400 == pytest.approx(0.80, abs=0.06)
    assert rate > 1.5 * gained(278, 0).detectable


def test_detectable_where_nothing_changed_by_hand() -> None:
    # six changes of one size are the fewest; 80 % of samples have them at the rate where the
    # binomial's tail from six up is 0.8
    fewest = stats.beta.ppf(0.8, 6, 278 - 6 + 1)
    assert 1 - stats.binom.cdf(5, 278, fewest) == pytest.approx(0.8)
    assert fewest <= gained(278, 0).detectable < 1.15 * fewest
    assert gained(278, 0)._limits(0.05)[1] < gained(278, 0).detectable / 2  # no half width
    assert gained(14, 0).detectable > 0.5
    assert gained(13, 0).detectable == math.inf
    # what all clusters did says nothing of how few one would have found
    assert gained(80, 80).detectable == pytest.approx(gained(80, 0).detectable)
    assert gained(80, 79).changes is not None
    assert gained(80, 79).detectable >= gained(80, 0).detectable
    giant = ["giant"] * 14 + [str(i) for i in range(20)]  # 34**2 / (14**2 + 20) = 5.4 clusters
    assert s.paired([0.0] * 34, [0.0] * 34, giant).detectable == math.inf


def power_for_changes(gained: float, lost: float, moved: float, found: float) -> float:
    """By how much a surplus of gains misses the equation of 80 % power; 100 clusters, span 2.

    The smaller of both shares goes on both ways, the surplus is added to the gains, all by one
    size: surplus = distance to the lower limit + 0.8416212 standard deviations.
    """
    both = min(gained, lost)
    size = (moved * 100 + 2) / ((gained + lost) * 100 + 1)  # of all changes and one of 2
    surplus = found / size
    up = both + surplus
    low = stats.beta.ppf(0.025, 100 * up, 100 - 100 * up + 1)
    high = stats.beta.ppf(0.975, 100 * both + 1, 100 - 100 * both)
    one_more = ((up + both) * size * 100 + 2) / ((up + both) * 100 + 1)
    lower = math.hypot(size * (up - low), max(size, one_more) * (high - both))
    # a cluster gains 1, loses 1 or stays: variance up + both - (up - both)^2
    deviation = size * math.sqrt((up + both - (up - both) ** 2) / 100)
    return float(found - lower - 0.8416212 * deviation)


@pytest.mark.parametrize(
    ("gained", "lost", "moved"), [(0.1, 0.05, 0.15), (0.05, 0.1, 0.15), (0.2, 0.2, 0.1)]
)
def test_what_is_found_among_changes_by_its_equation(
    gained: float, lost: float, moved: float
) -> None:
    now = s.Changes(100, 0, gained, 0.1, lost, 0.05, 2, gained, lost, moved)
    found = now.detectable_at(0.05)
    assert power_for_changes(gained, lost, moved, found) == pytest.approx(0, abs=1e-6)
    around_1 = s.Changes(100, 1, 0.3, 0.4, 0, 0, 2, gained, lost, moved)
    assert around_1.detectable_at(0.05) == found  # what most did does not matter


def test_the_share_of_changes_that_sign_flips_see_by_hand() -> None:
    def among(clusters: float, both_ways: float = 0) -> s.Changes:
        return s.Changes(clusters, 0, 0, 0, 0, 0, 1, both_ways, both_ways, 2 * both_ways)

    # six changes of six, with 80 %: share**6 = 0.8; six of seven: 7 share**6 - 6 share**7 = 0.8
    assert among(6)._share_of_flips(0.05) == pytest.approx(0.8 ** (1 / 6))
    share = among(7)._share_of_flips(0.05)
    assert 7 * share**6 - 6 * share**7 == pytest.approx(0.8)
    assert among(5.9)._share_of_flips(0.05) == math.inf
    # of 14 they are half, and 0.4 is left where 0.3 go either way; alone, they can be found
    assert among(14, 0.3).detectable_at(0.05) == math.inf
    assert among(14).detectable_at(0.05) < 1


def test_no_interval_goes_beyond_what_there_can_be() -> None:
    d = s.paired([0.0] * 10, [1.0] * 9 + [0.0], [str(i) for i in range(10)])
    assert d.high == 1
    d = s.paired([1.0] * 10, [0.0] * 9 + [1.0], [str(i) for i in range(10)])
    assert d.low == -1


def test_one_cluster_says_nothing() -> None:
    d = s.paired([0, 0, 0], [1, 1, 1], ["c", "c", "c"])
    assert s.paired([0], [1], ["c"]).delta == 1
    assert (d.low, d.high, d.detectable) == (-math.inf, math.inf, math.inf)
    assert s.verdict(d, 1) == "cannot tell"


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=10))
def test_sign_flip_is_exact_on_few_clusters(sums: list[int]) -> None:
    flips = [
        abs(sum(f * x for f, x in zip(signs, sums, strict=True)))
        for signs in product([-1, 1], repeat=len(sums))
    ]
    expected = np.mean([flip >= abs(sum(sums)) for flip in flips])
    assert s.sign_flips(np.array(sums, float)) == pytest.approx(expected)


def test_sums_that_differ_by_rounding_alone_are_as_far_from_0() -> None:
    """Seven of one sign: of 128 patterns, as they are and all swapped; added in another order."""
    rng = np.random.default_rng(0)
    for _ in range(300):
        assert s.sign_flips(np.abs(rng.normal(size=7))) == 2 / 2**7


def test_p_is_that_of_sign_flips_up_to_13_differing_clusters() -> None:
    assert s.sign_flips(np.concatenate([np.ones(13), np.zeros(20)])) == 2 / 2**13
    assert s.sign_flips(np.ones(14)) == 0
    assert gained(20, 3).p == 2 / 2**3


def test_p_of_many_clusters_agrees_with_a_permutation_test() -> None:
    sums = np.random.default_rng(6).normal(0.3, 1, 40)
    theirs = stats.permutation_test((sums,), np.sum, permutation_type="samples", n_resamples=20_000)
    d = s.paired([0.0] * 40, sums.tolist(), [str(i) for i in range(40)], 10)
    assert d.p == pytest.approx(theirs.pvalue, abs=0.015)


def test_interval_agrees_with_the_bootstrap() -> None:
    rng = np.random.default_rng(5)
    sizes = rng.integers(1, 12, 80).astype(float)
    sums = rng.normal(0.05, 0.2, 80) * sizes
    theirs = stats.bootstrap(
        (sums, sizes),
        lambda x, y, axis: x.sum(axis) / y.sum(axis),
        paired=True,
        method="BCa",
        n_resamples=9_999,
        rng=rng,
    )
    se, mean = s.standard_error(sums, sizes), sums.sum() / sizes.sum()
    df = s.effective_clusters(sizes) - 1
    below, above = s.t_distances(se, df, s.skewness(sums, sizes), 0.05)
    expected = tuple(theirs.confidence_interval)
    assert (mean - below, mean + above) == pytest.approx(expected, abs=0.008)
    assert se == pytest.approx(theirs.standard_error, rel=0.05)


def test_holm_on_the_textbook_example_and_ties() -> None:
    assert s.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert s.holm([0.5, 0.9]) == [1.0, 1.0]
    assert s.holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_never_lowers_keeps_order_and_stays_below_bonferroni(p: list[float]) -> None:
    adjusted = s.holm(p)
    assert all(a >= x and a <= min(1, x * len(p)) + 1e-12 for a, x in zip(adjusted, p, strict=True))
    assert [adjusted[i] for i in np.argsort(p, kind="stable")] == sorted(adjusted)


def forty(seed: int, effect: float) -> s.Difference:
    """A difference of 40 clusters of one score each."""
    gain = np.random.default_rng(seed).normal(effect, 1, 40)
    return s.paired([0.0] * 40, gain.tolist(), [str(i) for i in range(40)], 10)


def test_a_family_shares_one_level() -> None:
    alone = forty(1, 0.3)
    first, *_, last = s.in_family([forty(1, 0.3), forty(2, 0.0), forty(3, 0.1)])
    assert (alone.family, first.family) == (1, 3)
    assert (alone.low, alone.high) == alone.interval(0.05)
    assert (first.low, first.high) == alone.interval(0.05 / 3)
    chance = s.chance_skewness(40)
    assert first.detectable == s.detectable_difference([alone.questions], 0.05 / 3, chance)
    assert first.p == pytest.approx(3 * alone.p)
    assert last.p <= 1
    assert s.in_family([forty(2, 0.0)] * 40)[0].p == 1
    assert s.in_family([]) == []


def test_several_runs_by_hand() -> None:
    # means over runs 2 and 1: se 0.5; means of runs 0.5 and 2.5: their mean has error 1
    one = s.over_runs([[0, 0]], [[1, 0], [3, 2]], ["a", "b"], 100)
    assert (one.delta, one.runs) == (1.5, 2)
    assert (one.questions.se, one.df) == pytest.approx((0.5, 1))
    assert (one.se_runs, one.df_runs) == pytest.approx((1, 1))
    assert one.se == pytest.approx(1.25**0.5)
    # t table: 12.70620 at 1 degree of freedom; of 0.5 and 1 of it the larger decides
    assert (one.low, one.high) == pytest.approx((1.5 - 12.70620, 1.5 + 12.70620), abs=1e-4)
    # each part has the t of its own degrees of freedom: 2.228139 at 10, 4.302653 at 2
    half = ((2.228139 * 0.5) ** 5.32 + (4.302653 * 0.2) ** 5.32) ** (1 / 5.32)
    mixed = known(delta=1.0, se=0.5, df=10, seeds=(s.Part(0.2, 2),))
    assert (mixed.low, mixed.high) == pytest.approx((1 - half, 1 + half), abs=1e-3)
    # before and after trade places: only the sign changes
    other = s.over_runs([[1, 0], [3, 2]], [[0, 0]], ["a", "b"], 100)
    assert (other.delta, other.se, other.p) == (-1.5, one.se, one.p)


def test_what_questions_and_runs_do_together_is_counted_once() -> None:
    # run means 2 and 2; cluster means 1, 0 and 5: squares about 2 are 14, 7 / 3 is the variance.
    # Deviations of a run -1, 0 and 1: variance 1, squared error 1 / 3; both runs over 2 * 1
    runs = [[0.0, 0, 6], [2.0, 0, 4]]
    assert s.together(runs, ["a", "b", "c"], None) == pytest.approx(1 / 3)
    one = s.over_runs([[0.0] * 3], runs, ["a", "b", "c"], 100)
    assert one.questions.se == pytest.approx(2**0.5)
    assert one.seeds == (s.Part(0.0, 1),)
    # all that clusters differ by may be this: then nothing is left for them alone
    crossed = s.over_runs([[0.0] * 2], [[0.0, 2], [2.0, 0]], ["a", "b"], 100)
    assert (crossed.questions.se, crossed.se_runs) == (0, 0)
    # both sides, 1 / 3 and 4 / 3: of the differences' 7 / 3 there is 2 / 3 left
    twice = [[2 * score for score in run] for run in runs]
    both = s.over_runs(runs, twice, ["a", "b", "c"], 100)
    assert both.questions.se == pytest.approx((2 / 3) ** 0.5)
    # weights 1, 1 and 2: deviations -1, 0 and 2 of 4; means without each 2/3, 1/3 and -1/2
    weighted = s.together(runs, ["a", "b", "c"], [1, 1, 2])
    moved = [2 / 3 - 1 / 4, 1 / 3 - 1 / 4, -1 / 2 - 1 / 4]
    assert weighted == pytest.approx(2 / 3 * sum(m * m for m in moved) * 2 / 2)


def test_joined_distances_by_hand() -> None:
    assert s.joined([3.0, 4.0], 2) == pytest.approx(5)
    assert s.joined([1.0, 2.0], 3) == pytest.approx(9 ** (1 / 3))
    assert s.joined([1.0, 1.0], s.MOST_EXPONENT) == pytest.approx(2 ** (1 / 32))
    assert s.joined([2.0], 7) == 2
    assert s.joined([0.0, 0.0], 2) == 0
    assert s.joined([math.inf, 1.0], 2) == math.inf
    assert s.joined([1e-200, 1e200], 32) == pytest.approx(1e200)


def misses(df: int, ratio: float, exponent: float) -> float:
    """How often the joined interval at 5 % misses, by integrating over the runs' variance."""
    z, t = stats.norm.ppf(0.975), stats.t.ppf(0.975, df)

    def at(chi2: float) -> float:
        seeds = t * math.sqrt(ratio * chi2 / df)
        half = float(np.linalg.norm([z, seeds], exponent))
        return float(2 * stats.norm.sf(half / math.sqrt(1 + ratio)) * stats.chi2.pdf(chi2, df))

    return float(integrate.quad(at, 0, 60, limit=200)[0])


@pytest.mark.parametrize("df", [2, 4, 9])
def test_exponent_keeps_the_level_at_the_worst_ratio(df: int) -> None:
    exponent = s.join_exponent(df, 0.05)
    worst = max(misses(df, ratio, exponent) for ratio in np.geomspace(0.01, 100, 40))
    assert worst == pytest.approx(0.053, abs=1e-4)  # 6 % more often than 5 %
    assert misses(df, 0.0, exponent) == pytest.approx(0.05)


def test_exponents_of_two_three_and_five_runs() -> None:
    # worked out on a grid of 41 ratios and 512 quantiles of the variance of runs
    found = [s.join_exponent(df, 0.05) for df in (2, 4, 9)]
    assert found == pytest.approx([5.33, 2.86, 2.35], abs=0.02)
    assert s.join_exponent(2, 0.1) == pytest.approx(4.22, abs=0.02)
    assert s.join_exponent(1, 0.05) == s.join_exponent(2, 0.01) == s.MOST_EXPONENT == 32
    assert s.exponent_of([], 0.05) == 2
    assert s.exponent_of([4, 2], 0.05) == s.join_exponent(2, 0.05)


@pytest.mark.parametrize("ratio", [0.2, 0.35, 1.0])
def test_two_seeds_must_err_on_the_wide_side(ratio: float) -> None:
    # no interval that holds both the questions' and the runs' own covers less than these
    least = {0.2: 0.976, 0.35: 0.9767, 1.0: 0.973}[ratio]
    assert 1 - misses(1, ratio, math.inf) == pytest.approx(least, abs=5e-4)


def test_both_sides_of_runs_by_hand() -> None:
    # run means 0 and 1 before (error 0.5), 2, 4 and 6 after (error 2 / sqrt(3))
    before, after = [[0, 0], [1, 1]], [[2, 2], [4, 4], [6, 6]]
    one = s.over_runs(before, after, ["a", "b"], 100)
    assert (one.delta, one.runs, one.df_runs) == (3.5, 3, 3)
    assert one.se_runs == pytest.approx((0.25 + 4 / 3) ** 0.5)
    weighted = s.over_runs([[0, 0]], [[0, 0], [4, 0]], ["a", "b"], 100, [1, 3])
    assert weighted.se_runs == pytest.approx(0.5)  # run means 0 and 1


def test_steps_vary_by_their_differences() -> None:
    before = [[0.0, 1, 0, 1], [1.0, 1, 1, 1]]
    after = [[1.0, 1, 0, 1], [1.0, 1, 1, 1]]
    names = list("abcd")
    d = s.over_runs(before, after, names, stepwise=True)
    assert (d.before, d.after, d.delta, d.runs) == (0.75, 0.875, 0.125, 2)
    [seeds] = d.seeds
    assert (seeds.se, seeds.df) == pytest.approx((0.125, 1))  # .25 and 0
    one = s.over_runs(before[:1], after[:1], names, stepwise=True)
    assert one.seeds == ()


def test_scores_of_one_side_only_widen_the_interval_by_all_they_can() -> None:
    d = known(delta=0.1, span=2, unpaired=0.25)
    # a quarter may have changed by two points either way
    expected = (0.75 * 0.05543722 - 0.25 * 2, 0.75 * 0.1445628 + 0.25 * 2)
    assert (d.low, d.high) == pytest.approx(expected)
    assert d.p == 1
    plain = known(span=1).detectable
    assert known(span=2, unpaired=0.1).detectable == pytest.approx((plain + 0.1 * 2) / 0.9)
    assert known(span=math.inf).detectable == plain  # where none lack, no span counts


def test_one_run_a_side_is_a_plain_estimate() -> None:
    cluster = ["a", "a", "b", "c"]
    assert s.over_runs([[0, 1, 0, 1]], [[1, 1, 0, 0]], cluster) == s.paired(
        [0, 1, 0, 1], [1, 1, 0, 0], cluster
    )


def test_equal_runs_say_no_more_than_one() -> None:
    after = [1.0] * 30 + [0.0] * 30
    cluster = [str(i) for i in range(60)]
    one = s.paired([0.5] * 60, after, cluster)
    three = s.over_runs([[0.5] * 60], [after] * 3, cluster)
    assert (three.se, three.runs, three.se_runs) == (one.se, 3, 0)


def test_weights_are_the_sizes_of_the_ratio() -> None:
    # log-perplexities 2 and 1 a word of texts of 10 and 30 words: mean 1.25
    one = s.paired([2.0, 1.0], [2.0, 2.0], ["a", "b"], 5, [10, 30])
    assert (one.before, one.after, one.delta) == (1.25, 2.0, 0.75)


def between(low: float, high: float) -> s.Difference:
    """A difference with this interval."""
    se = (high - low) / 2 / float(stats.norm.ppf(0.975))
    return known(delta=(low + high) / 2, se=se, df=1e12)


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.01, 0.1, "better"),
        (-0.1, -0.01, "worse"),
        (0.001, 0.02, "better"),
        (-0.01, 0.1, "cannot tell"),
        (-0.01, 0.0299, "no difference"),
        (-0.0299, 0.01, "no difference"),
        (-0.01, 0.0301, "cannot tell"),
        (-0.0301, 0.01, "cannot tell"),
    ],
)
def test_verdict_in_words(low: float, high: float, words: str) -> None:
    assert s.verdict(between(low, high), 0.03) == words


def test_limits_of_the_verdict_themselves() -> None:
    assert s.verdict(known(delta=0.0, se=0.0), 0) == "no difference"  # within 0 is within
    at_0 = known(delta=0.1, flips=1.0, se=0.001)
    assert (at_0.low, s.verdict(at_0, 0.05)) == (0, "cannot tell")
    at_0 = known(delta=-0.1, flips=1.0, se=0.001)
    assert (at_0.high, s.verdict(at_0, 0.05)) == (0, "cannot tell")


def test_verdict_where_lower_is_better() -> None:
    assert s.verdict(between(0.01, 0.1), 0.03, higher_is_better=False) == "worse"
    assert s.verdict(between(-0.1, -0.01), 0.03, higher_is_better=False) == "better"


def test_lengths_must_match() -> None:
    with pytest.raises(ValueError, match="2, 1, 2"):
        s.paired([0, 1], [0], ["a", "b"])
    with pytest.raises(ValueError, match="above 0"):
        s.paired([], [], [])
