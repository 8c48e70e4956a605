"""Stage `score`: FastChat's averages and win rates, with errors by question and nothing missing hidden."""

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from math import sqrt
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
Judged = dict[tuple[int, int], Row]


class Item(NamedTuple):
    question: int
    turn: int
    category: str
    value: float


def score(
    bench: Bench, model_id: str, judge: str, strict: bool = False, prices: tuple[float, float] | None = None
) -> Row:
    """Scores of one model on the 1 to 10 scale. Raises InputError when nothing of it was judged.

    Means are FastChat's: over all judged turns that have a rating. Standard errors take the turns of a question as one
    cluster. `missing` counts turns whose present answer is not judged, `unparsable` judgments without a rating.
    `prices`: US dollars for a million prompt and completion tokens.
    """
    rows = current_rows(bench, judge, model_id)
    items = _items(bench, rows, lambda row: None if row["score"] == UNPARSABLE else float(row["score"]))
    result = (
        _head(bench, model_id, judge, rows, prices)
        | _by_part(items)
        | {
            "success_rate": mean([i._replace(value=i.value >= SUCCESS) for i in items]),
            "unparsable": len(rows) - len(items),
            "known_wrong_references": [q for q in bench.known_wrong if _saw_reference(bench, rows.get((q, 1)), q)],
            "per_question": per_question(items),
        }
    )
    return result | ({"strict": strict_report(bench, rows, result["overall"])} if strict else {})


def compare_pairs(
    bench: Bench, model_id: str, baseline: str, judge: str, prices: tuple[float, float] | None = None
) -> Row:
    """How often the model beats the baseline, by FastChat's rule: a win counts if it holds in both orders.

    `win_rate` counts a tie as half a win; its 95 % interval is Wilson's with the number of independent comparisons
    that the spread between questions implies. `unparsable` counts comparisons without a verdict, which are left out.
    """
    rows = current_rows(bench, judge, model_id, baseline)
    items = _items(bench, rows, _outcome)
    counts = {name: sum(i.value == value for i in items) for name, value in (("win", 1.0), ("tie", 0.5), ("loss", 0.0))}
    parts = _by_part(items)
    return (
        _head(bench, model_id, judge, rows, prices)
        | counts
        | {
            "baseline": baseline,
            "win_rate": parts["overall"],
            "interval": wilson(items),
            "turns": parts["turns"],
            "categories": parts["categories"],
            "unparsable": len(rows) - len(items),
        }
    )


def _outcome(row: Row) -> float | None:
    verdicts = (row["g1_winner"], row["g2_winner"])
    if "error" in verdicts:
        return None
    return 0.5 if verdicts[0] == "tie" or verdicts[0] != verdicts[1] else float(verdicts[0] == "model_1")


def current_rows(bench: Bench, judge: str, model_id: str, baseline: str | None = None) -> Judged:
    """(question id, turn) -> the newest judgment of the answers that the models have now."""
    path = bench.judgments_file(judge, "pair" if baseline else "single")
    models = [model_id, baseline] if baseline else [model_id]
    answers = [bench.answers(name) if bench.answers_file(name).exists() else {} for name in models]
    ids = {q["question_id"] for q in bench.questions}
    own = [r for r in store.read(path) if r["question_id"] in ids and _about(r) == models]
    if not own:
        raise InputError(f"{path} has no judgments of {' against '.join(models)}; judge first")

    def stale(row: Row) -> bool:
        seen = [given.get(row["question_id"]) for given in answers]
        return "answer_sha256" in row and None not in seen and row["answer_sha256"] != answer_sha256(seen, row["turn"])

    return {(r["question_id"], r["turn"]): r for r in own if not stale(r)}


def _about(row: Row) -> list[str]:
    return [row["model"]] if "model" in row else [row["model_1"], row["model_2"]]


def answer_sha256(answers: list[Any], turn: int) -> str:
    """A hash of the turns that a judgment saw, so that a score can tell when an answer has changed since."""
    return hashlib.sha256(json.dumps([a["choices"][0]["turns"][:turn] for a in answers]).encode()).hexdigest()


def _items(bench: Bench, rows: Judged, value: Callable[[Row], float | None]) -> list[Item]:
    categories = {q["question_id"]: q["category"] for q in bench.questions}
    values = [(qid, turn, value(row)) for (qid, turn), row in rows.items()]
    return sorted(Item(qid, turn, categories[qid], v) for qid, turn, v in values if v is not None)


def _head(bench: Bench, model_id: str, judge: str, rows: Judged, prices: tuple[float, float] | None) -> Row:
    expected = sum(len(q["turns"]) for q in bench.questions)
    usage = {kind: sum(r.get("usage", {}).get(kind, 0) for r in rows.values()) for kind in ("prompt", "completion")}
    return {
        "bench": bench.name,
        "model_id": model_id,
        "judge": judge,
        "stand_in": judge == STAND_IN,
        "n_questions": len(bench.questions),
        "n_expected": expected,
        "missing": expected - len(rows),
        "usage": usage,
        "cost_usd": (usage["prompt"] * prices[0] + usage["completion"] * prices[1]) / 1e6 if prices else None,
    }


def _by_part(items: list[Item]) -> Row:
    """Means and standard errors overall, by turn, by category, and by category and turn."""
    turns, categories = _group(items, "turn"), _group(items, "category")
    each = {name: {str(t): mean(p) for t, p in _group(part, "turn").items()} for name, part in categories.items()}
    return {
        "overall": mean(items),
        "turns": {str(turn): mean(part) for turn, part in turns.items()},
        "categories": {name: mean(part) for name, part in categories.items()},
        "category_turns": each,
        "stderr": {
            "overall": clustered_stderr(items),
            "turns": {str(turn): clustered_stderr(part) for turn, part in turns.items()},
            "categories": {name: clustered_stderr(part) for name, part in categories.items()},
        },
    }


def _group(items: list[Item], field: str) -> dict[Any, list[Item]]:
    groups = defaultdict(list)
    for item in items:
        groups[getattr(item, field)].append(item)
    return dict(sorted(groups.items()))


def per_question(items: Iterable[Item]) -> dict[str, dict[str, float]]:
    table: dict[str, dict[str, float]] = {}
    for item in items:
        table.setdefault(str(item.question), {})[str(item.turn)] = item.value
    return table


def mean(items: list[Item]) -> float | None:
    return sum(item.value for item in items) / len(items) if items else None


def clustered_stderr(items: list[Item]) -> float | None:
    """Standard error of the mean, questions as clusters, G / (G - 1) corrected; None below two questions."""
    centre = mean(items) or 0.0
    sums: dict[int, float] = defaultdict(float)
    for item in items:
        sums[item.question] += item.value - centre
    if len(sums) < 2:
        return None
    return sqrt(len(sums) / (len(sums) - 1) * sum(s * s for s in sums.values())) / len(items)


def wilson(items: list[Item], z: float = 1.959964) -> list[float] | None:
    """Wilson's interval of a rate for clustered values: with n such that the binomial error is the clustered one."""
    rate, error = mean(items), clustered_stderr(items)
    if rate is None or error is None:
        return None
    n = rate * (1 - rate) / error**2 if error and 0 < rate < 1 else len({item.question for item in items})
    middle, spread = rate + z * z / (2 * n), z * sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    return [(middle - spread) / (1 + z * z / n), (middle + spread) / (1 + z * z / n)]


def _saw_reference(bench: Bench, row: Row | None, question: int) -> bool:
    return bool(row) and bench.references[question]["choices"][0]["turns"][0] in (row or {})["user_prompt"]


def strict_rating(judgment: str) -> tuple[float | None, list[str]]:
    """The last rating from 1 to 10 outside code, and what makes FastChat's own reading (the first [[n]]) doubtful.

    quoted: brackets in code or in a matrix, or no [[n]] at all but an [n]; range: a rating outside 1 to 10;
    disagree: the first and the last rating differ.
    """
    ratings = [float(number) for number in RATING.findall(CODE.sub("", judgment))]
    quoted = len(RATING.findall(judgment)) > len(ratings) or MATRIX.search(judgment)
    flags = {
        "quoted": quoted or (not ratings and re.search(r"\[\d+\.?\d*\]", judgment)),
        "range": any(not 1 <= rating <= 10 for rating in ratings),
        "disagree": len(set(ratings[:1] + ratings[-1:])) > 1,
    }
    valid = [rating for rating in ratings if 1 <= rating <= 10]
    return (valid[-1] if valid else None), [name for name, raised in flags.items() if raised]


def strict_report(bench: Bench, rows: Judged, overall: float | None) -> Row:
    """What strict reading would change: its mean, the difference to FastChat's, and the flagged question and turns."""
    strict_mean = mean(_items(bench, rows, lambda row: strict_rating(row["judgment"])[0]))
    flagged: dict[str, list[list[int]]] = {"quoted": [], "range": [], "disagree": []}
    for (question, turn), row in sorted(rows.items()):
        for flag in strict_rating(row["judgment"])[1]:
            flagged[flag].append([question, turn])
    change = None if strict_mean is None or overall is None else strict_mean - overall
    return {"overall": strict_mean, "change": change, "flagged": flagged}
