"""JSON-lines files that survive kill -9: appended one whole line at a time, under a lock, a torn last line cut off."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class InputError(Exception):
    """The call or its input is wrong: one line, exit code 2."""


class IncompleteError(Exception):
    """Some of the work failed and can be run again: one line, exit code 1."""


def read(path: Path) -> list[dict[str, Any]]:
    """Rows of a JSON-lines file ([] if it is not there). A torn last line is skipped; any other bad line raises."""
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            if line.strip():
                rows.append(_object(line))
        except ValueError as error:
            if number < len(lines):
                raise InputError(f"{path}, line {number}: not a JSON object ({error})") from None
    return rows


def _object(line: bytes) -> dict[str, Any]:
    row = json.loads(line)
    if not isinstance(row, dict):
        raise ValueError(f"found {type(row).__name__}")
    return row


def append(path: Path, row: dict[str, Any]) -> None:
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
    """Hold the only right to write `path`; a second run waits. Cuts off a line that a killed run left torn."""
    import filelock

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(path.with_name(path.name + ".lock"))
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        sys.stderr.write(f"another run is writing {path}; waiting for it\n")
        lock.acquire()
    try:
        _mend(path)
        yield
    finally:
        lock.release()


def _mend(path: Path) -> None:
    content = path.read_bytes() if path.exists() else b""
    if not content or content.endswith(b"\n"):
        return
    whole, _, tail = content.rpartition(b"\n")
    try:
        _object(tail)
        os.truncate(path, len(content))
        with path.open("ab") as file:
            file.write(b"\n")
    except ValueError:
        os.truncate(path, len(whole) + 1 if whole else 0)
