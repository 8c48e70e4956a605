"""Answers, judgments and verdicts side by side, as data for a page: the key `page` of a score file.

Every text in it was written by a model and is to be escaped by whoever shows it.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mtbench_runner import ledger
from mtbench_runner.bench import Bench
from mtbench_runner.ledger import Current
from mtbench_runner.ratings import out_of_range, pair_outcome
from mtbench_runner.rows import Answer, AnyJudgment, Judgment, PairJudgment, Place, Question

VERSION = 1
OUTCOMES = {1.0: "win", 0.5: "tie", 0.0: "loss"}
Page = dict[str, Any]


def of_scores(bench: Bench, model_id: str, judged: Mapping[str, Current]) -> Page:
    """Every turn of every question with the model's answer and all judgments of it.

    {version, questions: [{id, category, turns: [{turn, question, answer, thinking, finish,
    characters, judgments: [{judge, vote, score, text, flags}]}]}]}
    """
    answers = bench.answers(model_id)
    questions = []
    for question in bench.questions:
        given = answers.get(question["question_id"])
        turns = []
        for turn, text in enumerate(question["turns"], 1):
            judgments = []
            for judge, row in _votes_at(judged, (question["question_id"], turn)):
                if "model" in row:
                    judgments.append(_judgment(bench, judge, row))
            shown = {"turn": turn, "question": text, **_answer(given, turn)}
            turns.append({**shown, "judgments": judgments})
        questions.append(_question(question, turns))
    return {"version": VERSION, "questions": questions}


def of_pairs(bench: Bench, models: Sequence[str], judged: Mapping[str, Current]) -> Page:
    """Every turn of every question with both models' answers and all verdicts on them.

    {version, questions: [{id, category, turns: [{turn, question, answers, verdicts: [{judge, vote,
    outcome, orders: [{first, winner, text}]}]}]}]}
    """
    answers = bench.answers_of(models)
    questions = []
    for question in bench.questions:
        identifier = question["question_id"]
        turns = []
        for turn, text in enumerate(question["turns"], 1):
            said = []
            for answers_of_model in answers:
                given = answers_of_model.get(identifier)
                said.append(_answer(given, turn)["answer"])
            verdicts = []
            for judge, row in _votes_at(judged, (identifier, turn)):
                if "model" not in row:
                    verdicts.append(_verdict(judge, row))
            turns.append({"turn": turn, "question": text, "answers": said, "verdicts": verdicts})
        questions.append(_question(question, turns))
    return {"version": VERSION, "questions": questions}


def _question(question: Question, turns: list[Page]) -> Page:
    """A question with its turns, as the page has it."""
    identifier = str(question["question_id"])
    return {"id": identifier, "category": question["category"], "turns": turns}


def _votes_at(judged: Mapping[str, Current], place: Place) -> Iterator[tuple[str, AnyJudgment]]:
    """The judgments of a place, each with its judge."""
    for judge, current in judged.items():
        for row in current.judged.get(place, []):
            yield judge, row


def _answer(answer: Answer | None, turn: int) -> Page:
    """A model's answer to a turn; all keys None where there is none."""
    choice = answer["choices"][0] if answer else None
    if choice is None or len(choice["turns"]) < turn:
        return {"answer": None, "thinking": None, "finish": None, "characters": None}
    said = choice["turns"][turn - 1]
    full = choice.get("turns_with_thinking", choice["turns"])[turn - 1]
    finish = choice.get("finish_reasons")
    return {
        "answer": said,
        "thinking": full if full != said else None,
        "finish": finish[turn - 1] if finish else None,
        "characters": len(said),
    }


def _judgment(bench: Bench, judge: str, row: Judgment) -> Page:
    """One judgment of an answer, and what is doubtful about it."""
    rating = ledger.rating_of(row, bench.rating_pattern)
    flags = []
    if ledger.truncated(row):
        flags.append("truncated")
    if out_of_range(rating):
        flags.append("range")
    if rating is None:
        flags.append("unrated")
    return {
        "judge": judge,
        "vote": ledger.vote_of(row),
        "score": rating,
        "text": row["judgment"],
        "flags": flags,
    }


def _verdict(judge: str, row: PairJudgment) -> Page:
    """A comparison in both orders: which answer stood first, who won, and why."""
    names = {"model_1": row["model_1"], "model_2": row["model_2"], "tie": "tie"}
    as_asked = {
        "first": row["model_1"],
        "winner": names.get(row["g1_winner"]),
        "text": row["g1_judgment"],
    }
    swapped = {
        "first": row["model_2"],
        "winner": names.get(row["g2_winner"]),
        "text": row["g2_judgment"],
    }
    outcome = pair_outcome(row)
    return {
        "judge": judge,
        "vote": ledger.vote_of(row),
        "outcome": None if outcome is None else OUTCOMES[outcome],
        "orders": [as_asked, swapped],
    }
