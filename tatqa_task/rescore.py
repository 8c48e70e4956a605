"""Scores the replies of an lm-eval output again, with this version's reader, calculator and metric.

python -m tatqa_task rescore OUTPUT FOLDER

Where those change, scores of earlier runs are not to be compared with new ones. Their replies still
are: `--log_samples` kept them with their questions. What is written is an lm-eval output like the
one that is read, with this version of the task.
"""

import json
from collections.abc import Container, Iterable, Sequence
from pathlib import Path
from typing import Any

from lm_eval.api.metrics import mean, mean_stderr, pooled_sample_stderr

from tatqa_task import files, harness, task_files
from tatqa_task.files import DataError

Row = dict[str, Any]
FILTER = "none"  # lm-eval's name for replies as they came


def rescore(source: Path, target: Path) -> int:
    """Write the output in `source` with new scores into the folder `target`.

    Returns how many questions it has. Raises DataError, with nothing written.
    """
    found = results_file(source)
    ending = f"_{stamp(found)}.jsonl"
    read = sorted(found.parent.glob(f"samples_*{ending}"))
    files.refuse_strangers(target, [found.name, *(file.name for file in read)])
    results = files.read_json(found, "score the model again")
    contents: dict[str, bytes] = {}
    scores: dict[str, list[Row]] = {}
    number = 0
    for samples in read:
        task = samples.name.removeprefix("samples_").removesuffix(ending)
        rows = scored(samples)
        scores[task] = rows
        number += len(rows)
        contents[samples.name] = json_lines(rows).encode()
    missing = sorted(results["configs"].keys() - scores.keys())
    if missing:
        raise DataError(f"{found}: no samples of {', '.join(missing)} beside it")
    summary = json.dumps(summed_up(results, scores), ensure_ascii=False, indent=2)
    contents[found.name] = summary.encode()
    files.write_missing(target, contents)
    return number


def results_file(source: Path) -> Path:
    """The only results file in an output folder, or the file itself. Raises DataError."""
    if source.is_file():
        return source
    found = files.below(source, "results_*.json")
    if len(found) != 1:
        names = ", ".join(map(str, found)) or "none"
        raise DataError(f"{source}: one results_*.json of lm-eval is needed, there are: {names}")
    return found[0]


def stamp(results: Path) -> str:
    """When lm-eval wrote a results file, as the names of its samples have it."""
    return results.stem.removeprefix("results_")


def scored(file: Path) -> list[Row]:
    """The rows of a samples file with new scores. Raises DataError."""
    rows = []
    try:
        for line in file.read_text(encoding="utf-8-sig").split("\n"):
            if line:
                row: Row = json.loads(line)
                rows.append(row | new_scores(row))
    except (ValueError, LookupError, TypeError) as error:
        raise DataError(f"{file} is no lm-eval samples file of a tatqa task ({error!r})") from error
    return rows


def json_lines(rows: Sequence[Row]) -> str:
    """The rows as a samples file has them."""
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    return "".join(lines)


def new_scores(row: Row) -> Row:
    """The metrics of a row, by name, and their names."""
    found = harness.process_results(row["doc"], row["filtered_resps"])
    return {**found, "metrics": list(found)}


def summed_up(results: Row, scores: dict[str, list[Row]]) -> Row:
    """lm-eval's results with new means, standard errors and versions."""
    before = results["results"]
    after: dict[str, Row] = {}
    for task, rows in scores.items():
        after[task] = before[task] | means(rows)
    for group, members in results.get("group_subtasks", {}).items():
        inside = [scores[member] for member in members if member in scores]
        if inside:
            after[group] = before.get(group, {}) | pooled(inside)
    changed = results | {"results": before | after}
    if "groups" in results:
        groups = dict(results["groups"])
        for name in groups.keys() & after.keys():
            groups[name] = after[name]
        changed["groups"] = groups
    changed["versions"] = versions(results["versions"], scores)
    return changed


def versions(names: Iterable[str], tasks: Container[str]) -> Row:
    """This version of each task and group, as lm-eval writes it: a number of tasks, else a text."""
    found: Row = {}
    for name in names:
        found[name] = float(task_files.VERSION) if name in tasks else task_files.VERSION
    return found


def means(rows: Sequence[Row]) -> Row:
    """Mean and standard error of each metric over a task's questions, under lm-eval's keys."""
    found: Row = {}
    for metric in rows[0]["metrics"]:
        values = [row[metric] for row in rows]
        found[f"{metric},{FILTER}"] = mean(values)
        found[f"{metric}_stderr,{FILTER}"] = mean_stderr(values) if len(values) > 1 else "N/A"
    return found


def pooled(tasks: Sequence[Sequence[Row]]) -> Row:
    """The same over a group: every question counts once."""
    found: Row = {}
    sizes = list(map(len, tasks))
    for metric in tasks[0][0]["metrics"]:
        everything: list[float] = []
        errors = []
        for rows in tasks:
            values = [row[metric] for row in rows]
            everything += values
            if len(values) > 1:
                errors.append(mean_stderr(values))
        found[f"{metric},{FILTER}"] = mean(everything)
        stderr: float | str = "N/A"
        if len(errors) == len(tasks):
            stderr = float(pooled_sample_stderr(errors, sizes))
        found[f"{metric}_stderr,{FILTER}"] = stderr
    return found
