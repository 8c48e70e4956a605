"""What `tatqa-bench compare` does and prints."""

import argparse
import json
import math
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain, groupby
from pathlib import Path
from typing import Any

from results import InputError, compare, on_one_line, outputs, record
from results.compare import HEADER, Row
from results.outputs import Reply

FIGURES = (  # of a Difference, in the JSON
    "n",
    "clusters",
    "before",
    "after",
    "delta",
    "se",
    "df",
    "low",
    "high",
    "p",
    "p_alone",
    "detectable",
    "family",
    "runs",
    "se_runs",
    "df_runs",
    "unpaired",
)


def run(args: argparse.Namespace) -> int:
    """Compare, print, and say by the exit code whether anything got worse, if that was asked."""
    before, warnings = compare.load(args.before, args.cluster)
    after = []
    for path in args.after:
        scores, warned = compare.load(path, args.cluster)
        after.append(scores)
        warnings += warned
    found, more = compare.compare(before, after, args.margin)
    rows = list(chain.from_iterable(found.values()))
    for warning in dict.fromkeys(warnings + more):
        sys.stderr.write(f"warning: {on_one_line(warning)}\n")
    if args.json:
        sys.stdout.write(json.dumps(as_json(rows), indent=1) + "\n")
    else:
        sys.stdout.write(text(rows) + "\n")
    if args.flips:
        sys.stdout.write(f"{flips(args.before, args.after[0], found)}\n")
    if not args.fail_if_worse:
        return 0
    compare.refuse_without_headline(before, found)
    return 1 if compare.is_worse(rows) else 0


def text(rows: list[Row]) -> str:
    """A table for each bench and metric, for a terminal."""
    lines = []
    for title, of_title in groupby(rows, lambda row: row.title):
        group = list(of_title)
        lines += ["", on_one_line(title), *table_lines(group), *notes(group)]
    return "\n".join(lines)


def table_lines(rows: Sequence[Row]) -> list[str]:
    """Header and rows in columns: the first one to the left, the others to the right."""
    table = [HEADER]
    for row in rows:
        table.append([on_one_line(cell) for cell in row.cells])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for first, *others in table:
        line = first.ljust(widths[0])
        for cell, width in zip(others, widths[1:], strict=True):
            line += "  " + cell.rjust(width)
        lines.append(line)
    return lines


def notes(rows: Sequence[Row]) -> list[str]:
    """What the intervals of a table hold for, where that is not each alone, or for several runs."""
    found = []
    families = {}
    for row in rows:
        if row.difference.family > 1:
            families[row.column] = row.difference.family
    if families:
        sizes = [f"{column} {size}" for column, size in families.items()]
        together = "comparisons whose intervals hold together with 95 %"
        found.append(f"{together}: {', '.join(sizes)}")
    row, d = rows[0], rows[0].difference
    if d.runs > 1:
        found.append(
            f"mean of {d.runs} runs: standard error {row.show(d.questions.se)} from questions "
            f"({d.df:.0f} degrees of freedom), {row.show(d.se_runs)} from runs ({d.df_runs:.0f})"
        )
    return found


def as_json(rows: list[Row]) -> list[dict[str, Any]]:
    """Rows for machines; a figure that is not finite becomes null."""
    found = []
    for row in rows:
        words = {
            "bench": row.bench,
            "metric": row.metric,
            "column": row.column,
            "group": row.group,
            "verdict": row.verdict,
            "margin": row.measure.margin,
            "higher_is_better": row.measure.higher_is_better,
            "p_unadjusted": row.difference.p_alone,
        }
        figures: dict[str, float | None] = {}
        for name in FIGURES:
            value = getattr(row.difference, name)
            figures[name] = value if math.isfinite(value) else None
        found.append({**figures, **words})
    return found


def flips(before: Path, after: Path, found: dict[str, list[Row]]) -> str:
    """Questions that went from right to wrong and back by each bench's first metric.

    A bench whose samples are not there is named. Raises InputError if that is so of all.
    """
    lines: list[str] = []
    missing: list[InputError] = []
    for bench, rows in found.items():
        try:
            lines += flips_of_bench(before, after, bench, rows)
        except InputError as error:
            missing.append(error)
            lines.append(on_one_line(f"{bench}: no replies to show, {error}"))
    if len(missing) == len(found):
        raise missing[0]
    return "\n".join(lines)


def flips_of_bench(before: Path, after: Path, bench: str, rows: Sequence[Row]) -> Iterator[str]:
    """The lines of one bench, both replies of each question. Raises InputError."""
    metric = rows[0].metric
    tasks = {row.group for row in rows if row.column == "task"}
    replies_before = replies(before, bench, metric, tasks)
    replies_after = replies(after, bench, metric, tasks)
    pairs = scored_pairs(replies_before, replies_after)
    lower, higher = [], []
    for one, other in pairs:
        change = rise(one, other)
        if change < 0:
            lower.append(flip(one, other))
        elif change > 0:
            higher.append(flip(one, other))
    for words, changed in (("lower", lower), ("higher", higher)):
        title = f"{bench}: {len(changed)} of {len(pairs)} have {words} {metric} after"
        yield f"\n{on_one_line(title)}"
        yield from changed


def scored_pairs(
    before: Mapping[str, Reply], after: Mapping[str, Reply]
) -> list[tuple[Reply, Reply]]:
    """Both replies to each question that has a score on both sides."""
    pairs = []
    for name, one in before.items():
        other = after.get(name)
        if other is not None and one.score is not None and other.score is not None:
            pairs.append((one, other))
    return pairs


def rise(before: Reply, after: Reply) -> float:
    """By how much the score of a question rose; both replies have one."""
    assert before.score is not None
    assert after.score is not None
    return after.score - before.score


def flip(before: Reply, after: Reply) -> str:
    """One question and both replies, as text."""
    name = on_one_line(f"{before.item} ({before.kind})")
    return (
        f"- {name}: {on_one_line(before.question)[-300:]}\n  right: {on_one_line(before.gold)}\n"
        f"  before ({before.score:g}): {on_one_line(before.text)}\n"
        f"  after ({after.score:g}): {on_one_line(after.text)}"
    )


def replies(path: Path, bench: str, metric: str, tasks: Collection[str] = ()) -> dict[str, Reply]:
    """Replies of a bench (a group: of its tasks) by question, as its metric's filter left them.

    From an lm-eval output or a run folder. Raises InputError.
    """
    folder = path.parent if path.name == "record.json" else path
    if (folder / "record.json").is_file():
        stages = record.load(folder / "record.json").stage_of_bench
        path = folder / stages.get(bench, bench)
    name, _, filter_name = metric.partition(",")
    rows = samples_of(path, tasks or {bench}, filter_name or outputs.NO_FILTER)
    if not rows:
        raise InputError(f"{path}: no samples of {bench} for --flips")
    with outputs.readable(path, bench):
        return {reply.item: reply for reply in outputs.replies(rows, name)}


def samples_of(path: Path, benches: Collection[str], filter_name: str) -> list[dict[str, Any]]:
    """The sample rows of some benches in an lm-eval output, those that one filter left."""
    found = []
    for file in outputs.results_files(path):
        for row in outputs.samples(file):
            its_filter = row.get("filter", outputs.NO_FILTER)
            if outputs.bench_of(row, file) in benches and its_filter == filter_name:
                found.append(row)
    return found


def headlines(pairs: Sequence[tuple[Path, Path]]) -> str:
    """The first metric of every bench of each (base, run) pair of run folders, as tables."""
    lines = []
    for base, run_folder in pairs:
        before, _ = compare.load(base)
        after, _ = compare.load(run_folder)
        found, _ = compare.compare(before, after)
        rows: list[Row] = []
        for of_bench in found.values():
            rows += [row for row in of_bench if row.metric == of_bench[0].metric]
        lines.append(f"\n=== {run_folder.name}, before: {base.name} ===\n{text(rows)}")
    lines.append("\neach run by itself; the report's intervals hold for all its runs together")
    return "\n".join(lines)
