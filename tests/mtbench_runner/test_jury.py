"""What votes and judges say of the judging itself: by hand, and by simulation."""

import random
from math import hypot, sqrt

import pytest

from mtbench_runner.jury import (
    Ratings,
    interval,
    noise,
    summaries,
    turn_values,
    win_rate_interval,
    within_variance,
)
from mtbench_runner.rows import Place
from mtbench_runner.statistics import Item, clustered_stderr, win_interval

ONE: Ratings = {(1, 1): [4.0, 6.0], (2, 1): [8.0, 8.0]}
OTHER: Ratings = {(1, 1): [7.0], (2, 1): [9.0], (3, 1): [1.0]}
CATEGORIES: dict[Place, str] = {(1, 1): "stem", (2, 1): "stem", (3, 1): "math"}


def test_a_turn_counts_with_the_mean_of_its_judges_means() -> None:
    assert turn_values({"a": ONE}) == {(1, 1): 5, (2, 1): 8}
    assert turn_values({"a": ONE, "b": OTHER}) == {(1, 1): 6, (2, 1): 8.5, (3, 1): 1}


def test_variance_within_by_hand() -> None:
    """Squares 1 + 1 + 0 + 0 on 1 + 1 degrees of freedom: 1. In the mean of 4 votes: 1/4."""
    assert within_variance(ONE) == 1
    assert within_variance(OTHER) is None
    found = noise({"a": ONE})
    assert found["within"] == 1
    assert found["within_stderr"] == pytest.approx(0.5)
    assert (found["between"], found["between_stderr"]) == (None, None)


def test_spread_between_judges_by_hand() -> None:
    """On the two turns of both the means are 6.5 and 8: standard deviation 1.5 / sqrt 2."""
    found = noise({"a": ONE, "b": OTHER})
    assert found["between"] == pytest.approx(1.5 / sqrt(2))
    assert found["between_stderr"] == pytest.approx(0.75)
    assert found["within"] is None  # b voted once
    assert noise({"a": ONE, "b": {(9, 1): [1.0]}})["between"] is None
    assert noise({}) == dict.fromkeys(found)


def test_each_judge_by_itself() -> None:
    found = summaries({"a": ONE, "b": OTHER}, CATEGORIES)
    assert found["a"] == {"overall": 6.5, "stderr": pytest.approx(1.5), "votes": 2, "within": 1}
    assert (found["b"]["votes"], found["b"]["within"]) == (1, None)


def test_the_clustered_error_holds_the_votes_noise_already() -> None:
    """Simulated: questions of spread 1, one vote of noise 2 each. Error of the mean of 80: 0.25."""
    rng = random.Random(0)
    errors = []
    for _ in range(200):
        items = [Item(q, 1, "stem", rng.gauss(6, 1) + rng.gauss(0, 2)) for q in range(80)]
        errors.append(clustered_stderr(items) or 0.0)
    assert sum(errors) / len(errors) == pytest.approx(sqrt(5 / 80), rel=0.03)


def test_interval_by_hand() -> None:
    """Clustered error 1 of the values 4 and 6; Student's t with one degree of freedom is 12.706."""
    items = [Item(1, 1, "stem", 4.0), Item(2, 1, "stem", 6.0)]
    alone = noise({"a": {(1, 1): [4.0], (2, 1): [6.0]}})
    low, high = interval(items, alone) or [0.0, 0.0]
    assert (5 - low, high - 5) == pytest.approx((12.7062, 12.7062), abs=1e-4)
    low, high = interval(items, {**alone, "between_stderr": 1.0}, judges=3) or [0.0, 0.0]
    assert high - 5 == pytest.approx(sqrt(12.7062**2 + 4.3027**2), abs=1e-3)
    assert interval(items[:1], alone) is None


def test_the_interval_covers_with_few_questions() -> None:
    """Eight questions, as in the demo bench: with 1.96 only 89 of 100 intervals held the mean."""
    rng = random.Random(0)
    covered = 0
    for _ in range(400):
        items = [Item(q, 1, "stem", rng.gauss(6, 1)) for q in range(8)]
        low, high = interval(items, noise({"a": {}})) or [0.0, 0.0]
        covered += low <= 6 <= high
    assert 0.925 <= covered / 400 <= 0.975


def test_a_win_rate_by_one_judge_has_the_interval_over_questions() -> None:
    items = [Item(q, 1, "stem", float(q % 3 > 0)) for q in range(12)]
    alone = noise({"a": {(item.question, 1): [item.value] for item in items}})
    assert win_rate_interval(items, alone) == pytest.approx(win_interval(items))
    assert win_rate_interval(items[:1], alone) is None


def test_a_jurys_win_rate_is_widened_by_how_judges_differ() -> None:
    """Judges' means .4, .6 and .8 differ by .2: .2 / sqrt 3 times Student's t of 4.3027 is .497."""
    values = {"a": 4, "b": 6, "c": 8}
    jury: dict[str, Ratings] = {}
    for judge, wins in values.items():
        jury[judge] = {(q, 1): [float(q < wins)] for q in range(10)}
    items = [Item(q, 1, "stem", sum(jury[j][q, 1][0] for j in jury) / 3) for q in range(10)]
    low, high = win_interval(items) or [0.0, 0.0]
    lowest = max(0.0, 0.6 - hypot(0.6 - low, 4.3027 * 0.2 / sqrt(3)))
    highest = min(1.0, 0.6 + hypot(high - 0.6, 4.3027 * 0.2 / sqrt(3)))
    found = win_rate_interval(items, noise(jury), judges=3)
    assert found == pytest.approx([lowest, highest], abs=1e-4)


def test_the_interval_of_a_jurys_win_rate_covers() -> None:
    """Three judges, each with a leaning of its own about a true rate of one half, 100 questions.

    Over questions alone 55 of 100 intervals held it.
    """
    rng = random.Random(1)
    covered = narrow = 0
    for _ in range(200):
        jury: dict[str, Ratings] = {}
        for judge in "abc":
            rate = min(max(rng.gauss(0.5, 0.2), 0.0), 1.0)
            jury[judge] = {(q, 1): [float(rng.random() < rate)] for q in range(100)}
        means = turn_values(jury)
        items = [Item(q, 1, "stem", means[q, 1]) for q in range(100)]
        low, high = win_rate_interval(items, noise(jury), judges=3) or [0.0, 0.0]
        covered += low <= 0.5 <= high
        low, high = win_interval(items) or [0.0, 0.0]
        narrow += low <= 0.5 <= high
    assert covered / 200 >= 0.93
    assert narrow / 200 < 0.8
