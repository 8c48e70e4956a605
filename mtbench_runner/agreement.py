"""Stage `agreement`: do two judges say the same of the same answers?

A judge is named, or given as a file of judgments: FastChat's single or pair files, or votes in the
shape of FastChat's human judgments (question_id, model_a, model_b, winner, judge, turn). Ratings
are compared one by one; agreement is FastChat's (`compute_agreement`): the share of pairs of votes
on the same two answers that name the same winner, with ties and without. Ratings become votes as
FastChat's pairs of single ratings do: within 0.1 of each other is a tie.
"""

import json
from collections.abc import Iterable, Sequence
from itertools import combinations, product
from pathlib import Path
from typing import Any, NamedTuple, TypedDict, cast

from mtbench_runner import ledger, store
from mtbench_runner.bench import Bench
from mtbench_runner.jury import Ratings, means_of_votes
from mtbench_runner.rows import AnyJudgment, HumanVote, Judgment, PairJudgment
from mtbench_runner.score import ratings_of
from mtbench_runner.shapes import fault
from mtbench_runner.show import number
from mtbench_runner.statistics import (
    Item,
    average,
    clustered_stderr,
    mean,
    squared_deviations,
)
from mtbench_runner.store import InputError

TIE_DELTA = 0.1  # FastChat's
CLOSE = 1.0  # ratings that differ by no more count as near
REVERSED = {"model_a": "model_b", "model_b": "model_a"}
PairKey = tuple[str, str, str]  # question, model_a, model_b, the names in order
Votes = dict[int, dict[PairKey, list[str]]]  # turn -> what was compared -> model_a, model_b, tie


class Opinions(NamedTuple):
    """What a judge said: ratings by model, and votes between models."""

    name: str
    ratings: dict[str, Ratings]
    votes: Votes


class Agreed(TypedDict):
    """Pairs of votes, and the share of them that name the same winner."""

    total: int
    ratio: float | None


class Compared(TypedDict):
    """Two judges' ratings of the same answers."""

    n: int
    n_first: int  # that the first judge rated, whether the second did or not
    n_second: int
    spearman: float | None
    mean_first: float | None
    mean_second: float | None
    difference: float | None  # second minus first, its clustered standard error below
    difference_stderr: float | None
    absolute_difference: float | None
    near: float | None  # share within one point
    models: dict[str, tuple[float, float]]  # means by the first and the second


class AgreementFile(TypedDict):
    """What `agreement --json` writes."""

    bench: str
    first: str
    second: str
    ratings: Compared | None
    votes: dict[str, dict[str, Agreed]]  # turn -> with ties, without ties


def compare(bench: Bench, first: str, second: str, model_id: str | None = None) -> AgreementFile:
    """Compare two judges on the answers that both judged. Raises InputError if there are none."""
    a = opinions(bench, first, model_id)
    b = opinions(bench, second, model_id)
    ratings = compare_ratings(bench, a, b)
    votes = compare_votes(a.votes, b.votes, same=first == second)
    if ratings is None and not votes:
        raise InputError(f"{first} and {second} have judged nothing in common in {bench.name}")
    return AgreementFile(
        bench=bench.name,
        first=a.name,
        second=b.name,
        ratings=ratings,
        votes=votes,
    )


# --- reading


def opinions(bench: Bench, judge: str, model_id: str | None = None) -> Opinions:
    """All that a judge said of the bench's answers. Raises InputError if it said nothing."""
    name, rows = said_by(bench, judge)
    paired = [row for row in rows if "model_1" in row]
    of_people = [row for row in rows if "model_a" in row]
    ratings = ratings_by_model(bench, single_ratings(rows, model_id))
    votes = votes_from_ratings(ratings)
    add_votes(votes, votes_from_pairs(bench, cast(list[AnyJudgment], paired)))
    add_votes(votes, votes_from_people(of_people))
    return Opinions(name, ratings, votes)


def single_ratings(rows: Iterable[dict[str, Any]], model_id: str | None) -> list[AnyJudgment]:
    """The rows that rate one answer, of one model or (None) of all."""
    found = []
    for row in rows:
        if "score" in row and "model" in row and model_id in (None, row["model"]):
            found.append(row)
    return cast(list[AnyJudgment], found)


def said_by(bench: Bench, judge: str) -> tuple[str, list[dict[str, Any]]]:
    """The name of a judge and its judgments, of a file or of the bench. Raises InputError."""
    name, rows = judge, []
    if store.is_there(judge) and Path(judge).is_file():
        name, rows = Path(judge).name, read_any(Path(judge))
    else:
        for mode, paired in (("single", False), ("pair", True)):
            path = bench.judgments_file(judge, mode)
            found = ledger.read_with_votes(path, paired)
            rows += cast(list[dict[str, Any]], found)
    if not rows:
        where = bench.judgments_file(judge)
        raise InputError(f"no judgments of {judge}: no file of that name, and none at {where}")
    return name, rows


def read_any(path: Path) -> list[dict[str, Any]]:
    """Rows of a JSON-lines file, or of a JSON array as FastChat's compute_agreement reads.

    Raises InputError for one that is neither rating, comparison nor vote.
    """
    content = path.read_bytes()
    try:
        is_array = content.lstrip().startswith(b"[")
        rows = json.loads(content) if is_array else store.read(path)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
    for place, row in enumerate(rows, 1):
        kind = HumanVote
        if isinstance(row, dict) and "model_a" not in row:
            kind = PairJudgment if "model_1" in row else Judgment  # type: ignore[assignment]
        found = fault(row, kind)
        if found is not None:
            raise InputError(f"{path}, row {place}{found}")
    return list(rows)


def ratings_by_model(bench: Bench, rows: Sequence[AnyJudgment]) -> dict[str, Ratings]:
    """Model -> the ratings of its present answers, all votes."""
    models = {ledger.models_of(row)[0] for row in rows}
    found = {}
    for model in sorted(models):
        own = ledger.rows_of(rows, [model], bench)
        current = ledger.choose(own, bench.answers_of([model]), bench)
        ratings = ratings_of(bench, current)
        if ratings:
            found[model] = ratings
    return found


def votes_from_ratings(ratings: dict[str, Ratings]) -> Votes:
    """For every two models a vote on each turn that both were rated on."""
    votes: Votes = {}
    for one, other in combinations(sorted(ratings), 2):
        first = means_of_votes(ratings[one])
        second = means_of_votes(ratings[other])
        for place in first.keys() & second.keys():
            question, turn = place
            winner = better(first[place], second[place])
            votes.setdefault(turn, {})[str(question), one, other] = [winner]
    return votes


def better(first: float, second: float) -> str:
    """The winner of two ratings, as a vote names it."""
    difference = first - second
    if abs(difference) <= TIE_DELTA:
        return "tie"
    return "model_a" if difference > 0 else "model_b"


def votes_from_pairs(bench: Bench, rows: Sequence[AnyJudgment]) -> Votes:
    """FastChat's reading of a comparison in two orders: a winner of both, else a tie."""
    votes: Votes = {}
    compared = {tuple(sorted(ledger.models_of(row))) for row in rows}
    for models in sorted(compared):
        own = ledger.rows_of(rows, models, bench)
        current = ledger.choose(own, bench.answers_of(models), bench)
        for (question, turn), judged in current.judged.items():
            key = cast(PairKey, (str(question), *models))
            votes.setdefault(turn, {})[key] = _winners(judged)
    return votes


def _winners(rows: Iterable[AnyJudgment]) -> list[str]:
    """The winners of those comparisons that have a verdict."""
    found = []
    for row in rows:
        winner = _winner(row)
        if winner is not None:
            found.append(winner)
    return found


def _winner(row: AnyJudgment) -> str | None:
    """The winner of a comparison as a vote names it."""
    if "model" in row or ledger.unrated(row):
        return None
    if row["g1_winner"] != row["g2_winner"]:
        return "tie"
    return {"model_1": "model_a", "model_2": "model_b"}.get(row["g1_winner"], "tie")


def votes_from_people(rows: Iterable[dict[str, Any]]) -> Votes:
    """Votes in the shape of FastChat's human judgments."""
    votes: Votes = {}
    for row in rows:
        winner = "tie" if "tie" in row["winner"] else row["winner"]
        one, other = row["model_a"], row["model_b"]
        if one > other:
            one, other, winner = other, one, REVERSED.get(winner, winner)
        key = (str(row["question_id"]), one, other)
        votes.setdefault(row["turn"], {}).setdefault(key, []).append(winner)
    return votes


def add_votes(votes: Votes, more: Votes) -> None:
    """Add more votes to votes, in place."""
    for turn, pairs in more.items():
        for key, said in pairs.items():
            votes.setdefault(turn, {}).setdefault(key, []).extend(said)


# --- comparing


def compare_ratings(bench: Bench, a: Opinions, b: Opinions) -> Compared | None:
    """Ratings of the same turns of the same models, each the mean of a judge's votes."""
    categories = bench.categories()
    first: list[float] = []
    second: list[float] = []
    differences: list[Item] = []
    models: dict[str, tuple[float, float]] = {}
    for model in sorted(a.ratings.keys() & b.ratings.keys()):
        by_a = means_of_votes(a.ratings[model])
        by_b = means_of_votes(b.ratings[model])
        ours: list[float] = []
        theirs: list[float] = []
        for place, category in categories.items():
            if place in by_a and place in by_b:
                ours.append(by_a[place])
                theirs.append(by_b[place])
                differences.append(Item(*place, category, by_b[place] - by_a[place]))
        if ours:
            models[model] = (average(ours), average(theirs))
        first += ours
        second += theirs
    if not differences:
        return None
    absolute = [abs(item.value) for item in differences]
    near = [value <= CLOSE for value in absolute]
    return Compared(
        n=len(differences),
        n_first=number_of_ratings(a, models),
        n_second=number_of_ratings(b, models),
        spearman=spearman(first, second),
        mean_first=average(first),
        mean_second=average(second),
        difference=mean(differences),
        difference_stderr=clustered_stderr(differences),
        absolute_difference=average(absolute),
        near=average(near),
        models=models,
    )


def number_of_ratings(judge: Opinions, models: Iterable[str]) -> int:
    """How many turns of these models a judge rated."""
    return sum(len(judge.ratings[model]) for model in models)


def spearman(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman's rank correlation, ties with their mean rank; None where one does not vary."""
    return pearson(ranks(first), ranks(second))


def ranks(values: Sequence[float]) -> list[float]:
    """Ranks from 1, equal values with the mean of theirs."""
    places: dict[float, list[int]] = {}
    for rank, value in enumerate(sorted(values), 1):
        places.setdefault(value, []).append(rank)
    return [average(places[value]) for value in values]


def pearson(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Pearson's correlation; None below two values, or where one does not vary."""
    if len(first) < 2:
        return None
    centre, other_centre = average(first), average(second)
    squares = squared_deviations(first, centre)
    other_squares = squared_deviations(second, other_centre)
    if not squares or not other_squares:
        return None
    products = []
    for value, other in zip(first, second, strict=True):
        products.append((value - centre) * (other - other_centre))
    return float(sum(products) / (squares * other_squares) ** 0.5)


def compare_votes(a: Votes, b: Votes, same: bool = False) -> dict[str, dict[str, Agreed]]:
    """By turn the agreement with ties and without; of one file with itself, vote against vote."""
    found = {}
    for turn in sorted(a.keys() & b.keys()):
        with_ties = agreed(a[turn], b[turn], same, without_ties=False)
        if with_ties["total"]:
            without = agreed(a[turn], b[turn], same, without_ties=True)
            found[str(turn)] = {"with ties": with_ties, "without ties": without}
    return found


def agreed(
    a: dict[PairKey, list[str]], b: dict[PairKey, list[str]], same: bool, without_ties: bool
) -> Agreed:
    """How often a vote of `a` and one of `b` on the same two answers name the same winner."""
    total = equal = 0
    for key in a.keys() & b.keys():
        for one, other in pairs_of_votes(a[key], b[key], same):
            if without_ties and "tie" in (one, other):
                continue
            total += 1
            equal += one == other
    return Agreed(total=total, ratio=equal / total if total else None)


def pairs_of_votes(a: list[str], b: list[str], same: bool) -> list[tuple[str, str]]:
    """Every vote of `a` with every one of `b`; of the same votes each two of them once."""
    if same:
        return list(combinations(a, 2))
    return list(product(a, b))


# --- showing


def table(result: AgreementFile) -> str:
    """The comparison as Markdown."""
    lines = [f"{result['bench']}: {result['second']} against {result['first']}"]
    if ratings := result["ratings"]:
        lines += _rating_lines(ratings)
    if result["votes"]:
        lines += ["", "| agreement | with ties | n | without ties | n |", "|---|---|---|---|---|"]
    for turn, agreement in result["votes"].items():
        with_ties = _agreed_cells(agreement["with ties"])
        without_ties = _agreed_cells(agreement["without ties"])
        lines.append(f"| turn {turn} | {with_ties} | {without_ties} |")
    return "\n".join(lines)


def _agreed_cells(found: Agreed) -> str:
    """The share of votes that agree, and of how many."""
    ratio = "-" if found["ratio"] is None else f"{found['ratio']:.1%}"
    return f"{ratio} | {found['total']}"


def _rating_lines(ratings: Compared) -> list[str]:
    """How the two judges' ratings lie to each other, and the mean of each model by both."""
    difference = f"{ratings['difference']:+.2f}"
    error = ratings["difference_stderr"]
    if error is not None:
        difference += f" ± {error:.2f}"
    lines = [
        "",
        "| turns rated by both | Spearman | mean difference | mean absolute | within one point |",
        "|---|---|---|---|---|",
        f"| {ratings['n']} (of {ratings['n_first']} and {ratings['n_second']}) "
        f"| {number(ratings['spearman'])} | {difference} "
        f"| {ratings['absolute_difference']:.2f} | {ratings['near']:.1%} |",
        "",
        "| model | first judge | second judge |",
        "|---|---|---|",
    ]
    for model, (first, second) in ratings["models"].items():
        lines.append(f"| {model} | {first:.2f} | {second:.2f} |")
    return lines
