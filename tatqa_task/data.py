"""TAT-QA's contexts and questions: the official files (downloaded and verified, or in a folder), or synthetic ones.

`load(split)` reads $TATQA_DATA: a folder with the official file names, `synthetic`, or unset for the download.
"""

import hashlib
import json
import os
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


# --- reading the official schema ---


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
    table = _field(raw, "table", dict, where)
    where = f"{where} ({table.get('uid')})"
    rows = _field(table, "table", list, where)
    if not all(isinstance(row, list) and all(isinstance(cell, str) for cell in row) for row in rows):
        raise DataError(f"{where}: table must be rows of texts")
    paragraphs = _field(raw, "paragraphs", list, where)
    texts = [(_field(p, "order", int, where), _field(p, "text", str, where)) for p in paragraphs]
    questions = [_question(item, where) for item in _field(raw, "questions", list, where)]
    return Context(_field(table, "uid", str, where), rows, [text for _, text in sorted(texts)], questions)


def _question(raw: Any, where: str) -> Question:
    where = f"{where}: question {raw.get('uid', '?') if isinstance(raw, dict) else raw!r}"
    answer_type = _field(raw, "answer_type", str, where, ANSWER_TYPES)
    source = raw.get("answer_from")
    if source is not None and source not in SOURCES:
        raise DataError(f"{where}: answer_from is {source!r}, not one of {', '.join(SOURCES)}")
    return Question(
        uid=_field(raw, "uid", str, where),
        question=_field(raw, "question", str, where),
        answer=_answer(raw.get("answer"), answer_type, where),
        answer_type=answer_type,
        answer_from=source,
        scale=_field(raw, "scale", str, where, SCALES),
        derivation=str(raw.get("derivation") or ""),
        order=_field(raw, "order", int, where),
    )


def _field(raw: Any, key: str, kind: type, where: str, allowed: Iterable[Any] | None = None) -> Any:
    if not isinstance(raw, dict) or key not in raw:
        raise DataError(f"{where}: {key} is missing")
    if not isinstance(raw[key], kind):
        raise DataError(f"{where}: {key} must be {kind.__name__}, found {type(raw[key]).__name__}")
    if allowed is not None and raw[key] not in allowed:
        raise DataError(f"{where}: {key} is {raw[key]!r}, not one of {', '.join(map(repr, allowed))}")
    return raw[key]


def _answer(answer: Any, answer_type: str, where: str) -> Any:
    if answer_type in ("span", "multi-span"):
        good = isinstance(answer, list) and answer and all(isinstance(item, str) for item in answer)
        expected = "a list of texts"
    elif answer_type == "count":
        good, expected = str(answer).strip().isdecimal(), "a whole number"
    else:
        good, expected = isinstance(answer, (int, float, str)) and not isinstance(answer, bool), "a number"
    if not good:
        raise DataError(f"{where}: answer of type {answer_type} must be {expected}, found {answer!r:.60}")
    return answer


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
