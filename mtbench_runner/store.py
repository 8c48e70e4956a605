"""JSON-lines files that survive kill -9.

Rows are appended one whole line at a time, under a lock, and a torn last line is cut off.
"""

import hashlib
import json
import os
import sys
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import filelock

from mtbench_runner.shapes import fault

AnyRow = Mapping[str, Any]
PLAIN = " +=@,~"  # besides letters, digits and _.-: what a file name may hold as it is
LONGEST_NAME = 150


class InputError(Exception):
    """The call or its input is wrong: one line, exit code 2."""


class IncompleteError(Exception):
    """Some of the work failed and can be run again: one line, exit code 1."""


def first_line(error: Exception) -> str:
    """The first line of what an error says; its type where it says nothing."""
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__


def file_name(name: str) -> str:
    """A name of a model or judge as the name of a file in a folder, never of another folder.

    Plain names stay as they are; in others slashes and what else is special are percent-encoded,
    so that two names never share a file.
    """
    encoded = quote(name, safe=PLAIN)
    if encoded.startswith("."):
        encoded = "%2E" + encoded[1:]
    if len(encoded) > LONGEST_NAME:
        encoded = f"{encoded[:LONGEST_NAME]}-{digest(name)[:12]}"
    return encoded


def beside(path: Path, suffix: str) -> Path:
    """`path.suffix`: a file of ours beside one of FastChat's, which its globs do not find."""
    return path.with_name(f"{path.name}.{suffix}")


def is_there(name: str) -> bool:
    """Whether there is a file or folder of this name, which may be too long to be one's."""
    try:
        return Path(name).exists()
    except (OSError, ValueError):
        return False


def read(path: Path, kind: Any = None) -> list[dict[str, Any]]:
    """Rows of a JSON-lines file ([] if it is not there), each of a `kind`: a type of `rows`.

    A torn last line is skipped. Raises InputError for any other bad line.
    """
    content = path.read_bytes() if path.exists() else b""
    lines = content.removeprefix(BOM_UTF8).split(b"\n")
    rows = []
    for number, line in enumerate(lines, 1):
        row = _row(line)
        if row is None:
            if line.strip() and number < len(lines):
                raise InputError(f"{path}, line {number}: not a JSON object")
            continue
        found = fault(row, kind) if kind else None
        if found is not None:
            raise InputError(f"{path}, line {number}{found}")
        rows.append(row)
    return rows


def replace_surrogates(text: str) -> str:
    r"""Text without halves of surrogate pairs (\ud800 in JSON), which no request can hold."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _row(line: bytes) -> dict[str, Any] | None:
    """A line's JSON object; None if it is none."""
    try:
        row = json.loads(line)
        if b"\\ud" in line.lower():
            row = json.loads(replace_surrogates(json.dumps(row, ensure_ascii=False)))
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def digest(value: Any) -> str:
    """sha256 of a value's JSON."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def append(path: Path, row: AnyRow) -> None:
    """Add one row in one write. Call it under `locked`."""
    with path.open("ab", buffering=0) as file:
        file.write(json.dumps(row).encode() + b"\n")


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees all of it or none: temporary file, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content)
    temporary.replace(path)


def write_rows(path: Path, rows: Iterable[AnyRow]) -> None:
    """Write a whole JSON-lines file."""
    lines = [json.dumps(row) + "\n" for row in rows]
    write_whole(path, "".join(lines).encode())


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the only right to write `path`; a second run waits.

    Ends or cuts off a line that a killed run left torn.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(beside(path, "lock"))
    try:
        held = lock.acquire(timeout=0)
    except filelock.Timeout:
        sys.stderr.write(f"another run is writing {path}; waiting for it\n")
        held = lock.acquire()
    with held:
        mend(path)
        yield


def mend(path: Path) -> None:
    """Give a last line without a newline its newline, or cut it off where it is torn.

    Raises InputError for one that no run of ours can have torn.
    """
    content = path.read_bytes() if path.exists() else b""
    whole, newline, tail = content.rpartition(b"\n")
    if not tail:
        return
    if _row(tail) is not None:
        with path.open("ab") as file:
            file.write(b"\n")
    elif tail.startswith(b"{"):
        os.truncate(path, len(whole + newline))
    else:
        raise InputError(f"{path}: its last line is no JSON object; move the file away")
