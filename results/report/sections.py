"""`python -m results report`: README.md, figures and report.html, from the records and nothing else."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from results import InputError
from results.compare import HEADER, Row, compare, compare_metric, p_value
from results.files import file_name
from results.record import Record, Training, load_all
from results.report import figures, page
from results.report import log as published
from results.report.page import Block
from results.statistics import holm

HEADLINES = {
    "tatqa": "em",
    "mtbench": "score",
    "instruct": "score",
    "ifeval": "prompt_level_strict_acc",
}
FIELDS = {
    "lora_r": "LoRA rank and alpha",
    "learning_rate": "learning rate",
    "num_train_epochs": "epochs",
}


@dataclass(frozen=True)
class Run:
    """A run, its base, all comparisons by bench, and each bench's headline with p adjusted over all runs.

    In `recipe`, the resolved one, rank and alpha count as one field.
    """

    name: str
    record: Record
    base: Record
    training: Training
    recipe: dict[str, Any]
    rows: dict[str, list[Row]]
    headlines: dict[str, Row]

    def last(self, key: str) -> float:
        """The last logged value of a training curve."""
        return next(
            (entry[key] for entry in reversed(self.training.history) if key in entry), float("nan")
        )

    def groups(self, bench: str, column: str) -> list[Row]:
        """The headline metric's rows by the groups of one column."""
        wanted = (HEADLINES[bench], column)
        return [row for row in self.rows.get(bench, []) if (row.metric, row.column) == wanted]


def collect(runs: Path) -> tuple[list[Run], list[str]]:
    """Every run with its comparisons, and a line for each that cannot be shown."""
    records, problems = load_all(runs)
    found = []
    for record in records.values():
        if record.base is None:
            continue
        try:
            found.append(one_run(record, records[record.base]))
        except InputError as error:
            problems.append(str(error))
    for bench in HEADLINES:
        family = [(run, row) for run in found for row in run.groups(bench, "overall")]
        for (run, row), p in zip(family, holm([row.p for _, row in family]), strict=True):
            run.headlines[bench] = replace(row, p=p)
    return found, problems


def one_run(record: Record, base: Record) -> Run:
    """A record compared with its base, headlines still to come. Raises InputError."""
    assert record.training
    recipe: dict[str, Any] = dict(record.training.recipe)
    recipe["lora_r"] = f"{recipe['lora_r']}, {recipe.pop('lora_alpha')}"
    try:
        rows, _ = compare(base.scores, record.scores)
    except InputError as error:
        raise InputError(f"{record.name} and {base.name}: {error}; run the recipe again") from None
    return Run(record.name, record, base, record.training, recipe, rows, {})


def sentence(run: Run) -> str:
    """The verdict in words."""
    tatqa, *others = [
        f"{row.bench}, {row.measure.label}: {row.words}, {row.change}"
        for row in run.headlines.values()
    ]
    types = run.groups("tatqa", "answer_type")
    for words in dict.fromkeys(row.verdict for row in types):
        named = [
            f"{r.group} ({r.show(r.difference.delta, '+')})" for r in types if r.verdict == words
        ]
        tatqa += f"; {words} on {', '.join(named)}"
    return f"{run.name}. {'. '.join([tatqa, *others])}."


def verdicts(found: list[Run]) -> Iterator[Block]:
    """All runs, a line for each bench."""
    lines = [
        [
            "run",
            "bench",
            "verdict",
            "delta (95 % interval)",
            "before",
            "after",
            "p (Holm)",
            "detectable",
        ]
    ]
    for run in found:
        for row in run.headlines.values():
            shown = dict(zip(HEADER, row.cells, strict=True))
            cells = [shown[name] for name in lines[0][-4:]]
            lines.append([run.name, row.title, row.words, row.change, *cells])
    if found:
        yield "table", lines
    else:
        yield "p", "No run is recorded yet: `make demo`, or `python -m results run RECIPE`."


def by_field(found: list[Run]) -> Iterator[Block]:
    """For each field of the recipes: the runs of one base that agree in every other field."""
    for field in sorted({key for run in found for key in run.recipe}):
        groups: dict[str, list[Run]] = {}
        for run in found:
            rest = {**run.recipe, field: None, "base": run.base.name}
            groups.setdefault(repr(sorted(rest.items())), []).append(run)
        for group in groups.values():
            if len({repr(run.recipe.get(field)) for run in group}) > 1:
                yield "h3", f"By {FIELDS.get(field, field)}"
                yield (
                    "table",
                    field_table(
                        field, sorted(group, key=lambda run: in_order(run.recipe.get(field)))
                    ),
                )


def in_order(value: Any) -> tuple[float, str]:
    """Numbers by size, then everything else by its text."""
    return (value, "") if isinstance(value, int | float) else (float("inf"), str(value))


def field_table(field: str, group: list[Run]) -> list[list[str]]:
    """Each run against its base, and against the group's first run on the same questions."""
    first, titles = (
        group[0],
        {bench: row.bench for run in group for bench, row in run.headlines.items()},
    )
    lines = [
        [
            FIELDS.get(field, field),
            "run",
            *titles.values(),
            "loss",
            f"TAT-QA against {first.name}",
            "p",
        ]
    ]
    for run in group:
        deltas = [run.headlines[bench].change if bench in run.headlines else "" for bench in titles]
        direct = next(
            compare_metric(first.record.scores["tatqa"], run.record.scores["tatqa"], "em")
        )
        against = ["", ""] if run is first else [direct.change, p_value(direct.p)]
        lines.append(
            [str(run.recipe.get(field)), run.name, *deltas, f"{run.last('loss'):.3f}", *against]
        )
    return lines


def section(run: Run) -> Iterator[Block]:
    """A run's own section: verdict, origin, figures, tables, commands."""
    yield "h3", run.name
    yield "p", sentence(run)
    yield "p", origin(run)
    yield from drawings(run)
    for rows in run.rows.values():
        main = [row for row in rows if row.metric == rows[0].metric]
        others = [row for row in rows[len(main) :] if row.column == "overall"]
        yield "h4", rows[0].title
        yield "table", [HEADER, *(row.cells for row in main)]
        if others:
            yield "p", f"{rows[0].bench}, other measures, overall:"
            yield "table", [HEADER, *([row.measure.label, *row.cells[1:]] for row in others)]
    yield "code", "\n".join([*run.base.provenance.commands, *run.record.provenance.commands])


def origin(run: Run) -> str:
    """Where the run's numbers come from, in two sentences."""
    source, training, limit = (
        run.record.provenance,
        run.training,
        run.record.provenance.settings.get("limit"),
    )
    only = f" (only {limit} questions of each answer type)" if limit else ""
    code = str(source.git["commit"])[:10] + (
        " with uncommitted changes" if source.git["dirty"] else ""
    )
    versions = ", ".join(map(" ".join, source.versions.items()))
    return (
        f"Trained on {training.pairs['kept']} pairs in {training.seconds:.0f} s on {training.device}; last loss "
        f"{run.last('loss'):.3f}, reward accuracy {run.last('rewards/accuracies'):.2f}. Scored on {source.device}; "
        f"base {run.base.name}, data {source.data['source']}{only}, code {code}, {versions}."
    )


def drawings(run: Run) -> Iterator[Block]:
    """The run's figures."""
    by_type = run.groups("tatqa", "answer_type")
    drawing = figures.by_group(by_type, f"{run.name}, {by_type[0].title}")
    yield (
        "figure",
        (
            f"{file_name(run.name)}-types.svg",
            "exact match by answer type, before and after",
            drawing,
        ),
    )
    drawing = figures.training(run.training.history, run.name)
    yield "figure", (f"{file_name(run.name)}-training.svg", "loss and rewards by step", drawing)
    if len(rows := run.groups("mtbench", "category")) > 2:
        drawing = figures.radar(rows, rows[0].bench)
        yield (
            "figure",
            (f"{file_name(run.name)}-radar.svg", "rating by category, before and after", drawing),
        )


def unread(problems: list[str]) -> Iterator[Block]:
    """What the report has to do without."""
    if problems:
        yield "p", "Not in this report:"
        yield from (("li", line) for line in problems)


def log_section() -> Iterator[Block]:
    """The experiment log's own figures; in the project's own report only."""
    yield from page.from_template(
        "log.md", {"log": [("table", published.overview(("overall", "mtbench", "instruct")))]}
    )


def beta_section(found: list[Run], own: bool) -> Iterator[Block]:
    """Delta against beta, where that can be drawn."""
    if own:
        yield "figure", ("beta.svg", "delta against beta", beta_figure(found))


def beta_figure(found: list[Run]) -> str:
    """Delta against beta over all runs, the log's beside them; stand-ins have no place here."""
    panels = {}
    for bench, title, measure in (
        ("tatqa", "TAT-QA, points", "overall"),
        ("mtbench", "MT-Bench", "mtbench"),
    ):
        here = []
        for run in found:
            if bench in run.headlines and not run.record.scores[bench].stand_in:
                d, factor = run.headlines[bench].difference, run.headlines[bench].measure.factor
                here.append((run.recipe["beta"], d.delta * factor, d.low * factor, d.high * factor))
        panels[title] = here, published.by_beta(measure)
    return figures.against_beta(panels)


def blocks(found: list[Run], problems: list[str], own: bool) -> Iterator[Block]:
    """The whole page, in reading order; `own`: the project's own, which shows the experiment log."""
    parts = {
        "unread": unread(problems),
        "verdicts": verdicts(found),
        "sentences": [("li", sentence(run)) for run in found],
        "beta": beta_section(found, own),
        "fields": by_field(found),
        "log": log_section() if own else [],
        "runs": [block for run in found for block in section(run)],
    }
    return page.from_template("report.md", parts)
