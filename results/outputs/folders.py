"""Which files an lm-eval output consists of, and the rows that they hold.

A results file is dated, and so are the samples beside it; lm-eval up to 0.4.2 named them by the
model, and up to 0.4.5 said less in each row. Whatever cannot be read is one line that names it.
"""

import fnmatch
import json
import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from results import InputError

Row = dict[str, Any]
ENCODING = "utf-8-sig"  # some editors begin a file with a mark, which no JSON allows
# lm-eval's, at the end of the names of results (results_<date>, or as --output_path says)
DATE = re.compile(r"(?<=_)\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d(\.\d+)?$")
NO_FILTER = "none"  # lm-eval's name for replies taken as they are


def read_json(path: Path) -> Any:
    """The content of a JSON file. Raises InputError."""
    if path.suffix == ".jsonl":
        raise InputError(f"{path}: samples alone; give the results file beside it, or the folder")
    try:
        return json.loads(path.read_text(encoding=ENCODING))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file or folder") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error})") from None


def read_lines(path: Path) -> list[Row]:
    """The rows of a JSON-lines file, or of one JSON list. Raises InputError that names the line."""
    try:
        text = path.read_text(encoding=ENCODING)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
    if text.startswith("["):
        return _listed(path, text)
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            rows.append(_read_line(path, number, line))
    return rows


def _listed(path: Path, text: str) -> list[Row]:
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error})") from None
    if all(isinstance(row, dict) for row in rows):
        return list(rows)
    raise InputError(f"{path}: a list, but not of JSON objects")


def _read_line(path: Path, number: int, line: str) -> Row:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        raise InputError(f"{path}, line {number}: not a JSON object; is the file torn?")
    return row


def results_files(path: Path) -> list[Path]:
    """The file itself, or every results file in an lm-eval output folder. Raises InputError."""
    if path.is_file():
        return [path]
    files = dated_results(path) or below(path, "results_*.json") or below(path, "results.json")
    if not files:
        refuse_packed(below(path, "results*.json.*"))
        raise InputError(
            f"{path}: no lm-eval results_*.json there; "
            "run lm_eval with --output_path and --log_samples"
        )
    return files


def dated_results(path: Path) -> list[Path]:
    """Results files by their date: --output_path may have given them another name than results."""
    found = []
    for file in below(path, "*.json"):
        date = DATE.search(file.stem)
        if date is None:
            continue
        if file.name.startswith("results_") or dated_files(file.parent, date[0]):
            found.append(file)
    return found


def below(path: Path, pattern: str) -> list[Path]:
    """The files below a folder, and below the folders in it that are links, by their names.

    Raises InputError if one of the folders cannot be read.
    """
    starts = [path]
    for child in path.glob("*"):
        if child.is_symlink() and child.is_dir():
            starts.append(child)
    found = set()
    for start in starts:
        for folder, _, names in os.walk(start, onerror=refuse_unreadable):
            for name in fnmatch.filter(names, pattern):
                found.add(Path(folder, name))
    return sorted(found)


def refuse_unreadable(error: OSError) -> None:
    """Raise InputError for a folder that may hold what is looked for, but cannot be read."""
    if not isinstance(error, FileNotFoundError):
        raise InputError(f"{error.filename}: cannot be read ({error.strerror})")


def refuse_packed(files: Iterable[Path]) -> None:
    """Raise InputError that names the first of these compressed files, if there is any."""
    for file in sorted(files):
        raise InputError(f"{file}: is packed; unpack it and what lies beside it first")


def results_file(path: Path) -> Path:
    """The file itself, or the newest results file in a folder that this program wrote."""
    return max(results_files(path), key=lambda file: file.name)


def read_results(file: Path) -> dict[str, Any]:
    """The content of an lm-eval results file. Raises InputError."""
    results = read_json(file)
    refusal = InputError(f"{file}: not an lm-eval results file")
    if not isinstance(results, dict):
        raise refusal
    for part in ("config", "configs", "versions"):
        if not isinstance(results.get(part), dict):
            raise refusal
    return results


def samples(results: Path) -> list[Row]:
    """All samples logged with a results file, each with its task's name. Raises InputError."""
    content = read_results(results)
    date = DATE.search(results.stem)
    stamp = date[0] if date else results.stem.removeprefix("results").removeprefix("_")
    files = dated_files(results.parent, stamp) if stamp else undated_files(results.parent, content)
    rows = []
    for task, file in files.items():
        found = read_lines(file)
        for row in found:
            row["task"] = task
        if found and "metrics" not in found[0]:
            found = completed(found, figures_of(content, task))
        rows += found
    if not rows:
        refuse_packed(results.parent.glob("*.jsonl.*"))
        raise InputError(
            f"{results}: no samples_*_{stamp}.jsonl beside it; run lm_eval with --log_samples"
        )
    return rows


def figures_of(results: dict[str, Any], task: str) -> Row:
    """What a results file says of a task or group; {} where it says nothing."""
    figures = results.get("results")
    found = figures.get(task) if isinstance(figures, dict) else None
    return found if isinstance(found, dict) else {}


def dated_files(folder: Path, stamp: str) -> dict[str, Path]:
    """The samples files of one date by task."""
    found = {}
    for file in sorted(folder.glob(f"samples_*_{glob_safe(stamp)}.jsonl")):
        task = file.stem.removeprefix("samples_").removesuffix(f"_{stamp}")
        found[task] = file
    return found


def undated_files(folder: Path, results: dict[str, Any]) -> dict[str, Path]:
    """The same of lm-eval up to 0.4.2: <model args>_<task>.jsonl, by the longest name that fits.

    Raises InputError where two files are of one task.
    """
    found: dict[str, Path] = {}
    for file in sorted(folder.glob("*.jsonl")):
        fitting = [task for task in results["configs"] if file.stem.endswith(f"_{task}")]
        task = max(fitting, key=len, default=None)
        if task in found:
            raise InputError(
                f"{folder}: {found[task].name} and {file.name} both end in {task}; move the one "
                "that is not of results.json away"
            )
        if task is not None:
            found[task] = file
    return dict(sorted(found.items()))


def completed(rows: list[Row], scored: Row) -> list[Row]:
    """Rows of lm-eval up to 0.4.5, which names neither metrics nor filter in them.

    Both are taken from the results, whose keys are "metric,filter". All questions were logged for
    one filter, then all for the next.
    """
    by_filter: dict[str, list[str]] = {}
    for key in scored:
        if "," in key and "_stderr," not in key:
            metric, filter_name = key.split(",", 1)
            by_filter.setdefault(filter_name, []).append(metric)
    filters = list(by_filter) or [NO_FILTER]
    times_seen: Counter[str] = Counter()
    found = []
    for row in rows:
        question = str(row.get("doc_id"))
        filter_name = filters[min(times_seen[question], len(filters) - 1)]
        times_seen[question] += 1
        metrics = [metric for metric in by_filter.get(filter_name, ()) if metric in row]
        found.append({**row, "filter": filter_name, "metrics": metrics})
    return found


def glob_safe(name: str) -> str:
    """A name without a meaning in a glob pattern."""
    return re.sub(r"([*?\[])", r"[\1]", name)


def seeds(path: Path) -> dict[str, Any]:
    """lm-eval's own seeds, as its results file has them; {} for an older version's."""
    config = read_results(results_file(path))["config"]
    found = {}
    for name in sorted(config):
        if name.endswith("_seed"):
            found[name] = config[name]
    return found
