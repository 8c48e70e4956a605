"""TAT-QA's contexts and questions: the official files (downloaded and verified, or in a folder), or synthetic ones.

`load(split)` reads $TATQA_DATA: a folder with the official file names, `synthetic`, or unset for the download.
"""

import hashlib
import json
import os
import urllib.request
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError, model_validator

from tatqa_task import synthetic

COMMIT = "870accc41953dcde885aabeb963d94aabdc0fbc3"
URL = f"https://raw.githubusercontent.com/NExTplusplus/TAT-QA/{COMMIT}/dataset_raw/"
FILES = {  # split: file name, git blob id at COMMIT
    "train": ("tatqa_dataset_train.json", "ec6a61be61ea7bb92c3278877e46e8488cc5203c"),
    "validation": ("tatqa_dataset_dev.json", "48075c812af3fe6698b1d5cb50d9dbf358d52784"),
    "test": ("tatqa_dataset_test_gold.json", "3d5d3b691af572646ba9b1ac4d8f78c5dca09732"),
}
ANSWER_TYPES = ("span", "multi-span", "arithmetic", "count")
SOURCES = ("table", "table-text", "text")
SCALES = ("", "thousand", "million", "billion", "percent")


class DataError(Exception):
    """Data that cannot be used; the message is the one line a user needs."""


@dataclass(frozen=True)
class Question:
    """One question with its gold answer, as in the official files (`answer_from` is None where it is not known)."""

    uid: str
    question: str
    answer: list[str] | int | float | str
    answer_type: str
    answer_from: str | None
    scale: str
    derivation: str
    order: int


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
    source = source or os.environ.get("TATQA_DATA") or None
    if source == "synthetic":
        return parse_contexts(synthetic.generate(split, synthetic.SIZES[split]), "synthetic")
    return read_file(download(split) if source is None else _in_folder(split, source))


def read_file(path: Path) -> list[Context]:
    """The contexts of one file in the official format. Raises DataError."""
    try:
        return parse_contexts(json.loads(path.read_text(encoding="utf-8")), str(path))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not complete JSON ({error}); fetch the file again") from error


def _in_folder(split: str, folder: str) -> Path:
    if not Path(folder).is_dir():
        raise DataError(f"TATQA_DATA={folder} is no folder; name one with the official files, or 'synthetic'")
    path = Path(folder) / FILES[split][0]
    if not path.is_file():
        raise DataError(f"{path} is missing; put the official file there, or unset TATQA_DATA to download it")
    return path


# --- the official schema ---


class _Table(BaseModel, strict=True):
    uid: str
    table: list[list[str]]


class _Paragraph(BaseModel, strict=True):
    order: int
    text: str


class _Question(BaseModel, strict=True):
    uid: str
    question: str
    answer: list[str] | int | float | str
    answer_type: Literal["span", "multi-span", "arithmetic", "count"]
    answer_from: Literal["table", "table-text", "text"] | None = None
    scale: Literal["", "thousand", "million", "billion", "percent"]
    derivation: str = ""
    order: int

    @model_validator(mode="after")
    def _answer_of_its_type(self) -> "_Question":
        answer, is_list = self.answer, isinstance(self.answer, list)
        if self.answer_type in ("span", "multi-span"):
            good, expected = is_list and answer, "a list of texts"
        elif self.answer_type == "count":
            good, expected = not is_list and str(answer).strip().isdecimal(), "a whole number"
        else:
            good, expected = not is_list, "a number"
        if not good:
            raise ValueError(f"answer of type {self.answer_type} must be {expected}, found {answer!r:.60}")
        return self


class _Context(BaseModel, strict=True):
    table: _Table
    paragraphs: list[_Paragraph]
    questions: list[_Question]


def parse_contexts(raw: Any, where: str) -> list[Context]:
    """Contexts from parsed JSON in the official schema; `where` is named in errors. Raises DataError."""
    if not isinstance(raw, list):
        raise DataError(f"{where}: expected a list of contexts, found {type(raw).__name__}")
    contexts = [_context(item, f"{where}: context {i}") for i, item in enumerate(raw)]
    uids = Counter(question.uid for context in contexts for question in context.questions)
    repeated = [uid for uid, n in uids.items() if n > 1]
    if repeated:
        raise DataError(f"{where}: question uid {repeated[0]} appears {uids[repeated[0]]} times ({len(repeated)} such)")
    return contexts


def _context(raw: Any, where: str) -> Context:
    try:
        read = _Context.model_validate(raw)
    except ValidationError as error:
        raise DataError(f"{where}: {_first_error(error, raw)}") from None
    paragraphs = [paragraph.text for paragraph in sorted(read.paragraphs, key=lambda paragraph: paragraph.order)]
    questions = [Question(**vars(question)) for question in read.questions]
    return Context(read.table.uid, read.table.table, paragraphs, questions)


def _first_error(error: ValidationError, raw: Any) -> str:
    """What is wrong first, with the uid of the question it is in."""
    first = error.errors(include_url=False)[0]
    place = [str(step) for step in first["loc"]]
    if len(place) > 1 and place[0] == "questions" and isinstance(raw["questions"][int(place[1])], dict):
        place[:2] = [f"question {raw['questions'][int(place[1])].get('uid', place[1])}"]
    return ": ".join([*place, first["msg"].removeprefix("Value error, ")])


# --- the official files ---


def download(split: str) -> Path:
    """The official file of a split, in the cache; fetched once, verified by its git blob id. Raises DataError."""
    name, blob_id = FILES[split]
    path = cache_folder() / name
    if path.is_file() and git_blob_id(path.read_bytes()) == blob_id:
        return path
    content = _fetch(URL + name)
    if git_blob_id(content) != blob_id:
        raise DataError(f"{URL}{name} has git blob id {git_blob_id(content)}, not {blob_id}: altered on the way")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{name}.{os.getpid()}")
    temporary.write_bytes(content)
    temporary.replace(path)
    return path


def cache_folder() -> Path:
    """Where the official files are kept: $XDG_CACHE_HOME/tatqa or ~/.cache/tatqa."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tatqa"


def git_blob_id(content: bytes) -> str:
    """The id git gives a file with this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _fetch(url: str) -> bytes:
    from tqdm import tqdm

    chunks = []
    try:
        with urllib.request.urlopen(url, timeout=60) as response:
            total = int(response.headers.get("Content-Length") or 0) or None
            with tqdm(total=total, unit="B", unit_scale=True, desc=url.rsplit("/", 1)[1]) as bar:
                while chunk := response.read(1 << 16):
                    chunks.append(chunk)
                    bar.update(len(chunk))
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        hint = "without network set TATQA_DATA to a folder that has it, or to 'synthetic'"
        raise DataError(f"cannot download {url} ({reason}); {hint}") from error
    return b"".join(chunks)
