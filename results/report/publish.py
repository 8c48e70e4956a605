"""`python -m results report --runs RUNS`: the report's files, from the records and nothing else.

A report is a folder: README.md, figures/, report.html. Only what its manifest says this program
wrote is ever replaced or removed; anything else in the way is named, and nothing is written.
"""

import os
from pathlib import Path

from results.files import Manifest, sealed
from results.report import collect, log, page, questions, sections
from results.sweep.recipes import REPORT

PACKAGE = Path(__file__).resolve().parents[1]
PAGE = "report.html"  # depends on raw samples, which are not committed: --check leaves it out
FIXED = ("README.md", PAGE)


def folder_for(runs: Path, given: Path | None) -> Path:
    """Where the report goes: as given, else into a folder of its own among the runs."""
    return runs / REPORT if given is None else given


def is_projects_own(out: Path) -> bool:
    """Is this the committed report of the project itself? It alone shows the experiment log."""
    return os.path.realpath(out) == str(PACKAGE)  # Path.resolve raises where links make a loop


def check_place(out: Path) -> None:
    """Before any work: raise InputError that names what is in the way of a report here."""
    Manifest(out).refuse(FIXED)


def render(runs: Path, own: bool) -> tuple[dict[str, str], list[str]]:
    """Text of every file of the report by its name, and a line for each thing that was not read."""
    found, problems = collect.collect(runs)
    content = list(sections.blocks(found, problems, own))
    pairs = []
    for run in found:
        for record in run.records:
            pairs.append((run.base.name, record.name))
    answered, unread = questions.of_runs(runs, pairs)
    problems = problems + unread
    extra = list(log.blocks()) if own else []
    files = {}
    for kind, item in content:
        if kind == "figure":
            name, _, drawing = item
            files[f"figures/{name}"] = drawing
    files["README.md"] = page.markdown(content)
    files[PAGE] = sealed(page.html([*content, *extra], answered))
    if own:
        files["report/log/README.md"] = page.markdown(extra)
    return files, problems


def write(runs: Path, out: Path) -> list[str]:
    """Write the report; a line for each thing that could not be read. Raises InputError."""
    files, problems = render(runs, is_projects_own(out))
    Manifest(out).write(files)
    return problems


def stale(runs: Path, out: Path) -> list[str]:
    """What `write` would change among the committed files or cannot read, a line each."""
    files, problems = render(runs, is_projects_own(out))
    manifest = Manifest(out)
    for name, text in sorted(files.items()):
        if name != PAGE and not manifest.holds(name, text):
            problems.append(f"{out / name} is not what the records say")
    for path in manifest.in_the_way(()):
        problems.append(f"{path} is not as this program wrote it: delete it")
    for name in sorted(manifest.hashes):
        if name not in files and manifest.owns(name):
            problems.append(f"{out / name} is supported by no record")
    return problems
