"""The score file of an MT-Bench run: a rating for each turn of each question."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

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


class Rating(NamedTuple):
    """What the judge gave the reply of one turn; None where it gave no rating."""

    question: str
    turn: str
    rating: float | None


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
    item, cluster, turn, score, succeeded = [], [], [], [], []
    for row in rows:
        item.append(f"{row.question}/{row.turn}")
        cluster.append(row.question)
        turn.append(f"turn {row.turn}")
        score.append(row.rating)
        succeeded.append(success(row.rating))
    groups = {"turn": turn}
    known = {"bench": found["bench"], "judge": found["judge"], "n_questions": found["n_questions"]}
    if questions:
        known["questions"] = hashlib.sha256(questions.read_bytes()).hexdigest()
        groups["category"] = categories(questions, rows)
    return Scores(
        bench=found["bench"],
        stand_in=found["stand_in"],
        identity=known,
        circumstances={"missing": found["missing"], "unparsable": found["unparsable"]},
        item=item,
        cluster=cluster,
        groups=groups,
        metrics={"score": score, "success": succeeded},
        higher_is_better={"score": True, "success": True},
    )


def ratings(per_question: dict[str, dict[str, float | None]]) -> list[Rating]:
    """The rating of every turn."""
    found = []
    for question, turns in per_question.items():
        for turn, rating in turns.items():
            found.append(Rating(question, turn, rating))
    return found


def categories(questions: Path, rows: Sequence[Rating]) -> list[str]:
    """The category of each turn, which the questions file knows."""
    category: dict[str, str] = {}
    for question in read_lines(questions):
        category[str(question["question_id"])] = question["category"]
    return [category[row.question] for row in rows]


def success(rating: float | None) -> float | None:
    """1 for a rating from SUCCESS up, 0 below it."""
    return None if rating is None else float(rating >= SUCCESS)
