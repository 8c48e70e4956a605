"""Several judgments of the same turn: votes of one judge, and a jury of judges.

A turn's value is the mean of its votes, then of its judges. What the judging adds to a score is
told from how votes and judges differ on the same answers.
"""

from collections.abc import Mapping, Sequence
from math import hypot, sqrt

from mtbench_runner.rows import JudgeSummary, Noise, Place
from mtbench_runner.statistics import Item, clustered_stderr, mean, t_95, win_interval

Ratings = dict[Place, list[float]]  # of one judge: the votes at each place that have a rating


def turn_values(jury: Mapping[str, Ratings]) -> dict[Place, float]:
    """The mean over judges of the mean over votes, at each place that any judge rated."""
    by_place: dict[Place, list[float]] = {}
    for ratings in jury.values():
        for place, votes in ratings.items():
            by_place.setdefault(place, []).append(average(votes))
    return {place: average(values) for place, values in by_place.items()}


def average(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def within_variance(ratings: Ratings) -> float | None:
    """Variance of one judgment about the mean of its turn's votes, pooled.

    None with single votes.
    """
    squares = 0.0
    degrees = 0
    for votes in ratings.values():
        centre = average(votes)
        squares += sum((vote - centre) ** 2 for vote in votes)
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
    variances = []
    of_mean = 0.0
    for ratings in jury.values():
        variance = within_variance(ratings)
        if variance is None:
            return None, None
        variances.append(variance)
        turns = len(ratings)
        of_mean += sum(variance / len(votes) for votes in ratings.values()) / turns**2
    if not variances:
        return None, None
    return sqrt(average(variances)), sqrt(of_mean) / len(jury)


def _between(jury: Mapping[str, Ratings]) -> float | None:
    """Standard deviation of the judges' means on the turns that all of them rated."""
    if len(jury) < 2:
        return None
    common = set.intersection(*(set(ratings) for ratings in jury.values()))
    if not common:
        return None
    means = [average([average(ratings[p]) for p in common]) for ratings in jury.values()]
    centre = average(means)
    return sqrt(sum((value - centre) ** 2 for value in means) / (len(means) - 1))


def interval(items: Sequence[Item], noise: Noise, judges: int = 1) -> list[float] | None:
    """95 % interval of the mean: other questions, judged anew, and by other judges if several.

    Student's t for each spread: two judges hardly tell how judges differ, and eight questions not
    well how questions do.
    """
    centre, error = mean(items), clustered_stderr(items)
    if centre is None or error is None:
        return None
    by_question = t_95(len({item.question for item in items})) * error
    spread = hypot(by_question, judges_part(noise, judges))
    return [centre - spread, centre + spread]


def judges_part(noise: Noise, judges: int) -> float:
    """Half the width of an interval of the mean that would hold other judges' means; 0 for one."""
    between = noise["between_stderr"]
    return t_95(judges) * between if between is not None and judges > 1 else 0.0


def win_rate_interval(items: Sequence[Item], noise: Noise, judges: int = 1) -> list[float] | None:
    """95 % interval of a win rate: other questions, judged anew, and by other judges if several.

    Each side of the interval over questions is widened by what judges differ.
    """
    rate, by_question = mean(items), win_interval(items)
    if rate is None or by_question is None:
        return None
    by_judge = judges_part(noise, judges)
    low, high = by_question
    below, above = hypot(rate - low, by_judge), hypot(high - rate, by_judge)
    return [max(0.0, rate - below), min(1.0, rate + above)]


def summaries(
    jury: Mapping[str, Ratings], categories: Mapping[Place, str]
) -> dict[str, JudgeSummary]:
    """Each judge by itself."""
    found = {}
    for judge, ratings in jury.items():
        items = [Item(*p, categories[p], average(votes)) for p, votes in ratings.items()]
        variance = within_variance(ratings)
        found[judge] = JudgeSummary(
            overall=mean(items),
            stderr=clustered_stderr(items),
            votes=max((len(votes) for votes in ratings.values()), default=0),
            within=None if variance is None else sqrt(variance),
        )
    return found
