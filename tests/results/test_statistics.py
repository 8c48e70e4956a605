"""The statistics against scipy, against closed forms, and against data whose truth is known."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from results import statistics as s


def clustered(
    rng: np.random.Generator, effect: float, contexts: int
) -> tuple[list[float], list[float], list[str]]:
    """Right/wrong answers to 1 to 11 questions a context (mean 6), difficulty and effect shared in a context."""
    sizes = rng.integers(1, 12, contexts)
    difficulty = rng.normal(0, 0.25, contexts).repeat(sizes)
    gain = effect + rng.normal(0, 0.10, contexts).repeat(sizes)
    n, chance = len(gain), np.clip(0.45 + difficulty, 0.2, 0.7)
    before = rng.random(n) < chance
    changed = rng.random(n) < 0.7
    after = np.where(changed, rng.random(n) < np.clip(chance + gain / 0.7, 0, 1), before)
    return before.astype(float), after.astype(float), np.arange(contexts).repeat(sizes).astype(str)  # type: ignore[return-value]


def simulate(effect: float, contexts: int, runs: int, seed: int) -> tuple[float, float]:
    """Share of intervals that hold the true effect, and share of p below 0.05."""
    rng = np.random.default_rng(seed)
    truth = np.mean([np.subtract(*clustered(rng, effect, 4000)[1::-1]).mean() for _ in range(50)])
    found = [s.paired(*clustered(rng, effect, contexts), resamples=499) for _ in range(runs)]
    return np.mean([d.low <= truth <= d.high for d in found]), np.mean([d.p < 0.05 for d in found])  # type: ignore[return-value]


@pytest.mark.parametrize("contexts", [12, 60])
def test_intervals_cover_a_known_effect(contexts: int) -> None:
    coverage, _ = simulate(0.06, contexts, 1500, seed=1)
    assert 0.93 <= coverage <= 0.97


@pytest.mark.parametrize("contexts", [12, 60])
def test_no_effect_is_rarely_found(contexts: int) -> None:
    coverage, positives = simulate(0.0, contexts, 2500, seed=2)
    assert 0.93 <= coverage <= 0.97
    assert positives < 0.06


@pytest.mark.slow
@pytest.mark.parametrize("effect", [0.0, 0.03, 0.08])
def test_coverage_at_the_size_of_the_validation_split(effect: float) -> None:
    coverage, positives = simulate(effect, 278, 4000, seed=3)
    assert 0.93 <= coverage <= 0.97
    assert effect or positives < 0.06


def test_resampling_questions_as_if_independent_would_be_too_narrow() -> None:
    rng = np.random.default_rng(4)
    before, after, cluster = clustered(rng, 0.05, 60)
    gain = np.repeat(rng.choice([-1.0, 1.0], 60), np.unique(cluster, return_counts=True)[1])
    clusterwise = s.paired([0.0] * len(gain), gain.tolist(), cluster, 2)
    alone = s.paired([0.0] * len(gain), gain.tolist(), [str(i) for i in range(len(gain))], 2)
    assert clusterwise.se > 2 * alone.se
    assert clusterwise.high - clusterwise.low > 2 * (alone.high - alone.low)


def test_interval_agrees_with_scipy_bootstrap() -> None:
    before, after, cluster = clustered(np.random.default_rng(5), 0.05, 80)
    sums, sizes = s.cluster_sums(np.subtract(after, before), cluster)
    n = len(sums)
    level = 1 - 2 * stats.norm.cdf(math.sqrt(n / (n - 1)) * stats.t.ppf(0.025, n - 1))
    theirs = stats.bootstrap(
        (sums, sizes),
        lambda x, y, axis: x.sum(axis) / y.sum(axis),
        paired=True,
        method="percentile",
        confidence_level=level,
        n_resamples=20_000,
    )
    assert s.interval(sums, sizes, 1.0, 20_000) == pytest.approx(
        tuple(theirs.confidence_interval), abs=0.004
    )
    assert s.standard_error(sums, sizes) == pytest.approx(theirs.standard_error, rel=0.05)


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=10))
def test_sign_flip_is_exact_on_few_clusters(sums: list[int]) -> None:
    flips = [
        abs(sum(f * x for f, x in zip(signs, sums, strict=True)))
        for signs in product([-1, 1], repeat=len(sums))
    ]
    expected = np.mean([flip >= abs(sum(sums)) for flip in flips])
    assert s.sign_flip_p(np.array(sums, float)) == pytest.approx(expected)


def test_sign_flip_agrees_with_scipy() -> None:
    sums = np.random.default_rng(6).normal(0.3, 1, 40)
    theirs = stats.permutation_test((sums,), np.sum, permutation_type="samples", n_resamples=20_000)
    assert s.sign_flip_p(sums, 20_000) == pytest.approx(theirs.pvalue, abs=0.01)
    assert s.sign_flip_p(sums, 20_000) == pytest.approx(stats.ttest_1samp(sums, 0).pvalue, abs=0.01)


def test_equal_clusters_give_the_textbook_standard_error() -> None:
    values = np.random.default_rng(7).normal(size=30)
    assert s.standard_error(values, np.ones(30)) == pytest.approx(stats.sem(values))


def test_holm_on_the_textbook_example_and_ties() -> None:
    assert s.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert s.holm([0.5, 0.9]) == [1.0, 1.0]
    assert s.holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_never_lowers_keeps_order_and_stays_below_bonferroni(p: list[float]) -> None:
    adjusted = s.holm(p)
    assert all(a >= x and a <= min(1, x * len(p)) + 1e-12 for a, x in zip(adjusted, p, strict=True))
    assert [adjusted[i] for i in np.argsort(p, kind="stable")] == sorted(adjusted)


def test_detectable_difference_has_eighty_percent_power() -> None:
    rng, n = np.random.default_rng(8), 40
    effect = s.detectable_difference(1 / math.sqrt(n), n)
    p = stats.ttest_1samp(rng.normal(effect, 1, (4000, n)), 0, axis=1).pvalue
    assert np.mean(p < 0.05) == pytest.approx(0.80, abs=0.025)


def test_nothing_changed_is_not_certainty() -> None:
    d = s.paired([0.0] * 32, [0.0] * 32, [str(i) for i in range(32)])
    assert d.high == pytest.approx(0.1089, abs=1e-4)  # stats.binomtest(0, 32).proportion_ci().high
    assert d.high == pytest.approx(stats.binomtest(0, 32).proportion_ci().high)
    assert (d.p, d.detectable) == (1.0, d.high)
    assert s.verdict(d, d.p, 0.03) == "cannot tell"


def test_one_cluster_says_nothing() -> None:
    d = s.paired([0, 0, 0], [1, 1, 1], ["c", "c", "c"])
    assert (d.low, d.high, d.detectable) == (-math.inf, math.inf, math.inf)
    assert s.verdict(d, d.p, 1) == "cannot tell"


@pytest.mark.parametrize(
    ("low", "high", "p", "words"),
    [
        (0.01, 0.1, 0.01, "better"),
        (-0.1, -0.01, 0.01, "worse"),
        (0.01, 0.1, 0.2, "cannot tell"),
        (-0.01, 0.02, 0.5, "no difference"),
        (-0.01, 0.04, 0.5, "cannot tell"),
    ],
)
def test_verdict_in_words(low: float, high: float, p: float, words: str) -> None:
    d = s.Difference(100, 20, 0, 0, (low + high) / 2, 0.01, low, high, p, 0.03)
    assert s.verdict(d, p, 0.03) == words


def test_lengths_must_match() -> None:
    with pytest.raises(ValueError, match="2, 1, 2"):
        s.paired([0, 1], [0], ["a", "b"])
    with pytest.raises(ValueError, match="above 0"):
        s.paired([], [], [])
