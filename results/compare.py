"""`python -m results compare BEFORE AFTER`: may the two be compared, and what changed?

Takes two lm-eval outputs (folder or results file), two MT-Bench score files, or two records.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from results import outputs, record
from results.record import InputError, Scores
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
HEADER = ["", "n", "clusters", "before", "after", "delta", "95 % interval", "p (Holm)", "detectable", "verdict"]


@dataclass(frozen=True)
class Row:
    """One line of a comparison; `p` is adjusted (Holm) over the groups of its column."""

    bench: str
    metric: str
    group: str
    difference: Difference
    p: float
    verdict: str

    @property
    def measure(self) -> Measure:
        return MEASURES.get(self.metric) or Measure(self.metric, factor=1, margin=0)

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
    def words(self) -> str:
        """The verdict, with the size of what is ruled out."""
        bound = self.show(max(-self.difference.low, self.difference.high))
        return f"no difference within {bound}" if self.verdict == "no difference" else self.verdict

    @property
    def cells(self) -> list[str]:
        """The table line under HEADER."""
        d = self.difference
        shown = [self.show(d.before), self.show(d.after), self.show(d.delta, "+"), self.interval, p_value(self.p)]
        return [self.group, str(d.n), str(d.clusters), *shown, self.show(d.detectable), self.words]


def p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def check(before: Scores, after: Scores) -> list[str]:
    """Warnings about two score tables. Raises InputError if they must not be compared."""
    refused = different(before.identity, after.identity)
    if refused:
        named = ", ".join(refused)
        raise InputError(f"{before.bench}: not comparable, {named} differ before and after; score both the same way")
    warnings = [
        f"{before.bench}: {key} differs: {before.circumstances.get(key)} before, {after.circumstances.get(key)} after"
        for key in different(before.circumstances, after.circumstances)
    ]
    lost = len({*before.item} ^ {*after.item})
    return warnings + ([f"{before.bench}: {lost} items lack a score on one side and are left out"] if lost else [])


def different(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    return [key for key in dict.fromkeys([*one, *other]) if one.get(key) != other.get(key)]


def compare_metric(before: Scores, after: Scores, metric: str) -> Iterator[Row]:
    """One metric on the items that both sides have: overall, then by group with Holm over a column's groups."""
    place = {item: j for j, item in enumerate(after.item)}
    pairs = [(i, place[item]) for i, item in enumerate(before.item) if item in place]
    scored = [(i, before.metrics[metric][i], after.metrics[metric][j]) for i, j in pairs]
    scored = [row for row in scored if None not in row]

    def row(group: str, labels: list[str] | None) -> Row:
        chosen = [entry for entry in scored if labels is None or labels[entry[0]] == group]
        a, b, cluster = [x for _, x, _ in chosen], [y for _, _, y in chosen], [before.cluster[i] for i, _, _ in chosen]
        d = paired(a, b, cluster, MEASURES[metric].span if metric in MEASURES else 1)  # type: ignore[arg-type]
        return judged(Row(before.title, metric, group, d, d.p, ""), d.p)

    if scored:
        yield row("overall", None)
    for labels in before.groups.values():
        rows = [row(group, labels) for group in sorted({labels[i] for i, _, _ in scored})]
        yield from map(judged, rows, holm([r.p for r in rows]))


def judged(row: Row, p: float) -> Row:
    """The row with an adjusted p and the verdict that follows."""
    words = verdict(row.difference, p, row.measure.margin)
    return Row(row.bench, row.metric, row.group, row.difference, p, words)


def compare(before: Scores, after: Scores) -> list[Row]:
    """Every metric of two comparable score tables. Raises InputError."""
    check(before, after)
    both = [metric for metric in before.metrics if metric in after.metrics]
    return [row for metric in both for row in compare_metric(before, after, metric)]


def load(path: Path) -> dict[str, Scores]:
    """Scores by bench, from a record, an lm-eval output or an MT-Bench score file. Raises InputError."""
    file = path / "record.json" if (path / "record.json").is_file() else path
    content = {} if file.is_dir() else outputs.read_json(file)
    if "scores" in content:
        return record.load(file).scores
    if "per_question" in content:
        return {"MT-Bench": outputs.mtbench_scores(file)}
    return {"lm-eval": outputs.lm_eval_scores(file)}


def compare_all(before: Mapping[str, Scores], after: Mapping[str, Scores]) -> tuple[list[Row], list[str]]:
    """Rows and warnings of every bench that both sides have. Raises InputError if one must not be compared."""
    both = [bench for bench in before if bench in after]
    if not both:
        raise InputError(f"not comparable: before has {', '.join(before)}, after has {', '.join(after)}")
    warnings = [f"{bench}: only on one side" for bench in sorted({*before} ^ {*after})]
    warnings += [warning for bench in both for warning in check(before[bench], after[bench])]
    return [row for bench in both for row in compare(before[bench], after[bench])], warnings


def tables(rows: list[Row]) -> list[tuple[str, list[list[str]]]]:
    """A titled table, header first, for each bench and metric."""
    found: dict[str, list[list[str]]] = {}
    for row in rows:
        found.setdefault(f"{row.bench}: {row.measure.label}", [HEADER]).append(row.cells)
    return list(found.items())


def text(rows: list[Row]) -> str:
    """All tables for a terminal: first column to the left, the others to the right."""
    parts = []
    for title, table in tables(rows):
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [[cell.rjust(width) for cell, width in zip(line, widths, strict=True)] for line in table]
        parts.append("\n".join([f"\n{title}", *("  ".join([c[0].strip().ljust(widths[0]), *c[1:]]) for c in lines)]))
    return "\n".join(parts)


def as_json(rows: list[Row]) -> list[dict[str, Any]]:
    """Rows for machines; an infinite bound becomes null."""
    flat = [{**asdict(row.difference), **asdict(row), "p_unadjusted": row.difference.p} for row in rows]
    return [
        {key: None if value in (math.inf, -math.inf) else value for key, value in row.items() if key != "difference"}
        for row in flat
    ]
