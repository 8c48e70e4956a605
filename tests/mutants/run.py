"""Mutants: one operator or constant changed at a time, and the module's own tests must notice.

    python tests/mutants/run.py                 # all lists
    python tests/mutants/run.py tatqa_task      # tests/mutants/tatqa_task.toml

A list has entries of `file`, `old` (a text that occurs once in it), `new`, `test` (the one test
file that is run), and, for a change that no test can see, `equivalent` with the reason. Work is
done on a copy of the repository, so nothing here is touched. Exit code 0: every mutant is killed,
or listed as equivalent and alive; 1: not so; 2: a list is wrong.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LISTS = Path(__file__).parent
LONGEST = 900  # seconds for one test file; a mutant may loop for ever


class ListError(Exception):
    """A list of mutants does not fit the code."""


@dataclass(frozen=True)
class Mutant:
    """One change of one file, the tests that must fail, or why none can."""

    file: str
    old: str
    new: str
    test: str
    equivalent: str | None = None

    def title(self) -> str:
        """The change on one line."""
        old, new = (" ".join(text.split()) for text in (self.old, self.new))
        return f"{self.file}: {old}  ->  {new}"

    def applied(self, source: str) -> str:
        """The file's text with the change. Raises ListError if it has not exactly one place."""
        if source.count(self.old) != 1:
            raise ListError(f"{self.title()}: old occurs {source.count(self.old)} times")
        if self.old == self.new:
            raise ListError(f"{self.title()}: old and new are the same")
        return source.replace(self.old, self.new)


def read_list(path: Path) -> list[Mutant]:
    """The mutants of one list. Raises ListError."""
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8"))["mutant"]
        return [Mutant(**entry) for entry in entries]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ListError(f"{path}: not a list of mutants ({error})") from None


def check(mutant: Mutant, root: Path = ROOT) -> None:
    """Raise ListError if the mutant cannot be applied or its tests are not there."""
    source = root / mutant.file
    for path in (source, root / mutant.test):
        if not path.is_file():
            raise ListError(f"{mutant.title()}: no file {path}")
    mutant.applied(source.read_text(encoding="utf-8"))


def copy_repository(target: Path) -> None:
    """Copy what git tracks, as it lies here, to an empty folder."""
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.split("\0"):
        source = ROOT / name
        if name and source.is_file():
            copy = target / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, copy)


def failure(root: Path, test: str) -> str:
    """How a test file fails in the copy, whose packages come first; "" if it passes."""
    environment = os.environ | {
        "PYTHONPATH": str(root),
        "PYTHONDONTWRITEBYTECODE": "1",  # a changed file of the same size and second is read anew
        "CI": "true",  # Hypothesis draws the same examples each time
    }
    words = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", test]
    try:
        done = subprocess.run(
            words, cwd=root, env=environment, capture_output=True, timeout=LONGEST, check=False
        )
    except subprocess.TimeoutExpired:
        return f"longer than {LONGEST} s"
    if done.returncode == 0:
        return ""
    last_line = done.stdout.decode(errors="replace").strip().rpartition("\n")[2]
    if done.returncode != 1:
        raise ListError(f"{test}: pytest cannot run it: {last_line}")
    failed = [
        line for line in done.stdout.decode(errors="replace").splitlines() if "FAILED" in line
    ]
    return " ".join(failed) or last_line


def survives(mutant: Mutant, root: Path) -> bool:
    """Apply one mutant in the copy, run its tests, and put the file back."""
    path = root / mutant.file
    source = path.read_text(encoding="utf-8")
    path.write_text(mutant.applied(source), encoding="utf-8")
    try:
        return not failure(root, mutant.test)
    finally:
        path.write_text(source, encoding="utf-8")


def outcome(mutant: Mutant, alive: bool) -> tuple[bool, str]:
    """Whether it is as it should be, and the word for it."""
    if mutant.equivalent:
        return alive, "equivalent" if alive else "KILLED, but listed as equivalent"
    return not alive, "SURVIVED" if alive else "killed"


def run(mutants: Sequence[Mutant], root: Path) -> int:
    """Try every mutant; the number of those that are not as they should be. Raises ListError."""
    for test in sorted({mutant.test for mutant in mutants}):
        reason = failure(root, test)
        if reason:
            raise ListError(f"{test} fails without any mutant: {reason}")
    wrong = 0
    for mutant in mutants:
        good, word = outcome(mutant, survives(mutant, root))
        wrong += not good
        print(f"{word:10} {mutant.title()}", flush=True)
    return wrong


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the lists, try the mutants, report the survivors."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("lists", nargs="*", help="names of lists beside this script (default: all)")
    options = parser.parse_args(arguments)
    names = options.lists or sorted(path.stem for path in LISTS.glob("*.toml"))
    try:
        mutants = [mutant for name in names for mutant in read_list(LISTS / f"{name}.toml")]
        for mutant in mutants:
            check(mutant)
        with tempfile.TemporaryDirectory() as folder:
            copy_repository(Path(folder))
            wrong = run(mutants, Path(folder))
    except ListError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{len(mutants)} mutants, {wrong} not as they should be")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
