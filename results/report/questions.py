"""Question by question, what base and runs answered: from the raw files, where these are here.

The questions stand once and each run has one reply for each, so that a page of twenty runs stays
small.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from results import InputError, outputs
from results.report import judged
from results.report.judged import Note

BENCHES = ("tatqa", "mtbench", "instruct")  # so begin the folders of stages that have replies


@dataclass(frozen=True)
class Answered:
    """A question with one side's reply, its score and, where one judged, what judges say of it."""

    bench: str
    name: str
    kind: str
    question: str
    gold: str
    reply: str
    score: float | None
    notes: tuple[Note, ...] = ()


def of_runs(runs: Path, pairs: Sequence[tuple[str, str]]) -> tuple[dict[str, Any], list[str]]:
    """Questions and replies of (base, run) pairs of folders, and a line for each broken file.

    Returns:
        `questions` [[bench, name, kind, question, gold]], `replies` {folder: {index of a question:
        [reply, score, notes]}} and `pairs` [[base, run]].
    """
    problems: list[str] = []
    index: dict[str, int] = {}
    questions: list[list[str]] = []
    replies: dict[str, dict[int, list[Any]]] = {}
    for name in dict.fromkeys(chain.from_iterable(pairs)):
        found, unread = answered(runs / name)
        problems += unread
        replies[name] = {}
        for one in found:
            if one.name not in index:
                index[one.name] = len(questions)
                questions.append([one.bench, one.name, one.kind, one.question, one.gold])
            place = index[one.name]
            replies[name][place] = [one.reply, one.score, one.notes]
    content = {"questions": questions, "replies": replies, "pairs": [list(pair) for pair in pairs]}
    return content, problems


def answered(folder: Path) -> tuple[list[Answered], list[str]]:
    """What a run folder's raw files hold, and a line for each part that is broken."""
    found: list[Answered] = []
    problems = []
    try:
        benches = sorted(path.name for path in folder.iterdir() if path.is_dir())
    except OSError as error:
        return [], [f"{folder}: replies cannot be read ({error.strerror})"]
    for bench in benches:
        if not bench.startswith(BENCHES):
            continue
        read: Callable[[Path], Iterator[Answered]] = _judged
        if bench.startswith("tatqa"):
            read = _tatqa
        try:
            found += list(read(folder / bench))
        except InputError as error:
            problems.append(str(error))
        except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            problems.append(f"{folder / bench}: replies cannot be read ({reason})")
    return found, problems


def _tatqa(folder: Path) -> Iterator[Answered]:
    for results in outputs.below(folder, "results_*.json")[-1:]:
        for one in outputs.replies(outputs.samples(results)):
            yield Answered(
                bench=folder.name,
                name=f"{folder.name} {one.item}",
                kind=one.kind,
                question=one.question,
                gold=one.gold,
                reply=one.text,
                score=one.score,
            )


def _judged(folder: Path) -> Iterator[Answered]:
    for turn in judged.turns(folder):
        yield Answered(
            bench=folder.name,
            name=f"{folder.name} {turn.question}, turn {turn.number}",
            kind=turn.category,
            question=turn.asked,
            gold="",
            reply=turn.reply,
            score=turn.score,
            notes=turn.notes,
        )
