"""Predictions in TAT-QA's official format, {uid: [answer, scale]}: made of replies, and scored.

    python -m tatqa_task export SAMPLES --out pred.json
    python -m tatqa_task score --gold tatqa_dataset_dev.json --pred pred.json

`score` says what the official script says, and the means without the questions whose gold answer
does not stand (errata.py).
"""

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

from tatqa_task import answer, data, errata, files, metric
from tatqa_task.types import Question, questions_of

Scores = dict[str, metric.Score]  # by question uid


class Scored(NamedTuple):
    """The scores of a file of predictions, and what is to be said of it."""

    questions: list[Question]
    scores: Scores
    warnings: list[str]

    def text(self) -> str:
        """Means and tables for a person."""
        exact = table("EM", self.questions, [self.scores[one.uid].em for one in self.questions])
        overlap = table("F1", self.questions, [self.scores[one.uid].f1 for one in self.questions])
        return f"{means(self.scores)}\n\n{exact}\n\n{overlap}"

    def content(self) -> dict[str, Any]:
        """Means and every question's scores, for a JSON file."""
        mean = metric.mean(list(self.scores.values()))
        return {**mean._asdict(), "n": len(self.scores), "per_question": self.scores}


def score(gold: Path, pred: Path) -> Scored:
    """Score a file of predictions against a gold file. Raises DataError."""
    questions = questions_of(data.read_file(gold))
    predictions, repeated = read(pred)
    scores: Scores = {}
    for question in questions:
        prediction = predictions.get(question.uid)
        answered, scale = prediction if is_pair(prediction) else (None, None)
        scores[question.uid] = metric.score(question, answered, scale)
    without = sorted(scores.keys() - predictions.keys())
    unasked = sorted(predictions.keys() - scores.keys())
    misshapen = [uid for uid, prediction in predictions.items() if not is_pair(prediction)]
    warnings = [
        *warning("questions without a prediction count as wrong", without),
        *warning("predictions for no question are left out", unasked),
        *warning("uids predicted more than once count with their last prediction", repeated),
        *warning("predictions that are not [answer, scale] count as wrong", misshapen),
    ]
    return Scored(questions, scores, warnings)


def read(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Predictions by uid, and the uids that appear more than once. Raises DataError."""
    items = files.read_json(path, "write the predictions again", object_pairs_hook=list)
    if not isinstance(items, list) or not all(isinstance(item, tuple) for item in items):
        raise files.DataError(
            f"{path}: expected an object {{uid: [answer, scale]}}, as `export` writes it; "
            "gold data go to --gold"
        )
    counts = Counter(uid for uid, _ in items)
    return dict(items), [uid for uid, n in counts.items() if n > 1]


def is_pair(prediction: Any) -> TypeGuard[list[Any]]:
    """Whether a prediction is `[answer, scale]`."""
    return isinstance(prediction, list) and len(prediction) == 2


def warning(what: str, uids: Sequence[str]) -> list[str]:
    """What is to be said of these questions, with the names of the first ten; [] of none."""
    if not uids:
        return []
    named = ", ".join(uids[:10])
    if len(uids) > 10:
        named += f" and {len(uids) - 10} more"
    return [f"{len(uids)} {what}: {named}"]


def means(scores: Scores) -> str:
    """The number of questions and the means, also those without the errata, one a line."""
    text = mean_lines(list(scores.values()))
    verified = [one for uid, one in scores.items() if uid not in errata.listed()]
    if len(verified) < len(scores):
        text += "\n" + mean_lines(verified, "_verified")
    return text


def mean_lines(scores: Sequence[metric.Score], kind: str = "") -> str:
    """The same of some questions, with their kind behind each name."""
    mean = metric.mean(scores)
    return (
        f"questions{kind} {len(scores)}\nEM{kind} {mean.em:.4f}\n"
        f"F1{kind} {mean.f1:.4f}\nscale{kind} {mean.scale:.4f}"
    )


def table(title: str, questions: Sequence[Question], values: Sequence[float]) -> str:
    """Means by answer type (rows) and source of the answer (columns), as in the official script."""
    rows: set[str] = set()
    columns: set[str] = set()
    cells: dict[tuple[str, str], list[float]] = defaultdict(list)
    for question, value in zip(questions, values, strict=True):
        source = question.answer_from or "unknown"
        rows.add(question.answer_type)
        columns.add(source)
        cells[question.answer_type, source].append(value)
    lines = [line(title, sorted(columns))]
    for row in sorted(rows):
        shown = [mean_and_n(cells[row, column]) for column in sorted(columns)]
        lines.append(line(row, shown))
    return "\n".join(lines)


def line(name: str, texts: Sequence[str]) -> str:
    """A name and columns behind it."""
    found = f"{name:<12}"
    for text in texts:
        found += f"{text:>22}"
    return found


def mean_and_n(values: Sequence[float]) -> str:
    """A cell: the mean of the values and how many they are; a dash without any."""
    return f"{sum(values) / len(values):.6f} (n={len(values)})" if values else "-"


def export(samples: Sequence[Path], out: Path) -> str:
    """Write the replies of an lm-eval run as predictions to a new file; returns what was done.

    samples: its samples_*.jsonl files, or its folder. Raises DataError.
    """
    files.refuse_existing(out)
    predictions: dict[str, list[Any]] = {}
    found: list[Path] = []
    for path in samples:
        found += files.below(path, "samples_*.jsonl") if path.is_dir() else [path]
    for file in found:
        for uid, reply in replies(file):
            if uid in predictions:
                raise files.DataError(
                    f"{file}: question {uid} was already read; give the samples of one run only"
                )
            predictions[uid] = [reply.answer, reply.scale]
    if not predictions:
        raise files.DataError(
            f"no samples in {', '.join(map(str, samples))}; run lm_eval with --log_samples"
        )
    files.write_json(out, predictions, ensure_ascii=False, indent=1)
    return f"{len(predictions)} predictions from {len(found)} files in {out}"


def replies(file: Path) -> list[tuple[str, answer.Reply]]:
    """The reply to each question of a samples file. Raises DataError."""
    found = []
    try:
        for text in file.read_text(encoding="utf-8-sig").split("\n"):
            if text:
                sample = json.loads(text)
                found.append((sample["doc"]["uid"], reply_of(sample)))
    except (ValueError, LookupError, TypeError) as error:
        raise files.DataError(
            f"{file} is no lm-eval samples file of a tatqa task ({error!r})"
        ) from error
    return found


def reply_of(sample: dict[str, Any]) -> answer.Reply:
    """What a sample says, read as the task that it is of reads it."""
    doc = sample["doc"]
    thinking = bool(doc.get("thinking"))
    return answer.parse(sample["filtered_resps"][0], doc.get("form", "direct"), thinking)
