"""Groups of tasks: all their questions as one table, where lm-eval's figure is a mean over them."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

from results.outputs.figures import figure, is_close, mean
from results.outputs.folders import Row
from results.outputs.tables import table
from results.record import Scores


def add_group(
    group: str,
    tables: dict[str, Scores],
    benches: Mapping[str, list[Row]],
    results: dict[str, Any],
    cluster_key: str | None,
) -> list[str]:
    """Add lm-eval's group of tasks as a table of all their questions; warnings if that cannot be.

    Its tasks, and its groups of tasks, are columns to break down by.
    """
    children = {name: leaves(name, results) for name in subtasks(group, results)}
    tasks = list(chain(*children.values()))
    if group in tables or not tasks:
        return []
    if not set(tasks) <= tables.keys():
        return [f"{group}: the samples of some of its tasks are not here, no row for the group"]
    parts = [tables[task] for task in tasks]
    pooled, _ = table(group, pooled_rows(tasks, benches), results, cluster_key)
    task_of = task_by_item(parts)
    weights = weights_by_metric(parts, pooled.metrics, results["groups"][group])
    if len(task_of) != len(pooled.item) or not weights:
        return [f"{group}: its figure is no mean over its tasks' questions, no row for the group"]
    labels = [task_of[item] for item in pooled.item]
    tables[group] = pooled.model_copy(
        update={
            "groups": group_labels(labels, children),
            "metrics": {metric: pooled.metrics[metric] for metric in weights},
            "weights": unequal(labels, weights),
            "higher_is_better": agreed(parts, weights),
        }
    )
    return []


def pooled_rows(tasks: Iterable[str], benches: Mapping[str, list[Row]]) -> list[Row]:
    """The rows of all these tasks."""
    return [row for task in tasks for row in benches[task]]


def task_by_item(parts: Iterable[Scores]) -> dict[str, str]:
    """The task of each question."""
    return {item: part.bench for part in parts for item in part.item}


def weights_by_metric(
    parts: Sequence[Scores], metrics: Iterable[str], figures: Row
) -> dict[str, dict[str, float]]:
    """What a question of each task counts for, for each metric whose figure is a mean of them."""
    found = {}
    for metric in metrics:
        weights = group_weights(parts, metric, figures)
        if weights is not None:
            found[metric] = weights
    return found


def group_labels(labels: list[str], children: dict[str, list[str]]) -> dict[str, list[str]]:
    """The task of every question of a group, and before it its group where some are in one."""
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
    theirs = figure(figures, metric)
    means = plain_means(parts, metric)
    if theirs is None or means is None:
        return None
    sizes = {part.bench: len(part.item) for part in parts}
    total = sum(size * means[task] for task, size in sizes.items())
    if is_close(theirs, total / sum(sizes.values())):
        return dict.fromkeys(sizes, 1.0)
    if is_close(theirs, sum(means.values()) / len(means)):
        return {task: 1 / size for task, size in sizes.items()}
    return None


def plain_means(parts: Iterable[Scores], metric: str) -> dict[str, float] | None:
    """The mean of each task; None where one has none, or its questions count unequally there."""
    means = {}
    for part in parts:
        if metric not in part.metrics or metric in part.weights:
            return None
        found = mean(part, metric)
        if found is None:
            return None
        means[part.bench] = found
    return means
