"""Stage `score`: FastChat's averages, with errors by question and nothing missing hidden."""

from collections import Counter
from collections.abc import Mapping, Sequence

from mtbench_runner import jury, ledger, length, page
from mtbench_runner.bench import Bench, turns_of
from mtbench_runner.jury import Ratings
from mtbench_runner.ledger import Current
from mtbench_runner.ratings import out_of_range, strict_summary
from mtbench_runner.rows import (
    AnyJudgment,
    Choice,
    Counts,
    Judgment,
    Place,
    QuestionId,
    ScoreFile,
    StandardErrors,
    Summary,
)
from mtbench_runner.spending import Prices, total
from mtbench_runner.statistics import Item, average, by_turn, clustered_stderr, grouped, mean

STAND_IN = "stand-in-judge"
SUCCESS = 7  # the score from which a turn counts as a success
Jury = Mapping[str, Current]  # judge -> its judgments that count


def score(
    bench: Bench,
    model_id: str,
    judges: Sequence[str],
    strict: bool = False,
    prices: Prices | None = None,
) -> ScoreFile:
    """Scores of one model on the 1 to 10 scale. Raises InputError when a judge has nothing of it.

    With one judge and one vote means are FastChat's: over all judged turns that have a rating; a
    turn with several votes and judges counts with its mean. Standard errors take the turns of a
    question as one cluster. `missing` counts judgments of present answers that are not there,
    `unparsable` judgments without a rating.
    """
    judged = jury_of(bench, judges, [model_id])
    ratings = {judge: ratings_of(bench, current) for judge, current in judged.items()}
    categories = bench.categories()
    items = jury.items_of(jury.turn_values(ratings), categories)
    shared = summary(bench, [model_id], judged, items, prices)
    first = first_votes(judged[judges[0]])
    noise = jury.noise(ratings)
    result = ScoreFile(
        **shared,  # type: ignore[typeddict-item]  # `strict` is not required
        success_rate=success_rate(items),
        known_wrong_references=known_wrong(bench, first),
        partly_judged=partly_judged(items, ratings),
        per_question=grouped(items, "question", by_turn),
        judges=jury.summaries(ratings, categories),
        noise=noise,
        interval=jury.interval(items, noise, judges=len(judged)),
        answer_length=length.summary(bench, model_id),
        counts=counts(bench, model_id, judged),
    )
    if strict:
        result["strict"] = strict_summary(first, categories)
    result["page"] = page.of_scores(bench, model_id, judged)
    return result


def jury_of(bench: Bench, judges: Sequence[str], models: Sequence[str]) -> Jury:
    """What each judge said of a model, or of two. Raises InputError for one that said nothing."""
    return {judge: ledger.current(bench, judge, models) for judge in judges}


def ratings_of(bench: Bench, current: Current) -> Ratings:
    """The ratings of the votes at each place that has any."""
    found: Ratings = {}
    for place, votes in current.judged.items():
        for row in votes:
            rating = ledger.rating_of(row, bench.rating_pattern) if "model" in row else None
            if rating is not None:
                found.setdefault(place, []).append(rating)
    return found


def first_votes(current: Current) -> dict[Place, Judgment]:
    """The rows that FastChat's file holds: the first vote at each place."""
    found = {}
    for place, votes in current.judged.items():
        row = votes[0]
        if "model" in row:
            found[place] = row
    return found


def success_rate(items: Sequence[Item]) -> float | None:
    """Share of the turns that are scored `SUCCESS` or more."""
    if not items:
        return None
    return average([item.value >= SUCCESS for item in items])


def partly_judged(items: Sequence[Item], ratings: Mapping[str, Ratings]) -> int:
    """How many turns some judges rated and others did not."""
    found = 0
    for item in items:
        place = (item.question, item.turn)
        found += not all(place in of_judge for of_judge in ratings.values())
    return found


def all_rows(judged: Jury) -> list[AnyJudgment]:
    """Every judgment that counts, of every judge and vote."""
    rows = []
    for current in judged.values():
        for votes in current.judged.values():
            rows += votes
    return rows


def known_wrong(bench: Bench, rows: Mapping[Place, Judgment]) -> list[QuestionId]:
    """The questions that were judged by a reference answer that is known to be wrong."""
    wrong = []
    for question in bench.known_wrong:
        row = rows.get((question, 1))
        reference = turns_of(bench.references[question])[0]
        if row is not None and reference in row["user_prompt"]:
            wrong.append(question)
    return wrong


def summary(
    bench: Bench,
    models: Sequence[str],
    judged: Jury,
    items: Sequence[Item],
    prices: Prices | None,
) -> Summary:
    """What single and pairwise results share: counts, cost, means, and their standard errors."""
    rows = all_rows(judged)
    tokens, unknown = total([row.get("usage") for row in rows])
    cost = None
    if prices and not unknown:
        cost = prices.cost(tokens["prompt"], tokens["completion"])
    expected = len(bench.places())
    missing = superseded = 0
    for current in judged.values():
        missing += expected - len(current.judged)
        superseded += current.superseded
    return Summary(
        bench=bench.name,
        model_id=models[0],
        judge=", ".join(judged),
        stand_in=STAND_IN in judged,
        n_questions=len(bench.questions),
        n_expected=expected,
        missing=missing,
        usage=tokens,
        usage_unknown=unknown,
        cost_usd=cost,
        overall=mean(items),
        turns=by_turn(items),
        categories=grouped(items, "category", mean),
        category_turns=grouped(items, "category", by_turn),
        stderr=standard_errors(items),
        unparsable=sum(ledger.unrated(row, bench.rating_pattern) for row in rows),
        superseded=superseded,
        failures=failures(bench, models, judged),
    )


def standard_errors(items: Sequence[Item]) -> StandardErrors:
    """Of the mean of all, of each turn and of each category."""
    return StandardErrors(
        overall=clustered_stderr(items),
        turns=grouped(items, "turn", clustered_stderr),
        categories=grouped(items, "category", clustered_stderr),
    )


def failures(bench: Bench, models: Sequence[str], judged: Jury) -> dict[str, int]:
    """Cause -> how many answers and judgments that are missing will not be had by asking again."""
    causes: Counter[str] = Counter()
    for model in models:
        causes.update(_lost_answers(bench, model).values())
    for judge, current in judged.items():
        causes.update(_lost_judgments(bench, models, judge, current).values())
    return dict(causes)


def _lost_answers(bench: Bench, model: str) -> dict[QuestionId, str]:
    """The causes of a model's missing answers, by question."""
    lost = bench.all_ids - bench.answers(model).keys()
    causes = {}
    for row in ledger.read_failures(bench.answers_file(model)):
        if row["question_id"] in lost:
            causes[row["question_id"]] = row["cause"]
    return causes


def _lost_judgments(
    bench: Bench, models: Sequence[str], judge: str, current: Current
) -> dict[Place, str]:
    """The causes of a judge's missing judgments of these models, by place."""
    path = bench.judgments_file(judge, "single" if len(models) == 1 else "pair")
    causes = {}
    for row in ledger.read_failures(path):
        place = (row["question_id"], row["turn"] or 1)
        if row["models"] == list(models) and place not in current.judged:
            causes[place] = row["cause"]
    return causes


def counts(bench: Bench, model_id: str, judged: Jury) -> Counts:
    """What a person should see beside a score."""
    found = Counts(
        truncated_answers=0,
        thinking_only_answers=0,
        empty_answers=0,
        truncated_judgments=0,
        out_of_range=0,
    )
    asked = {question["question_id"] for question in bench.questions}
    for question, answer in bench.answers(model_id).items():
        if question in asked:
            _count_answer(found, answer["choices"][0])
    for row in all_rows(judged):
        found["truncated_judgments"] += ledger.truncated(row)
        if "model" in row:
            found["out_of_range"] += out_of_range(ledger.rating_of(row, bench.rating_pattern))
    return found


def _count_answer(found: Counts, choice: Choice) -> None:
    """Add what is to be seen of one answer's turns."""
    reasons = choice.get("finish_reasons", [])
    full = choice.get("turns_with_thinking", choice["turns"])
    found["truncated_answers"] += reasons.count("length")
    for said, whole in zip(choice["turns"], full, strict=False):
        if said.strip():
            continue
        if whole.strip():
            found["thinking_only_answers"] += 1
        else:
            found["empty_answers"] += 1
