"""Win rates of a model against a baseline, raw and at equal length, by FastChat's rule."""

from collections.abc import Mapping, Sequence

from mtbench_runner import jury, length, page
from mtbench_runner.bench import Bench
from mtbench_runner.jury import Ratings, means_of_votes
from mtbench_runner.ledger import Current
from mtbench_runner.length import Comparison
from mtbench_runner.ratings import pair_outcome
from mtbench_runner.rows import AnyJudgment, PairFile, PairJudgment, Place
from mtbench_runner.score import all_rows, jury_of, summary
from mtbench_runner.spending import Prices
from mtbench_runner.statistics import Item, average


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
    judged = jury_of(bench, judges, models)
    outcomes = {judge: outcomes_of(current) for judge, current in judged.items()}
    categories = bench.categories()
    values = jury.turn_values(outcomes)
    items = jury.items_of(values, categories)
    shared = summary(bench, models, judged, items, prices)
    win, tie, loss = wins_ties_losses(items)
    both_orders = decided(all_rows(judged))
    noise = jury.noise(outcomes)
    result = PairFile(
        **shared,
        baseline=baseline,
        win=win,
        tie=tie,
        loss=loss,
        noise=noise,
        interval=jury.win_rate_interval(items, noise, judges=len(judged)),
        length_controlled=length_controlled(bench, models, values, outcomes),
        position_consistency=position_consistency(both_orders),
        first_position=first_position(both_orders),
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
    found = []
    for row in rows:
        if "model" not in row and pair_outcome(row) is not None:
            found.append(row)
    return found


def wins_ties_losses(items: Sequence[Item]) -> tuple[int, int, int]:
    """How many comparisons the model won, tied and lost on the mean of their votes."""
    win = tie = loss = 0
    for item in items:
        win += item.value > 0.5
        tie += item.value == 0.5
        loss += item.value < 0.5
    return win, tie, loss


def position_consistency(rows: Sequence[PairJudgment]) -> float | None:
    """Share of decided comparisons whose verdict is the same in both orders."""
    same = [row["g1_winner"] == row["g2_winner"] for row in rows]
    return average(same) if same else None


def first_position(rows: Sequence[PairJudgment]) -> float | None:
    """Of the comparisons that name a winner in both orders but not the same one: share of `A`.

    One half where a judge is merely unsure; near 1 where it prefers what it reads first.
    """
    first = []
    for row in rows:
        winners = (row["g1_winner"], row["g2_winner"])
        if "tie" not in winners and winners[0] != winners[1]:
            first.append(winners == ("model_1", "model_2"))
    return average(first) if first else None


def length_controlled(
    bench: Bench,
    models: Sequence[str],
    values: Mapping[Place, float],
    outcomes: Mapping[str, Ratings],
) -> dict[str, float] | None:
    """The win rate at equal length, its interval, and what length adds on the logit scale."""
    longer = longer_by(bench, models)
    by_judge = []
    for of_judge in outcomes.values():
        by_judge.append(comparisons_of(means_of_votes(of_judge), longer))
    found = length.controlled(comparisons_of(values, longer), by_judge)
    return dict(found._asdict()) if found else None


def longer_by(bench: Bench, models: Sequence[str]) -> dict[Place, int]:
    """By how many characters the first model's answer is longer, where both have one."""
    first, second = models
    ours = length.lengths(bench, first)
    theirs = length.lengths(bench, second)
    found = {}
    for place, characters in ours.items():
        if place in theirs:
            found[place] = characters - theirs[place]
    return found


def comparisons_of(
    values: Mapping[Place, float], longer: Mapping[Place, float]
) -> list[Comparison]:
    """The comparisons of answers whose lengths are known."""
    found = []
    for place, difference in longer.items():
        if place in values:
            question, _ = place
            found.append(Comparison(question, values[place], difference))
    return found
