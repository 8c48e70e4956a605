"""Stage `score`: FastChat's averages, with errors by question and nothing missing hidden."""

from collections import Counter
from collections.abc import Mapping, Sequence

from mtbench_runner import jury, ledger, length, page
from mtbench_runner.bench import Bench
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
from mtbench_runner.statistics import Item, by_turn, clustered_stderr, grouped, mean

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
    judged = {judge: ledger.current(bench, judge, [model_id]) for judge in judges}
    ratings = {judge: ratings_of(bench, current) for judge, current in judged.items()}
    categories = categories_of(bench)
    values = jury.turn_values(ratings)
    items = [Item(*p, categories[p], values[p]) for p in bench.places() if p in values]
    shared = summary(bench, [model_id], judged, items, prices)
    first = first_votes(judged[judges[0]])
    noise = jury.noise(ratings)
    result = ScoreFile(
        **shared,  # type: ignore[typeddict-item]  # `strict` is not required
        success_rate=mean([item._replace(value=item.value >= SUCCESS) for item in items]),
        known_wrong_references=known_wrong(bench, first),
        partly_judged=sum(not all(p in found for found in ratings.values()) for p in values),
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


def categories_of(bench: Bench) -> dict[Place, str]:
    """The category of each place."""
    by_question = {q["question_id"]: q["category"] for q in bench.questions}
    return {place: by_question[place[0]] for place in bench.places()}


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
    """The rows that FastChat's file holds."""
    return {place: row for place, row in current.first.items() if "model" in row}


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
        reference = bench.references[question]["choices"][0]["turns"][0]
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
    judges = list(judged)
    rows = all_rows(judged)
    tokens, unknown = total(row.get("usage") for row in rows)
    cost = prices.cost(tokens["prompt"], tokens["completion"]) if prices and not unknown else None
    expected = len(bench.places())
    missing = sum(expected - len(current.judged) for current in judged.values())
    return Summary(
        bench=bench.name,
        model_id=models[0],
        judge=", ".join(judges),
        stand_in=STAND_IN in judges,
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
        unparsable=sum(is_unrated(bench, row) for row in rows),
        superseded=sum(current.superseded for current in judged.values()),
        failures=failures(bench, models, judged),
    )


def is_unrated(bench: Bench, row: AnyJudgment) -> bool:
    """Whether a judgment has no rating or verdict."""
    return ledger.unrated(row, bench.rating_pattern)


def standard_errors(items: Sequence[Item]) -> StandardErrors:
    return StandardErrors(
        overall=clustered_stderr(items),
        turns=grouped(items, "turn", clustered_stderr),
        categories=grouped(items, "category", clustered_stderr),
    )


def failures(bench: Bench, models: Sequence[str], judged: Jury) -> dict[str, int]:
    """Cause -> how many answers and judgments that are missing will not be had by asking again."""
    causes: dict[tuple[str, str, int | None], str] = {}
    for model in models:
        answered = bench.answers(model)
        for row in ledger.read_failures(bench.answers_file(model)):
            if row["question_id"] in bench.all_ids - answered.keys():
                causes[model, str(row["question_id"]), None] = row["cause"]
    for judge, current in judged.items():
        path = bench.judgments_file(judge, "single" if len(models) == 1 else "pair")
        for row in ledger.read_failures(path):
            turn = row["turn"] or 1
            if row["models"] == list(models) and (row["question_id"], turn) not in current.judged:
                causes[judge, str(row["question_id"]), turn] = row["cause"]
    return dict(Counter(causes.values()))


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
    reasons = choice.get("finish_reasons", [])
    full = choice.get("turns_with_thinking", choice["turns"])
    found["truncated_answers"] += reasons.count("length")
    for said, whole in zip(choice["turns"], full, strict=False):
        if not said.strip():
            thought = bool(whole.strip())
            found["thinking_only_answers" if thought else "empty_answers"] += 1
