"""Runs against each other: repeats, steps from one adapter to the next, one field at a time."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from results.compare import Row, as_family, compare_metric
from results.record import Record
from results.report.collect import Run, common_name, scores_on, started_from

AGAIN, STEP = "again", "step"  # in the place of a field's name


@dataclass(frozen=True)
class Between:
    """Two runs of one base, compared on the same questions: `run` against `reference`.

    `field` is the only recipe field in which they differ, STEP where `run` was trained on from
    `reference`, or AGAIN where it is the same recipe with the same seed.
    """

    field: str
    run: Run
    reference: Run
    row: Row


def between_runs(found: Sequence[Run]) -> list[Between]:
    """Every pair of runs that a question about a single field is about, as one family.

    Among runs that agree in every other field, the reference is the first by that field's value.
    """
    pairs = [*repeats(found), *steps(found), *single_fields(found)]
    rows = as_family([pair.row for pair in pairs])
    adjusted = []
    for pair, row in zip(pairs, rows, strict=True):
        adjusted.append(replace(pair, row=row))
    return adjusted


def repeats(found: Sequence[Run]) -> Iterator[Between]:
    """Runs whose recipe and seed were trained before: what no seed is the reason of."""
    records, owner = by_name(found)
    for run in found:
        if run.again in records:
            once = records[run.again]
            reference = replace(owner[once.name], name=once.name, records=[once])
            yield from on_best_form(AGAIN, run, reference)


def steps(found: Sequence[Run]) -> Iterator[Between]:
    """Runs that were trained on from another run of the report, seed by seed."""
    records, owner = by_name(found)
    for run in found:
        starts = starts_of(run, records)
        if len(starts) < len(run.records):
            continue
        start_run = owner[starts[0].name]
        if all(owner[start.name] is start_run for start in starts):
            reference = replace(start_run, name=step_name(starts), records=starts)
            yield from on_best_form(STEP, run, reference)


def by_name(found: Sequence[Run]) -> tuple[dict[str, Record], dict[str, Run]]:
    """By a record's name: the record, and the run that it belongs to."""
    records = {}
    owner = {}
    for run in found:
        for record in run.records:
            records[record.name] = record
            owner[record.name] = run
    return records, owner


def step_name(starts: Sequence[Record]) -> str:
    """The name of what the seeds of a run were trained on from: one record for all, or several."""
    if all(start.name == starts[0].name for start in starts):
        return starts[0].name
    return common_name(starts)


def starts_of(run: Run, records: Mapping[str, Record]) -> list[Record]:
    """The records here that the seeds of a run were trained on from, of those that have one."""
    starts = []
    for record in run.records:
        start = started_from(record, records)
        if start is not None:
            starts.append(start)
    return starts


def single_fields(found: Sequence[Run]) -> Iterator[Between]:
    """Runs of one base that differ in one field, each against the first."""
    recipes = [run for run in found if not run.again]
    for field in differing_fields(recipes):
        for group in alike_but_for(field, recipes):
            group.sort(key=lambda run: by_size(run.recipe.get(field)))
            first = group[0]
            for run in group[1:]:
                if run.recipe.get(field) != first.recipe.get(field):
                    yield from on_best_form(field, run, first)


def differing_fields(found: Sequence[Run]) -> list[str]:
    """Recipe fields in which the runs of a report differ."""
    fields: set[str] = set()
    for run in found:
        fields.update(run.recipe)
    differing = []
    for field in sorted(fields):
        values = {repr(run.recipe.get(field)) for run in found}
        if len(values) > 1:
            differing.append(field)
    return differing


def alike_but_for(field: str, found: Sequence[Run]) -> list[list[Run]]:
    """Runs of one base that agree in every field but this one, together."""
    groups: dict[str, list[Run]] = {}
    for run in found:
        rest = {**run.recipe, field: None, "base": run.base.name}
        key = repr(sorted(rest.items(), key=str))
        groups.setdefault(key, []).append(run)
    return list(groups.values())


def by_size(value: Any) -> tuple[float, str]:
    """Sorts numbers by size, then everything else by its text."""
    if isinstance(value, int | float):
        return value, ""
    return math.inf, str(value)


def on_best_form(field: str, run: Run, reference: Run) -> Iterator[Between]:
    """Two runs on one form of TAT-QA: the one that `run` answers best, where both have it."""
    for bench in sorted(reference.tatqa, key=lambda bench: bench != run.best_bench):
        if bench in run.rows:
            row = against(run, reference, bench, stepwise=field == STEP)
            if row is not None:
                yield Between(field, run, reference, row)
            return


def against(run: Run, reference: Run, bench: str, stepwise: bool = False) -> Row | None:
    """The headline of a bench, from the reference to the run; None where no question has both."""
    before, after = reference.records, run.records
    if stepwise:
        before, after = with_both(before, after, bench)
    earlier, later = scores_on(bench, before), scores_on(bench, after)
    if not earlier or not later:
        return None
    metric = run.headline(bench).metric
    rows = compare_metric(earlier, later, metric, stepwise=stepwise)
    return next(rows, None)


def with_both(
    before: Sequence[Record], after: Sequence[Record], bench: str
) -> tuple[list[Record], list[Record]]:
    """Of pairs of records those of which both have a bench."""
    earlier, later = [], []
    for one, other in zip(before, after, strict=True):
        if bench in one.by_bench and bench in other.by_bench:
            earlier.append(one)
            later.append(other)
    return earlier, later
