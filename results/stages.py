"""Stages: commands that turn files into files, run once for given inputs, under a lock, safe to kill at any moment.

A stage leaves `<name>.stage.json` in its folder: the key (a hash of the command and of everything it reads) and whether
it is done. Same key and done: skipped. Same key, not done: run again over what it left, since every command here goes
on where it stopped. Another key: what it left is removed first.
"""

import ctypes
import functools
import hashlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from results.record import InputError, write_whole

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("torch", "transformers", "lm_eval", "trl", "peft", "bitsandbytes", "fschat", "datasets", "vllm")


class FailedError(Exception):
    """Work failed or is incomplete: one line, exit code 1."""


@dataclass(frozen=True)
class Stage:
    """`python -m ARGUMENTS` in some folder's name; reads `inputs` (files, folders, or plain words), writes `output`."""

    folder: Path
    name: str
    arguments: list[str]
    inputs: list[str]
    output: Path

    @property
    def marker(self) -> Path:
        return self.folder / f"{self.name}.stage.json"

    def command(self, python: str = "python") -> str:
        data = os.environ.get("TATQA_DATA")
        return (f"TATQA_DATA={shlex.quote(data)} " if data else "") + shlex.join([python, "-m", *self.arguments])


def versions() -> dict[str, str]:
    """Versions of the packages that the numbers depend on, as far as they are installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def content(name: str) -> str:
    """Hash of a file or of all files of a folder; a name that is neither stands for itself (a hub id, `synthetic`)."""
    path = Path(name)
    if path.is_file():
        return _file_hash(path, path.stat().st_size, path.stat().st_mtime_ns)
    if not path.is_dir():
        return name
    files = sorted(file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    return _hash([f"{file.relative_to(path)} {content(str(file))}" for file in files])


@functools.cache
def _file_hash(path: Path, size: int, mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hash(parts: list[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def key(stage: Stage) -> str:
    """What the stage's output depends on: command, contents read, data, package versions, the room's source."""
    room = ROOT / stage.arguments[0].split(".")[0]
    source = [content(str(file)) for file in sorted(room.rglob("*")) if file.suffix in (".py", ".yaml")]
    data = content(os.environ.get("TATQA_DATA", "official"))
    return _hash([*stage.arguments, *map(content, stage.inputs), data, json.dumps(versions()), *source])


def state(stage: Stage) -> dict[str, Any]:
    try:
        return dict(json.loads(stage.marker.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def done(stage: Stage) -> bool:
    now = state(stage)
    return bool(now.get("done")) and now["key"] == key(stage) and stage.output.exists()


def perform(stage: Stage, say: Any) -> None:
    """Run a stage unless it is done. Raises FailedError, or InputError if the command calls its input wrong."""
    title = f"{stage.folder.name}: {stage.name}"
    if done(stage):
        return say(f"== {title}: done before")
    present, before = key(stage), state(stage)
    if before.get("key") != present:
        remove(stage.output)
    spent = before.get("seconds", 0.0) if before.get("key") == present else 0.0
    note(stage, present, False, spent)
    say(f"== {title}: {stage.command()}")
    started = time.monotonic()
    code = subprocess.run([sys.executable, "-m", *stage.arguments], preexec_fn=_die_with_parent).returncode
    spent += time.monotonic() - started
    if code == 2:
        raise InputError(f"stage {title} refused its input (see above); put it right and run the same command again")
    if code or not stage.output.exists():
        what = f"failed with exit code {code}" if code else f"left no {stage.output}"
        raise FailedError(f"stage {title} {what}; the same command goes on from there")
    note(stage, present, True, spent)
    say(f"== {title}: done in {spent:.0f} s")


def note(stage: Stage, present: str, finished: bool, seconds: float) -> None:
    content_ = {"key": present, "done": finished, "seconds": round(seconds, 1), "command": stage.command()}
    write_whole(stage.marker, json.dumps(content_, indent=1) + "\n")


def remove(output: Path) -> None:
    shutil.rmtree(output) if output.is_dir() else output.unlink(missing_ok=True)


def _die_with_parent() -> None:
    """On Linux: a stage ends when this program is killed, so that a second run never meets a first one's orphan."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run folder. Raises FailedError at once if another program holds it; the system frees it after a kill."""
    import filelock

    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / "run.lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise FailedError(f"another run is at work in {folder}; wait for it or stop it") from None
    try:
        yield
    finally:
        lock.release()
