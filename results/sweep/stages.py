"""Stages: commands that turn files into files, run once for given inputs, under a lock, safe to kill at any moment.

A stage leaves `<name>.stage.json` in its folder: a hash of its command and of all it reads, and whether it is done. The
same and done: skipped. The same, not done: run again over what it left, as every command here goes on where it stopped.
Changed: an output folder is removed first (training guards its own files).
"""

import functools
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import filelock

from results import FailedError, InputError
from results.files import write_whole

ROOT = Path(__file__).resolve().parents[2]
SOURCES = {
    "lm_eval": "tatqa_task",
    "mtbench_runner": "mtbench_runner",
}  # whose code decides a stage's scores
PACKAGES = (
    "torch",
    "transformers",
    "lm_eval",
    "trl",
    "peft",
    "bitsandbytes",
    "fschat",
    "datasets",
    "vllm",
)
# `python -m` that on Linux ends when this program is killed (PR_SET_PDEATHSIG, SIGKILL): a second run never meets the
# first one's orphan, not even where the kill comes before the request. Not as preexec_fn: Python's hooks around a fork
# lose a Ctrl-C that comes just then.
MODULE = """import ctypes, os, runpy, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 9)
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the program that started this stage is gone")
if sys.argv[2] not in sys.path:
    sys.path.insert(0, sys.argv[2])
del sys.argv[:3]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)"""


@dataclass(frozen=True)
class Stage:
    """`python -m ARGUMENTS`: reads `inputs` (files, folders, or names such as hub ids), writes `output`."""

    folder: Path
    name: str
    arguments: list[str]
    inputs: list[str]
    output: Path

    def command(self, python: str = "python") -> str:
        """The command as a person would paste it."""
        data = os.environ.get("TATQA_DATA", "")
        data = os.path.relpath(data) if Path(data).is_absolute() else data
        return (f"TATQA_DATA={shlex.quote(data)} " if data else "") + shlex.join(
            [python, "-m", *self.arguments]
        )

    def key(self) -> str:
        """Hash of all that the output depends on: command, contents read, data, package versions, scoring code."""
        code = sorted((ROOT / SOURCES.get(self.arguments[0], "-")).rglob("*"))
        read = [
            *self.inputs,
            data_source(),
            *(str(file) for file in code if file.suffix in (".py", ".yaml", ".jsonl")),
        ]
        return digest([*self.arguments, *map(content, read), *map(str, versions().items())])

    @property
    def file(self) -> Path:
        return self.folder / f"{self.name}.stage.json"

    def note(self) -> dict[str, Any]:
        """What the stage left about itself: `key`, `done`, `seconds` and `command`; {} if nothing."""
        return (
            dict(json.loads(self.file.read_text(encoding="utf-8"))) if self.file.is_file() else {}
        )

    def done(self) -> bool:
        note = self.note()
        return bool(note.get("done")) and note["key"] == self.key() and self.written()

    def written(self) -> bool:
        """lm-eval only logs that it could not save, so an empty output folder does not count."""
        return self.output.is_file() or any(self.output.rglob("*.json"))


def data_source() -> str:
    return os.environ.get("TATQA_DATA", "official")


def digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def content(name: str) -> str:
    """Hash of a file or of a folder's files; a name that is neither stands for itself (a hub id, `synthetic`)."""
    path = Path(name)
    if path.is_file():
        return _file_hash(path, path.stat().st_size, path.stat().st_mtime_ns)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return (
        digest(f"{file.relative_to(path)} {content(str(file))}" for file in files)
        if files
        else name
    )


@functools.cache
def _file_hash(path: Path, size: int, mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@functools.cache
def versions() -> dict[str, str]:
    """Versions of the packages that the numbers depend on, as far as they are installed."""
    present = {
        d.metadata["Name"].lower().replace("-", "_"): d.version for d in metadata.distributions()
    }
    return {name: present[name] for name in PACKAGES if name in present}


def perform(stage: Stage) -> None:
    """Run a stage unless it is done. Raises FailedError, or InputError if the command refuses its input."""
    title, note = f"{stage.folder.name}: {stage.name}", stage.note()
    if stage.done():
        sys.stderr.write(f"== {title}: done before\n")
        return
    if note.get("key") != stage.key():
        note = {}
        if stage.output.is_dir():
            shutil.rmtree(stage.output)
    spent = note.get("seconds", 0.0)
    note = {"key": stage.key(), "done": False, "seconds": spent, "command": stage.command()}
    write_whole(stage.file, json.dumps(note, indent=1))
    sys.stderr.write(f"== {title}: {stage.command()}\n")
    started = time.monotonic()
    call(stage.arguments, title)
    if not stage.written():
        raise FailedError(f"stage {title} left nothing in {stage.output}; see its messages above")
    seconds = round(spent + time.monotonic() - started, 1)
    write_whole(stage.file, json.dumps(note | {"done": True, "seconds": seconds}, indent=1))
    sys.stderr.write(f"== {title}: done in {seconds:.0f} s\n")


def call(arguments: list[str], title: str) -> None:
    """Run `python -m ARGUMENTS` with its output on the terminal. Raises FailedError or InputError."""
    ours = [sys.executable, "-c", MODULE, str(os.getpid()), str(ROOT)]
    safe = os.environ | {"PYTHONSAFEPATH": "1"}  # a train.py in the working folder is not ours
    code = subprocess.run([*ours, *arguments], env=safe).returncode
    if code == 2:
        raise InputError(
            f"stage {title}: its input is refused, see above; put it right and run the same command again"
        )
    if code:
        raise FailedError(
            f"stage {title}: failed with exit code {code}; the same command goes on from there"
        )


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run folder; the system lets go of it after a kill. Raises FailedError if another program holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(folder / "run.lock", timeout=0):
            yield
    except filelock.Timeout:
        raise FailedError(f"another run is at work in {folder}; wait for it or stop it") from None
