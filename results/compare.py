"""`python -m results compare BEFORE AFTER`: may the two be compared, and what changed?

Takes two lm-eval outputs (folder or results file), two MT-Bench score files, or two records.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from results import InputError, outputs, record
from results.record import Scores
from results.statistics import Difference, holm, paired, verdict


class Measure(NamedTuple):
    """How a metric is shown and judged. `span` is the largest change of one score; a difference whose interval stays
    within `margin` both ways is called none: 3 points of exact match are about what the whole validation split can tell
    apart, half a point of rating about what 80 judged questions can."""

    label: str
    factor: float = 100
    span: float = 1
    margin: float = 0.03


MEASURES = {
    "em": Measure("exact match, %"),
    "f1": Measure("F1, %"),
    "scale_em": Measure("scale right, %"),
    "parsed": Measure("replies in the format asked for, %"),
    "lenient_em": Measure("right by the experiment log's lenient rule, %"),
    "prompt_level_strict_acc": Measure("prompts followed, strict, %"),
    "score": Measure("rating from 1 to 10", factor=1, span=9, margin=0.5),
    "success": Measure("rated 7 or more, %", margin=0.1),
}
HEADER = [
    "",
    "n",
    "clusters",
    "before",
    "after",
    "delta",
    "95 % interval",
    "p (Holm)",
    "detectable",
    "verdict",
]


@dataclass(frozen=True)
class Row:
    """One line of a comparison: a group of a column, or "overall"; `p` is adjusted (Holm) over the column's groups."""

    bench: str
    metric: str
    measure: Measure
    column: str
    group: str
    difference: Difference
    p: float

    @property
    def title(self) -> str:
        return f"{self.bench}: {self.measure.label}"

    @property
    def verdict(self) -> str:
        return verdict(self.difference, self.p, self.measure.margin)

    @property
    def words(self) -> str:
        """The verdict, with the size of what is ruled out."""
        bound = self.show(max(-self.difference.low, self.difference.high))
        return f"no difference within {bound}" if self.verdict == "no difference" else self.verdict

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
        shown = [
            self.show(d.before),
            self.show(d.after),
            self.show(d.delta, "+"),
            self.interval,
            p_value(self.p),
        ]
        return [self.group, str(d.n), str(d.clusters), *shown, self.show(d.detectable), self.words]


def p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def load(path: Path) -> dict[str, Scores]:
    """Scores by bench, from a record, an lm-eval output or an MT-Bench score file. Raises InputError."""
    file = path / "record.json" if (path / "record.json").is_file() else path
    content = {} if file.is_dir() else outputs.read_json(file)
    if not isinstance(content, dict):
        raise InputError(f"{file}: neither a record nor an lm-eval output nor MT-Bench scores")
    if "scores" in content:
        return record.load(file).scores
    if "per_question" in content:
        return {"MT-Bench": outputs.mtbench_scores(file)}
    return {"lm-eval": outputs.lm_eval_scores(file)}


def compare(
    before: Mapping[str, Scores], after: Mapping[str, Scores]
) -> tuple[dict[str, list[Row]], list[str]]:
    """Rows of every bench that both sides have, and warnings. Raises InputError if one must not be compared."""
    both = {bench: (before[bench], after[bench]) for bench in before if bench in after}
    if not both:
        raise InputError(
            f"not comparable: before has {', '.join(before)}, after has {', '.join(after)}"
        )
    warnings = [f"{bench}: only on one side" for bench in sorted({*before} ^ {*after})]
    warnings += [warning for one, other in both.values() for warning in check(one, other)]
    rows: dict[str, list[Row]] = {}
    for bench, (one, other) in both.items():
        metrics = [metric for metric in one.metrics if metric in other.metrics]
        rows[bench] = [row for metric in metrics for row in compare_metric(one, other, metric)]
    return rows, warnings


def check(before: Scores, after: Scores) -> list[str]:
    """Warnings about two score tables. Raises InputError if they must not be compared."""
    if refused := different(before.identity, after.identity):
        named = ", ".join(refused)
        raise InputError(
            f"{before.bench}: not comparable, {named} differ before and after; score both the same way"
        )
    warnings = [
        f"{before.bench}: {key} differs: {before.circumstances.get(key)} before, {after.circumstances.get(key)} after"
        for key in different(before.circumstances, after.circumstances)
    ]
    lost = len({*before.item} ^ {*after.item})
    return warnings + (
        [f"{before.bench}: {lost} items lack a score on one side and are left out"] if lost else []
    )


def different(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    return [key for key in dict.fromkeys([*one, *other]) if one.get(key) != other.get(key)]


def compare_metric(before: Scores, after: Scores, metric: str) -> Iterator[Row]:
    """One metric on the items scored on both sides: overall, then by group with Holm over a column's groups."""
    measure = MEASURES.get(metric) or Measure(metric, factor=1, margin=0)
    later = dict(zip(after.item, after.metrics[metric], strict=True))
    sides = [
        (score, later.get(item))
        for item, score in zip(before.item, before.metrics[metric], strict=True)
    ]
    scored = [(i, a, b) for i, (a, b) in enumerate(sides) if a is not None and b is not None]
    for column, labels in {"overall": ["overall"] * len(sides), **before.groups}.items():
        rows = []
        for group in sorted({labels[i] for i, _, _ in scored}):
            places, a, b = zip(*(row for row in scored if labels[row[0]] == group), strict=True)
            difference = paired(a, b, [before.cluster[i] for i in places], measure.span)
            rows.append(Row(before.title, metric, measure, column, group, difference, difference.p))
        for row, p in zip(rows, holm([row.p for row in rows]), strict=True):
            yield replace(row, p=p)


def text(rows: list[Row]) -> str:
    """A table for each bench and metric, for a terminal: first column to the left, the others to the right."""
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
        figures = {
            key: value if math.isfinite(value) else None
            for key, value in asdict(row.difference).items()
        }
        words = {
            "bench": row.bench,
            "metric": row.metric,
            "group": row.group,
            "verdict": row.verdict,
        }
        found.append({**figures, "p": row.p, **words, "p_unadjusted": row.difference.p})
    return found
