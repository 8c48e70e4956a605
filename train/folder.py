"""The folder of a run: which run it holds, and which of its checkpoints are whole."""

import contextlib
import errno
import hashlib
import json
import logging
import os
import shutil
from datetime import date
from pathlib import Path
from typing import Any

from train.recipe import RecipeError, one_line

logger = logging.getLogger(__name__)
MAY_CHANGE = {"memory"}  # fields that decide how a run computes, not which adapter comes out
# What torch.save says, in errors of no type of their own, when the disk takes no more.
TORCH_SAVE = ("PytorchStreamWriter", "inline_container", "iostream error")
MARKER = "run.json"  # of an unfinished run: what it is
DAY = "day_of_prompts"  # there and in train.json, where the chat template writes the date
# What a run writes into its folder, and what a folder of something else holds.
WRITTEN = ("README.md", "curves.svg", "config.json", "*.safetensors", "*.bin", "token*", "*.jinja")
SEAL = "checksums.json"  # written last: a checkpoint with a good one is whole


def check_place(out: Path) -> None:
    """Before the libraries are loaded: raise RecipeError where no run can go."""
    there = next(path for path in (out, *out.parents) if path.exists() or path.is_symlink())
    if not there.is_dir():
        raise RecipeError(f"{there} is no folder; choose another --output_dir")
    if not os.access(there, os.W_OK | os.X_OK):
        raise RecipeError(f"{there} may not be written to; choose another --output_dir")
    if there == out and not any((out / name).exists() for name in ("train.json", MARKER)):
        refuse_files_of_others(out)


def holds(out: Path, identity: dict[str, Any]) -> bool:
    """Whether `out` holds this run, finished.

    Raises RecipeError if it holds another one, or part of it, or files that a run would overwrite.
    """
    if out.exists() and not out.is_dir():
        raise RecipeError(f"{out} is a file; choose another --output_dir")
    for marker in (out / "train.json", out / MARKER):
        if marker.exists():
            refuse_another_run(marker, what_decides(identity))
            return marker.name == "train.json"
    refuse_files_of_others(out)
    return False


def refuse_files_of_others(out: Path) -> None:
    """Raise RecipeError for files that a run would overwrite."""
    if (out / "adapter_config.json").exists() or checkpoints(out):
        raise RecipeError(
            f"{out} holds an adapter that this program did not train; choose another --output_dir"
        )
    for pattern in WRITTEN:
        for path in sorted(out.glob(pattern)):
            raise RecipeError(
                f"{out} holds {path.name}, which a run would overwrite; choose another --output_dir"
            )


def refuse_another_run(marker: Path, here: dict[str, Any]) -> None:
    """Raise RecipeError unless what decides the run that a marker tells of is what decides ours."""
    out = marker.parent
    try:
        there = what_decides(json.loads(marker.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, LookupError):
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
    """Take the marker of a failed run away where nothing of it is kept: a mended recipe may follow.

    The folder goes too if it is empty then.
    """
    if checkpoints(out) or (out / "adapter_config.json").exists():
        return
    (out / MARKER).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # it holds something else
        out.rmdir()


def day_of_prompts(out: Path) -> date:
    """The day that a run's prompts say, where its base's template writes one: today's in a new run.

    A resumed or finished run keeps its own.
    """
    for marker in (out / "train.json", out / MARKER):
        try:
            return date.fromisoformat(json.loads(marker.read_text(encoding="utf-8"))[DAY])
        except (OSError, ValueError, TypeError, LookupError):
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


def seal(checkpoint: Path) -> None:
    """Write down the checksums of a checkpoint's files, and whose it is, to see damage later."""
    sums = {name: sha256(checkpoint / name) for name in sorted(names_in(checkpoint))}
    if run := run_digest(checkpoint.parent):
        sums[MARKER] = run
    partial = checkpoint / f"{SEAL}.partial"
    partial.write_text(json.dumps(sums, indent=1), encoding="utf-8")
    partial.replace(checkpoint / SEAL)


def run_digest(out: Path) -> str | None:
    """What decides which adapter comes out of the run in a folder, as one hash; None without."""
    try:
        facts = what_decides(json.loads((out / MARKER).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, LookupError):
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
    try:
        sums = json.loads((checkpoint / SEAL).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return "was cut short"
    if not isinstance(sums, dict) or not sums:
        return f"has a damaged {SEAL}"
    run = run_digest(checkpoint.parent)
    if sums.pop(MARKER, run) != run:
        return "is of another run"
    foreign = names_in(checkpoint) - set(sums)
    if foreign:
        return f"holds {min(foreign)}, which is no part of it"
    for name, expected in sums.items():
        path = checkpoint / name
        if not path.is_file():
            return f"lacks {name}"
        if sha256(path) != expected:
            return f"has a damaged {name}"
    return None


def remove(checkpoint: Path) -> None:
    """Remove a checkpoint, unless it is of another run or somebody put a file into it."""
    problem = damage(checkpoint)
    if problem and problem.startswith(("is of another run", "holds ")):
        logger.warning("%s %s: it stays", checkpoint, problem)
        return
    shutil.rmtree(checkpoint)


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
