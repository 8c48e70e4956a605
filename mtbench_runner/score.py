"""Stage `score`: FastChat's averages and win rates, with errors by question and nothing missing hidden."""

import re
from collections.abc import Callable
from itertools import groupby
from math import sqrt
from operator import attrgetter
from typing import Any, NamedTuple

from mtbench_runner import store
from mtbench_runner.bench import Bench
from mtbench_runner.store import InputError, Row

STAND_IN = "stand-in-judge"
SUCCESS = 7  # the score from which a turn counts as a success
UNPARSABLE = -1  # FastChat's score for a judgment without a rating
RATING = re.compile(r"\[\[(\d+\.?\d*)(?:\s*/\s*10)?\]\]")
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
MATRIX = re.compile(r"\[\[\s*-?\d[\d.]*\s*,|\]\s*,\s*\[")
Judged = dict[tuple[int, int], Row]  # (question id, turn) -> judgment
Prices = tuple[float, float]  # US dollars for a million prompt tokens, completion tokens


class Item(NamedTuple):
    question: int
    turn: int
    category: str
    value: float


def score(
    bench: Bench, model_id: str, judge: str, strict: bool = False, prices: Prices | None = None
) -> Row:
    """Scores of one model on the 1 to 10 scale. Raises InputError when nothing of it was judged.

    Means are FastChat's: over all judged turns that have a rating. Standard errors take the turns of a question as one
    cluster. `missing` counts turns whose present answer is not judged, `unparsable` judgments without a rating.
    """
    rows = current_rows(bench, judge, model_id)
    items = _items(
        bench, rows, lambda row: None if row["score"] == UNPARSABLE else float(row["score"])
    )
    shown = {question: row["user_prompt"] for (question, turn), row in rows.items() if turn == 1}
    wrong = [
        q
        for q in bench.known_wrong
        if bench.references[q]["choices"][0]["turns"][0] in shown.get(q, "")
    ]
    result = _summary(bench, model_id, judge, rows, items, prices) | {
        "success_rate": mean([item._replace(value=item.value >= SUCCESS) for item in items]),
        "unparsable": len(rows) - len(items),
        "known_wrong_references": wrong,
        "per_question": _grouped(items, "question", _by_turn),
    }
    return result | ({"strict": _strict(bench, rows, result["overall"])} if strict else {})


def compare_pairs(
    bench: Bench, model_id: str, baseline: str, judge: str, prices: Prices | None = None
) -> Row:
    """How often the model beats the baseline, by FastChat's rule: a win or loss counts if it holds in both orders.

    `overall` is the win rate with a tie as half a win; its 95 % interval is Wilson's, with the number of independent
    comparisons that the spread between questions implies. `unparsable` comparisons have no verdict and are left out.
    """
    rows = current_rows(bench, judge, model_id, baseline)
    items = _items(bench, rows, _outcome)
    verdicts = [item.value for item in items]
    counts = {"win": verdicts.count(1), "tie": verdicts.count(0.5), "loss": verdicts.count(0)}
    result = _summary(bench, model_id, judge, rows, items, prices) | counts
    return result | {
        "baseline": baseline,
        "interval": wilson(items),
        "unparsable": len(rows) - len(items),
    }


def _outcome(row: Row) -> float | None:
    first, second = row["g1_winner"], row["g2_winner"]
    if "error" in (first, second):
        return None
    return 0.5 if first == "tie" or first != second else float(first == "model_1")


def current_rows(bench: Bench, judge: str, model_id: str, baseline: str | None = None) -> Judged:
    """The newest judgment of each turn, of the answers that the models have now. Raises InputError if there is none."""
    path = bench.judgments_file(judge, "pair" if baseline else "single")
    models = [model_id, baseline] if baseline else [model_id]
    answers = [bench.answers(name) for name in models]
    ids = {q["question_id"] for q in bench.questions}
    own = [r for r in store.read(path) if r["question_id"] in ids and models_of(r) == models]
    if not own:
        raise InputError(f"{path} has no judgments of {' against '.join(models)}; judge first")

    def stale(row: Row) -> bool:
        seen = [given.get(row["question_id"]) for given in answers]
        return (
            "answer_sha256" in row
            and None not in seen
            and row["answer_sha256"] != answer_sha256(seen, row["turn"])
        )

    return {(r["question_id"], r["turn"]): r for r in own if not stale(r)}


def models_of(row: Row) -> list[str]:
    """The model that a judgment is about, or the two that it compares."""
    return [row["model"]] if "model" in row else [row["model_1"], row["model_2"]]


def answer_sha256(answers: list[Any], turn: int) -> str:
    """A hash of the turns that a judgment saw, so that a score can tell when an answer has changed since."""
    return store.digest([a["choices"][0]["turns"][:turn] for a in answers])


def _items(bench: Bench, rows: Judged, value: Callable[[Row], float | None]) -> list[Item]:
    categories = {q["question_id"]: q["category"] for q in bench.questions}
    values = [(qid, turn, value(row)) for (qid, turn), row in rows.items()]
    return sorted(Item(qid, turn, categories[qid], v) for qid, turn, v in values if v is not None)


def _summary(
    bench: Bench, model_id: str, judge: str, rows: Judged, items: list[Item], prices: Prices | None
) -> Row:
    """What single and pairwise results share: counts, cost, means, and standard errors of the first three of these."""
    expected = sum(len(q["turns"]) for q in bench.questions)
    tokens = {
        kind: sum(r.get("usage", {}).get(kind, 0) for r in rows.values())
        for kind in ("prompt", "completion")
    }
    cost = (
        (tokens["prompt"] * prices[0] + tokens["completion"] * prices[1]) / 1e6 if prices else None
    )
    head = {
        "bench": bench.name,
        "model_id": model_id,
        "judge": judge,
        "stand_in": judge == STAND_IN,
    }
    counts = {
        "n_questions": len(bench.questions),
        "n_expected": expected,
        "missing": expected - len(rows),
    }
    means = {
        "overall": mean(items),
        "turns": _by_turn(items),
        "categories": _grouped(items, "category", mean),
    }
    errors = {
        "overall": clustered_stderr(items),
        "turns": _grouped(items, "turn", clustered_stderr),
        "categories": _grouped(items, "category", clustered_stderr),
    }
    shared = head | counts | {"usage": tokens, "cost_usd": cost} | means
    return shared | {"category_turns": _grouped(items, "category", _by_turn), "stderr": errors}


def _grouped(
    items: list[Item], field: str, statistic: Callable[[list[Item]], Any]
) -> dict[str, Any]:
    key = attrgetter(field)
    return {
        str(name): statistic(list(group)) for name, group in groupby(sorted(items, key=key), key)
    }


def _by_turn(items: list[Item]) -> dict[str, Any]:
    return _grouped(items, "turn", mean)


def mean(items: list[Item]) -> float | None:
    return sum(item.value for item in items) / len(items) if items else None


def clustered_stderr(items: list[Item]) -> float | None:
    """Standard error of the mean, questions as clusters, G / (G - 1) corrected; None below two questions."""
    centre = mean(items) or 0.0
    sums = _grouped(
        items, "question", lambda turns: sum(item.value - centre for item in turns)
    ).values()
    if len(sums) < 2:
        return None
    return sqrt(len(sums) / (len(sums) - 1) * sum(s * s for s in sums)) / len(items)


def wilson(items: list[Item], z: float = 1.959964) -> list[float] | None:
    """Wilson's interval of a rate for clustered values: with n such that the binomial error is the clustered one."""
    rate, error = mean(items), clustered_stderr(items)
    if rate is None or error is None:
        return None
    n = (
        rate * (1 - rate) / error**2
        if error and 0 < rate < 1
        else len({item.question for item in items})
    )
    middle, spread = rate + z * z / (2 * n), z * sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    return [(middle - spread) / (1 + z * z / n), (middle + spread) / (1 + z * z / n)]


def strict_rating(judgment: str) -> tuple[float | None, list[str]]:
    """The last rating from 1 to 10 outside code, and what makes FastChat's own reading (the first [[n]]) doubtful.

    quoted: brackets in code or in a matrix, or no [[n]] at all but an [n]; range: a rating outside 1 to 10;
    disagree: the first and the last rating differ.
    """
    ratings = [float(number) for number in RATING.findall(CODE.sub("", judgment))]
    valid = [rating for rating in ratings if 1 <= rating <= 10]
    in_code = len(RATING.findall(judgment)) > len(ratings)
    flags = {
        "quoted": in_code
        or MATRIX.search(judgment)
        or (not ratings and re.search(r"\[\d+\.?\d*\]", judgment)),
        "range": len(valid) < len(ratings),
        "disagree": ratings and ratings[0] != ratings[-1],
    }
    return (valid[-1] if valid else None), [name for name, raised in flags.items() if raised]


def _strict(bench: Bench, rows: Judged, overall: float | None) -> Row:
    """What strict reading would change: its mean, the difference to FastChat's, and the flagged questions and turns."""
    found = mean(_items(bench, rows, lambda row: strict_rating(row["judgment"])[0]))
    change = None if found is None or overall is None else found - overall
    flags = {place: strict_rating(row["judgment"])[1] for place, row in sorted(rows.items())}
    flagged = {
        flag: [place for place in flags if flag in flags[place]]
        for flag in ("quoted", "range", "disagree")
    }
    return {"overall": found, "change": change, "flagged": flagged}
