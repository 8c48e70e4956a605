"""One task's rows as a table of scores: a row for each question, a column for each metric."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from results.outputs.folders import NO_FILTER, Row
from results.outputs.identity import (
    circumstances,
    clusters,
    free_name,
    identity,
    is_tatqa,
    item_name,
    with_copies,
)
from results.outputs.scores import score
from results.record import Scores

TATQA = ("em", "em_strict", "f1", "scale_em", "parsed", "lenient_em", "calc_used")
TATQA_GROUPS = ("answer_type", "answer_from")
SYNTHETIC = "synthetic-"  # so begin the names of generated questions
NO_KEY = "each question stands alone, its document has no"
SHARED_TEXT = ("passage", "context", "article", "paragraph", "document", "story")
Column = tuple[list[float | None], list[float]]  # scores and their weights, by question
Metrics = dict[str, list[float | None]]  # scores by metric
ByFilter = dict[str, dict[str, Row]]  # rows by filter and question


class Columns(NamedTuple):
    """Scores by metric, their weights where these are not 1, and metrics that have no scores."""

    metrics: Metrics
    weights: dict[str, list[float]]
    left_out: list[str]


def table(
    bench: str, rows: list[Row], results: dict[str, Any], cluster_key: str | None
) -> tuple[Scores, list[str]]:
    """Scores of one task, a row for each question, a column for each filter and metric."""
    tatqa = is_tatqa(rows[0])
    by_filter = rows_by_filter(rows)
    first = next(iter(by_filter.values()))
    asked = list(first.values())
    docs = [row["doc"] for row in asked]
    found = columns(by_filter, list(first))
    apart = clusters(first, cluster_key)
    cluster = with_copies(apart, asked)
    scores = Scores(
        bench=bench,
        stand_in=tatqa and any(item.startswith(SYNTHETIC) for item in first),
        identity=identity(results, asked),
        circumstances=circumstances(results),
        item=list(first),
        cluster=cluster,
        groups=labels_of(docs, TATQA_GROUPS if tatqa else ()),
        metrics=found.metrics,
        weights=found.weights,
        higher_is_better=directions(results, rows[0]["task"], found.metrics),
    )
    warnings = left_out_warnings(bench, found.left_out) + copies_warnings(bench, apart, cluster)
    if not tatqa:
        warnings += cluster_warnings(bench, docs, cluster_key)
    return scores, warnings


def rows_by_filter(rows: Iterable[Row]) -> ByFilter:
    """Rows by filter and by the name of what was asked."""
    found: ByFilter = {}
    for row in rows:
        named = found.setdefault(str(row.get("filter", NO_FILTER)), {})
        named[free_name(item_name(row), named)] = row
    return found


def labels_of(docs: Sequence[Row], keys: Sequence[str]) -> dict[str, list[str]]:
    """The columns to break down by: what every document says under each of the keys."""
    found = {}
    for key in keys:
        found[key] = [str(doc[key]) for doc in docs]
    return found


def directions(results: dict[str, Any], task: str, metrics: Iterable[str]) -> dict[str, bool]:
    """Whether higher is better, for each metric of which the results say it."""
    said = (results.get("higher_is_better") or {}).get(task) or {}
    found = {}
    for name in metrics:
        direction = said.get(name.split(",")[0])
        if isinstance(direction, bool):
            found[name] = direction
    return found


def columns(by_filter: ByFilter, items: Sequence[str]) -> Columns:
    """The columns of every filter, called after their metric, and its filter if that has a name."""
    metrics: Metrics = {}
    weights: dict[str, list[float]] = {}
    left_out: list[str] = []
    for filter_name, rows in by_filter.items():
        for metric in metrics_of(rows.values()):
            name = metric if filter_name == NO_FILTER else f"{metric},{filter_name}"
            found = column(metric, rows, items)
            if found is None:
                left_out.append(name)
                continue
            metrics[name], weight = found
            if set(weight) != {1.0}:
                weights[name] = weight
    return Columns(shown_of_tatqa(metrics, by_filter), weights, left_out)


def metrics_of(rows: Iterable[Row]) -> list[str]:
    """The metrics that any row has: a task may score some of its questions otherwise."""
    found: dict[str, None] = {}
    for row in rows:
        found.update(dict.fromkeys(row.get("metrics") or ()))
    return list(found)


def column(metric: str, rows: Mapping[str, Row], items: Sequence[str]) -> Column | None:
    """A metric's score and weight for each question; None where a row's is not of it alone."""
    scores: list[float | None] = []
    weights: list[float] = []
    for item in items:
        value, weight = score(metric, rows.get(item, {}).get(metric))
        if value is NotImplemented:
            return None
        scores.append(value)
        weights.append(weight)
    return scores, weights


def shown_of_tatqa(metrics: Metrics, by_filter: ByFilter) -> Metrics:
    """TAT-QA's own metrics in their order, where all rows are of it; else all that there are."""
    for rows in by_filter.values():
        if not all(is_tatqa(row) for row in rows.values()):
            return metrics
    shown = {}
    for name in TATQA:
        if name in metrics:
            shown[name] = metrics[name]
    return shown or metrics


def left_out_warnings(bench: str, metrics: Iterable[str]) -> list[str]:
    """A warning for each metric that has no score of a single question."""
    return [f"{bench}: {name} is not a mean over questions, left out" for name in sorted(metrics)]


def copies_warnings(bench: str, apart: Sequence[str], joined: Sequence[str]) -> list[str]:
    """A warning where clusters were joined because their rows ask the same."""
    before, after = len(set(apart)), len(set(joined))
    if after == before:
        return []
    return [f"{bench}: some rows ask the same as others: {before} clusters count as {after}"]


def cluster_warnings(bench: str, docs: list[Row], cluster_key: str | None) -> list[str]:
    """A warning where rows share a text and nobody has said so, or lack the key asked for."""
    if cluster_key is not None:
        return key_warnings(bench, docs, cluster_key)
    for key in SHARED_TEXT:
        if key not in docs[0]:
            continue
        texts = {json.dumps(doc.get(key)) for doc in docs}
        if len(texts) < len(docs):
            return [f"{bench}: rows share a {key}; --cluster {key} keeps its questions together"]
    return []


def key_warnings(bench: str, docs: Sequence[Row], key: str) -> list[str]:
    """A warning where documents lack the key that makes clusters."""
    missing = sum(doc.get(key) is None for doc in docs)
    if missing == len(docs):
        return [f"{bench}: {NO_KEY} {key}"]
    if missing:
        return [f"{bench}: {missing} of {len(docs)} documents have no {key}, each stands alone"]
    return []
