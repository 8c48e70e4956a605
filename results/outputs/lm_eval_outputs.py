"""Tables of scores of every task and group in an lm-eval output."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from results import InputError
from results.outputs.figures import unlike_figures
from results.outputs.folders import Row, read_results, results_file, results_files, samples
from results.outputs.groups import add_group
from results.outputs.identity import is_tatqa
from results.outputs.tables import NO_KEY, table
from results.record import Scores

TATQA_TASK = re.compile(r"_(multi_span|span|arithmetic|count)$")  # a group's four subtasks
UNREADABLE = (  # what reading a row of another shape raises
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)


def lm_eval_scores(path: Path) -> Scores:
    """Scores of a run of one task (or one group of TAT-QA) in a folder that this program wrote."""
    return next(iter(read_tables(results_file(path))[0].values()))


def lm_eval_tables(
    path: Path, cluster_key: str | None = None
) -> tuple[dict[str, Scores], list[str]]:
    """Scores of every task in an lm-eval output (a results file, or a folder), and warnings.

    Raises:
        InputError: Nothing to read, or one task in two results files: then both are named.
    """
    tables: dict[str, Scores] = {}
    origin: dict[str, Path] = {}
    warnings: list[str] = []
    for file in results_files(path):
        found, warned = read_tables(file, cluster_key)
        for name, scores in found.items():
            if name in tables:
                one, other = origin[name].relative_to(path), file.relative_to(path)
                raise InputError(f"{path}: {name} stands in {one} and in {other}; give one of them")
            tables[name] = scores
            origin[name] = file
        warnings += warned
    without = {f"{name}: {NO_KEY} {cluster_key}" for name in tables}
    if cluster_key is not None and without.issubset(warnings):
        raise InputError(f"{path}: no document has {cluster_key}, which --cluster asks for")
    return tables, warnings


def read_tables(file: Path, cluster_key: str | None = None) -> tuple[dict[str, Scores], list[str]]:
    """Scores by task from one results file and its samples, and warnings. Raises InputError."""
    results = read_results(file)
    benches: dict[str, list[Row]] = {}
    for row in samples(file):
        if row["task"] not in results["configs"]:
            raise InputError(
                f"{file}: says nothing of {row['task']}, whose samples lie beside it; "
                "move them away"
            )
        benches.setdefault(bench_of(row, file), []).append(row)
    tables = {}
    warnings: list[str] = []
    for bench, rows in benches.items():
        with readable(file, bench):
            tables[bench], warned = table(bench, rows, results, cluster_key)
            warnings += warned + unlike_figures(tables[bench], results)
    groups = results.get("groups")
    for group in groups if isinstance(groups, dict) else ():
        with readable(file, group):
            warnings += add_group(group, tables, benches, results, cluster_key)
    return tables, warnings


@contextmanager
def readable(file: Path, bench: str) -> Iterator[None]:
    """Raise InputError where samples are not of the shape that lm-eval gives them."""
    try:
        yield
    except UNREADABLE as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{file}: samples of {bench} cannot be read ({type(error).__name__}: {reason})"
        ) from None


def bench_of(row: Row, file: Path) -> str:
    """The task a row belongs to; TAT-QA's four answer types count as one. Raises InputError."""
    if not isinstance(row.get("doc"), dict) or "doc_id" not in row:
        raise InputError(f"{file}: a sample of {row['task']} has no doc or doc_id")
    return TATQA_TASK.sub("", row["task"]) if is_tatqa(row) else str(row["task"])
