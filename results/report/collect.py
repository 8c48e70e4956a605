"""The runs of a report: records grouped by recipe, each compared with its base, in one family."""

import math
import os.path
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from results import InputError
from results.compare import Row, as_family, compare, compare_metric
from results.record import Record, Training, load_all

SEEDS = ("seed", "data_seed")  # recipe fields in which runs of one recipe may differ
SEED_IN_NAME = re.compile(r"[-_. ]?seed[-_=]?\d+")
DEEPEST = 20  # steps of training on from another run that are followed
AGAIN, STEP = "again", "step"  # in the place of a field's name
GIB = 1 << 30


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
    def training(self) -> Training:
        assert self.record.training
        return self.record.training

    @property
    def headlines(self) -> dict[str, Row]:
        return {bench: rows[0] for bench, rows in self.rows.items()}

    @property
    def tatqa(self) -> list[str]:
        """Benches that are TAT-QA in one form or another."""
        return [bench for bench in self.rows if bench.startswith("tatqa")]

    @property
    def stands_for_itself(self) -> bool:
        """Are the questions of its best bench real ones?"""
        return not self.is_stand_in(self.best_bench)

    def having(self, bench: str) -> list[Record]:
        """The records that have a bench: not every seed need be judged."""
        return [record for record in self.records if bench in record.by_bench]

    def is_stand_in(self, bench: str) -> bool:
        """Are a bench's questions or its judge stand-ins?"""
        return self.having(bench)[0].by_bench[bench].stand_in

    @property
    def best_bench(self) -> str:
        """The form of TAT-QA that the run answers best, or its first bench."""
        if not self.tatqa:
            return next(iter(self.rows))
        return max(self.tatqa, key=lambda bench: self.rows[bench][0].difference.after)

    def groups(self, bench: str, column: str) -> list[Row]:
        """The headline metric's rows by the groups of one column."""
        rows = self.rows.get(bench, [])
        return [row for row in rows if (row.metric, row.column) == (rows[0].metric, column)]

    def overall(self, bench: str, metric: str) -> Row | None:
        """One metric's overall row."""
        for row in self.rows.get(bench, []):
            if (row.metric, row.column) == (metric, "overall"):
                return row
        return None

    def last(self, key: str) -> float:
        """A training curve's mean over the last tenth of its steps; NaN where it was not logged."""
        values = [entry[key] for entry in self.training.history if key in entry]
        late = values[-max(1, len(values) // 10) :]
        return sum(late) / len(late) if late else float("nan")

    @property
    def minutes(self) -> float:
        """Training time, the mean over seeds."""
        seconds = [record.training.seconds for record in self.records if record.training]
        return sum(seconds) / len(seconds) / 60

    @property
    def gib(self) -> float | None:
        """Peak GPU memory of training; None where nobody measured it."""
        found = [
            (record.training.model_extra or {}).get("peak_memory_bytes")
            for record in self.records
            if record.training
        ]
        measured = [peak for peak in found if isinstance(peak, int | float)]
        return max(measured) / GIB if measured else None


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
            names = ", ".join(record.name for record in group)
            problems.append(f"{names} and {base.name}: {error}; run the recipe again")
            continue
        name, same = group[0].name, first[group[0].name]
        again = "" if same == name else same
        found.append(Run(common_name(group), group, base, shown_recipe(group[0]), rows, again))
    adjust_over_runs(found)
    return found, problems


def compared(base: Record, group: Sequence[Record]) -> dict[str, list[Row]]:
    """Each bench of the base against the runs that have it. Raises InputError."""
    if not any(bench in record.by_bench for record in group for bench in base.by_bench):
        compare(base.by_bench, [group[0].by_bench])  # which says so
    rows: dict[str, list[Row]] = {}
    for bench, scores in base.by_bench.items():
        found = [record.by_bench[bench] for record in group if bench in record.by_bench]
        if found:
            rows |= compare({bench: scores}, [{bench: after} for after in found])[0]
    return rows


def by_recipe(records: dict[str, Record]) -> list[list[Record]]:
    """Runs of one recipe on one base and data that differ in their seeds alone, together.

    A second run with a seed that is there already says nothing of other seeds: it stands alone.
    """
    groups: dict[str, list[Record]] = {}
    first = first_of_its_seed(records)
    for record in records.values():
        if record.name in first:
            key = recipe_key(record, records)
            own = "" if first[record.name] == record.name else record.name
            groups.setdefault(f"{own} {key}", []).append(record)
    return list(groups.values())


def first_of_its_seed(records: dict[str, Record]) -> dict[str, str]:
    """By a run's name, the first run here of the same recipe and seed: itself in most cases."""
    first: dict[tuple[str, str], str] = {}
    found = {}
    for record in records.values():
        if record.base is not None and record.training is not None:
            key = recipe_key(record, records), repr(record.training.recipe.get("seed"))
            found[record.name] = first.setdefault(key, record.name)
    return found


def recipe_key(record: Record, records: dict[str, Record], depth: int = DEEPEST) -> str:
    """What runs that are called seeds of one recipe must agree in.

    Where a run was trained on from another one here, that run's recipe counts and not its seed;
    files of its own folder (the replies that it sampled) are not what it differs in. A field that
    is off (null, false, 0, empty) counts as left out: an older version had no such field.
    """
    assert record.training
    fields = record.training.recipe.items()
    recipe: dict[str, Any] = {k: v for k, v in fields if k not in SEEDS and v}
    start = started_from(record, records)
    if start is not None and start.training is not None and depth > 0:
        recipe["init_adapter"] = recipe_key(start, records, depth - 1)
    recipe["samples"] = [
        str(pattern).replace(f"/{record.name}/", "/its own/")
        for pattern in record.training.recipe.get("samples") or []  # type: ignore[union-attr]
    ]
    data = record.provenance.data.get("sha256"), (record.training.model_extra or {}).get("data")
    return repr((record.base, data, sorted(recipe.items(), key=str)))


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
    without_seeds = {SEED_IN_NAME.sub("", name) for name in names}
    start = os.path.commonprefix(names).rstrip("-_. ") or names[0]
    return f"{without_seeds.pop() if len(without_seeds) == 1 else start} ({len(names)} seeds)"


def shown_recipe(record: Record) -> dict[str, Any]:
    """The recipe with rank and alpha as one field, without the seed and what is off."""
    assert record.training
    fields = record.training.recipe.items()
    recipe: dict[str, Any] = {k: v for k, v in fields if k not in SEEDS and v}
    if recipe.get("loss_type") == ["sft"]:
        recipe.pop("beta", None)  # it weighs preferences, of which there are none
    alpha = recipe.pop("lora_alpha", None)
    if "lora_r" in recipe:
        recipe["lora_r"] = f"{recipe['lora_r']}, {alpha}"
    return recipe


def adjust_over_runs(found: Sequence[Run]) -> None:
    """Each bench's headlines over all runs are one family."""
    for bench, having in runs_by_bench(found):
        for run, row in zip(having, as_family([r.rows[bench][0] for r in having]), strict=True):
            run.rows[bench][0] = row


def runs_by_bench(found: Sequence[Run]) -> list[tuple[str, list[Run]]]:
    """Each bench with the runs that have it: TAT-QA first, in the form that is answered best.

    Synthetic questions and stand-in judges come last.
    """
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in found:
        for bench, rows in run.rows.items():
            groups.setdefault((bench, rows[0].title), []).append(run)
    found_groups = [(bench, runs) for (bench, _), runs in groups.items()]

    def place(group: tuple[str, list[Run]]) -> tuple[bool, bool, float]:
        bench, runs = group
        highest = max(run.rows[bench][0].difference.after for run in runs)
        return runs[0].is_stand_in(bench), not bench.startswith("tatqa"), -highest

    return sorted(found_groups, key=place)


def differing_fields(found: Sequence[Run]) -> list[str]:
    """Recipe fields in which the runs of a report differ."""
    fields = sorted({field for run in found for field in run.recipe})
    return [f for f in fields if len({repr(run.recipe.get(f)) for run in found}) > 1]


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
    return [
        Between(pair.field, pair.run, pair.reference, row)
        for pair, row in zip(pairs, rows, strict=True)
    ]


def repeats(found: Sequence[Run]) -> Iterator[Between]:
    """Runs whose recipe and seed were trained before: what no seed is the reason of."""
    by_record = {record.name: (run, record) for run in found for record in run.records}
    for run in found:
        if run.again in by_record:
            other, record = by_record[run.again]
            yield from pair(AGAIN, run, replace(other, name=record.name, records=[record]))


def steps(found: Sequence[Run]) -> Iterator[Between]:
    """Runs that were trained on from another run of the report, seed by seed."""
    owner = {record.name: run for run in found for record in run.records}
    records = {record.name: record for run in found for record in run.records}
    for run in found:
        starts = starts_of(run, records)
        owners = {id(owner[start.name]) for start in starts}
        if len(owners) == 1 and len(starts) == len(run.records):
            trained_from = replace(owner[starts[0].name], name=step_name(starts), records=starts)
            yield from pair(STEP, run, trained_from)


def step_name(starts: Sequence[Record]) -> str:
    """The name of what the seeds of a run were trained on from: one record for all, or several."""
    same = len({start.name for start in starts}) == 1
    return starts[0].name if same else common_name(starts)


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
        groups: dict[str, list[Run]] = {}
        for run in recipes:
            rest = {**run.recipe, field: None, "base": run.base.name}
            groups.setdefault(repr(sorted(rest.items(), key=str)), []).append(run)
        for group in groups.values():
            group.sort(key=lambda run: in_order(run.recipe.get(field)))
            for run in group[1:]:
                if run.recipe.get(field) != group[0].recipe.get(field):
                    yield from pair(field, run, group[0])


def pair(field: str, run: Run, reference: Run) -> Iterator[Between]:
    """Two runs on one form of TAT-QA: the one that `run` answers best, where both have it."""
    for bench in sorted(reference.tatqa, key=lambda bench: bench != run.best_bench):
        if bench in run.rows:
            row = against(run, reference, bench, stepwise=field == STEP)
            yield from [Between(field, run, reference, row)] if row else []
            return


def against(run: Run, reference: Run, bench: str, stepwise: bool = False) -> Row | None:
    """The headline of a bench, from the reference to the run; None where no question has both."""
    before, after = reference.records, run.records
    if stepwise:
        before, after = with_both(before, after, bench)
    earlier = [record.by_bench[bench] for record in before if bench in record.by_bench]
    later = [record.by_bench[bench] for record in after if bench in record.by_bench]
    if not earlier or not later:
        return None
    metric = run.rows[bench][0].metric
    return next(compare_metric(earlier, later, metric, stepwise=stepwise), None)


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


@dataclass(frozen=True)
class Choice:
    """The run that a report opens with, among those that end as high as can be told.

    Attributes:
        run: The one with the most seeds of them, and the highest of those.
        highest: The run that ends highest in the same bench.
        rivals: Every other run of its base with that bench, and the highest against it, as one
            family; the next highest first.
    """

    run: Run
    highest: Run
    rivals: list[tuple[Run, Row]]

    @property
    def as_high(self) -> list[Run]:
        """Runs of which the highest cannot be told apart, itself first."""
        return [self.highest, *(run for run, row in self.rivals if row.difference.low <= 0)]


def chosen(found: Sequence[Run]) -> Choice:
    """What to open with: not the first by a tenth of a point, if that is chance."""
    highest = max(found, key=height)
    bench = highest.best_bench
    pairs = []
    for run in sorted(found, key=height, reverse=True):
        if run is not highest and run.base is highest.base and bench in run.rows:
            row = against(highest, run, bench)
            pairs += [(run, row)] if row else []
    rows = as_family([row for _, row in pairs])
    rivals = [(run, row) for (run, _), row in zip(pairs, rows, strict=True)]
    choice = Choice(highest, highest, rivals)
    most = max(choice.as_high, key=lambda run: (len(run.records), height(run)))
    return replace(choice, run=most)


def height(run: Run) -> float:
    """Where a run ends in the bench that it answers best."""
    return run.rows[run.best_bench][0].difference.after


def in_order(value: Any) -> tuple[float, str]:
    """Numbers by size, then everything else by its text."""
    return (value, "") if isinstance(value, int | float) else (float("inf"), str(value))


@dataclass(frozen=True)
class Displacement:
    """How far the mean log-probability of replies moved in training, in nats.

    `error`: standard error of `chosen` from step to step; NaN where one step is known.
    """

    chosen: float
    rejected: float
    error: float


def displacement(training: Training) -> Displacement | None:
    """How the mean log-probability of chosen and rejected replies moved, at the end.

    The mean over the last tenth of the logged steps, each against the model before training on
    the same pairs; from the rewards (beta times that difference) where nothing else was logged.
    None where neither was.
    """
    moved = moved_logps(training) or moved_rewards(training)
    if not moved:
        return None
    last = moved[-max(1, len(moved) // 10) :]
    chosen, rejected = ([step[side] for step in last] for side in (0, 1))
    error = stdev(chosen) / math.sqrt(len(last)) if len(last) > 1 else math.nan
    return Displacement(fmean(chosen), fmean(rejected), error)


def moved_logps(training: Training) -> list[tuple[float, float]]:
    """By how much chosen and rejected moved, at each step whose log-probabilities were logged."""
    course = (training.model_extra or {}).get("logps")
    needed = {"chosen", "chosen_start", "rejected", "rejected_start"}
    return [
        (entry["chosen"] - entry["chosen_start"], entry["rejected"] - entry["rejected_start"])
        for entry in (course if isinstance(course, list) else [])
        if isinstance(entry, dict) and needed <= entry.keys()
    ]


def moved_rewards(training: Training) -> list[tuple[float, float]]:
    """The same at each step whose rewards were logged."""
    return [
        (entry["rewards/chosen"] / entry["beta"], entry["rewards/rejected"] / entry["beta"])
        for entry in training.history
        if entry.get("beta") and {"rewards/chosen", "rewards/rejected"} <= entry.keys()
    ]
