"""The runs of a report: records grouped by recipe, each compared with its base.

The overall figures of all runs in one bench are one family (docs/STATISTICS.md).
"""

import math
import os.path
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, TypeVar

from results import InputError
from results.compare import Row, as_family, compare
from results.record import Record, Scores, Training, load_all

SEEDS = ("seed", "data_seed")  # recipe fields in which runs of one recipe may differ
SEED_IN_NAME = re.compile(r"[-_. ]?seed[-_=]?\d+")
DEEPEST = 20  # steps of training on from another run that are followed
GIB = 1 << 30
Step = TypeVar("Step")  # what was logged at a training step


@dataclass
class Run:
    """One line of the report: a recipe on a base, trained once or with several seeds.

    Attributes:
        rows: Every comparison by bench; a bench's first row is its headline, adjusted over all
            runs of the report.
        recipe: The resolved recipe, in which LoRA rank and alpha count as one field.
        again: The run here that had the same recipe and seed; "" if this is the first.
    """

    name: str
    records: list[Record]
    base: Record
    recipe: dict[str, Any]
    rows: dict[str, list[Row]]
    again: str = ""

    @property
    def record(self) -> Record:
        return self.records[0]

    @property
    def trainings(self) -> list[Training]:
        """How each record was trained: no run is without."""
        return [record.training for record in self.records if record.training]

    @property
    def training(self) -> Training:
        return self.trainings[0]

    def headline(self, bench: str) -> Row:
        """A bench's first metric, overall."""
        return self.rows[bench][0]

    @property
    def tatqa(self) -> list[str]:
        """Benches that are TAT-QA in one form or another."""
        return [bench for bench in self.rows if bench.startswith("tatqa")]

    @property
    def stands_for_itself(self) -> bool:
        """Are the questions of its best bench real ones?"""
        return not self.is_stand_in(self.best_bench)

    def is_stand_in(self, bench: str) -> bool:
        """Are a bench's questions or its judge stand-ins?"""
        return scores_on(bench, self.records)[0].stand_in

    @property
    def best_bench(self) -> str:
        """The form of TAT-QA that the run answers best, or its first bench."""
        if not self.tatqa:
            return next(iter(self.rows))
        return max(self.tatqa, key=lambda bench: self.headline(bench).difference.after)

    def groups(self, bench: str, column: str) -> list[Row]:
        """The headline metric's rows by the groups of one column."""
        rows = self.rows.get(bench, [])
        return [row for row in rows if row.metric == rows[0].metric and row.column == column]

    def overall(self, bench: str, metric: str) -> Row | None:
        """One metric's overall row."""
        for row in self.rows.get(bench, []):
            if row.metric == metric and row.column == "overall":
                return row
        return None

    def last(self, key: str) -> float:
        """A training curve's mean over the last tenth of its steps; NaN where it was not logged."""
        values = [entry[key] for entry in self.training.history if key in entry]
        return fmean(last_tenth(values)) if values else math.nan

    @property
    def minutes(self) -> float:
        """Training time, the mean over seeds."""
        return fmean(training.seconds for training in self.trainings) / 60

    @property
    def gib(self) -> float | None:
        """Peak GPU memory of training, the most of any seed; None where nobody measured it."""
        measured = []
        for training in self.trainings:
            peak = training.more.get("peak_memory_bytes")
            if isinstance(peak, int | float):
                measured.append(peak)
        return max(measured) / GIB if measured else None


def last_tenth(steps: Sequence[Step]) -> Sequence[Step]:
    """The last tenth of what was logged, at least one step: a single one may hold two pairs."""
    return steps[-max(1, len(steps) // 10) :]


def scores_on(bench: str, records: Sequence[Record]) -> list[Scores]:
    """The scores of those records that have a bench: not every seed need be judged."""
    return [record.by_bench[bench] for record in records if bench in record.by_bench]


def collect(runs: Path) -> tuple[list[Run], list[str]]:
    """Every recipe with its comparisons, and a line for each record that cannot be shown."""
    records, problems = load_all(runs)
    found = []
    first = first_of_its_seed(records)
    for group in by_recipe(records):
        base = records[str(group[0].base)]
        try:
            rows = compared(base, group)
        except InputError as error:
            names = [record.name for record in group]
            sides = f"{', '.join(names)} and {base.name}"
            problems.append(f"{sides}: {error}; run the recipe again")
            continue
        run = Run(common_name(group), group, base, shown_recipe(group[0]), rows)
        if first[group[0].name] != group[0].name:
            run.again = first[group[0].name]
        found.append(run)
    adjust_over_runs(found)
    return found, problems


def compared(base: Record, group: Sequence[Record]) -> dict[str, list[Row]]:
    """Each bench of the base against the runs that have it. Raises InputError."""
    rows: dict[str, list[Row]] = {}
    for bench, before in base.by_bench.items():
        after = [{bench: scores} for scores in scores_on(bench, group)]
        if after:
            rows_of_bench, _ = compare({bench: before}, after)
            rows.update(rows_of_bench)
    if not rows:
        compare(base.by_bench, [group[0].by_bench])  # raises: no bench is on both sides
    return rows


def by_recipe(records: dict[str, Record]) -> list[list[Record]]:
    """Runs of one recipe on one base and data that differ in their seeds alone, together.

    A second run with a seed that is there already says nothing of other seeds: it stands alone.
    """
    groups: dict[str, list[Record]] = {}
    first = first_of_its_seed(records)
    for record in records.values():
        if record.name not in first:
            continue
        key = recipe_key(record, records)
        if first[record.name] != record.name:
            key = f"{record.name} {key}"
        groups.setdefault(key, []).append(record)
    return list(groups.values())


def first_of_its_seed(records: dict[str, Record]) -> dict[str, str]:
    """By a run's name, the first run here of the same recipe and seed: itself in most cases."""
    first: dict[tuple[str, str], str] = {}
    found = {}
    for record in records.values():
        if record.base is not None and record.training is not None:
            seed = repr(record.training.recipe.get("seed"))
            key = (recipe_key(record, records), seed)
            found[record.name] = first.setdefault(key, record.name)
    return found


def recipe_key(record: Record, records: dict[str, Record], depth: int = DEEPEST) -> str:
    """What runs that are called seeds of one recipe must agree in.

    Where a run was trained on from another one here, that run's recipe counts and not its seed;
    files of its own folder (the replies that it sampled) are not what it differs in. A field that
    is off (null, false, 0, empty) counts as left out: an older version had no such field.
    """
    assert record.training
    recipe = fields_that_are_on(record.training)
    start = started_from(record, records)
    if start is not None and start.training is not None and depth > 0:
        recipe["init_adapter"] = recipe_key(start, records, depth - 1)
    samples = []
    for pattern in recipe.get("samples", []):
        samples.append(str(pattern).replace(f"/{record.name}/", "/its own/"))
    recipe["samples"] = samples
    data = (record.provenance.data.get("sha256"), record.training.more.get("data"))
    fields = sorted(recipe.items(), key=str)
    return repr((record.base, data, fields))


def fields_that_are_on(training: Training) -> dict[str, Any]:
    """A recipe without its seeds and without what is off: null, false, 0 or empty."""
    recipe = {}
    for field, value in training.recipe.items():
        if value and field not in SEEDS:
            recipe[field] = value
    return recipe


def started_from(record: Record, records: Mapping[str, Record]) -> Record | None:
    """The run here that a run was trained on from."""
    assert record.training
    start = record.training.recipe.get("init_adapter")
    return records.get(Path(str(start)).name) if start else None


def common_name(group: Sequence[Record]) -> str:
    """The name of a run, or what the names of several have in common."""
    names = [record.name for record in group]
    if len(names) == 1:
        return names[0]
    common = os.path.commonprefix(names).rstrip("-_. ") or names[0]
    without_seeds = {SEED_IN_NAME.sub("", name) for name in names}
    if len(without_seeds) == 1:
        common = without_seeds.pop()
    return f"{common} ({len(names)} seeds)"


def shown_recipe(record: Record) -> dict[str, Any]:
    """The recipe with rank and alpha as one field, without the seed and what is off."""
    assert record.training
    recipe = fields_that_are_on(record.training)
    if recipe.get("loss_type") == ["sft"]:
        recipe.pop("beta", None)  # it weighs preferences, of which there are none
    alpha = recipe.pop("lora_alpha", None)
    if "lora_r" in recipe:
        recipe["lora_r"] = f"{recipe['lora_r']}, {alpha}"
    return recipe


def adjust_over_runs(found: Sequence[Run]) -> None:
    """Each bench's headlines over all runs are one family."""
    for bench, runs in runs_by_bench(found):
        headlines = as_family([run.headline(bench) for run in runs])
        for run, headline in zip(runs, headlines, strict=True):
            run.rows[bench][0] = headline


def runs_by_bench(found: Sequence[Run]) -> list[tuple[str, list[Run]]]:
    """Each bench with the runs that have it: TAT-QA first, in the form that is answered best.

    Synthetic questions and stand-in judges come last.
    """
    groups: dict[tuple[str, str], tuple[str, list[Run]]] = {}
    for run in found:
        for bench, rows in run.rows.items():
            _, runs = groups.setdefault((bench, rows[0].title), (bench, []))
            runs.append(run)
    return sorted(groups.values(), key=reading_order)


def reading_order(group: tuple[str, list[Run]]) -> tuple[bool, bool, float]:
    """Sorts a bench with its runs: real before stand-in, TAT-QA first, then the highest score."""
    bench, runs = group
    highest = max(run.headline(bench).difference.after for run in runs)
    return runs[0].is_stand_in(bench), not bench.startswith("tatqa"), -highest
