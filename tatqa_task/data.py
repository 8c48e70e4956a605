"""TAT-QA's contexts and questions, from the official files or synthetic ones.

`load(split)` reads $TATQA_DATA: a folder with the official file names, `synthetic`, or unset for
the download. The types are those of `tatqa_task.types`.
"""

import os
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, StrictFloat, StrictInt, ValidationError

from tatqa_task import synthetic
from tatqa_task.download import FILES, official_file
from tatqa_task.files import DataError, read_json
from tatqa_task.types import (
    ANSWER_TYPES,
    SCALES,
    AnswerType,
    Context,
    Question,
    Scale,
    Source,
    questions_of,
)

__all__ = [
    "ANSWER_TYPES",
    "FILES",
    "SCALES",
    "Context",
    "DataError",
    "Question",
    "load",
    "parse_contexts",
    "read_file",
]


def load(split: str, source: str | None = None) -> list[Context]:
    """The contexts of `train`, `validation` or `test`.

    `source` is a folder with the official file names or `synthetic`; None means $TATQA_DATA or else
    the download. Raises DataError if the data cannot be had or a question in it is malformed.
    """
    if split not in FILES:
        raise DataError(f"unknown split {split!r}: one of {', '.join(FILES)}")
    source = source or os.environ.get("TATQA_DATA")
    if source == "synthetic":
        return parse_contexts(synthetic.generate(split, synthetic.SIZES[split]), "synthetic")
    if not source:
        return read_file(official_file(split))
    folder = Path(source)
    if not folder.is_dir():
        raise DataError(
            f"TATQA_DATA={source} is no folder; name one with the official files, or 'synthetic'"
        )
    path = folder / FILES[split].name
    try:
        is_there = path.is_file()
    except OSError as error:  # of a folder that may not be looked into
        raise DataError(f"{path}: {error.strerror}") from None
    if not is_there:
        raise DataError(
            f"{path} is missing; put the official file there, or unset TATQA_DATA to download it"
        )
    return read_file(path)


def read_file(path: Path) -> list[Context]:
    """The contexts of one file in the official format. Raises DataError."""
    return parse_contexts(read_json(path, "fetch the file again"), str(path))


# --- the official schema ---


class _Question(BaseModel):
    uid: str
    question: str
    answer: list[str] | StrictInt | StrictFloat | str
    answer_type: AnswerType
    answer_from: Source | None = None
    scale: Scale
    derivation: str = ""
    order: StrictInt


def _with_answer_of_its_type(question: _Question) -> _Question:
    """The question, whose answer must fit its type. Raises ValueError, as pydantic takes it."""
    answer = question.answer
    if question.answer_type in ("span", "multi-span"):
        good = isinstance(answer, list) and bool(answer)
        expected = "a list of texts"
    elif question.answer_type == "count":
        good = not isinstance(answer, list) and str(answer).strip().isdecimal()
        expected = "a whole number"
    else:
        good = not isinstance(answer, list)
        expected = "a number"
    if not good:
        raise ValueError(
            f"answer of type {question.answer_type} must be {expected}, found {answer!r:.60}"
        )
    return question


class _Table(BaseModel):
    uid: str
    table: list[list[str]]


class _Paragraph(BaseModel):
    order: StrictInt
    text: str


class _Context(BaseModel):
    table: _Table
    paragraphs: list[_Paragraph]
    questions: list[Annotated[_Question, AfterValidator(_with_answer_of_its_type)]]


def parse_contexts(raw: Any, where: str) -> list[Context]:
    """Contexts from parsed JSON in the official schema. Raises DataError, which names `where`."""
    if not isinstance(raw, list):
        hint = " (are these predictions?)" if isinstance(raw, dict) else ""
        raise DataError(f"{where}: expected a list of contexts, found {type(raw).__name__}{hint}")
    contexts = []
    for place, item in enumerate(raw):
        contexts.append(_context(item, f"{where}: context {place}"))
    uids = Counter(question.uid for question in questions_of(contexts))
    repeated = [uid for uid, times in uids.items() if times > 1]
    if repeated:
        times = uids[repeated[0]]
        raise DataError(
            f"{where}: question uid {repeated[0]} appears {times} times ({len(repeated)} such)"
        )
    return contexts


def _context(raw: Any, where: str) -> Context:
    """One context. Raises DataError, which names `where`."""
    try:
        read = _Context.model_validate(raw)
    except ValidationError as error:
        raise DataError(f"{where}: {_first_error(error, raw)}") from None
    paragraphs = sorted(read.paragraphs, key=lambda paragraph: paragraph.order)
    return Context(
        uid=read.table.uid,
        table=read.table.table,
        paragraphs=[paragraph.text for paragraph in paragraphs],
        questions=[Question(**dict(question)) for question in read.questions],
    )


def _first_error(error: ValidationError, raw: Any) -> str:
    """What is wrong first, with the uid of the question it is in."""
    first = error.errors(include_url=False)[0]
    place = list(first["loc"])
    if len(place) > 1 and place[0] == "questions":
        question = raw["questions"][place[1]]
        if isinstance(question, dict):
            place[:2] = [f"question {question.get('uid', place[1])}"]
    message = first["msg"].removeprefix("Value error, ")
    return ": ".join([*map(str, place), message])
