"""Groups of tasks: all their questions as one table, where lm-eval's figure is a mean over them."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from statistics import fmean
from typing import Any

from results.outputs.figures import figure, is_close, mean
from results.outputs.folders import Row
from results.outputs.tables import table
from results.record import Scores

Children = dict[str, list[str]]  # by a group's own tasks and groups: all tasks that each holds
Weights = dict[str, float]  # what a question counts for, by task


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
    children = tasks_by_child(group, results)
    tasks = list(chain.from_iterable(children.values()))
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
    tasks_in_order = [task_of[item] for item in pooled.item]
    changes = {
        "groups": group_labels(tasks_in_order, children),
        "metrics": {metric: pooled.metrics[metric] for metric in weights},
        "weights": unequal(tasks_in_order, weights),
        "higher_is_better": agreed(parts, weights),
    }
    tables[group] = pooled.model_copy(update=changes)
    return []


def tasks_by_child(group: str, results: dict[str, Any]) -> Children:
    """All tasks below each task or group that a group is made of."""
    found = {}
    for child in subtasks(group, results):
        found[child] = leaves(child, results)
    return found


def pooled_rows(tasks: Iterable[str], benches: Mapping[str, list[Row]]) -> list[Row]:
    """The rows of all these tasks."""
    rows: list[Row] = []
    for task in tasks:
        rows += benches[task]
    return rows


def task_by_item(parts: Iterable[Scores]) -> dict[str, str]:
    """The task of each question."""
    found = {}
    for part in parts:
        found.update(dict.fromkeys(part.item, part.bench))
    return found


def weights_by_metric(
    parts: Sequence[Scores], metrics: Iterable[str], figures: Row
) -> dict[str, Weights]:
    """What a question of each task counts for, for each metric whose figure is a mean of them."""
    found = {}
    for metric in metrics:
        weights = group_weights(parts, metric, figures)
        if weights is not None:
            found[metric] = weights
    return found


def group_labels(tasks: list[str], children: Children) -> dict[str, list[str]]:
    """The task of every question of a group, and before it its group where some are in one."""
    child_of: dict[str, str] = {}
    has_groups = False
    for child, below in children.items():
        child_of.update(dict.fromkeys(below, child))
        has_groups = has_groups or below != [child]
    if not has_groups:
        return {"task": tasks}
    return {"group": [child_of[task] for task in tasks], "task": tasks}


def unequal(tasks: list[str], weights: dict[str, Weights]) -> dict[str, list[float]]:
    """The weights of a group's questions, by metric, where they differ from task to task."""
    found = {}
    for metric, of_task in weights.items():
        if len(set(of_task.values())) > 1:
            found[metric] = [of_task[task] for task in tasks]
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
    if not inside:
        return [name]
    found = []
    for child in inside:
        found += leaves(child, results)
    return found


def group_weights(parts: Sequence[Scores], metric: str, figures: Row) -> Weights | None:
    """What a question of each task counts for in the group's figure.

    1 where all count the same, 1 over the task's questions where its tasks do. None where neither
    gives the figure.
    """
    theirs = figure(figures, metric)
    means = plain_means(parts, metric)
    if theirs is None or means is None:
        return None
    sizes, one_over_size = {}, {}
    for part in parts:
        sizes[part.bench] = len(part.item)
        one_over_size[part.bench] = 1 / len(part.item)
    if is_close(theirs, fmean(means.values(), weights=sizes.values())):
        return dict.fromkeys(sizes, 1.0)
    if is_close(theirs, fmean(means.values())):
        return one_over_size
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
