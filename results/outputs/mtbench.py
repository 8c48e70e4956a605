"""The score file of an MT-Bench run: a rating for each turn of each question."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from results import InputError
from results.outputs.folders import read_json, read_lines
from results.record import Scores

SCORE_FIELDS = {
    "bench",
    "judge",
    "stand_in",
    "n_questions",
    "per_question",
    "missing",
    "unparsable",
}
SUCCESS = 7  # a rating from here up counts as a success
Rating = tuple[str, str, float | None]  # question, turn, rating


def mtbench_scores(path: Path, questions: Path | None = None) -> Scores:
    """Scores of a judged model; the turns of a question are one cluster.

    The questions file gives the categories. Raises InputError.
    """
    try:
        return _mtbench_scores(path, questions)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{path}: not MT-Bench scores ({type(error).__name__}: {reason}); "
            "write them with score --json"
        ) from None


def _mtbench_scores(path: Path, questions: Path | None) -> Scores:
    found = read_json(path)
    if missing := SCORE_FIELDS - found.keys():
        raise InputError(
            f"{path}: not MT-Bench scores, no {min(missing)}; write them with score --json"
        )
    rows = ratings(found["per_question"])
    groups = {"turn": [f"turn {turn}" for _, turn, _ in rows]}
    known = {"bench": found["bench"], "judge": found["judge"], "n_questions": found["n_questions"]}
    if questions:
        known["questions"] = hashlib.sha256(questions.read_bytes()).hexdigest()
        groups["category"] = categories(questions, rows)
    return Scores(
        bench=found["bench"],
        stand_in=found["stand_in"],
        identity=known,
        circumstances={key: found[key] for key in ("missing", "unparsable")},
        item=[f"{qid}/{turn}" for qid, turn, _ in rows],
        cluster=[qid for qid, _, _ in rows],
        groups=groups,
        metrics={
            "score": [rating for _, _, rating in rows],
            "success": [success(rating) for _, _, rating in rows],
        },
        higher_is_better={"score": True, "success": True},
    )


def ratings(per_question: dict[str, dict[str, float | None]]) -> list[Rating]:
    """The rating of every turn."""
    return [(qid, turn, r) for qid, turns in per_question.items() for turn, r in turns.items()]


def categories(questions: Path, rows: Sequence[Rating]) -> list[str]:
    """The category of each turn, which the questions file knows."""
    category: dict[str, str] = {}
    for question in read_lines(questions):
        category[str(question["question_id"])] = question["category"]
    return [category[qid] for qid, _, _ in rows]


def success(rating: float | None) -> float | None:
    """1 for a rating from SUCCESS up, 0 below it."""
    return None if rating is None else float(rating >= SUCCESS)
