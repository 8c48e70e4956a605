"""The length-controlled win rate against scipy's optimiser, by hand, and by simulation."""

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from mtbench_runner.length import (
    RIDGE,
    Comparison,
    controlled,
    fit,
    length_features,
    sigmoid,
)

VALUES = st.sampled_from([0.0, 0.5, 1.0])


def negative_log_likelihood(parameters: np.ndarray, x: np.ndarray, y: np.ndarray) -> float:
    theta, phi = parameters
    p = 1 / (1 + np.exp(-(theta + phi * x)))
    at_zero = 1 / (1 + np.exp(-theta))
    penalty = RIDGE / 2 * phi**2
    added = -0.5 * np.log(at_zero) - 0.5 * np.log(1 - at_zero)
    return float(-(y * np.log(p) + (1 - y) * np.log(1 - p)).sum() + added + penalty)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(VALUES, st.integers(-500, 500)), min_size=3, max_size=40))
def test_newton_finds_what_scipy_finds(rows: list[tuple[float, int]]) -> None:
    x = length_features([longer for _, longer in rows])
    y = [value for value, _ in rows]
    theta, phi = fit(x, y)
    best = minimize(negative_log_likelihood, [0.0, 0.0], args=(np.array(x), np.array(y)))
    assert theta == pytest.approx(best.x[0], abs=1e-3)
    assert phi == pytest.approx(best.x[1], abs=1e-3)


def test_without_a_length_difference_it_is_the_raw_rate() -> None:
    """15 wins of 20 and the half win and half loss added: 15.5 / 21."""
    rows = [Comparison(q, float(q < 15), 0.0) for q in range(20)]
    found = controlled(rows)
    assert found is not None
    assert found.win_rate == pytest.approx(15.5 / 21)
    assert found.low < found.win_rate < found.high
    assert found.length_effect == 0


def test_wins_that_length_explains_are_no_wins() -> None:
    """True theta 0, phi 4; the model is the longer one in four of five, so it wins most."""
    rng = random.Random(0)
    longer = [rng.uniform(20, 400) * (1 if question % 5 else -1) for question in range(2000)]
    rows = []
    for question, x in enumerate(length_features(longer)):
        won = rng.random() < sigmoid(4 * x)
        rows.append(Comparison(question, float(won), longer[question]))
    found = controlled(rows)
    assert found is not None
    assert sum(row.value for row in rows) / len(rows) > 0.65
    assert found.win_rate == pytest.approx(0.5, abs=0.05)
    assert found.length_effect == pytest.approx(4, abs=0.4)


def test_when_the_longer_answer_wins_always_it_stays_finite() -> None:
    rows = [Comparison(q, float(q < 80), 100.0 if q < 80 else -100.0) for q in range(100)]
    found = controlled(rows)
    assert found is not None
    assert 0.4 < found.win_rate < 0.8
    assert 2 < found.length_effect < 20


def test_wins_that_length_does_not_explain_stay() -> None:
    rng = random.Random(1)
    rows = [Comparison(q, float(rng.random() < 0.7), rng.gauss(0, 100)) for q in range(2000)]
    found = controlled(rows)
    assert found is not None
    assert found.win_rate == pytest.approx(0.7, abs=0.03)
    assert found.low < 0.7 < found.high


def test_the_interval_covers_what_it_says() -> None:
    """About 95 of 100 intervals hold the truth (two turns a question, alike: clusters matter)."""
    rng = random.Random(2)
    covered = 0
    for _ in range(100):
        rows = []
        for question in range(80):
            value = float(rng.random() < 0.6)
            rows += [Comparison(question, value, rng.gauss(0, 100)) for _ in range(2)]
        found = controlled(rows)
        assert found is not None
        covered += found.low <= 0.6 <= found.high
    assert 88 <= covered <= 100


def test_where_equal_length_was_never_seen_there_is_no_rate() -> None:
    """The penalty alone would decide: true rate one half, intervals that never held it."""
    rng = random.Random(3)
    longer = [rng.gauss(500, 100) for _ in range(100)]
    rows = [Comparison(q, float(rng.random() < 0.7), x) for q, x in enumerate(longer)]
    assert controlled(rows) is None
    assert controlled([Comparison(q, 1.0, rng.gauss(0, 100)) for q in range(40)]) is None


def test_features_and_too_little() -> None:
    assert length_features([-1.0, 1.0]) == [
        pytest.approx(-math.tanh(1)),
        pytest.approx(0.76159, 1e-4),
    ]
    assert controlled([]) is None
    assert controlled([Comparison(1, 1.0, 3.0), Comparison(1, 0.0, 3.0)]) is None
    assert sigmoid(-800) == 0
    assert sigmoid(800) == 1


def test_judges_that_differ_widen_the_interval_at_equal_length() -> None:
    rng = random.Random(0)
    lengths = [rng.gauss(0, 100) for _ in range(60)]

    def judged(rate: float) -> list[Comparison]:
        return [Comparison(q, float(rng.random() < rate), x) for q, x in enumerate(lengths)]

    kind, severe = judged(0.8), judged(0.3)
    both = [
        Comparison(a.question, (a.value + b.value) / 2, a.longer)
        for a, b in zip(kind, severe, strict=True)
    ]
    alone = controlled(both)
    same = controlled(both, [both, both])
    differing = controlled(both, [kind, severe])
    assert alone
    assert same
    assert differing
    assert (same.low, same.high) == pytest.approx((alone.low, alone.high))
    assert differing.low < 0.1 < alone.low < alone.high < 0.9 < differing.high
    assert differing.win_rate == alone.win_rate
