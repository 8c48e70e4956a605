"""Win rates of a model against a baseline, raw and at equal length, by FastChat's rule."""

from collections.abc import Mapping, Sequence

from mtbench_runner import jury, ledger, length, page
from mtbench_runner.bench import Bench
from mtbench_runner.jury import Ratings, average
from mtbench_runner.ledger import Current
from mtbench_runner.length import Comparison
from mtbench_runner.ratings import pair_outcome
from mtbench_runner.rows import AnyJudgment, PairFile, PairJudgment, Place
from mtbench_runner.score import all_rows, categories_of, summary
from mtbench_runner.spending import Prices
from mtbench_runner.statistics import Item


def compare_pairs(
    bench: Bench,
    model_id: str,
    baseline: str,
    judges: Sequence[str],
    prices: Prices | None = None,
) -> PairFile:
    """How often the model beats the baseline. Raises InputError when a judge has nothing of it.

    FastChat's rule: a win or loss counts if it holds in both orders. `overall` is the win rate with
    a tie as half a win, `interval` its 95 % interval, which with several judges holds how they
    differ. `unparsable` comparisons have no verdict and are left out. With several votes or judges
    a comparison counts with its mean; above one half it is a win.
    """
    models = [model_id, baseline]
    judged = {judge: ledger.current(bench, judge, models) for judge in judges}
    outcomes = {judge: outcomes_of(current) for judge, current in judged.items()}
    categories = categories_of(bench)
    values = jury.turn_values(outcomes)
    items = [Item(*p, categories[p], values[p]) for p in bench.places() if p in values]
    shared = summary(bench, models, judged, items, prices)
    rows = all_rows(judged)
    noise = jury.noise(outcomes)
    result = PairFile(
        **shared,
        baseline=baseline,
        win=sum(item.value > 0.5 for item in items),
        tie=sum(item.value == 0.5 for item in items),
        loss=sum(item.value < 0.5 for item in items),
        noise=noise,
        interval=jury.win_rate_interval(items, noise, judges=len(judged)),
        length_controlled=length_controlled(bench, models, items, outcomes),
        position_consistency=position_consistency(rows),
        first_position=first_position(rows),
        answer_length=length.summary(bench, model_id),
        baseline_length=length.summary(bench, baseline),
        judges=jury.summaries(outcomes, categories),
    )
    result["page"] = page.of_pairs(bench, models, judged)
    return result


def outcomes_of(current: Current) -> Ratings:
    """The outcomes of the votes at each place that has any."""
    found: Ratings = {}
    for place, votes in current.judged.items():
        for row in votes:
            value = None if "model" in row else pair_outcome(row)
            if value is not None:
                found.setdefault(place, []).append(value)
    return found


def decided(rows: Sequence[AnyJudgment]) -> list[PairJudgment]:
    """The comparisons that have a verdict in both orders."""
    return [row for row in rows if "model" not in row and pair_outcome(row) is not None]


def position_consistency(rows: Sequence[AnyJudgment]) -> float | None:
    """Share of comparisons whose verdict is the same in both orders."""
    verdicts = [float(row["g1_winner"] == row["g2_winner"]) for row in decided(rows)]
    return average(verdicts) if verdicts else None


def first_position(rows: Sequence[AnyJudgment]) -> float | None:
    """Of the comparisons that name a winner in both orders but not the same one: share of `A`.

    One half where a judge is merely unsure; near 1 where it prefers what it reads first.
    """
    first = []
    for row in decided(rows):
        winners = (row["g1_winner"], row["g2_winner"])
        if "tie" not in winners and winners[0] != winners[1]:
            first.append(float(winners == ("model_1", "model_2")))
    return average(first) if first else None


def length_controlled(
    bench: Bench, models: Sequence[str], items: Sequence[Item], outcomes: Mapping[str, Ratings]
) -> dict[str, float] | None:
    """The win rate at equal length, its interval, and what length adds on the logit scale."""
    ours, theirs = (length.lengths(bench, model) for model in models)
    longer = {place: ours[place] - theirs[place] for place in ours.keys() & theirs.keys()}
    by_judge = [comparisons_of(values_of(found), longer) for found in outcomes.values()]
    values = {(item.question, item.turn): item.value for item in items}
    found = length.controlled(comparisons_of(values, longer), by_judge)
    return dict(found._asdict()) if found else None


def values_of(ratings: Ratings) -> dict[Place, float]:
    """One judge's mean over its votes at each place."""
    return {place: average(votes) for place, votes in ratings.items()}


def comparisons_of(
    values: Mapping[Place, float], longer: Mapping[Place, float]
) -> list[Comparison]:
    """The comparisons of answers whose lengths are known."""
    found = []
    for place, value in values.items():
        if place in longer:
            found.append(Comparison(place[0], value, longer[place]))
    return found
