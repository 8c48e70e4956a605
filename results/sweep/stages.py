"""Stages: commands that turn files into files, run once for given inputs, safe to kill.

A stage leaves `<name>.stage.json` in its folder: a hash of its command and of all it reads, what it
wrote, and whether it is done. The same and done: skipped. The same, not done: run again over what
it left; training goes on from its checkpoint, TAT-QA's scoring begins anew. Changed: a folder in
its place is set aside first, under a name of its own, and training refuses a folder that holds
another run. Nothing is removed.
"""

import functools
import hashlib
import json
import os
import shlex
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import filelock

from results import FailedError, InputError
from results.files import write_whole
from results.sweep.processes import ROOT, SCORERS, call, is_logged, say

CODE = (".py", ".yaml", ".jsonl")
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
# In a served stage's arguments, until it is known which server answers and under what name.
SERVER, MODEL = "SERVER_URL", "SERVED_MODEL"
LOCK = "run.lock"  # in a run's folder, while somebody is at work there
REFUSED = 2  # the exit code of a command whose input is wrong
TURN_SECONDS = 60  # that another worker may take to write the report
SERVER_NOTE = "server.json"  # in a run's folder: how long it waited for its servers
Names = Mapping[str, str]  # SERVER and MODEL, where a stage is served


class LockedError(FailedError):
    """Another program is at work in a run folder."""


@dataclass(frozen=True)
class Stage:
    """`python -m ARGUMENTS`, which reads `inputs` and writes `output`.

    Inputs are files, folders, or names such as hub ids.
    """

    folder: Path
    name: str
    arguments: list[str]
    inputs: list[str]
    output: Path

    @property
    def title(self) -> str:
        """What it is called in messages."""
        return f"{self.folder.name}: {self.name}"

    @property
    def file(self) -> Path:
        """Where its note is."""
        return self.folder / f"{self.name}.stage.json"

    @property
    def log(self) -> Path:
        """Where its messages go, if not to the terminal."""
        return self.folder / f"{self.name}.log"

    def filled(self, names: Names) -> list[str]:
        """The arguments with the server's address and the model's name in place."""
        words = list(self.arguments)
        for placeholder, value in names.items():
            words = [word.replace(placeholder, value) for word in words]
        return words

    def command(self, python: str = "python", names: Names | None = None) -> str:
        """The command as a person would paste it."""
        data = from_here(os.environ.get("TATQA_DATA", ""))
        setting = f"TATQA_DATA={shlex.quote(data)} " if data else ""
        words = [from_here(word) for word in self.filled(names or {})]
        return setting + shlex.join([python, "-m", *words])

    def key(self) -> str:
        """Hash of all that the output depends on.

        Command, contents read, data, package versions, and the code that scores: any change of it
        scores again. Not the code that trains: an adapter is not thrown away for that, and its
        train.json says of which commit it is.
        """
        code = scoring_code(self.arguments[0])
        read = [*self.inputs, data_source(), *map(str, code)]
        return digest([*self.arguments, *map(content, read), *map(str, versions().items())])

    def note(self) -> dict[str, Any]:
        """What the stage left about itself: key, done, seconds, command, files; {} if nothing."""
        try:
            note = json.loads(self.file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError):
            note = None
        if not isinstance(note, dict) or not isinstance(note.get("key"), str):
            raise InputError(
                f"{self.file}: no note of a stage any more; move it away to start anew"
            )
        return note

    def done(self) -> bool:
        """Whether it need not run: the same work was done, and all that it wrote is there."""
        note = self.note()
        if not note.get("done") or note["key"] != self.key() or not self.written():
            return False
        return all((self.folder / name).is_file() for name in note.get("files", []))

    def written(self) -> bool:
        """lm-eval only logs that it could not save, so an empty output folder does not count."""
        return self.output.is_file() or any(self.output.rglob("*.json"))

    def files(self) -> list[str]:
        """All files in its place, as paths in its folder."""
        found = [self.output] if self.output.is_file() else sorted(self.output.rglob("*"))
        return [str(file.relative_to(self.folder)) for file in found if file.is_file()]


def scoring_code(program: str) -> list[Path]:
    """The project's files that decide what a program scores."""
    if program not in SCORERS:
        return []
    files = sorted((ROOT / SCORERS[program]).rglob("*"))
    return [file for file in files if file.suffix in CODE]


def data_source() -> str:
    """Where the questions come from: a folder, `synthetic`, or the official files."""
    return os.environ.get("TATQA_DATA", "official")


def digest(parts: Iterable[str]) -> str:
    """SHA-256 of several texts."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def content(name: str) -> str:
    """Hash of a file or of a folder's files; a name that is neither stands for itself.

    A folder's own description (*.md) is left out: with another text it is the same model or data.
    """
    path = Path(name)
    if path.is_file():
        return _file_hash(path, path.stat().st_size, path.stat().st_mtime_ns)
    files = sorted(f for f in path.rglob("*") if f.is_file() and f.suffix != ".md")
    if not files:
        return name  # a hub id, or `synthetic`
    return digest(f"{file.relative_to(path)} {content(str(file))}" for file in files)


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


def from_here(word: str) -> str:
    """An absolute path as seen from the working folder: a record is not to show where that lies."""
    return os.path.relpath(word) if Path(word).is_absolute() else word


def perform(stage: Stage, names: Names | None = None, bars: bool = True) -> None:
    """Run a stage unless it is done. Raises FailedError, or InputError if its input is refused.

    `bars`: whether a scorer's progress is shown.
    """
    perform_together([stage], names, bars)


def perform_together(
    stages: Sequence[Stage], names: Names | None = None, bars: bool = True
) -> None:
    """Run those of the stages that are not done, all at once. Raises as `perform` does."""
    started = []
    before = {}
    for stage in stages:
        if stage.done():
            say(f"{stage.title}: done before")
        else:
            before[stage.name] = stage.note()
            started.append((stage, begin(stage, names or {})))
    since = time.monotonic()
    codes = call([(stage.filled(names or {}), stage.log) for stage, _ in started], bars)
    seconds = time.monotonic() - since
    for (stage, note), code in zip(started, codes, strict=True):
        if code == 0:
            end(stage, note, seconds)
        elif code == REFUSED:
            restore(stage, before[stage.name])
    for (stage, _), code in zip(started, codes, strict=True):
        raise_for_code(stage.title, code)


def restore(stage: Stage, note: dict[str, Any]) -> None:
    """Put back what was noted of other work before, if anything was: it may still stand."""
    if note:
        write_whole(stage.file, json.dumps(note, indent=1))


def begin(stage: Stage, names: Names) -> dict[str, Any]:
    """Make the stage's place ready and note that it is at work; returns the note."""
    note, key = stage.note(), stage.key()
    if note.get("key") != key:
        note = {}
        if stage.output.is_dir() and any(stage.output.iterdir()):
            say(f"{stage.title}: what was there is kept as {set_aside(stage.output)}")
    command = stage.command(names=names)
    note = {"key": key, "done": False, "seconds": note.get("seconds", 0.0), "command": command}
    write_whole(stage.file, json.dumps(note, indent=1))
    if is_logged(stage.arguments):
        say(f"{stage.title}: begins; what it says is in {from_here(str(stage.log))}")
    else:
        say(f"{stage.title}: {command}")
    return note


def end(stage: Stage, note: dict[str, Any], seconds: float) -> None:
    """Note that the stage is done. Raises FailedError if it left nothing."""
    if not stage.written():
        raise FailedError(f"stage {stage.title} left nothing in {stage.output}; see {stage.log}")
    spent = round(note["seconds"] + seconds, 1)
    done = note | {"done": True, "seconds": spent, "files": stage.files()}
    write_whole(stage.file, json.dumps(done, indent=1))
    say(f"{stage.title}: done in {spent:.0f} s")


def note_server(folder: Path, purpose: str, seconds: float) -> None:
    """Note how long a run waited for the server that now does this for it.

    0 where the server had been started for another run.
    """
    known = server_seconds(folder) | {purpose: round(seconds, 1)}
    write_whole(folder / SERVER_NOTE, json.dumps(known))


def server_seconds(folder: Path) -> dict[str, float]:
    """Seconds of starting servers for a run, by what it wanted one for."""
    try:
        known = json.loads((folder / SERVER_NOTE).read_text(encoding="utf-8"))
        return {str(purpose): float(seconds) for purpose, seconds in known.items()}
    except (OSError, ValueError, RecursionError, AttributeError, TypeError):
        return {}


def set_aside(path: Path) -> Path:
    """Rename a file or folder so that its place is free; returns where it is now."""
    number = 1
    while os.path.lexists(aside := path.with_name(f"{path.name}.old-{number}")):
        number += 1
    return path.rename(aside)


def raise_for_code(title: str, code: int) -> None:
    """Raise what an exit code means."""
    if code == REFUSED:
        raise InputError(
            f"stage {title}: its input is refused, see above; put it right and run the same"
            " command again"
        )
    if code:
        raise FailedError(
            f"stage {title}: failed with exit code {code}; the same command goes on from there"
        )


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run folder; the system lets go of it after a kill.

    Raises LockedError if another program holds it, FailedError if the place has no locks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        said = f"another run is at work there{holder(folder)}"
        raise LockedError(f"{folder.name}: {said}; it is looked at again later") from None
    except OSError as error:
        raise FailedError(
            f"{folder / LOCK}: cannot be locked ({error.strerror}), so several runs could meet"
            " there; give --runs on a file system with flock (NFS 4, Lustre mounted with -o flock)"
        ) from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def in_turn(file: Path) -> Iterator[None]:
    """Wait until no other worker holds this lock, and hold it.

    Where there are no locks, or another one takes too long, go on without.
    """
    lock = filelock.FileLock(file, timeout=TURN_SECONDS)
    with suppress(filelock.Timeout, OSError):
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def holder(folder: Path) -> str:
    """Who holds a folder where the file system has no flock and the lock is a file with a name.

    Such a lock stays after the death of another host, and only a person knows of that.
    """
    try:
        lines = (folder / LOCK).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return ""
    if len(lines) < 2:
        return ""
    return f" (process {lines[0]} of {lines[1]}; if that is gone, delete {folder / LOCK})"
