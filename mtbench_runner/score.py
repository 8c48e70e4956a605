"""Stage `score`: FastChat's averages, with standard errors by question and nothing missing hidden."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable
from math import sqrt
from typing import Any

from mtbench_runner import store
from mtbench_runner.bench import Bench, Row
from mtbench_runner.store import InputError

STAND_IN = "stand-in-judge"
SUCCESS = 7  # the score from which a turn counts as a success
UNPARSABLE = -1  # FastChat's score for a judgment without a rating
Scored = tuple[int, int, str, float]  # question id, turn, category, score


def score(bench: Bench, model_id: str, judge_model: str) -> Row:
    """Scores of one model on the 1 to 10 scale. Raises InputError when nothing of it was judged.

    Means are FastChat's: over all judged turns that have a rating. Standard errors take the turns of a question as
    one cluster. `missing` counts turns whose present answer is not judged, `unparsable` judgments without a rating.
    """
    rows = current_rows(bench, model_id, judge_model)
    categories = {q["question_id"]: q["category"] for q in bench.questions}
    expected = sum(len(q["turns"]) for q in bench.questions)
    scored = [
        (qid, turn, categories[qid], float(row["score"]))
        for (qid, turn), row in rows.items()
        if row["score"] != UNPARSABLE
    ]
    by_turn, by_category = _group(scored, 1), _group(scored, 2)
    return {
        "bench": bench.name,
        "model_id": model_id,
        "judge": judge_model,
        "stand_in": judge_model == STAND_IN,
        "overall": mean(scored),
        "turns": {str(turn): mean(part) for turn, part in by_turn.items()},
        "categories": {name: mean(part) for name, part in by_category.items()},
        "stderr": {
            "overall": clustered_stderr(scored),
            "turns": {str(turn): clustered_stderr(part) for turn, part in by_turn.items()},
            "categories": {name: clustered_stderr(part) for name, part in by_category.items()},
        },
        "success_rate": sum(s[3] >= SUCCESS for s in scored) / len(scored) if scored else None,
        "n_questions": len(bench.questions),
        "n_expected": expected,
        "missing": expected - len(rows),
        "unparsable": len(rows) - len(scored),
        "usage": {
            kind: sum(r.get("usage", {}).get(kind, 0) for r in rows.values()) for kind in ("prompt", "completion")
        },
        "per_question": per_question(scored),
    }


def current_rows(bench: Bench, model_id: str, judge_model: str) -> dict[tuple[int, int], Row]:
    """(question id, turn) -> the newest judgment of the answer that the model has now."""
    path = bench.judgments_file(judge_model)
    answers_file = bench.answers_file(model_id)
    answers = bench.answers(model_id) if answers_file.exists() else {}
    ids = {q["question_id"] for q in bench.questions}
    rows = [r for r in store.read(path) if r["model"] == model_id and r["question_id"] in ids]
    if not rows:
        raise InputError(f"no judgments of {model_id} by {judge_model} at {path}; run the judge stage first")
    return {(r["question_id"], r["turn"]): r for r in rows if not _stale(r, answers.get(r["question_id"]))}


def _stale(row: Row, answer: Row | None) -> bool:
    return bool(answer and "answer_sha256" in row and row["answer_sha256"] != answer_sha256(answer, row["turn"]))


def answer_sha256(answer: Row, turn: int) -> str:
    """A hash of the turns that a judgment saw, so that a score can tell when the answer has changed since."""
    return hashlib.sha256(json.dumps(answer["choices"][0]["turns"][:turn]).encode()).hexdigest()


def _group(scored: list[Scored], field: int) -> dict[Any, list[Scored]]:
    groups = defaultdict(list)
    for item in scored:
        groups[item[field]].append(item)
    return dict(sorted(groups.items()))


def per_question(scored: Iterable[Scored]) -> dict[str, dict[str, float]]:
    table: dict[str, dict[str, float]] = {}
    for qid, turn, _, value in sorted(scored):
        table.setdefault(str(qid), {})[str(turn)] = value
    return table


def mean(scored: list[Scored]) -> float | None:
    return sum(s[3] for s in scored) / len(scored) if scored else None


def clustered_stderr(scored: list[Scored]) -> float | None:
    """Standard error of the mean, questions as clusters, G / (G - 1) corrected; None below two questions."""
    centre = mean(scored) or 0.0
    sums: dict[int, float] = defaultdict(float)
    for qid, _, _, value in scored:
        sums[qid] += value - centre
    if len(sums) < 2:
        return None
    return sqrt(len(sums) / (len(sums) - 1) * sum(s * s for s in sums.values())) / len(scored)


def table(result: Row) -> str:
    """The result for a person: a line for each turn and category, then what is missing."""
    lines = [f"{result['bench']}: {result['model_id']}, judged by {result['judge']}"]
    if result["stand_in"]:
        lines.append("THE STAND-IN JUDGE'S RATINGS FOLLOW A FIXED RULE AND MEASURE NOTHING")
    lines.append(_line("overall", result["overall"], result["stderr"]["overall"]))
    for part, word in (("turns", "turn "), ("categories", "")):
        lines += [_line(word + name, value, result["stderr"][part][name]) for name, value in result[part].items()]
    if result["success_rate"] is not None:
        lines.append(f"success rate (score {SUCCESS} or more): {result['success_rate']:.1%}")
    lines.append(f"turns: {result['n_expected']}, missing: {result['missing']}, no rating: {result['unparsable']}")
    return "\n".join(lines)


def _line(name: str, value: float | None, stderr: float | None) -> str:
    return f"{name:<14} {_number(value):>6}" + (f"  ± {stderr:.2f}" if stderr is not None else "")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
