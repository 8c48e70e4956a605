"""`python -m results compare BEFORE AFTER`: is it comparable, and what did it change?

Takes two lm-eval outputs (folder or results file), two MT-Bench score files, or two records.
"""

import functools
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from results import outputs, record
from results.record import InputError, Scores
from results.statistics import Difference, holm, paired, verdict


@dataclass(frozen=True)
class Measure:
    """How one metric is shown and judged; `span` and `margin` are in the metric's own unit.

    A difference within `margin` both ways is called no difference: 3 points of exact match are about what the full
    validation split can tell apart, half a point of MT-Bench about what 80 questions can.
    """

    label: str
    factor: float
    unit: str
    span: float
    margin: float


PERCENT = {"factor": 100.0, "unit": " pp", "span": 1.0, "margin": 0.03}
MEASURES = {
    "em": Measure("exact match, %", **PERCENT),  # type: ignore[arg-type]
    "f1": Measure("F1, %", **PERCENT),  # type: ignore[arg-type]
    "scale_em": Measure("scale right, %", **PERCENT),  # type: ignore[arg-type]
    "parsed": Measure("replies in the format asked for, %", **PERCENT),  # type: ignore[arg-type]
    "prompt_level_strict_acc": Measure("prompts followed, strict, %", **PERCENT),  # type: ignore[arg-type]
    "score": Measure("judge's rating, 1 to 10", 1.0, "", 9.0, 0.5),
    "success": Measure("rated 7 or more, %", 100.0, " pp", 1.0, 0.10),
}


def measure(metric: str) -> Measure:
    """The measure, or for an unknown lm-eval metric one without a margin."""
    return MEASURES.get(metric) or Measure(metric, 1.0, "", 1.0, 0.0)


@dataclass(frozen=True)
class Row:
    """One line of a comparison; `p` is adjusted (Holm) within its family: all groups of one column."""

    bench: str
    metric: str
    group: str
    difference: Difference
    p: float
    verdict: str


def check(before: Scores, after: Scores) -> list[str]:
    """Warnings about two score tables. Raises InputError if they must not be compared."""
    keys = dict.fromkeys([*before.identity, *after.identity])
    refused = [key for key in keys if before.identity.get(key) != after.identity.get(key)]
    if before.bench != after.bench:
        refused.insert(0, f"bench ({before.bench}, {after.bench})")
    if refused:
        raise InputError(f"not comparable: before and after differ in {', '.join(refused)}; score both the same way")
    keys = dict.fromkeys([*before.circumstances, *after.circumstances])
    warnings = [
        f"{before.bench}: {key} differs: {before.circumstances.get(key)} before, {after.circumstances.get(key)} after"
        for key in keys
        if before.circumstances.get(key) != after.circumstances.get(key)
    ]
    lost = len({*before.item, *after.item}) - len(shared(before, after, next(iter(before.metrics)))[0])
    return warnings + ([f"{before.bench}: {lost} items lack a score on one side and are left out"] if lost else [])


def shared(before: Scores, after: Scores, metric: str) -> tuple[list[int], list[int]]:
    """Row numbers, before and after, of the items that both sides have a score for, in before's order."""
    row = {item: i for i, item in enumerate(after.item) if after.metrics[metric][i] is not None}
    pairs = [(i, row[item]) for i, item in enumerate(before.item) if item in row]
    pairs = [pair for pair in pairs if before.metrics[metric][pair[0]] is not None]
    return [i for i, _ in pairs], [j for _, j in pairs]


def compare(before: Scores, after: Scores) -> list[Row]:
    """Every metric that both sides have: overall, then by each group column."""
    return [
        row for metric in before.metrics if metric in after.metrics for row in compare_metric(before, after, metric)
    ]


def compare_metric(before: Scores, after: Scores, metric: str) -> Iterator[Row]:
    """One metric: overall, and by group with Holm over the groups of a column."""
    a, b = shared(before, after, metric)
    if not a:
        return
    column, how = before.metrics[metric], measure(metric)

    def difference(chosen: list[int]) -> Difference:
        one, two = [column[a[k]] for k in chosen], [after.metrics[metric][b[k]] for k in chosen]
        return paired(one, two, [before.cluster[a[k]] for k in chosen], how.span)  # type: ignore[arg-type]

    overall = difference(list(range(len(a))))
    yield Row(before.title, metric, "overall", overall, overall.p, verdict(overall, overall.p, how.margin))
    for labels in before.groups.values():
        names = sorted({labels[i] for i in a})
        found = [difference([k for k, i in enumerate(a) if labels[i] == name]) for name in names]
        for name, d, p in zip(names, found, holm([d.p for d in found]), strict=True):
            yield Row(before.title, metric, name, d, p, verdict(d, p, how.margin))


HEADER = ["", "n", "clusters", "before", "after", "delta", "95 % interval", "p (Holm)", "detectable", "verdict"]


def cells(row: Row) -> list[str]:
    """One table line, in the unit shown."""
    d, show = row.difference, functools.partial(figure, row.metric)
    return [row.group, str(d.n), str(d.clusters), show(d.before), show(d.after), show(d.delta, "+"),
            f"{show(d.low, '+')} to {show(d.high, '+')}", p_value(row.p), show(d.detectable), words(row)]  # fmt: skip


def figure(metric: str, value: float, sign: str = "") -> str:
    """One number of a metric as it is shown: percentages with one decimal, ratings with two."""
    factor = measure(metric).factor
    if not math.isfinite(value):
        return "∞" if value > 0 else "-∞"
    return f"{value * factor:{sign}.{1 if factor == 100 else 2}f}"


def p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def words(row: Row) -> str:
    """The verdict, with the size of what is ruled out."""
    bound = max(-row.difference.low, row.difference.high)
    ruled_out = f" within {figure(row.metric, bound)}{measure(row.metric).unit}"
    return row.verdict + (ruled_out if row.verdict == "no difference" else "")


def load(path: Path) -> dict[str, Scores]:
    """Scores by bench, from a record, an lm-eval output or an MT-Bench score file."""
    file = path / "record.json" if (path / "record.json").is_file() else path
    content = {} if file.is_dir() else outputs.read_json(file)
    if "scores" in content:
        return record.load(file).scores
    if "per_question" in content:
        return {"mtbench": outputs.mtbench_scores(file)}
    return {"lm_eval": outputs.lm_eval_scores(file)}


def compare_all(before: Mapping[str, Scores], after: Mapping[str, Scores]) -> tuple[list[Row], list[str]]:
    """Rows and warnings of every bench that both sides have. Raises InputError if one must not be compared."""
    both = [bench for bench in before if bench in after]
    if not both:
        raise InputError(f"not comparable: before has {', '.join(before)}, after has {', '.join(after)}")
    warnings = [f"{bench}: only on one side" for bench in {*before} ^ {*after}]
    warnings += [warning for bench in both for warning in check(before[bench], after[bench])]
    return [row for bench in both for row in compare(before[bench], after[bench])], warnings


def tables(rows: list[Row]) -> list[tuple[str, list[list[str]]]]:
    """One titled table, header first, for each bench and metric."""
    titles = dict.fromkeys((row.bench, row.metric) for row in rows)
    return [
        (f"{bench}: {measure(metric).label}", [HEADER, *(cells(r) for r in rows if (r.bench, r.metric) == pair)])
        for pair in titles
        for bench, metric in [pair]
    ]


def as_json(rows: list[Row]) -> list[dict[str, Any]]:
    """Rows for machines; a bound that is infinite becomes null."""

    def finite(value: Any) -> Any:
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return [{**asdict(row), "difference": {k: finite(v) for k, v in asdict(row.difference).items()}} for row in rows]
