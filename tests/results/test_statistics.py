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
from scipy import stats

from results import statistics as s

SUMS, SIZES = np.array([1.0, 0.0, 2.0]), np.array([2.0, 1.0, 1.0])  # mean 3 / 4


def test_constants_of_the_verdict() -> None:
    assert (s.ALPHA, s.POWER) == (0.05, 0.80)
    assert (s.EXACT, s.SPARSE) == (13, 30)
    assert 0 < s.SMALLEST_P <= 1e-9


def test_standard_error_by_hand() -> None:
    # residuals -0.5, -0.75, 1.25; squares 2.375; times 3 / 2; root 1.887459; over 4
    assert s.standard_error(SUMS, SIZES) == pytest.approx(0.4718647)
    assert math.isnan(s.standard_error(SUMS[:1], SIZES[:1]))


def test_equal_clusters_give_the_textbook_standard_error() -> None:
    values = np.random.default_rng(7).normal(size=30)
    assert s.standard_error(values, np.ones(30)) == pytest.approx(stats.sem(values))


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


def test_students_interval_by_hand() -> None:
    # t table: 2.228139 at 10 degrees of freedom and 5 %
    assert s.t_interval(0.1, 0.02, 10, 0, 0.05) == pytest.approx((0.05543722, 0.1445628))
    low, high = s.t_interval(0.1, 0.02, 10, 0.3, 0.05)
    # above: 10 (1 - (1 - 0.3 * 2.278139)**(1 / 3)) = 3.18467; below the plain quantile is wider
    assert (low, high) == pytest.approx((0.05543722, 0.1636934), abs=1e-6)
    assert s.t_interval(0.1, 0.02, 10, -0.3, 0.05) == pytest.approx(
        (0.0363066, 0.1445628), abs=1e-6
    )
    assert s.t_interval(0.1, 0, 10, 0.3, 0.05) == (0.1, 0.1)


def test_p_of_the_t_test_by_hand() -> None:
    # t table: t = 2 with 10 degrees of freedom has two-sided p 0.07339
    assert s.t_test_p(0.04, 0.02, 10) == pytest.approx(0.07338803)
    assert s.t_test_p(-0.04, 0.02, 10) == pytest.approx(0.07338803)
    assert s.t_test_p(0.04, 0.02, 10, 0.3) == pytest.approx(0.07338803)  # the larger of both
    against = 2 * stats.t.sf(2 - 0.45 + 0.09 * 8 / 27, 10)  # skew -0.3 takes 0.45 off
    assert s.t_test_p(0.04, 0.02, 10, -0.3) == pytest.approx(against)
    assert s.t_test_p(0.0, 0.0, 10) == 1
    assert s.t_test_p(0.1, 0.0, 10) == s.SMALLEST_P
    assert s.t_test_p(100.0, 0.1, 500) == s.SMALLEST_P  # never 0
    assert s.t_test_p(0.001, 0.02, 10, -5) == 1.0  # the correction alone is more than that


@given(st.floats(-8, 8), st.floats(2, 300), st.floats(-0.5, 0.5), st.sampled_from([0.05, 0.005]))
def test_p_is_below_alpha_just_where_the_interval_leaves_out_0(
    t: float, df: float, skew: float, alpha: float
) -> None:
    low, high = s.t_interval(t, 1, df, skew, alpha)
    p = s.t_test_p(t, 1, df, skew)
    if abs(p - alpha) > 1e-6:
        assert (p < alpha) == (low > 0 or high < 0)


def test_detectable_difference_by_hand() -> None:
    # t table at 30 degrees of freedom: 2.042272 (two-sided 5 %) and 0.853767 (80 %)
    assert s.detectable_difference(0.02, 30) == pytest.approx(0.0579208, abs=1e-6)
    # two-sided 1 %: 2.749996
    assert s.detectable_difference(0.02, 30, 0.01) == pytest.approx(0.0720753, abs=1e-6)


def test_detectable_difference_has_eighty_percent_power() -> None:
    rng, n = np.random.default_rng(8), 40
    effect = s.detectable_difference(1 / math.sqrt(n), n - 1)
    p = stats.ttest_1samp(rng.normal(effect, 1, (4000, n)), 0, axis=1).pvalue
    assert np.mean(p < 0.05) == pytest.approx(0.80, abs=0.025)


def test_binomial_limits_are_the_textbooks() -> None:
    assert s.clopper_pearson(1, 10, 0.05) == pytest.approx((0.0025286, 0.4450161), abs=1e-6)
    assert s.clopper_pearson(0, 32, 0.05) == pytest.approx((0, 0.1088812), abs=1e-6)
    assert s.clopper_pearson(4, 4, 0.05) == pytest.approx((0.025**0.25, 1))


def test_few_changes_by_hand() -> None:
    one = s.Changes(clusters=10, gained=1, gain=0.1, lost=0, loss=0, span=1)
    # down: (0.1 - 0.0025286) and unseen losses up to 0.3084971; up: 0.4450161 - 0.1
    down = math.hypot(0.1 - 0.0025286, 0.3084971)
    assert one.interval(0.05) == pytest.approx((0.1 - down, 0.4450161), abs=1e-6)
    half = s.Changes(clusters=10, gained=0, gain=0, lost=1, loss=0.05, span=1)
    # a change not yet seen is as large as (0.5 + 1) / 2
    down = 0.75 * (0.4450161 - 0.1)
    up = math.hypot(0.5 * (0.1 - 0.0025286), 0.3084971)
    assert half.interval(0.05) == pytest.approx((-0.05 - down, -0.05 + up), abs=1e-6)


def test_few_changes_are_found_where_few_clusters_changed() -> None:
    sums = np.zeros(100)
    sums[:29] = 1
    found = s.Changes.of(sums, np.full(100, 2.0), 1)
    assert found == s.Changes(100, 29, 0.145, 0, 0, 1)
    sums[29] = -1
    assert s.Changes.of(sums, np.full(100, 2.0), 1) is None  # 30 are enough
    # in clusters of 2 scores on average: half a cluster, an eighth of all
    uneven = s.Changes.of(np.array([1.0, 0, 0, 0]), np.array([1.0, 3, 2, 2]), 1)
    assert uneven == s.Changes(4, 1, 0.125, 0, 0, 1)
    assert s.Changes.of(np.array([1.0, -1, 0, 0]), np.ones(4), 1) is None  # half of all
    assert s.Changes.of(np.array([1.0, -1, 0, 0, 0]), np.ones(5), 1) is not None


def test_nothing_changed_is_not_certainty() -> None:
    d = s.paired([0.0] * 32, [0.0] * 32, [str(i) for i in range(32)])
    assert d.high == pytest.approx(0.1088812, abs=1e-6)  # stats.binomtest(0, 32).proportion_ci()
    assert (d.p, d.detectable) == (1.0, d.high)
    assert s.verdict(d, 0.03) == "cannot tell"


def test_one_change_rules_out_hardly_more_than_none() -> None:
    cluster = [str(i // 6) for i in range(1668)]
    none = s.paired([0.0] * 1668, [0.0] * 1668, cluster)
    one = s.paired([0.0] * 1668, [1.0] + [0.0] * 1667, cluster)
    assert none.high == pytest.approx(1 - 0.025 ** (1 / 278))  # 1.3 points
    assert one.high > 0.75 * none.high
    assert one.low < -0.75 * none.high


def test_no_interval_goes_beyond_what_there_can_be() -> None:
    d = s.paired([0.0] * 10, [1.0] * 9 + [0.0], [str(i) for i in range(10)])
    assert d.high == 1
    d = s.paired([1.0] * 10, [0.0] * 9 + [1.0], [str(i) for i in range(10)])
    assert d.low == -1


def test_one_cluster_says_nothing() -> None:
    d = s.paired([0, 0, 0], [1, 1, 1], ["c", "c", "c"])
    assert (d.low, d.high, d.detectable) == (-math.inf, math.inf, math.inf)
    assert s.verdict(d, 1) == "cannot tell"


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=10))
def test_sign_flip_is_exact_on_few_clusters(sums: list[int]) -> None:
    flips = [
        abs(sum(f * x for f, x in zip(signs, sums, strict=True)))
        for signs in product([-1, 1], repeat=len(sums))
    ]
    expected = np.mean([flip >= abs(sum(sums)) for flip in flips])
    assert s.sign_flip_p(np.array(sums, float)) == pytest.approx(expected)


def test_p_is_exact_up_to_13_differing_clusters() -> None:
    for m in (3, 13):
        sums = np.concatenate([np.ones(m), np.zeros(20)])
        assert s.p_value(sums, np.ones(len(sums))) == 2 / 2**m
    sums = np.concatenate([np.ones(14), np.zeros(20)])
    n, mean = 34, 14 / 34
    se = math.sqrt(n / (n - 1) * n * mean * (1 - mean)) / n
    skew = (1 - 2 * mean) / math.sqrt(mean * (1 - mean)) / math.sqrt(n)
    assert s.p_value(sums, np.ones(n)) == pytest.approx(s.t_test_p(mean, se, 33, skew))


def test_p_of_many_clusters_agrees_with_a_permutation_test() -> None:
    sums = np.random.default_rng(6).normal(0.3, 1, 40)
    theirs = stats.permutation_test((sums,), np.sum, permutation_type="samples", n_resamples=20_000)
    assert s.p_value(sums, np.ones(40)) == pytest.approx(theirs.pvalue, abs=0.015)


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
    se = s.standard_error(sums, sizes)
    found = s.t_interval(sums.sum() / sizes.sum(), se, 79, s.skewness(sums, sizes), 0.05)
    assert found == pytest.approx(tuple(theirs.confidence_interval), abs=0.008)
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


def forty(seed: int, effect: float) -> s.Estimate:
    """An estimate of 40 clusters of one score each."""
    gain = np.random.default_rng(seed).normal(effect, 1, 40)
    return s.estimate([0.0] * 40, gain.tolist(), [str(i) for i in range(40)], 10)


def test_a_family_shares_one_level() -> None:
    alone = s.in_family([forty(1, 0.3)])[0]
    family = s.in_family([forty(1, 0.3), forty(2, 0.0), forty(3, 0.1)])
    first = family[0]
    assert (alone.family, first.family) == (1, 3)
    one = forty(1, 0.3)
    assert (alone.low, alone.high) == one.interval(0.05)
    assert (first.low, first.high) == one.interval(0.05 / 3)
    assert first.detectable == pytest.approx(s.detectable_difference(one.se, 39, 0.05 / 3))
    assert [d.p for d in family] == s.holm([d.p_alone for d in family])


def test_several_runs_by_hand() -> None:
    # means over runs 2 and 1: se 0.5; means of runs 0.5 and 2.5: their mean has variance 1; no
    # interaction. Together 1.25, with 1.25**2 / (0.25**2 + 1) degrees of freedom
    one = s.over_runs([[0, 0]], [[1, 0], [3, 2]], ["a", "b"], 10)
    assert (one.delta, one.runs) == (1.5, 2)
    assert one.se == pytest.approx(1.25**0.5)
    assert one.df == pytest.approx(1.5625 / 1.0625)
    assert one.se_runs == pytest.approx(1)
    # before and after trade places: only the sign changes
    other = s.over_runs([[1, 0], [3, 2]], [[0, 0]], ["a", "b"], 10)
    assert (other.delta, other.se, other.df) == (-1.5, one.se, one.df)


def test_interaction_of_runs_and_questions_by_hand() -> None:
    # shares [[.5, 0], [1, 2]]: residuals .375 all over, their squares .5625 = the interaction
    between, mixed = s._run_variance([[1, 0], [2, 4]], ["a", "b"], None)
    assert (between, mixed) == pytest.approx((1.5625, 0.5625))
    # means over runs 1 and 12: variance 11**2 / 4; means of runs 5 and 8: 9 / 4; interaction 1 / 4
    one = s.over_runs([[0, 0]], [[0, 10], [2, 14]], ["a", "b"], 20)
    assert one.se**2 == pytest.approx(30.25 + 2.25 - 0.25)
    assert one.df == pytest.approx(32.25**2 / (30.25**2 + 2.25**2))
    assert one.se_runs == pytest.approx(2**0.5)


def test_one_run_a_side_is_a_plain_estimate() -> None:
    cluster = ["a", "a", "b", "c"]
    assert s.over_runs([[0, 1, 0, 1]], [[1, 1, 0, 0]], cluster) == s.estimate(
        [0, 1, 0, 1], [1, 1, 0, 0], cluster
    )


def test_equal_runs_say_no_more_than_one() -> None:
    after = [1.0] * 30 + [0.0] * 30
    cluster = [str(i) for i in range(60)]
    one = s.estimate([0.5] * 60, after, cluster)
    three = s.over_runs([[0.5] * 60], [after] * 3, cluster)
    assert (three.se, three.runs, three.se_runs) == (one.se, 3, 0)


def test_weights_are_the_sizes_of_the_ratio() -> None:
    # log-perplexities 2 and 1 a word of texts of 10 and 30 words: mean 1.25
    one = s.estimate([2.0, 1.0], [2.0, 2.0], ["a", "b"], 5, [10, 30])
    assert (one.before, one.after, one.delta) == (1.25, 2.0, 0.75)


def difference(low: float, high: float, p: float) -> s.Difference:
    return s.Difference(100, 20, 0, 0, (low + high) / 2, 0.01, 19, low, high, p, p, 0.03, 1, 1, 0.0)


@pytest.mark.parametrize(
    ("low", "high", "p", "words"),
    [
        (0.01, 0.1, 0.049, "better"),
        (-0.1, -0.01, 0.01, "worse"),
        (0.01, 0.1, 0.05, "cannot tell"),
        (0.0, 0.1, 0.01, "cannot tell"),
        (-0.01, 0.03, 0.5, "no difference"),
        (-0.03, 0.01, 0.5, "no difference"),
        (-0.01, 0.031, 0.5, "cannot tell"),
        (-0.031, 0.01, 0.5, "cannot tell"),
        (0.001, 0.02, 0.07, "smaller than the margin"),
        (-0.02, -0.001, 0.07, "smaller than the margin"),
    ],
)
def test_verdict_in_words(low: float, high: float, p: float, words: str) -> None:
    assert s.verdict(difference(low, high, p), 0.03) == words


def test_verdict_where_lower_is_better() -> None:
    assert s.verdict(difference(0.01, 0.1, 0.01), 0.03, higher_is_better=False) == "worse"
    assert s.verdict(difference(-0.1, -0.01, 0.01), 0.03, higher_is_better=False) == "better"


def test_lengths_must_match() -> None:
    with pytest.raises(ValueError, match="2, 1, 2"):
        s.paired([0, 1], [0], ["a", "b"])
    with pytest.raises(ValueError, match="above 0"):
        s.paired([], [], [])
