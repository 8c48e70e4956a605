"""`python -m results compare BEFORE AFTER`: may the two be compared, and what changed?

BEFORE and AFTER are lm-eval outputs (folder or results file), MT-Bench score files or records, in
any mix. Several AFTER are runs of one recipe with other seeds, or readings of one model: then the
verdict is about their mean.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from results import InputError, outputs, record
from results.measures import MEASURES, Measure, is_ours, measure_of, within
from results.record import Scores
from results.statistics import Difference, in_family, over_runs, verdict

OTHER_UNITS = 50  # times as large as the other mean: percent against a share, most likely
LACK = "lack {} on one side or both and are left out; the interval allows for them"
NO_DOCUMENTS = "its clusters stay as they are, --cluster is for the documents of lm-eval outputs"
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
    "p (adjusted)",
    "detectable",
]
Table = Mapping[str, Scores]  # scores by bench


@dataclass(frozen=True)
class Row:
    """One line of a comparison: a group of a column, or "overall".

    `difference` is one of the family that it is shown with.
    """

    bench: str
    metric: str
    measure: Measure
    column: str
    group: str
    difference: Difference

    @property
    def title(self) -> str:
        return f"{self.bench}: {self.measure.label}"

    @property
    def verdict(self) -> str:
        """better, worse, no difference or cannot tell; higher or lower where neither is better.

        By statistics.verdict, from the interval of its family and the measure's margin.
        """
        direction = self.measure.higher_is_better
        word = verdict(self.difference, self.measure.margin, direction is not False)
        if direction is None:
            return {"better": "higher", "worse": "lower"}.get(word, word)
        return word

    @property
    def words(self) -> str:
        """The verdict, with the size of what is ruled out: "better, smaller than 1.4"."""
        bound = max(-self.difference.low, self.difference.high)
        if self.verdict == "no difference":
            return f"no difference within {self.show(bound)}"
        if bound <= self.measure.margin:
            return f"{self.verdict}, smaller than {self.show(bound)}"
        return self.verdict

    def show(self, value: float, sign: str = "") -> str:
        """A figure of this metric: percentages with one decimal, ratings with two."""
        if not math.isfinite(value):
            return "n/a"
        digits = 1 if self.measure.factor == 100 else 2
        return f"{value * self.measure.factor:{sign}.{digits}f}"

    @property
    def interval(self) -> str:
        if not math.isfinite(self.difference.low):
            return "n/a"
        low = self.show(self.difference.low, "+")
        high = self.show(self.difference.high, "+")
        return f"{low} to {high}"

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
    file = path
    for name in ("score.json", "record.json"):  # a folder with both is a run's
        if (path / name).is_file():
            file = path / name
    content = {} if file.is_dir() else outputs.read_json(file)
    if not isinstance(content, dict):
        raise InputError(f"{file}: neither a record nor an lm-eval output nor MT-Bench scores")
    ignored = [] if cluster is None else [f"{file}: {NO_DOCUMENTS}"]
    if "scores" in content:
        return record.load(file).by_bench, ignored
    if "per_question" in content:
        return ratings(file), ignored
    return outputs.lm_eval_tables(file, cluster)


def ratings(file: Path) -> dict[str, Scores]:
    """Scores of an MT-Bench score file, by category where the questions lie beside it."""
    questions = file.parent / "question.jsonl"
    scores = outputs.mtbench_scores(file, questions if questions.is_file() else None)
    return {"instruct" if scores.bench == "instruct" else "mtbench": scores}


def compare(
    before: Table, after: Table | Sequence[Table], margin: float | None = None
) -> tuple[dict[str, list[Row]], list[str]]:
    """Rows of every bench that all sides have, and warnings.

    The overall rows of all benches' first metrics are one family; so are a bench's other overall
    rows, and the groups of each column. Raises InputError if a bench must not be compared.
    """
    if margin is not None and not 0 <= margin < math.inf:
        raise InputError(f"a margin of {margin} is no size; give one from 0 up")
    given = [after] if isinstance(after, Mapping) else list(after)
    runs = without_copies(given)
    benches = benches_of_all(before, runs)
    warnings = one_sided_warnings([before, *runs])
    if len(runs) < len(given):
        copies = len(given) - len(runs)
        warnings.append(f"{copies} of the runs after are copies of others and are left out")
    rows: dict[str, list[Row]] = {}
    for bench in benches:
        others = []
        for run in runs:
            others.append(run[bench])
            warnings += check(before[bench], run[bench])
        rows[bench], unscored = compare_bench([before[bench]], others, margin)
        warnings += unscored
    return in_families(rows), list(dict.fromkeys(warnings))


def without_copies(tables: Sequence[Table]) -> list[Table]:
    """The tables, each once."""
    found: list[Table] = []
    for one in tables:
        if one not in found:
            found.append(one)
    return found


def benches_of_all(before: Table, runs: Sequence[Table]) -> list[str]:
    """The benches that all sides have. Raises InputError if there is none."""
    benches = apart(before, in_all([before, *runs]))
    if not benches:
        of_runs = dict.fromkeys(chain.from_iterable(runs))
        raise InputError(
            f"not comparable: before has {', '.join(before)}, after has {', '.join(of_runs)}"
        )
    return benches


def in_all(sides: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names that all sides have, in the order of the first."""
    return [name for name in sides[0] if all(name in side for side in sides)]


def one_sided_warnings(sides: Sequence[Table]) -> list[str]:
    """A warning for each bench that not all sides have."""
    one_sided = set(chain.from_iterable(sides)).difference(in_all(sides))
    return [f"{bench}: only on one side" for bench in sorted(one_sided)]


def apart(tables: Table, benches: Sequence[str]) -> list[str]:
    """The benches, without the tasks and groups that the table of another group holds wholly."""
    tasks = {}
    for bench in benches:
        tasks[bench] = set(tables[bench].groups.get("task", [bench]))
    held = set()
    for bench in benches:
        for group in benches:
            if tasks[bench] <= tasks[group] and has_more(tables[group], tables[bench]):
                held.add(bench)
    return [bench for bench in benches if bench not in held]


def has_more(group: Scores, part: Scores) -> bool:
    """Whether a table has more questions than another, and all its metrics."""
    if len(group.item) <= len(part.item):
        return False
    return part.metrics.keys() <= group.metrics.keys()


def check(before: Scores, after: Scores) -> list[str]:
    """Warnings about two score tables. Raises InputError if they must not be compared."""
    warnings = []
    for key in sorted(before.identity.keys() ^ after.identity.keys()):
        warnings.append(f"{before.bench}: {key} is known on one side only")
    known_of_both = before.identity.keys() & after.identity.keys()
    refused = different(before.identity, after.identity)
    if refused == ["chat template"] and "prompts" in known_of_both:
        warnings.append(f"{before.bench}: the chat templates differ, the prompts do not")
    elif refused:
        raise InputError(refusal(before, after, refused))
    for key in different(before.circumstances, after.circumstances):
        if key == "base" and "base model" in known_of_both:
            continue  # these are names under which one base and its adapters are served
        one, other = before.circumstances[key], after.circumstances[key]
        warnings.append(f"{before.bench}: {key} differs: {one} before, {other} after")
    return warnings


def refusal(before: Scores, after: Scores, keys: Sequence[str]) -> str:
    """Why two tables must not be compared, which differ in these keys of their identity."""
    sizes = ""
    if len(before.item) != len(after.item):
        sizes = f" ({len(before.item)} questions before, {len(after.item)} after)"
    return (
        f"{before.bench}: not comparable, {', '.join(keys)} differ before and after{sizes}; "
        "score both the same way"
    )


def different(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Keys that both have, with other values."""
    return [key for key in one if key in other and one[key] != other[key]]


def compare_bench(
    before: Sequence[Scores], after: Sequence[Scores], margin: float | None = None
) -> tuple[list[Row], list[str]]:
    """Rows of every metric that all runs have, each a family of its own, and warnings."""
    runs = [*before, *after]
    bench = before[0].bench
    rows: list[Row] = []
    warnings: list[str] = []
    for metric in shared_metrics(runs):
        rows += compare_metric(before, after, metric, margin)
        asked: set[str] = set()
        for run in runs:
            asked.update(run.item)
        unscored = len(asked - scored_by_all(runs, metric))
        if unscored:
            warnings.append(f"{bench}: {unscored} items {LACK.format(metric)}")
    if not rows:
        raise InputError(f"{bench}: no metric has a score of the same question on both sides")
    return rows, warnings + outside(runs) + uneven_clusters(rows[0]) + other_units(rows)


def shared_metrics(runs: Sequence[Scores]) -> list[str]:
    """Metrics that all runs have, the headline first."""
    shared = in_all([run.metrics for run in runs])
    headlines = [metric for metric in HEADLINE if metric in shared]
    return list(dict.fromkeys(headlines + shared))


def uneven_clusters(row: Row) -> list[str]:
    """A warning where a few large clusters dominate: they say far less than their number."""
    clusters, effective = row.difference.clusters, row.difference.df + 1
    if 2 * effective >= clusters:
        return []
    return [
        f"{row.bench}: {clusters} clusters of very unequal size say no more than {effective:.1f} "
        "equal ones; the intervals are as wide as that"
    ]


def outside(runs: Sequence[Scores]) -> list[str]:
    """A warning for each of our metrics that has scores which it cannot have."""
    found = []
    for metric in shared_metrics(runs):
        if not is_ours(runs[0], metric) or within(runs, metric, MEASURES[metric]):
            continue
        lowest = MEASURES[metric].lowest
        highest = lowest + MEASURES[metric].span
        found.append(
            f"{runs[0].bench}: {metric} has scores outside {lowest:g} to {highest:g}; it is shown "
            "as it stands"
        )
    return found


def other_units(rows: Sequence[Row]) -> list[str]:
    """A warning for each metric that looks like a share on one side and percent on the other."""
    found = []
    for row in rows:
        before, after = row.difference.before, row.difference.after
        small, large = sorted([abs(before), abs(after)])
        if row.column == "overall" and 0 < small <= 1 < large >= OTHER_UNITS * small:
            found.append(
                f"{row.bench}: {row.metric} is {before:.4g} before and {after:.4g} after; is one "
                "of them in other units?"
            )
    return found


def compare_metric(
    before: Sequence[Scores],
    after: Sequence[Scores],
    metric: str,
    margin: float | None = None,
    stepwise: bool = False,
) -> Iterator[Row]:
    """One metric on the items that all runs scored: overall, then by group.

    `stepwise`: each run after was trained on from the run before in its place.
    """
    runs = [*before, *after]
    scored = [run.scored(metric) for run in runs]
    shared = set(scored[0]).intersection(*scored[1:])
    if not shared:
        return
    measure = measure_of(runs, metric, margin)
    lost = set().union(*scored) - shared
    first = before[0]
    cluster = dict(zip(first.item, first.cluster, strict=True))
    weights = first.weights.get(metric) or [1.0] * len(first.item)
    weight = dict(zip(first.item, weights, strict=True))
    for column, labels in labels_by_column(runs).items():
        unpaired = Counter(in_order(labels, lost))
        for group, names in members(shared, first.item, labels).items():
            scores = [in_order(found, names) for found in scored]
            difference = over_runs(
                scores[: len(before)],
                scores[len(before) :],
                in_order(cluster, names),
                measure.span,
                in_order(weight, names),
                measure.rare,
                stepwise,
            )
            share = unpaired[group] / (unpaired[group] + len(names))
            with_share = replace(difference, unpaired=share)
            yield Row(first.title, metric, measure, column, group, with_share)


def in_order(known: Mapping[str, Any], names: Iterable[str]) -> list[Any]:
    """What is known of each of these items."""
    return [known[name] for name in names]


def members(
    shared: Set[str], items: Sequence[str], labels: Mapping[str, str]
) -> dict[str, list[str]]:
    """The shared items of each group, in order; groups by name."""
    found: dict[str, list[str]] = {}
    for item in items:
        if item in shared:
            found.setdefault(labels[item], []).append(item)
    return dict(sorted(found.items()))


def scored_by_all(runs: Sequence[Scores], metric: str) -> set[str]:
    """The items that have a score in every run."""
    shared = set(runs[0].item)
    for run in runs:
        shared.intersection_update(run.scored(metric))
    return shared


def labels_by_column(runs: Sequence[Scores]) -> dict[str, dict[str, str]]:
    """What every item of any run is called in each column to break down by."""
    found: dict[str, dict[str, str]] = {"overall": {}}
    for run in runs:
        found["overall"].update(dict.fromkeys(run.item, "overall"))
    for column in runs[0].groups:
        found[column] = {}
        for run in runs:
            labels = run.groups.get(column, runs[0].groups[column])
            found[column].update(zip(run.item, labels, strict=False))
    return found


def in_families(rows: Mapping[str, list[Row]]) -> dict[str, list[Row]]:
    """The rows of every bench, each adjusted for the family that it is read with."""
    families: dict[tuple[str, ...], list[tuple[str, int]]] = {}
    adjusted: dict[str, list[Row]] = {}
    for bench, found in rows.items():
        adjusted[bench] = list(found)
        for place, row in enumerate(found):
            family = family_of(bench, row, found[0].metric)
            families.setdefault(family, []).append((bench, place))
    for places in families.values():
        together = as_family([rows[bench][place] for bench, place in places])
        for (bench, place), row in zip(places, together, strict=True):
            adjusted[bench][place] = row
    return adjusted


def family_of(bench: str, row: Row, first_metric: str) -> tuple[str, ...]:
    """What a row is read together with."""
    if row.column != "overall":
        return (bench, row.metric, row.column)
    return ("headlines",) if row.metric == first_metric else (bench, "other measures")


def as_family(rows: Sequence[Row]) -> list[Row]:
    """The same rows as one family, whose intervals hold together."""
    differences = in_family([row.difference for row in rows])
    adjusted = []
    for row, difference in zip(rows, differences, strict=True):
        adjusted.append(replace(row, difference=difference))
    return adjusted


def refuse_without_headline(before: Table, rows: Mapping[str, list[Row]]) -> None:
    """Raise InputError where a bench's first metric has no score of a question on both sides."""
    for bench, found in rows.items():
        first = shared_metrics([before[bench]])[0]
        if found[0].metric != first:
            raise InputError(
                f"{bench}: no question has {first} on both sides, so nothing says whether it got "
                "worse"
            )


def is_worse(rows: list[Row]) -> bool:
    """Did the first metric of any bench get worse overall?

    Raises InputError where no output says whether higher is better.
    """
    firsts: dict[str, str] = {}
    worse = False
    for row in rows:
        firsts.setdefault(row.bench, row.metric)
        if row.column != "overall" or row.metric != firsts[row.bench]:
            continue
        if row.measure.higher_is_better is None:
            raise InputError(f"{row.bench}: no output says whether higher {row.metric} is better")
        worse = worse or row.verdict == "worse"
    return worse
