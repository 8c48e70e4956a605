"""TAT-QA's contexts and questions: the official files (downloaded and verified, or in a folder), or synthetic ones.

`load(split)` reads $TATQA_DATA: a folder with the official file names, `synthetic`, or unset for the download.
"""

import contextlib
import hashlib
import io
import json
import os
import shutil
import urllib.request
from collections import Counter
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, Field, StrictFloat, StrictInt, ValidationError

from tatqa_task import synthetic

URL = "https://raw.githubusercontent.com/NExTplusplus/TAT-QA/870accc41953dcde885aabeb963d94aabdc0fbc3/dataset_raw/"
FILES = {  # split: file name, git blob id at that commit
    "train": ("tatqa_dataset_train.json", "ec6a61be61ea7bb92c3278877e46e8488cc5203c"),
    "validation": ("tatqa_dataset_dev.json", "48075c812af3fe6698b1d5cb50d9dbf358d52784"),
    "test": ("tatqa_dataset_test_gold.json", "3d5d3b691af572646ba9b1ac4d8f78c5dca09732"),
}
AnswerType = Literal["span", "multi-span", "arithmetic", "count"]
Source = Literal["table", "table-text", "text"]
Scale = Literal["", "thousand", "million", "billion", "percent"]
ANSWER_TYPES, SCALES = get_args(AnswerType), get_args(Scale)


class DataError(Exception):
    """Data that cannot be used; the message is the one line a user needs."""


@dataclass(frozen=True)
class Question:
    """One question with its gold answer, as in the official files (`answer_from` is None where it is not known)."""

    uid: str
    question: str
    answer: list[str] | StrictInt | StrictFloat | str
    answer_type: AnswerType
    answer_from: Annotated[Source | None, Field(default=None)]  # a default for files alone
    scale: Scale
    derivation: Annotated[str, Field(default="")]
    order: StrictInt


@dataclass(frozen=True)
class Context:
    """A table (rows of cells), the paragraphs around it in their order, and the questions about them."""

    uid: str
    table: list[list[str]]
    paragraphs: list[str]
    questions: list[Question]


def load(split: str, source: str | None = None) -> list[Context]:
    """The contexts of `train`, `validation` or `test`.

    `source` is a folder with the official file names or `synthetic`; None means $TATQA_DATA or else the download.
    Raises DataError if the data cannot be had or a question in it is malformed.
    """
    if split not in FILES:
        raise DataError(f"unknown split {split!r}: one of {', '.join(FILES)}")
    source = source or os.environ.get("TATQA_DATA")
    if source == "synthetic":
        return parse_contexts(synthetic.generate(split, synthetic.SIZES[split]), "synthetic")
    if not source:
        return read_file(download(split))
    path = Path(source) / FILES[split][0]
    if not path.parent.is_dir():
        raise DataError(
            f"TATQA_DATA={source} is no folder; name one with the official files, or 'synthetic'"
        )
    if not path.is_file():
        raise DataError(
            f"{path} is missing; put the official file there, or unset TATQA_DATA to download it"
        )
    return read_file(path)


def read_file(path: Path) -> list[Context]:
    """The contexts of one file in the official format. Raises DataError."""
    return parse_contexts(read_json(path, "fetch the file again"), str(path))


def read_json(path: Path, remedy: str, **options: Any) -> Any:
    """What a JSON file holds, by json.loads with these options. Raises DataError, which ends with the remedy."""
    try:
        return json.loads(path.read_text(encoding="utf-8"), **options)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not complete JSON ({error}); {remedy}") from error


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all. Raises OSError with its name."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise OSError(error.errno, error.strerror, str(path)) from None


# --- the official schema ---


def _with_answer_of_its_type(question: Question) -> Question:
    answer, is_list = question.answer, isinstance(question.answer, list)
    if question.answer_type in ("span", "multi-span"):
        good, expected = is_list and answer, "a list of texts"
    elif question.answer_type == "count":
        good, expected = not is_list and str(answer).strip().isdecimal(), "a whole number"
    else:
        good, expected = not is_list, "a number"
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
    questions: list[Annotated[Question, AfterValidator(_with_answer_of_its_type)]]


def parse_contexts(raw: Any, where: str) -> list[Context]:
    """Contexts from parsed JSON in the official schema; `where` is named in errors. Raises DataError."""
    if not isinstance(raw, list):
        raise DataError(f"{where}: expected a list of contexts, found {type(raw).__name__}")
    contexts = [_context(item, f"{where}: context {i}") for i, item in enumerate(raw)]
    uids = Counter(question.uid for context in contexts for question in context.questions)
    repeated = [uid for uid, n in uids.items() if n > 1]
    if repeated:
        raise DataError(
            f"{where}: question uid {repeated[0]} appears {uids[repeated[0]]} times ({len(repeated)} such)"
        )
    return contexts


def _context(raw: Any, where: str) -> Context:
    try:
        read = _Context.model_validate(raw)
    except ValidationError as error:
        raise DataError(f"{where}: {_first_error(error, raw)}") from None
    paragraphs = sorted(read.paragraphs, key=lambda paragraph: paragraph.order)
    return Context(
        read.table.uid,
        read.table.table,
        [paragraph.text for paragraph in paragraphs],
        read.questions,
    )


def _first_error(error: ValidationError, raw: Any) -> str:
    """What is wrong first, with the uid of the question it is in."""
    first = error.errors(include_url=False)[0]
    place = list(first["loc"])
    if len(place) > 1 and place[0] == "questions" and isinstance(raw["questions"][place[1]], dict):
        place[:2] = [f"question {raw['questions'][place[1]].get('uid', place[1])}"]
    return ": ".join([*map(str, place), first["msg"].removeprefix("Value error, ")])


# --- the official files ---


def download(split: str) -> Path:
    """The official file of a split, fetched once and verified by its git blob id. Raises DataError.

    It is kept in $XDG_CACHE_HOME/tatqa or ~/.cache/tatqa.
    """
    name, blob_id = FILES[split]
    path = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tatqa" / name
    if path.is_file() and git_blob_id(path.read_bytes()) == blob_id:
        return path
    content = _fetch(URL + name)
    if git_blob_id(content) != blob_id:
        raise DataError(
            f"{URL}{name} has git blob id {git_blob_id(content)}, not {blob_id}: altered on the way"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, content)
    return path


def git_blob_id(content: bytes) -> str:
    """The id git gives a file with this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _fetch(url: str) -> bytes:
    from tqdm import tqdm

    content = io.BytesIO()
    try:
        with urllib.request.urlopen(url, timeout=60) as response:
            with tqdm.wrapattr(
                response, "read", total=response.length, desc=url.rsplit("/", 1)[1]
            ) as body:
                shutil.copyfileobj(body, content)
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        hint = "without network set TATQA_DATA to a folder that has it, or to 'synthetic'"
        raise DataError(f"cannot download {url} ({reason}); {hint}") from error
    return content.getvalue()
