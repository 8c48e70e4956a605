"""Scores the replies of an lm-eval output again, with this version's reader, calculator and metric.

python -m tatqa_task rescore OUTPUT FOLDER

Where those change, scores of earlier runs are not to be compared with new ones. Their replies still
are: `--log_samples` kept them with their questions. What is written is an lm-eval output like the
one that is read, with this version of the task.
"""

import json
from collections.abc import Sequence
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
    if target.exists() and any(target.iterdir()):
        raise DataError(f"{target}: there are files in it; name a new folder")
    found = results_file(source)
    results = files.read_json(found, "score the model again")
    written = {}
    scores: dict[str, list[Row]] = {}
    for samples in sorted(found.parent.glob(f"samples_*_{stamp(found)}.jsonl")):
        task = samples.name.removeprefix("samples_").removesuffix(f"_{stamp(found)}.jsonl")
        rows = scored(samples)
        scores[task] = rows
        written[samples.name] = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows)
    missing = sorted(results["configs"].keys() - scores.keys())
    if missing:
        raise DataError(f"{found}: no samples of {', '.join(missing)} beside it")
    written[found.name] = json.dumps(summed_up(results, scores), ensure_ascii=False, indent=2)
    target.mkdir(parents=True, exist_ok=True)
    for name, text in written.items():
        files.write_whole(target / name, text.encode())
    return sum(len(rows) for rows in scores.values())


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
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
        rows: list[Row] = [json.loads(line) for line in lines if line]
        return [row | new_scores(row) for row in rows]
    except (ValueError, LookupError, TypeError) as error:
        raise DataError(f"{file} is no lm-eval samples file of a tatqa task ({error!r})") from error


def new_scores(row: Row) -> Row:
    """The metrics of a row, by name, and their names."""
    found = harness.process_results(row["doc"], row["filtered_resps"])
    return {**found, "metrics": list(found)}


def summed_up(results: Row, scores: dict[str, list[Row]]) -> Row:
    """lm-eval's results with new means, standard errors and versions."""
    changed = dict(results)
    tables: dict[str, Row] = {}
    for task, rows in scores.items():
        tables[task] = results["results"][task] | means(rows)
    for group, members in results.get("group_subtasks", {}).items():
        inside = [scores[member] for member in members if member in scores]
        if inside:
            tables[group] = results["results"].get(group, {}) | pooled(inside)
    changed["results"] = results["results"] | tables
    if "groups" in results:
        changed["groups"] = {name: tables.get(name, row) for name, row in results["groups"].items()}
    version = float(task_files.VERSION)
    changed["versions"] = {
        name: version if name in scores else task_files.VERSION for name in results["versions"]
    }
    return changed


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
    sizes = [len(rows) for rows in tasks]
    for metric in tasks[0][0]["metrics"]:
        each = [[row[metric] for row in rows] for rows in tasks]
        found[f"{metric},{FILTER}"] = mean([value for values in each for value in values])
        errors = [mean_stderr(values) for values in each if len(values) > 1]
        whole = len(errors) == len(each)
        stderr = float(pooled_sample_stderr(errors, sizes)) if whole else "N/A"
        found[f"{metric}_stderr,{FILTER}"] = stderr
    return found
