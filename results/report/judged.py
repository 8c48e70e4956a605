"""Judged replies of a run folder: the pages in its score files, else FastChat's own files.

A score file's `page` (written by `mtbench_runner score --json` and `pairwise --json`) has what
counts, with all votes and judges; files of other programs and versions have the rows alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from results import outputs

Row = dict[str, Any]  # as a file has it
Note = tuple[str, str]  # who says it, and what: a judgment, a verdict, the model's thinking
Place = tuple[Any, int]  # question and turn


@dataclass(frozen=True)
class Turn:
    """One turn of a judged question."""

    question: str
    number: int
    category: str
    asked: str
    reply: str
    score: float | None
    notes: tuple[Note, ...]


def turns(folder: Path) -> Iterator[Turn]:
    """The turns of a judged stage's folder; none while its answers are still being judged."""
    if not (folder / "question.jsonl").is_file():  # the questions come last of all
        return
    score_file = folder / "score.json"
    content = outputs.read_json(score_file) if score_file.is_file() else {}
    if "page" in content:
        yield from of_page(content, verdicts(folder))
    else:
        yield from of_rows(folder)


def of_page(content: Row, compared: dict[Place, list[Note]]) -> Iterator[Turn]:
    """The turns of a score file, with what pairwise judging says of them."""
    for question in content["page"]["questions"]:
        scores = content["per_question"].get(question["id"], {})
        for turn in question["turns"]:
            if turn["answer"] is None:
                continue
            place = (question["id"], turn["turn"])
            notes = reply_notes(turn)
            notes += [judgment(row) for row in turn["judgments"]]
            notes += compared.get(place, [])
            yield Turn(
                question=question["id"],
                number=turn["turn"],
                category=question["category"],
                asked=turn["question"],
                reply=turn["answer"],
                score=scores.get(str(turn["turn"])),
                notes=tuple(notes),
            )


def reply_notes(turn: Row) -> list[Note]:
    """What is to be known of a reply itself: its thinking, and whether it was cut off."""
    found = []
    if turn.get("finish") == "length":
        found.append(("cut off", "the reply reached the limit of new tokens"))
    if turn.get("thinking"):
        found.append(("with its thinking", turn["thinking"]))
    return found


def judgment(row: Row) -> Note:
    """One vote of one judge."""
    words = "no rating" if row["score"] is None else f"{row['score']:g}"
    for flag in row["flags"]:
        if flag != "unrated":
            words += f", {flag}"
    return f"{voter(row)}: {words}", row["text"]


def voter(row: Row) -> str:
    """The judge, and its vote's number from the second on."""
    return row["judge"] if row["vote"] == 1 else f"{row['judge']}, vote {row['vote']}"


def verdicts(folder: Path) -> dict[Place, list[Note]]:
    """By question and turn: the verdicts in the folder's pairwise score files."""
    found: dict[Place, list[Note]] = {}
    for file in sorted(folder.glob("*.json")):
        content = outputs.read_json(file)
        if not isinstance(content, dict) or not {"page", "baseline"} <= content.keys():
            continue
        for question in content["page"]["questions"]:
            for turn in question["turns"]:
                place = (question["id"], turn["turn"])
                notes = found.setdefault(place, [])
                for row in turn["verdicts"]:
                    notes.append(verdict(row, content["baseline"]))
    return found


def verdict(row: Row, baseline: str) -> Note:
    """One vote of one judge on two replies, which it read in both orders."""
    said = []
    for order in row["orders"]:
        winner = order["winner"] or "not named"
        said.append(f"{order['first']} first, winner {winner}:\n{order['text']}")
    outcome = row["outcome"] or "no verdict"
    return f"{voter(row)} against {baseline}: {outcome}", "\n\n".join(said)


def of_rows(folder: Path) -> Iterator[Turn]:
    """The turns of FastChat's files; where a turn was judged more than once, all that was said."""
    questions = {}
    for question in outputs.read_lines(folder / "question.jsonl"):
        questions[question["question_id"]] = question
    answers = {}
    for file in sorted(folder.glob("model_answer/**/*.jsonl")):
        for answer in outputs.read_lines(file):
            answers[answer["question_id"]] = answer["choices"][0]["turns"]
    for (identifier, number), rows in rows_by_place(folder / "model_judgment").items():
        question = questions[identifier]
        notes, ratings = [], []
        for judge, row in rows:
            notes.append((judge, row["judgment"]))
            if row["score"] > 0:
                ratings.append(row["score"])
        yield Turn(
            question=str(identifier),
            number=number,
            category=question["category"],
            asked=question["turns"][number - 1],
            reply=answers[identifier][number - 1],
            score=sum(ratings) / len(ratings) if ratings else None,
            notes=tuple(notes),
        )


def rows_by_place(judgments: Path) -> dict[Place, list[tuple[str, Row]]]:
    """Judges and their rows by question and turn."""
    found: dict[Place, list[tuple[str, Row]]] = {}
    for file in sorted(judgments.glob("**/*_single.jsonl")):  # a judge's name may have a slash
        judge = unquote(str(file.relative_to(judgments)).removesuffix("_single.jsonl"))
        for row in outputs.read_lines(file):
            place = (row["question_id"], row["turn"])
            found.setdefault(place, []).append((judge, row))
    return found
