"""The folder of a run: which run it holds, and which of its checkpoints are whole."""

import contextlib
import errno
import fnmatch
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

from tatqa_task.files import write_whole
from train.base import ADAPTER
from train.recipe import RecipeError, one_line

logger = logging.getLogger(__name__)
# Fields that decide how a run computes and what it says of it, not which adapter comes out.
MAY_CHANGE = {"memory", "save_steps", "report_to"}
# What torch.save says, in errors of no type of their own, when the disk takes no more.
TORCH_SAVE = ("PytorchStreamWriter", "inline_container", "iostream error")
MARKER = "run.json"  # of an unfinished run: what it is
DAY = "day_of_prompts"  # there and in train.json, where the chat template writes the date
RESULT = "train.json"  # of a finished run
# What a run writes into its folder, and what a folder of something else holds.
WRITTEN = (
    *("README.md", "curves.svg", "config.json", "*.safetensors", "*.bin", "token*", "*.jinja"),
    *(MARKER, RESULT),
)
SEAL = "checksums.json"  # written last: a checkpoint with a good one is whole
KEPT = 2  # checkpoints of an unfinished run
CARD = "is `train.json`; `curves.svg` shows"  # in every card that this program writes
BEGUN = f"{SEAL}.begun"  # written first: whose the files are, until the seal says it
UNREADABLE = (OSError, ValueError, RecursionError, TypeError, LookupError)  # or of another form
LOCK = ".train.lock"  # while a run is at work there; hidden, so that no folder is taken for used


class BusyError(Exception):
    """Another training is at work in a folder; the message is one line."""


@contextlib.contextmanager
def held(out: Path) -> Iterator[None]:
    """Hold a run folder, and leave none behind that nothing was written to.

    The system lets go of it after a kill. Of several processes that train together the first holds
    it. A file system without locks takes a run all the same. Raises BusyError.
    """
    if int(os.environ.get("RANK", "0")):
        yield
        return
    import filelock

    new = [path for path in (out, *out.parents) if not path.exists()]
    out.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(out / LOCK, timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise BusyError(
            f"another training is at work in {out}; wait for it, or choose another --output_dir"
        ) from None
    except OSError as error:
        logger.warning("%s: not locked (%s); start no other run there", out, error.strerror)
    try:
        yield
    finally:
        if lock.is_locked:
            (out / LOCK).unlink(missing_ok=True)
            lock.release()
        with contextlib.suppress(OSError):  # one holds something
            for path in new:
                path.rmdir()


def check_place(out: Path, recipe: Mapping[str, Any]) -> None:
    """Before the libraries are loaded: raise RecipeError where no run of this recipe can go."""
    there = next(path for path in (out, *out.parents) if path.exists() or path.is_symlink())
    if not there.is_dir():
        raise RecipeError(f"{there} is no folder; choose another --output_dir")
    if not os.access(there, os.W_OK | os.X_OK):
        raise RecipeError(f"{there} may not be written to; choose another --output_dir")
    if there == out:
        refuse_another_recipe(out, recipe)


def refuse_another_recipe(out: Path, recipe: Mapping[str, Any]) -> None:
    """Raise RecipeError unless a folder holds a run of this recipe, or nothing in a run's way."""
    for marker in (out / RESULT, out / MARKER):
        if marker.exists():
            known = dict(recipe)
            known.pop("pairs", None)  # of the pairs their content decides, which is read later
            return refuse_another_run(marker, known)
    return refuse_files_of_others(out)


def holds(out: Path, identity: dict[str, Any]) -> bool:
    """Whether `out` holds this run, finished.

    Raises RecipeError if it holds another one, or part of it, or files that a run would overwrite.
    """
    if out.exists() and not out.is_dir():
        raise RecipeError(f"{out} is a file; choose another --output_dir")
    if (out / RESULT).exists():
        refuse_another_run(out / RESULT, what_decides(identity))
        return True
    if (out / MARKER).exists():
        refuse_another_run(out / MARKER, what_decides(identity))
        refuse_foreign_checkpoints(out)
        return False
    refuse_files_of_others(out)
    return False


def refuse_foreign_checkpoints(out: Path) -> None:
    """Raise RecipeError for a checkpoint that a run could not write or remove as its own."""
    for checkpoint in checkpoints(out):
        if problem := foreign(checkpoint):
            raise RecipeError(f"{checkpoint} {problem}; move it away, or choose another folder")


def refuse_files_of_others(out: Path) -> None:
    """Raise RecipeError for what a run would overwrite, links to nothing included."""
    names = sorted(os.listdir(out)) if out.is_dir() else []
    if ADAPTER in names or checkpoints(out):
        raise RecipeError(
            f"{out} holds an adapter that this program did not train; choose another --output_dir"
        )
    for name in names:
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in WRITTEN):
            raise RecipeError(
                f"{out} holds {name}, which a run would overwrite; choose another --output_dir"
            )


def refuse_another_run(marker: Path, here: dict[str, Any]) -> None:
    """Raise RecipeError unless what decides the run that a marker tells of is what decides ours."""
    out = marker.parent
    try:
        there = what_decides(json.loads(marker.read_text(encoding="utf-8")))
    except UNREADABLE:
        raise RecipeError(
            f"{marker} is damaged, so nobody can say which run {out} holds; "
            "choose another --output_dir or delete it"
        ) from None
    for name, value in here.items():
        if there.get(name) != value and name not in MAY_CHANGE:
            raise RecipeError(
                f"{out} holds a run with other {name}; choose another --output_dir or delete it"
            )


def forget_without_checkpoint(out: Path) -> None:
    """Take the marker of a failed run away if nothing of it is kept: a mended recipe may follow."""
    if checkpoints(out) or (out / ADAPTER).exists():
        return
    (out / MARKER).unlink(missing_ok=True)


def day_of_prompts(out: Path) -> date:
    """The day that a run's prompts say, where its base's template writes one: today's in a new run.

    A resumed or finished run keeps its own.
    """
    for marker in (out / RESULT, out / MARKER):
        try:
            return date.fromisoformat(json.loads(marker.read_text(encoding="utf-8"))[DAY])
        except UNREADABLE:
            pass
    return date.today()


def what_decides(facts: dict[str, Any]) -> dict[str, Any]:
    """What decides which adapter comes out, by names for a message."""
    return {
        **facts["recipe"],
        "pairs": facts["data_sha256"],
        "base model weights": facts["base_sha256"],
        "init_adapter weights": facts.get("init_adapter_sha256"),
    }


def checkpoints(out: Path) -> list[Path]:
    """The checkpoints of a run folder, the newest first; a copy by another name is none."""
    found = {}
    for path in out.glob("checkpoint-*"):
        step = path.name.removeprefix("checkpoint-")
        if step.isascii() and step.isdigit() and path.is_dir():
            found[int(step)] = path
    return [found[step] for step in sorted(found, reverse=True)]


def begin(checkpoint: Path) -> None:
    """Note in the folder of a new checkpoint whose it is: killed before it is sealed, it may go.

    Raises RecipeError where somebody else's files are.
    """
    if problem := foreign(checkpoint):
        raise RecipeError(f"{checkpoint} {problem}; move it away")
    checkpoint.mkdir(parents=True, exist_ok=True)
    write_sums(checkpoint / BEGUN, {MARKER: run_digest(checkpoint.parent)})


def seal(checkpoint: Path) -> None:
    """Write down the checksums of a checkpoint's files, and whose it is, to see damage later."""
    sums: dict[str, str | None] = {}
    for name in sorted(names_in(checkpoint)):
        sums[name] = sha256(checkpoint / name)
    write_sums(checkpoint / SEAL, sums | {MARKER: run_digest(checkpoint.parent)})
    (checkpoint / BEGUN).unlink(missing_ok=True)


def write_sums(path: Path, sums: Mapping[str, str | None]) -> None:
    """Write a seal, or the beginning of one, whole or not at all."""
    known = {name: value for name, value in sums.items() if value is not None}
    write_whole(path, json.dumps(known, indent=1).encode())


def read_sums(path: Path) -> dict[str, str] | None:
    """A seal, or the beginning of one; None if there is no whole one."""
    try:
        sums = json.loads(path.read_text(encoding="utf-8"))
    except UNREADABLE:
        return None
    return sums if isinstance(sums, dict) else None


def foreign(checkpoint: Path) -> str | None:
    """What is in a checkpoint's place that this run did not write; None if nothing is.

    What a run wrote is what its seal names, or all where it had begun and was killed.
    """
    if checkpoint.is_symlink():
        return "is a link"
    run = run_digest(checkpoint.parent)
    names = names_in(checkpoint)
    sealed, begun = read_sums(checkpoint / SEAL), read_sums(checkpoint / BEGUN)
    known = sealed or begun
    if known is None:
        return f"holds {min(names)}, and nothing says that a run wrote it" if names else None
    if known.get(MARKER, run) != run:
        return "is of another run"
    others = names - known.keys()
    if others and begun is None:
        return f"holds {min(others)}, which is no part of it"
    return None


def run_digest(out: Path) -> str | None:
    """What decides which adapter comes out of the run in a folder, as one hash; None without."""
    try:
        facts = what_decides(json.loads((out / MARKER).read_text(encoding="utf-8")))
    except UNREADABLE:
        return None
    decides = {name: value for name, value in facts.items() if name not in MAY_CHANGE}
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def names_in(checkpoint: Path) -> set[str]:
    """The files of a checkpoint but its seal; hidden ones are other programs'."""
    names = set()
    for path in checkpoint.rglob("*"):
        name = path.relative_to(checkpoint).as_posix()
        if path.is_file() and not name.startswith((".", SEAL)):
            names.add(name)
    return names


def sha256(path: Path) -> str:
    """The sha256 of a file's content."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint; None if every file is as it was written."""
    if problem := foreign(checkpoint):
        return problem
    sums = read_sums(checkpoint / SEAL)
    if sums is None or (checkpoint / BEGUN).exists():
        return "was cut short"
    for name in sums.keys() - {MARKER}:
        path = checkpoint / name
        if not path.is_file():
            return f"lacks {name}"
        if sha256(path) != sums[name]:
            return f"has a damaged {name}"
    return None


def remove(checkpoint: Path) -> None:
    """Remove a checkpoint, unless it is of another run or somebody put a file into it."""
    if problem := foreign(checkpoint):
        logger.warning("%s %s: it stays", checkpoint, problem)
        return
    shutil.rmtree(checkpoint)


def remove_older(out: Path) -> None:
    """Keep the newest checkpoints of a run and remove its others."""
    for checkpoint in checkpoints(out)[KEPT:]:
        remove(checkpoint)


def set_readme_aside(out: Path) -> None:
    """Rename a README.md that somebody wrote while the run was under way: PEFT writes into it."""
    readme = out / "README.md"
    if not os.path.lexists(readme) or (not readme.is_symlink() and is_card(readme)):
        return
    number = 1
    while os.path.lexists(aside := out / f"README.md.old-{number}"):
        number += 1
    readme.rename(aside)
    logger.warning("%s is not this program's: it is %s now", readme, aside.name)


def is_card(readme: Path) -> bool:
    """Whether a file is a model card that this program wrote."""
    return CARD in readme.read_text(encoding="utf-8", errors="replace")


def last_checkpoint(out: Path) -> Path | None:
    """The newest whole checkpoint; what is wrong with newer ones is said."""
    for path in checkpoints(out):
        problem = damage(path)
        if problem is None:
            return path
        logger.warning("%s %s: going on from the one before", path, problem)
    return None


def unwritable(error: Exception, out: Path) -> str:
    """One line for a failed write; any other error is raised again."""
    text = str(error)
    of_torch = any(mark in text for mark in TORCH_SAVE)
    if not (isinstance(error, OSError) or "(os error" in text or of_torch):
        raise error
    full = getattr(error, "errno", None) == errno.ENOSPC or shutil.disk_usage(out).free < 1 << 20
    reason = "no space left" if full else one_line(error)
    if of_torch and not full:
        reason = "a file could not be written whole"  # torch speaks of positions in a stream
    return (
        f"cannot write to {out}: {reason}; "
        "mend that, then the same command goes on from the last checkpoint"
    )
