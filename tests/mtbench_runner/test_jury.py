"""What votes and judges say of the judging itself: by hand, and by simulation."""

import random
from math import sqrt

import pytest

from mtbench_runner.jury import (
    Ratings,
    interval,
    noise,
    summaries,
    turn_values,
    within_variance,
)
from mtbench_runner.rows import Place
from mtbench_runner.statistics import Item, clustered_stderr

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
    assert (found["within"], found["within_stderr"]) == (1, pytest.approx(0.5))
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
    """Clustered error 1 of the values 4 and 6; with a between-judge error of 1 it is sqrt 2."""
    items = [Item(1, 1, "stem", 4.0), Item(2, 1, "stem", 6.0)]
    alone = noise({"a": {(1, 1): [4.0], (2, 1): [6.0]}})
    assert interval(items, alone) == [pytest.approx(5 - 1.959964), pytest.approx(5 + 1.959964)]
    wide = interval(items, {**alone, "between_stderr": 1.0})
    assert wide == [pytest.approx(5 - 1.959964 * sqrt(2)), pytest.approx(5 + 1.959964 * sqrt(2))]
    assert interval(items[:1], alone) is None
