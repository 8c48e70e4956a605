"""`python -m results compare BEFORE AFTER`: may the two be compared, and what changed?

BEFORE and AFTER are lm-eval outputs (folder or results file), MT-Bench score files or records, in
any mix. Several AFTER are runs of one recipe with other seeds, or readings of one model: then the
verdict is about their mean.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from results import InputError, outputs, record
from results.record import Scores
from results.statistics import Difference, Estimate, in_family, over_runs, verdict


@dataclass(frozen=True)
class Measure:
    """How a metric is shown and judged.

    Attributes:
        factor: From the score to the unit shown: 100 for a share shown in points.
        span: The largest change of one score, in the score's unit.
        margin: A difference whose interval stays within it both ways is called none: 3 points of
            exact match are about what the whole validation split can tell apart, half a point of
            rating about what 80 judged questions can. 0: nothing is called none.
        higher_is_better: None where the output does not say.
    """

    label: str
    factor: float = 100
    span: float = 1
    margin: float = 0.03
    higher_is_better: bool | None = True


MEASURES = {
    "em": Measure("exact match, %"),
    "em_strict": Measure("exact match in the format asked for, %"),
    "f1": Measure("F1, %"),
    "scale_em": Measure("scale right, %"),
    "parsed": Measure("replies in the format asked for, %"),
    "lenient_em": Measure("right by the experiment log's lenient rule, %"),
    "calc_used": Measure("replies with an expression worked out, %", higher_is_better=None),
    "prompt_level_strict_acc": Measure("prompts followed, strict, %"),
    "score": Measure("rating from 1 to 10", factor=1, span=9, margin=0.5),
    "success": Measure("rated 7 or more, %", margin=0.1),
}
JUDGED = ("score", "success", "prompt_level_strict_acc")
HEADLINE = ("em", "score", "prompt_level_strict_acc")  # first metric of a bench, where it has one
HEADER = [
    "",
    "verdict",
    "delta",
    "95 % interval",
    "before",
    "after",
    "n",
    "clusters",
    "p (Holm)",
    "detectable",
]
Table = Mapping[str, Scores]  # scores by bench


@dataclass(frozen=True)
class Row:
    """One line of a comparison: a group of a column, or "overall".

    `difference` is `estimate` as one of the family that it is shown with.
    """

    bench: str
    metric: str
    measure: Measure
    column: str
    group: str
    estimate: Estimate
    difference: Difference

    @property
    def title(self) -> str:
        return f"{self.bench}: {self.measure.label}"

    @property
    def verdict(self) -> str:
        """better, worse, no difference, smaller than the margin, cannot tell; or higher, lower."""
        direction = self.measure.higher_is_better
        word = verdict(self.difference, self.measure.margin, direction is not False)
        if direction is None:
            return {"better": "higher", "worse": "lower"}.get(word, word)
        return word

    @property
    def words(self) -> str:
        """The verdict, with the size of what is ruled out."""
        bound = self.show(max(-self.difference.low, self.difference.high))
        if self.verdict == "no difference":
            return f"no difference within {bound}"
        if self.verdict == "smaller than the margin":
            return f"smaller than {bound}"
        return self.verdict

    def show(self, value: float, sign: str = "") -> str:
        """A figure of this metric: percentages with one decimal, ratings with two."""
        digits = 1 if self.measure.factor == 100 else 2
        return f"{value * self.measure.factor:{sign}.{digits}f}" if math.isfinite(value) else "n/a"

    @property
    def interval(self) -> str:
        low, high = self.show(self.difference.low, "+"), self.show(self.difference.high, "+")
        return f"{low} to {high}" if math.isfinite(self.difference.low) else "n/a"

    @property
    def change(self) -> str:
        return f"{self.show(self.difference.delta, '+')} ({self.interval})"

    @property
    def cells(self) -> list[str]:
        """The table line under HEADER."""
        d = self.difference
        return [
            self.group,
            self.words,
            self.show(d.delta, "+"),
            self.interval,
            self.show(d.before),
            self.show(d.after),
            str(d.n),
            str(d.clusters),
            p_value(d.p),
            self.show(d.detectable),
        ]


def p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def load(path: Path, cluster: str | None = None) -> tuple[dict[str, Scores], list[str]]:
    """Scores by bench from a record, an lm-eval output or a score file, and warnings.

    Raises InputError.
    """
    file = path / "record.json" if (path / "record.json").is_file() else path
    content = {} if file.is_dir() else outputs.read_json(file)
    if not isinstance(content, dict):
        raise InputError(f"{file}: neither a record nor an lm-eval output nor MT-Bench scores")
    if "scores" in content:
        return record.load(file).by_bench, []
    if "per_question" in content:
        questions = file.parent / "question.jsonl"
        scores = outputs.mtbench_scores(file, questions if questions.is_file() else None)
        return {"instruct" if scores.bench == "instruct" else "mtbench": scores}, []
    return outputs.lm_eval_tables(file, cluster)


def compare(
    before: Table, after: Table | Sequence[Table], margin: float | None = None
) -> tuple[dict[str, list[Row]], list[str]]:
    """Rows of every bench that all sides have, and warnings.

    The overall rows of all benches' first metrics are one family; so are a bench's other overall
    rows, and the groups of each column. Raises InputError if a bench must not be compared.
    """
    runs = [after] if isinstance(after, Mapping) else list(after)
    benches = [bench for bench in before if all(bench in run for run in runs)]
    if not benches:
        there = ", ".join(dict.fromkeys(bench for run in runs for bench in run))
        raise InputError(f"not comparable: before has {', '.join(before)}, after has {there}")
    everything = {*before, *(bench for run in runs for bench in run)}
    warnings = [f"{bench}: only on one side" for bench in sorted(everything - {*benches})]
    rows: dict[str, list[Row]] = {}
    for bench in benches:
        sides = [before[bench]], [run[bench] for run in runs]
        for other in sides[1]:
            warnings += check(before[bench], other)
        found, unscored = compare_bench(*sides, margin)
        rows[bench] = found
        warnings += unscored
    return in_families(rows), list(dict.fromkeys(warnings))


def check(before: Scores, after: Scores) -> list[str]:
    """Warnings about two score tables. Raises InputError if they must not be compared."""
    refused = different(before.identity, after.identity)
    if refused:
        raise InputError(
            f"{before.bench}: not comparable, {', '.join(refused)} differ before and after; "
            "score both the same way"
        )
    warnings = [
        f"{before.bench}: {key} is known on one side only"
        for key in sorted({*before.identity} ^ {*after.identity})
    ]
    for key in different(before.circumstances, after.circumstances):
        one, other = before.circumstances[key], after.circumstances[key]
        warnings.append(f"{before.bench}: {key} differs: {one} before, {other} after")
    lost = len({*before.item} ^ {*after.item})
    if lost:
        warnings.append(f"{before.bench}: {lost} items lack a score on one side and are left out")
    return warnings


def different(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Keys that both have, with other values."""
    return [key for key in one if key in other and one[key] != other[key]]


def compare_bench(
    before: Sequence[Scores], after: Sequence[Scores], margin: float | None = None
) -> tuple[list[Row], list[str]]:
    """Rows of every metric that all runs have, each a family of its own, and warnings."""
    runs = [*before, *after]
    shared = [name for name in before[0].metrics if all(name in run.metrics for run in runs)]
    first = [name for name in HEADLINE if name in shared]
    ordered = first + [name for name in shared if name not in first]
    rows: list[Row] = []
    warnings: list[str] = []
    for metric in ordered:
        found = list(compare_metric(before, after, metric, margin))
        unscored = {
            item
            for run in runs
            for item, value in zip(run.item, run.metrics[metric], strict=True)
            if value is None
        }
        if unscored:
            warnings.append(
                f"{before[0].bench}: {len(unscored)} items have no {metric} and are left out"
            )
        rows += found
    if not rows:
        raise InputError(
            f"{before[0].bench}: no metric has a score of the same question on both sides"
        )
    return rows, warnings


def compare_metric(
    before: Sequence[Scores], after: Sequence[Scores], metric: str, margin: float | None = None
) -> Iterator[Row]:
    """One metric on the items that all runs scored: overall, then by group."""
    first = before[0]
    sides = [columns_of(before, metric), columns_of(after, metric)]
    items = [
        i
        for i, item in enumerate(first.item)
        if all(column.get(item) is not None for side in sides for column in side)
    ]
    if not items:
        return
    measure = measure_of(before, after, metric, margin)
    weight = first.weights.get(metric)
    for column, labels in {"overall": ["overall"] * len(first.item), **first.groups}.items():
        for group in sorted({labels[i] for i in items}):
            places = [i for i in items if labels[i] == group]
            names = [first.item[i] for i in places]
            estimate = over_runs(
                [[float(run[name] or 0) for name in names] for run in sides[0]],
                [[float(run[name] or 0) for name in names] for run in sides[1]],
                [first.cluster[i] for i in places],
                measure.span,
                [weight[i] for i in places] if weight else None,
            )
            difference = in_family([estimate])[0]
            yield Row(first.title, metric, measure, column, group, estimate, difference)


def columns_of(runs: Sequence[Scores], metric: str) -> list[dict[str, float | None]]:
    """Each run's scores by item."""
    return [dict(zip(run.item, run.metrics[metric], strict=True)) for run in runs]


def measure_of(
    before: Sequence[Scores], after: Sequence[Scores], metric: str, margin: float | None
) -> Measure:
    """How a metric is shown: as MEASURES says of our own, else by the range of its scores."""
    ours = before[0].bench.startswith("tatqa") or metric in JUDGED
    known = MEASURES.get(metric) if ours else None
    if known is None:
        runs = [*before, *after]
        values = [x for run in runs for x in run.metrics[metric] if x is not None]
        share = all(0 <= x <= 1 for x in values)
        label = metric
        if metric.split(",")[0].endswith("perplexity"):
            label = f"log of {metric}"
        known = Measure(
            label=f"{label}, %" if share else label,
            factor=100 if share else 1,
            span=1 if share else max(values) - min(values),
            margin=0,
            higher_is_better=before[0].higher_is_better.get(metric),
        )
    if margin is None:
        return known
    return replace(known, margin=margin / known.factor)


def in_families(rows: Mapping[str, list[Row]]) -> dict[str, list[Row]]:
    """The rows of every bench, each adjusted for the family that it is read with."""
    families: dict[tuple[str, ...], list[Row]] = {}
    for bench, found in rows.items():
        for row in found:
            families.setdefault(family_of(bench, row, found[0].metric), []).append(row)
    adjusted = {
        id(row): new
        for family in families.values()
        for row, new in zip(family, as_family(family), strict=True)
    }
    return {bench: [adjusted[id(row)] for row in found] for bench, found in rows.items()}


def family_of(bench: str, row: Row, first_metric: str) -> tuple[str, ...]:
    """What a row is read together with."""
    if row.column != "overall":
        return (bench, row.metric, row.column)
    return ("headlines",) if row.metric == first_metric else (bench, "other measures")


def as_family(rows: Sequence[Row]) -> list[Row]:
    """The same rows as one family: Holm's p, simultaneous intervals, detectable at that level."""
    differences = in_family([row.estimate for row in rows])
    return [replace(row, difference=d) for row, d in zip(rows, differences, strict=True)]


def text(rows: list[Row]) -> str:
    """A table for each bench and metric, for a terminal: first column to the left, others right."""
    lines = []
    for title, group in groupby(rows, lambda row: row.title):
        table = [HEADER, *(row.cells for row in group)]
        first, *others = (max(map(len, column)) for column in zip(*table, strict=True))
        form = "  ".join([f"{{:<{first}}}", *(f"{{:>{width}}}" for width in others)])
        lines += ["", title, *(form.format(*cells) for cells in table)]
    return "\n".join(lines)


def as_json(rows: list[Row]) -> list[dict[str, Any]]:
    """Rows for machines; a figure that is not finite becomes null."""
    found = []
    for row in rows:
        figures: dict[str, Any] = asdict(row.difference)
        for key, value in figures.items():
            if isinstance(value, float) and not math.isfinite(value):
                figures[key] = None
        words = {
            "bench": row.bench,
            "metric": row.metric,
            "column": row.column,
            "group": row.group,
            "verdict": row.verdict,
            "margin": row.measure.margin,
            "higher_is_better": row.measure.higher_is_better,
        }
        found.append({**figures, **words, "p_unadjusted": row.difference.p_alone})
    return found


def is_worse(rows: list[Row]) -> bool:
    """Did the first metric of any bench get worse overall?"""
    firsts = {row.bench: row.metric for row in reversed(rows)}
    return any(
        row.verdict == "worse"
        for row in rows
        if row.column == "overall" and row.metric == firsts[row.bench]
    )
