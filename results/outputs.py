"""Reading what other programs wrote: lm-eval's results and samples, MT-Bench score files."""

import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from results import InputError
from results.record import Scores

Row = dict[str, Any]
TATQA = ("em", "em_strict", "f1", "scale_em", "parsed", "lenient_em", "calc_used")
TATQA_TASK = re.compile(r"_(multi_span|span|arithmetic|count)$")  # a group's four subtasks
SCORE_FIELDS = {
    "bench",
    "judge",
    "stand_in",
    "n_questions",
    "per_question",
    "missing",
    "unparsable",
}
ENCODING = "utf-8-sig"  # some editors begin a file with a mark, which no JSON allows
# lm-eval's, at the end of the names of results (results_<date>, or as --output_path says)
DATE = re.compile(r"(?<=_)\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d(\.\d+)?$")
NO_FILTER = "none"  # lm-eval's name for replies taken as they are
SYNTHETIC = "synthetic-"  # so begin the names of generated questions
SUCCESS = 7  # a rating from here up counts as a success
# metrics of (log-likelihood, units): the mean log-perplexity per unit, in nats or bits
PER_UNIT = {"word_perplexity": 1.0, "byte_perplexity": 1.0, "bits_per_byte": 1 / math.log(2)}
LOG_LIKELIHOODS = ("perplexity",)  # of one log-likelihood a row: exp of minus its mean
UNREADABLE = (  # what reading a row of another shape raises
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)
LARGEST = 1e100  # of a score
NO_KEY = "each question stands alone, its document has no"
SHARED_TEXT = ("passage", "context", "article", "paragraph", "document", "story")


@dataclass(frozen=True)
class Reply:
    """One reply as a person reads it."""

    item: str
    kind: str
    question: str
    gold: str
    text: str
    score: float | None
    parsed: float | None = None


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
    return [_read_line(path, i, line) for i, line in enumerate(text.split("\n"), 1) if line.strip()]


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
    return [
        file
        for file in below(path, "*.json")
        if (date := DATE.search(file.stem))
        and (file.name.startswith("results_") or dated_files(file.parent, date[0]))
    ]


def below(path: Path, pattern: str) -> list[Path]:
    """The files below a folder, and below the folders in it that are links, by their names."""
    links = [child for child in path.glob("*") if child.is_symlink() and child.is_dir()]
    return sorted({file for folder in (path, *links) for file in folder.rglob(pattern)})


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
    if not isinstance(results, dict) or not all(
        isinstance(results.get(part), dict) for part in ("config", "configs", "versions")
    ):
        raise InputError(f"{file}: not an lm-eval results file")
    return results


def samples(results: Path) -> list[Row]:
    """All samples logged with a results file, each with its task's name. Raises InputError."""
    content = read_results(results)
    date = DATE.search(results.stem)
    stamp = date[0] if date else results.stem.removeprefix("results").removeprefix("_")
    files = dated_files(results.parent, stamp) if stamp else undated_files(results.parent, content)
    rows = []
    for task, file in files.items():
        found = [{**row, "task": task} for row in read_lines(file)]
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
    files = sorted(folder.glob(f"samples_*_{glob_safe(stamp)}.jsonl"))
    return {file.stem.removeprefix("samples_").removesuffix(f"_{stamp}"): file for file in files}


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
    names = [key.split(",", 1) for key in scored if "," in key and "_stderr," not in key]
    filters = list(dict.fromkeys(name for _, name in names)) or [NO_FILTER]
    before: dict[str, int] = {}  # how often a question was seen
    found = []
    for row in rows:
        question = str(row.get("doc_id"))
        place = min(before.get(question, 0), len(filters) - 1)
        before[question] = before.get(question, 0) + 1
        metrics = [metric for metric, name in names if name == filters[place] and metric in row]
        found.append({**row, "filter": filters[place], "metrics": metrics})
    return found


def glob_safe(name: str) -> str:
    """A name without a meaning in a glob pattern."""
    return re.sub(r"([*?\[])", r"[\1]", name)


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
                one, other = (taken.relative_to(path) for taken in (origin[name], file))
                raise InputError(f"{path}: {name} stands in {one} and in {other}; give one of them")
            tables[name], origin[name] = scores, file
        warnings += warned
    if cluster_key and all(f"{name}: {NO_KEY} {cluster_key}" in warnings for name in tables):
        raise InputError(f"{path}: no document has {cluster_key}, which --cluster asks for")
    return tables, warnings


def read_tables(file: Path, cluster_key: str | None = None) -> tuple[dict[str, Scores], list[str]]:
    """Scores by task from one results file and its samples, and warnings. Raises InputError."""
    results = read_results(file)
    benches: dict[str, list[Row]] = {}
    for row in samples(file):
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


def unlike_figures(scores: Scores, results: dict[str, Any]) -> list[str]:
    """A warning for each metric whose figure in the results is not the mean over the samples."""
    figures = figures_of(results, scores.bench)
    found = []
    for metric in scores.metrics:
        theirs, ours = figure(figures, metric), mean(scores, metric)
        if theirs is None or ours is None or is_close(theirs, ours):
            continue
        found.append(
            f"{scores.bench}: {metric} is {theirs:.6g} in the results file, but {ours:.6g} over "
            "the samples; what follows is about the samples"
        )
    return found


def figure(figures: Row, metric: str) -> float | None:
    """A metric's figure in the results, as a mean over questions; None where there is none."""
    value = figures.get(metric if "," in metric else f"{metric},none")
    if not isinstance(value, int | float) or finite(value) is None:
        return None
    if metric.split(",")[0].endswith("perplexity"):  # there it is exp of the mean
        return math.log(value) if value > 0 else None
    return float(value)


def mean(scores: Scores, metric: str) -> float | None:
    """The weighted mean of a metric over all questions that have it; None where none does."""
    weights = scores.weights.get(metric) or [1.0] * len(scores.item)
    known = [
        (value * weight, weight)
        for value, weight in zip(scores.metrics[metric], weights, strict=True)
        if value is not None
    ]
    total = sum(weight for _, weight in known)
    return sum(value for value, _ in known) / total if total > 0 else None


def is_close(one: float, other: float) -> bool:
    """Are two means of the same scores the same, up to rounding?"""
    return math.isclose(one, other, rel_tol=1e-5, abs_tol=1e-6)


def add_group(
    group: str,
    tables: dict[str, Scores],
    benches: dict[str, list[Row]],
    results: dict[str, Any],
    cluster_key: str | None,
) -> list[str]:
    """Add lm-eval's group of tasks as a table of all their questions; warnings if that cannot be.

    Its tasks, and its groups of tasks, are columns to break down by.
    """
    children = {name: leaves(name, results) for name in subtasks(group, results)}
    tasks = [task for found in children.values() for task in found]
    if group in tables or not tasks:
        return []
    if not set(tasks) <= tables.keys():
        return [f"{group}: the samples of some of its tasks are not here, no row for the group"]
    rows = [row for task in tasks for row in benches[task]]
    pooled, _ = table(group, rows, results, cluster_key)
    parts = [tables[task] for task in tasks]
    task_of = {item: part.bench for part in parts for item in part.item}
    figures = results["groups"][group]
    weights = {m: group_weights(parts, m, figures) for m in pooled.metrics}
    known = {metric: found for metric, found in weights.items() if found is not None}
    if len(task_of) != len(pooled.item) or not known:
        return [f"{group}: its figure is no mean over its tasks' questions, no row for the group"]
    tables[group] = pooled.model_copy(
        update={
            "groups": group_labels(pooled, task_of, children),
            "metrics": {metric: pooled.metrics[metric] for metric in known},
            "weights": unequal([task_of[item] for item in pooled.item], known),
            "higher_is_better": agreed(parts, known),
        }
    )
    return []


def group_labels(
    pooled: Scores, task_of: dict[str, str], children: dict[str, list[str]]
) -> dict[str, list[str]]:
    """The task of every question of a group, and before it its group where some are in one."""
    labels = [task_of[item] for item in pooled.item]
    if all(found == [name] for name, found in children.items()):
        return {"task": labels}
    child_of = {task: name for name, found in children.items() for task in found}
    return {"group": [child_of[task] for task in labels], "task": labels}


def unequal(labels: list[str], known: dict[str, dict[str, float]]) -> dict[str, list[float]]:
    """The weights of a group's questions, by metric, where they differ from task to task."""
    found = {}
    for metric, of_task in known.items():
        if len(set(of_task.values())) > 1:
            found[metric] = [of_task[task] for task in labels]
    return found


def agreed(parts: Sequence[Scores], metrics: Iterable[str]) -> dict[str, bool]:
    """The directions of these metrics, as far as all tasks of a group say the same."""
    found = {}
    for metric in metrics:
        said = {part.higher_is_better.get(metric) for part in parts}
        direction = said.pop() if len(said) == 1 else None
        if direction is not None:
            found[metric] = direction
    return found


def subtasks(group: str, results: dict[str, Any]) -> list[str]:
    """The tasks and groups that a group is made of."""
    return list((results.get("group_subtasks") or {}).get(group) or [])


def leaves(name: str, results: dict[str, Any]) -> list[str]:
    """All tasks of a group, those of its groups included; a task itself."""
    inside = subtasks(name, results)
    return [task for child in inside for task in leaves(child, results)] if inside else [name]


def group_weights(parts: Sequence[Scores], metric: str, figures: Row) -> dict[str, float] | None:
    """What a question of each task counts for in the group's figure.

    1 where all count the same, 1 over the task's questions where its tasks do. None where neither
    gives the figure.
    """
    if not all(metric in part.metrics and metric not in part.weights for part in parts):
        return None
    theirs = figure(figures, metric)
    sizes = {part.bench: len(part.item) for part in parts}
    means = {part.bench: mean(part, metric) for part in parts}
    known = [value for value in means.values() if value is not None]
    if theirs is None or len(known) < len(means):
        return None
    total = sum(sizes.values())
    by_question = sum(sizes[name] * (means[name] or 0) for name in means) / total
    if is_close(theirs, by_question):
        return dict.fromkeys(means, 1.0)
    if is_close(theirs, sum(known) / len(known)):
        return {name: 1 / size for name, size in sizes.items()}
    return None


def bench_of(row: Row, file: Path) -> str:
    """The task a row belongs to; TAT-QA's four answer types count as one. Raises InputError."""
    if not isinstance(row.get("doc"), dict) or "doc_id" not in row:
        raise InputError(f"{file}: a sample of {row['task']} has no doc or doc_id")
    return TATQA_TASK.sub("", row["task"]) if is_tatqa(row) else str(row["task"])


def is_tatqa(row: Row) -> bool:
    """Is this a question of TAT-QA? Others may have an entry of one of these names."""
    return {"uid", "context_uid", "answer_type", "answer_from", "scale"} <= {*row["doc"]}


def table(
    bench: str, rows: list[Row], results: dict[str, Any], cluster_key: str | None
) -> tuple[Scores, list[str]]:
    """Scores of one task, a row for each question, a column for each filter and metric."""
    tatqa = is_tatqa(rows[0])
    by_filter: dict[str, dict[str, Row]] = {}
    for row in rows:
        named = by_filter.setdefault(str(row.get("filter", NO_FILTER)), {})
        named[_free(item_name(row), named)] = row
    first = next(iter(by_filter.values()))
    docs = [row["doc"] for row in first.values()]
    metrics, weights, left_out = columns(by_filter, list(first))
    directions = (results.get("higher_is_better") or {}).get(rows[0]["task"]) or {}
    apart = clusters(first, cluster_key)
    cluster = with_copies(apart, list(first.values()))
    warnings = [
        f"{bench}: {name} is not a mean over questions, left out" for name in sorted(left_out)
    ]
    if len(set(cluster)) < len(set(apart)):
        warnings.append(
            f"{bench}: some rows ask the same as others: {len(set(apart))} clusters count as "
            f"{len(set(cluster))}"
        )
    return Scores(
        bench=bench,
        stand_in=tatqa and any(item.startswith(SYNTHETIC) for item in first),
        identity=identity(results, list(first.values())),
        circumstances=circumstances(results),
        item=list(first),
        cluster=cluster,
        groups={
            key: [str(doc[key]) for doc in docs] for key in ("answer_type", "answer_from") if tatqa
        },
        metrics=metrics,
        weights=weights,
        higher_is_better={
            name: bool(directions[name.split(",")[0]])
            for name in metrics
            if isinstance(directions.get(name.split(",")[0]), bool)
        },
    ), warnings + ([] if tatqa else cluster_warnings(bench, docs, cluster_key))


def item_name(row: Row) -> str:
    """What names a question: TAT-QA's uid, else task and document."""
    return str(row["doc"]["uid"]) if is_tatqa(row) else f"{row['task']}/{row['doc_id']}"


def _free(name: str, taken: dict[str, Row]) -> str:
    """The name, numbered where a question was asked before (repeats)."""
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name} #{number}"
    return free


def clusters(rows: dict[str, Row], key: str | None) -> list[str]:
    """The cluster of each row: as asked for, else TAT-QA's context, else the document."""
    if key is None or not all(key in row["doc"] for row in rows.values()):
        return [
            str(row["doc"]["context_uid"]) if is_tatqa(row) else name.split(" #")[0]
            for name, row in rows.items()
        ]
    return [json.dumps(row["doc"][key], sort_keys=True) for row in rows.values()]


def with_copies(cluster: list[str], rows: list[Row]) -> list[str]:
    """The clusters, joined where a row of one asks the same as a row of another.

    Rows ask the same if they have the same document, or sent the same requests to the model.
    """
    joined_to = {name: name for name in cluster}

    def root(name: str) -> str:
        while joined_to[name] != name:
            name = joined_to[name]
        return name

    first_to_ask: dict[str, str] = {}
    for name, row in zip(cluster, rows, strict=True):
        asked = [hash_of(row, "doc_hash", "doc")]
        if row.get("arguments"):
            asked.append(json.dumps(row["arguments"], sort_keys=True))
        for key in asked:
            joined_to[root(name)] = root(first_to_ask.setdefault(key, name))
    return [root(name) for name in cluster]


def cluster_warnings(bench: str, docs: list[Row], cluster_key: str | None) -> list[str]:
    """A warning where rows share a text and nobody has said so, or lack the key asked for."""
    if cluster_key is not None:
        missing = not all(cluster_key in doc for doc in docs)
        return [f"{bench}: {NO_KEY} {cluster_key}"] if missing else []
    for key in SHARED_TEXT:
        texts = {json.dumps(doc.get(key)) for doc in docs}
        if key in docs[0] and len(texts) < len(docs):
            return [f"{bench}: rows share a {key}; --cluster {key} keeps its questions together"]
    return []


def columns(
    by_filter: dict[str, dict[str, Row]], items: list[str]
) -> tuple[dict[str, list[float | None]], dict[str, list[float]], set[str]]:
    """Columns of scores, their weights where these are not 1, and metrics that have none.

    A column is called after its metric, and after its filter where that has a name.
    """
    metrics: dict[str, list[float | None]] = {}
    weights: dict[str, list[float]] = {}
    left_out: set[str] = set()
    for filter_name, rows in by_filter.items():
        for metric in next(iter(rows.values())).get("metrics", ()):
            name = metric if filter_name == NO_FILTER else f"{metric},{filter_name}"
            read = [score(metric, rows[i].get(metric)) if i in rows else (None, 1.0) for i in items]
            if any(value is NotImplemented for value, _ in read):
                left_out.add(name)
                continue
            metrics[name] = [value for value, _ in read]
            if any(weight != 1 for _, weight in read):
                weights[name] = [weight for _, weight in read]
    tatqa = {name: metrics[name] for name in TATQA if name in metrics}
    if tatqa and all(is_tatqa(row) for rows in by_filter.values() for row in rows.values()):
        metrics = tatqa
    return metrics, weights, left_out


def score(metric: str, value: Any) -> tuple[Any, float]:
    """A row's score and weight; None: no score; NotImplemented: no score of a single question."""
    if value is None:
        return None, 1.0
    if isinstance(value, bool | int | float):
        known = finite(value)
        if known is not None and metric in LOG_LIKELIHOODS:
            known = -known
        return known, 1.0
    if metric in PER_UNIT and _pair(value):
        likelihood, units = map(finite, value)
        if likelihood is None or units is None:
            return None, 1.0
        found = finite(-likelihood / units * PER_UNIT[metric]) if units > 0 else None
        return found, units
    if isinstance(value, list) and value and all(isinstance(x, bool) for x in value):
        return sum(value) / len(value), float(len(value))
    return NotImplemented, 1.0


def finite(value: float) -> float | None:
    """The number; None for what is none, or too large for the squares of statistics."""
    return float(value) if -LARGEST <= value <= LARGEST else None


def _pair(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(isinstance(x, int | float) for x in value)
    )


def identity(results: dict[str, Any], rows: Sequence[Row]) -> dict[str, Any]:
    """What must be equal for two runs to have answered the same questions in the same way."""
    tasks = sorted({row["task"] for row in rows})
    return {
        "docs": joint_hash(hash_of(row, "doc_hash", "doc") for row in rows),
        "prompts": joint_hash(hash_of(row, "prompt_hash", "arguments") for row in rows),
        "targets": joint_hash(hash_of(row, "target_hash", "target") for row in rows),
        "task version": {task: results["versions"].get(task) for task in tasks},
        "generation settings": {
            task: results["configs"][task].get("generation_kwargs") for task in tasks
        },
        "overridden generation settings": results["config"].get("gen_kwargs"),
        "few-shot": {task: (results.get("n-shot") or {}).get(task) for task in tasks},
        "chat template": results.get("chat_template_sha"),
    } | numbering(rows)


def numbering(rows: Sequence[Row]) -> dict[str, str]:
    """Which document has which number, where numbers name the questions."""
    if all(is_tatqa(row) for row in rows):
        return {}
    named = (f"{item_name(row)} {hash_of(row, 'doc_hash', 'doc')}" for row in rows)
    return {"numbers of the documents": joint_hash(named)}


def joint_hash(hashes: Iterable[str]) -> str:
    """One hash of many, in whatever order the rows were logged."""
    return hashlib.sha256("".join(sorted(hashes)).encode()).hexdigest()


def hash_of(row: Row, logged: str, field: str) -> str:
    """lm-eval's hash of a part of a sample; older versions log none, then it is made as theirs."""
    if logged in row:
        return str(row[logged])
    value = row.get(field)
    if field == "doc":
        text = json.dumps(value, indent=2, ensure_ascii=False)
    elif field == "arguments":
        text = first_prompt(row)
    else:
        text = str(value)
    return hashlib.sha256(text.encode()).hexdigest()


def first_prompt(row: Row) -> str:
    """The text that a sample's first request sent to the model."""
    found = row.get("arguments")
    while isinstance(found, dict | list) and found:
        found = next(iter(found.values())) if isinstance(found, dict) else found[0]
    return str(found)


def circumstances(results: dict[str, Any]) -> dict[str, Any]:
    """What may differ between two comparable runs, but is better the same."""
    config = results["config"]
    given = config.get("model_args") or {}
    if isinstance(given, str):
        given = dict(part.split("=", 1) for part in given.split(",") if "=" in part)
    return {
        "backend": config.get("model"),
        "base": given.get("pretrained") or given.get("model"),
        "dtype": config.get("model_dtype"),
        "batch size": str(config.get("batch_size")),
        "lm_eval": results.get("lm_eval_version"),
        "transformers": results.get("transformers_version"),
        "device": device(str(results.get("pretty_env_info"))),
    }


def device(environment: str) -> str:
    """The GPU's name in PyTorch's description of a machine, else the CPU's."""
    found = re.search(r"(?:GPU 0: |^Model name: +)(.+)$", environment, re.M)
    return found[1] if found else "unknown"


def seeds(path: Path) -> dict[str, Any]:
    """lm-eval's own seeds, as its results file has them; {} for an older version's."""
    config = read_results(results_file(path))["config"]
    return {name: config[name] for name in sorted(config) if name.endswith("_seed")}


def replies(rows: Sequence[Row], metric: str = "em") -> list[Reply]:
    """Replies as a person reads them."""
    found = []
    taken: dict[str, Row] = {}
    for row in rows:
        name = _free(item_name(row), taken)
        taken[name] = row
        doc = row["doc"]
        value, _ = score(metric, row.get(metric))
        parsed = row.get("parsed")
        found.append(
            Reply(
                item=name,
                kind=str(doc.get("answer_type", row["task"])),
                question=str(doc.get("question") or first_prompt(row)),
                gold=gold(row),
                text=reply_text(row),
                score=value if isinstance(value, float) else None,
                parsed=float(parsed) if isinstance(parsed, bool | int | float) else None,
            )
        )
    return found


def gold(row: Row) -> str:
    """The right answer; TAT-QA's with its scale."""
    doc = row["doc"]
    if is_tatqa(row):
        return f"{doc['answer']} {doc['scale']}".strip()
    return str(row.get("target", ""))


def reply_text(row: Row) -> str:
    """What the model wrote, or which choice it found likeliest."""
    requests = row.get("resps") or [[""]]
    if not isinstance(requests, list):
        return str(requests)
    first = [
        request[0] if isinstance(request, list) and request else request for request in requests
    ]
    if isinstance(first[0], str) or len(first) == 1:
        return str(first[0])
    try:
        likelihoods = [float(choice[0]) for choice in first]
    except (
        TypeError,
        ValueError,
        LookupError,
        OverflowError,
    ):  # of a kind of request not known here
        return str(first)
    return f"choice {likelihoods.index(max(likelihoods))}"


def mtbench_scores(path: Path, questions: Path | None = None) -> Scores:
    """Scores of a judged model; the turns of a question are one cluster.

    The questions file gives the categories. Raises InputError.
    """
    try:
        return _mtbench_scores(path, questions)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{path}: not MT-Bench scores ({type(error).__name__}: {reason}); "
            "write them with score --json"
        ) from None


def _mtbench_scores(path: Path, questions: Path | None) -> Scores:
    found = read_json(path)
    if missing := SCORE_FIELDS - found.keys():
        raise InputError(
            f"{path}: not MT-Bench scores, no {min(missing)}; write them with score --json"
        )
    rows = [
        (qid, turn, rating)
        for qid, turns in found["per_question"].items()
        for turn, rating in turns.items()
    ]
    groups = {"turn": [f"turn {turn}" for _, turn, _ in rows]}
    known = {"bench": found["bench"], "judge": found["judge"], "n_questions": found["n_questions"]}
    if questions:
        known["questions"] = hashlib.sha256(questions.read_bytes()).hexdigest()
        category = {
            str(question["question_id"]): question["category"] for question in read_lines(questions)
        }
        groups["category"] = [category[qid] for qid, _, _ in rows]
    return Scores(
        bench=found["bench"],
        stand_in=found["stand_in"],
        identity=known,
        circumstances={key: found[key] for key in ("missing", "unparsable")},
        item=[f"{qid}/{turn}" for qid, turn, _ in rows],
        cluster=[qid for qid, _, _ in rows],
        groups=groups,
        metrics={
            "score": [r for _, _, r in rows],
            "success": [None if r is None else float(r >= SUCCESS) for _, _, r in rows],
        },
        higher_is_better={"score": True, "success": True},
    )
