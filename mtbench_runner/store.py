"""JSON-lines files that survive kill -9: appended one whole line at a time, under a lock, a torn last line cut off."""

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock

Row = dict[str, Any]


class InputError(Exception):
    """The call or its input is wrong: one line, exit code 2."""


class IncompleteError(Exception):
    """Some of the work failed and can be run again: one line, exit code 1."""


def read(path: Path) -> list[Row]:
    """Rows of a JSON-lines file ([] if it is not there). A torn last line is skipped; any other bad line raises."""
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    rows = []
    for number, line in enumerate(lines, 1):
        if (row := _row(line)) is not None:
            rows.append(row)
        elif line.strip() and number < len(lines):
            raise InputError(f"{path}, line {number}: not a JSON object")
    return rows


def _row(line: bytes) -> Row | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def digest(value: Any) -> str:
    """sha256 of a value's JSON."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def append(path: Path, row: Row) -> None:
    """Add one row in one write. Call it under `locked`."""
    with path.open("ab", buffering=0) as file:
        file.write(json.dumps(row).encode() + b"\n")


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees all of it or none: temporary file beside it, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content)
    temporary.replace(path)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the only right to write `path`; a second run waits. Ends or cuts off a line that a killed run left torn."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(path.with_name(path.name + ".lock"))
    try:
        held = lock.acquire(timeout=0)
    except filelock.Timeout:
        sys.stderr.write(f"another run is writing {path}; waiting for it\n")
        held = lock.acquire()
    with held:
        whole, newline, tail = (path.read_bytes() if path.exists() else b"").rpartition(b"\n")
        if tail and _row(tail) is None:
            os.truncate(path, len(whole + newline))
        elif tail:
            with path.open("ab") as file:
                file.write(b"\n")
        yield
