"""Means, clustered errors and win rates: by hand, by scipy's distributions, and by properties."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mtbench_runner.statistics import (
    Item,
    average,
    by_turn,
    clustered_stderr,
    grouped,
    mean,
    number_of_questions,
    squared_deviations,
    t_95,
    win_interval,
)


def items(*values: tuple[int, int, float]) -> list[Item]:
    return [Item(question, turn, "stem", value) for question, turn, value in values]


def test_means_by_hand() -> None:
    data = items((9, 2, 4), (9, 1, 7), (3, 1, 2))
    assert mean(data) == 13 / 3
    assert mean([]) is None
    assert average([1.0, 2.0, 6.0]) == 3
    assert squared_deviations([1.0, 4.0, 2.0], 2) == 1 + 4 + 0
    assert number_of_questions(data) == 2
    # turns in their order, questions as they come
    assert list(by_turn(data).items()) == [("1", 4.5), ("2", 4)]
    assert list(grouped(data, "question", len).items()) == [("9", 2), ("3", 1)]
    assert grouped(data, "category", len) == {"stem": 3}


def test_clustered_stderr_by_hand() -> None:
    """Question sums of deviations from the mean 6 are -2, 4, -2: sqrt(3/2 * 24) / 6 = 1."""
    data = items((1, 1, 4), (1, 2, 6), (2, 1, 7), (2, 2, 9), (3, 1, 5), (3, 2, 5))
    assert clustered_stderr(data) == pytest.approx(1.0)
    # two are enough, of unequal size: mean 2, sums -1 and 1; sqrt(2 / 1 * 2) / 3
    assert clustered_stderr(items((1, 1, 1), (2, 1, 3), (2, 2, 2))) == pytest.approx(2 / 3)


@given(st.lists(st.integers(1, 10), min_size=2, max_size=30))
def test_with_one_turn_a_question_it_is_the_usual_standard_error(values: list[int]) -> None:
    data = items(*((question, 1, value) for question, value in enumerate(values)))
    centre = sum(values) / len(values)
    usual = math.sqrt(sum((v - centre) ** 2 for v in values) / (len(values) - 1) / len(values))
    assert clustered_stderr(data) == pytest.approx(usual)


@given(st.lists(st.tuples(st.integers(1, 10), st.integers(1, 10)), min_size=2, max_size=30))
def test_with_two_turns_it_is_that_of_the_questions_means(values: list[tuple[int, int]]) -> None:
    both = items(*((q, turn, v) for q, pair in enumerate(values) for turn, v in enumerate(pair, 1)))
    means = items(*((q, 1, sum(pair) / 2) for q, pair in enumerate(values)))
    assert clustered_stderr(both) == pytest.approx(clustered_stderr(means))


def test_too_little_for_an_error() -> None:
    one = items((1, 1, 1.0), (1, 2, 0.0))
    assert clustered_stderr([]) is clustered_stderr(one) is None
    assert win_interval([]) is win_interval(one) is None


def test_t_of_the_textbook() -> None:
    # tables: 12.7062 at 1 degree of freedom, 2.228139 at 10
    assert t_95(2) == pytest.approx(12.7062, abs=1e-4)
    assert t_95(11) == pytest.approx(2.228139, abs=1e-6)


def verdicts(*counts: tuple[int, float]) -> list[Item]:
    """So many comparisons of each value, a question each."""
    values = [value for number, value in counts for _ in range(number)]
    return items(*((q, 1, value) for q, value in enumerate(values)))


def exact(wins: float, n: float) -> list[float]:
    """Clopper and Pearson's limits for some wins, and some losses, of n."""
    low, high = stats.beta.ppf(0.025, wins, n - wins + 1), stats.beta.ppf(0.975, wins + 1, n - wins)
    return [float(low), float(high)]


def test_a_win_rate_without_ties_has_clopper_and_pearsons_interval() -> None:
    # 8 of 10: squares 8 * 0.04 + 2 * 0.64 = 1.6, times 10 / 9 over 100 is 0.16 / 9: n = 9
    assert win_interval(verdicts((8, 1.0), (2, 0.0))) == pytest.approx(exact(0.8 * 9, 9))
    # 1 of 10: squares 0.81 + 9 * 0.01 = 0.9, times 10 / 9 over 100 is 0.01: n = 0.09 / 0.01 = 9
    assert win_interval(verdicts((1, 1.0), (9, 0.0))) == pytest.approx(exact(0.9, 9))
    assert win_interval(verdicts((10, 1.0))) == pytest.approx([0.025**0.1, 1.0])
    assert win_interval(verdicts((10, 0.0))) == pytest.approx([0.0, 1 - 0.025**0.1])


def test_turns_of_a_question_count_as_often_as_they_say_something_new() -> None:
    # both turns alike: the sums are those of one turn doubled, n the questions' less 1 in G
    alike = [(q, turn, float(q < 8)) for q in range(10) for turn in (1, 2)]
    assert win_interval(items(*alike)) == pytest.approx(exact(0.8 * 9, 9))
    # sums of deviations from 2 / 3: -1/3, -1/3, 2/3; variance 3/2 * 2/3 / 36: n = 2/9 * 36 = 8,
    # and there are 6 verdicts
    three = items((1, 1, 1), (1, 2, 0), (2, 1, 1), (2, 2, 0), (3, 1, 1), (3, 2, 1))
    assert win_interval(three) == pytest.approx(exact(4, 6))
    # a win and a loss in each question: no error to be seen, so as many as there are questions
    split = [(q, turn, turn - 1.0) for q in range(4) for turn in (1, 2)]
    assert win_interval(items(*split)) == pytest.approx(exact(2, 4))


def test_ties_say_nothing_of_which_is_better() -> None:
    """4 wins of 160 and no loss are a sign test's p of 0.125: one half stays inside."""
    low, high = win_interval(verdicts((4, 1.0), (156, 0.5))) or [0, 0]
    assert (low, high) == pytest.approx((0.5 + (0.025**0.25 - 0.5) / 40, 0.5125))
    assert low < 0.5
    low, high = win_interval(verdicts((6, 1.0), (154, 0.5))) or [0, 0]
    assert 0.5 < low < high


def test_at_least_three_are_taken_as_decided() -> None:
    assert win_interval(verdicts((160, 0.5))) == pytest.approx([0.5 - 1.5 / 160, 0.5 + 1.5 / 160])
    assert win_interval(verdicts((2, 0.5))) == [0, 1]  # of two, both
    # two wins of five: limits 0.025**(1 / 2) and 1, drawn to one half by 3 / 5
    low = 0.5 + 0.6 * (0.025**0.5 - 0.5)
    assert win_interval(verdicts((2, 1.0), (3, 0.5))) == pytest.approx([low, 0.8])
    # four of five are more than three
    low = 0.5 + 0.8 * (0.025**0.25 - 0.5)
    assert win_interval(verdicts((4, 1.0), (1, 0.5))) == pytest.approx([low, 0.9])
