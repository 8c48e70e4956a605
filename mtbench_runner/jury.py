"""Several judgments of the same turn: votes of one judge, and a jury of judges.

A turn's value is the mean of its votes, then of its judges. What the judging adds to a score is
told from how votes and judges differ on the same answers.
"""

from collections.abc import Mapping, Sequence
from math import hypot, sqrt

from mtbench_runner.rows import JudgeSummary, Noise, Place
from mtbench_runner.statistics import (
    Item,
    average,
    clustered_stderr,
    mean,
    number_of_questions,
    squared_deviations,
    t_95,
    win_interval,
)

Ratings = dict[Place, list[float]]  # of one judge: the votes at each place that have a rating


def turn_values(jury: Mapping[str, Ratings]) -> dict[Place, float]:
    """The mean over judges of the mean over votes, at each place that any judge rated."""
    by_judge: Ratings = {}
    for ratings in jury.values():
        for place, value in means_of_votes(ratings).items():
            by_judge.setdefault(place, []).append(value)
    return means_of_votes(by_judge)


def means_of_votes(ratings: Ratings) -> dict[Place, float]:
    """The mean of what was said at each place."""
    return {place: average(votes) for place, votes in ratings.items()}


def within_variance(ratings: Ratings) -> float | None:
    """Variance of one judgment about the mean of its turn's votes, pooled.

    None with single votes.
    """
    squares = 0.0
    degrees = 0
    for votes in ratings.values():
        squares += squared_deviations(votes, average(votes))
        degrees += len(votes) - 1
    return squares / degrees if degrees else None


def noise(jury: Mapping[str, Ratings]) -> Noise:
    """What the judging adds to the mean over all turns.

    `within_stderr`: were the same answers judged again by the same judges, the mean would move by
    this much; it is part of the clustered standard error already. `between_stderr`: were other
    judges drawn, it would move by this much besides; no number of questions makes it smaller.
    """
    within, within_stderr = _within(jury)
    between = _between(jury)
    return Noise(
        within=within,
        within_stderr=within_stderr,
        between=between,
        between_stderr=None if between is None else between / sqrt(len(jury)),
    )


def _within(jury: Mapping[str, Ratings]) -> tuple[float | None, float | None]:
    """Standard deviation of a vote about its turn's mean; what that adds to the whole mean."""
    variances = []
    of_mean = 0.0
    for ratings in jury.values():
        variance = within_variance(ratings)
        if variance is None:
            return None, None
        variances.append(variance)
        of_turns = [variance / len(votes) for votes in ratings.values()]
        of_mean += sum(of_turns) / len(of_turns) ** 2
    if not variances:
        return None, None
    return sqrt(average(variances)), sqrt(of_mean) / len(jury)


def _between(jury: Mapping[str, Ratings]) -> float | None:
    """Standard deviation of the judges' means on the turns that all of them rated."""
    if len(jury) < 2:
        return None
    common = set.intersection(*map(set, jury.values()))
    if not common:
        return None
    means_of_judges = []
    for ratings in jury.values():
        values = means_of_votes(ratings)
        means_of_judges.append(average([values[place] for place in common]))
    squares = squared_deviations(means_of_judges, average(means_of_judges))
    return sqrt(squares / (len(means_of_judges) - 1))


def interval(items: Sequence[Item], noise: Noise, judges: int = 1) -> list[float] | None:
    """95 % interval of the mean: other questions, judged anew, and by other judges if several.

    Student's t for each spread: two judges hardly tell how judges differ, and eight questions not
    well how questions do.
    """
    centre, error = mean(items), clustered_stderr(items)
    if centre is None or error is None:
        return None
    by_question = t_95(number_of_questions(items)) * error
    spread = hypot(by_question, judges_part(noise, judges))
    return [centre - spread, centre + spread]


def judges_part(noise: Noise, judges: int) -> float:
    """Half the width of an interval of the mean that would hold other judges' means; 0 for one."""
    between = noise["between_stderr"]
    if between is None or judges < 2:
        return 0.0
    return t_95(judges) * between


def win_rate_interval(items: Sequence[Item], noise: Noise, judges: int = 1) -> list[float] | None:
    """95 % interval of a win rate: other questions, judged anew, and by other judges if several.

    Each side of the interval over questions is widened by what judges differ.
    """
    rate, by_question = mean(items), win_interval(items)
    if rate is None or by_question is None:
        return None
    by_judge = judges_part(noise, judges)
    low, high = by_question
    below = hypot(rate - low, by_judge)
    above = hypot(high - rate, by_judge)
    return [max(0.0, rate - below), min(1.0, rate + above)]


def summaries(
    jury: Mapping[str, Ratings], categories: Mapping[Place, str]
) -> dict[str, JudgeSummary]:
    """Each judge by itself."""
    found = {}
    for judge, ratings in jury.items():
        items = items_of(means_of_votes(ratings), categories)
        variance = within_variance(ratings)
        found[judge] = JudgeSummary(
            overall=mean(items),
            stderr=clustered_stderr(items),
            votes=max(map(len, ratings.values()), default=0),
            within=None if variance is None else sqrt(variance),
        )
    return found


def items_of(values: Mapping[Place, float], categories: Mapping[Place, str]) -> list[Item]:
    """The values as items of a statistic, in the bench's order, which `categories` has."""
    items = []
    for place, category in categories.items():
        if place in values:
            items.append(Item(*place, category, values[place]))
    return items
