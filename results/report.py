"""`python -m results report`: README.md, figures and report.html, from the records and nothing else."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from results import figures, page, published
from results.compare import HEADER, Row, compare, compare_metric, judged, p_value, tables
from results.page import TEMPLATES, Block
from results.record import InputError, Record, Training, load_all, write_whole
from results.statistics import holm

HEADLINES = {"tatqa": "em", "mtbench": "score", "instruct": "score", "ifeval": "prompt_level_strict_acc"}
TYPES = ("span", "multi-span", "arithmetic", "count")
FIELDS = {"lora_r": "LoRA rank and alpha", "learning_rate": "learning rate", "num_train_epochs": "epochs"}


@dataclass(frozen=True)
class Run:
    """A run, its base, all comparisons by bench, and each bench's headline with p adjusted over all runs."""

    record: Record
    base: Record
    rows: dict[str, list[Row]]
    headlines: dict[str, Row]

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def training(self) -> Training:
        assert self.record.training
        return self.record.training

    @property
    def recipe(self) -> dict[str, Any]:
        """The resolved recipe; rank and alpha count as one field."""
        recipe = dict(self.training.recipe)
        alpha = recipe.pop("lora_alpha")
        return {**recipe, "lora_r": f"{recipe['lora_r']}, {alpha}"}

    def last(self, key: str) -> float:
        """The last logged value of a training curve."""
        return next((e[key] for e in reversed(self.training.history) if key in e), float("nan"))

    def groups(self, bench: str, column: str) -> list[Row]:
        """The headline metric's rows by the groups of one column."""
        names = self.base.scores[bench].groups.get(column, []) if bench in self.rows else []
        return [row for row in self.rows.get(bench, []) if row.metric == HEADLINES[bench] and row.group in names]


def collect(runs: Path) -> list[Run]:
    """Every run with its comparisons. Raises InputError for one that cannot be compared with its base."""
    records, found = load_all(runs), []
    for record, base in [(record, records[record.base]) for record in records.values() if record.base]:
        try:
            both = [bench for bench in record.scores if bench in base.scores]
            rows = {bench: compare(base.scores[bench], record.scores[bench]) for bench in both}
        except InputError as error:
            raise InputError(f"{record.name} and {base.name}: {error}; run the recipe again") from None
        found.append(Run(record, base, rows, {}))
    for bench, metric in HEADLINES.items():
        overall = [(run, row) for run in found for row in run.rows.get(bench, []) if row.group == "overall"]
        family = [(run, row) for run, row in overall if row.metric == metric]
        for (run, row), p in zip(family, holm([row.p for _, row in family]), strict=True):
            run.headlines[bench] = judged(row, p)
    return found


def sentence(run: Run) -> str:
    """The verdict in words."""
    tatqa, *others = [f"{row.bench}, {row.measure.label}: {row.words}, {row.change}" for row in run.headlines.values()]
    types = run.groups("tatqa", "answer_type")
    for words in dict.fromkeys(row.verdict for row in types):
        named = [f"{r.group} ({r.show(r.difference.delta, '+')})" for r in types if r.verdict == words]
        tatqa += f"; {words} on {', '.join(named)}"
    return f"{run.name}. {'. '.join([tatqa, *others])}."


def verdict_table(found: list[Run]) -> list[list[str]]:
    """All runs, a line for each bench."""
    lines = [["run", "bench", "verdict", "delta (95 % interval)", "before", "after", "p (Holm)", "detectable"]]
    for run, row in [(one, row) for one in found for row in one.headlines.values()]:
        shown = dict(zip(HEADER, row.cells, strict=True))
        cells = [shown[name] for name in ("before", "after", "p (Holm)", "detectable")]
        lines.append([run.name, f"{row.bench}: {row.measure.label}", row.words, row.change, *cells])
    return lines


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
                yield "table", field_table(field, sorted(group, key=lambda run: in_order(run.recipe.get(field))))


def in_order(value: Any) -> tuple[float, str]:
    """Numbers by size, then everything else by its text."""
    return (value, "") if isinstance(value, int | float) else (float("inf"), str(value))


def field_table(field: str, group: list[Run]) -> list[list[str]]:
    """Each run against its base, and against the group's first run on the same questions."""
    first, titles = group[0], {bench: row.bench for run in group for bench, row in run.headlines.items()}
    lines = [[FIELDS.get(field, field), "run", *titles.values(), "loss", f"TAT-QA against {first.name}", "p"]]
    for run in group:
        deltas = [run.headlines[bench].change if bench in run.headlines else "" for bench in titles]
        direct = next(compare_metric(first.record.scores["tatqa"], run.record.scores["tatqa"], "em"))
        against = ["", ""] if run is first else [direct.change, p_value(direct.p)]
        lines.append([str(run.recipe.get(field)), run.name, *deltas, f"{run.last('loss'):.3f}", *against])
    return lines


def one_run(run: Run) -> Iterator[Block]:
    """A run's own section: verdict, origin, figures, tables, commands."""
    yield "h3", run.name
    yield "p", sentence(run)
    yield "p", origin(run)
    yield from drawings(run)
    for rows in run.rows.values():
        (title, main), *others = tables(rows)
        yield "h4", title
        yield "table", main
        if others:
            yield "p", f"{rows[0].bench}, other measures, overall:"
            yield "table", [HEADER, *([name.rpartition(": ")[2], *table[1][1:]] for name, table in others)]
    yield "code", "\n".join([*run.base.provenance.commands, *run.record.provenance.commands])


def origin(run: Run) -> str:
    """Where the run's numbers come from, in two sentences."""
    from_, trained, limit = run.record.provenance, run.training, run.record.provenance.settings.get("limit")
    code = str(from_.git["commit"])[:10] + (" with uncommitted changes" if from_.git["dirty"] else "")
    versions = ", ".join(map(" ".join, from_.versions.items()))
    data = f"{from_.data['source']}{f' (only {limit} questions of each answer type)' if limit else ''}"
    return (
        f"Trained on {trained.pairs['kept']} pairs in {trained.seconds:.0f} s on {trained.device}; last loss "
        f"{run.last('loss'):.3f}, reward accuracy {run.last('rewards/accuracies'):.2f}. Scored on {from_.device}; base "
        f"{run.base.name}, data {data}, code {code}, {versions}."
    )


def drawings(run: Run) -> Iterator[Block]:
    """The run's figures."""
    drawing = figures.by_group(run.groups("tatqa", "answer_type"), f"{run.name}: TAT-QA exact match, %")
    yield "figure", (f"{run.name}-types.svg", "exact match by answer type, before and after", drawing)
    drawing = figures.training(run.training.history, run.name)
    yield "figure", (f"{run.name}-training.svg", "loss and rewards by step", drawing)
    if len(rows := run.groups("mtbench", "category")) > 2:
        drawing = figures.radar(rows, rows[0].bench)
        yield "figure", (f"{run.name}-radar.svg", "rating by category, before and after", drawing)


def beta_figure(found: list[Run]) -> str:
    """Delta against beta over all runs, the log's beside them; a stand-in judge's ratings have no place here."""
    panels = {}
    for bench, title, measure in (("tatqa", "TAT-QA, points", "overall"), ("mtbench", "MT-Bench", "mtbench")):
        real = [run for run in found if bench in run.headlines and not run.record.scores[bench].stand_in]
        rows = [(run.recipe["beta"], run.headlines[bench].difference) for run in real]
        factor = 100 if bench == "tatqa" else 1
        here = [(beta, d.delta * factor, d.low * factor, d.high * factor) for beta, d in rows]
        panels[title] = here, published.by_beta(measure)
    return figures.against_beta(panels)


def blocks(found: list[Run]) -> Iterator[Block]:
    """The whole page, in reading order."""
    yield "h1", "Results"
    if found:
        yield "table", verdict_table(found)
    else:
        yield "p", "No run is recorded yet: `make demo`, or `python -m results run RECIPE`."
    for run in found:
        yield "li", sentence(run)
    yield from page.from_template("how_to_read.md", {})
    yield "h2", "What single fields change"
    yield "figure", ("beta.svg", "delta against beta", beta_figure(found))
    yield from by_field(found)
    yield "h2", "The experiment log (measured another way)"
    yield "p", published.SUMMARY
    yield "table", published.overview(("overall", "mtbench", "instruct"))
    yield "h2", "Runs"
    for run in found:
        yield from one_run(run)


def render(results: Path) -> tuple[dict[str, str], str]:
    """Content of every committed file by its path below `results`, and the HTML page."""
    found = collect(results / "runs")
    content = list(blocks(found))
    usage = ("p", (TEMPLATES / "usage.md").read_text(encoding="utf-8").strip())
    files = {f"figures/{item[0]}": item[2] for kind, item in content if kind == "figure"}
    files |= {"README.md": page.markdown([*content, usage]), "published/README.md": page.markdown(published.blocks())}
    questions = [q for run in found for q in page.questions(results / "runs", run.base.name, run.name)]
    return files, page.html([*content, *published.blocks()], questions)


def write(results: Path) -> None:
    """Write the report; figures that no record supports any more go."""
    files, html = render(results)
    for name, text in {**files, "report.html": html}.items():
        write_whole(results / name, text)
    for old in unsupported(results, files):
        old.unlink()


def stale(results: Path) -> list[str]:
    """What `report` would change among the committed files, one line each."""
    files, _ = render(results)
    there = {name: results / name for name in files}
    old = [path for name, path in there.items() if not path.is_file() or path.read_text("utf-8") != files[name]]
    lines = [f"{path} is not what the records say" for path in old]
    return lines + [f"{path} is supported by no record" for path in unsupported(results, files)]


def unsupported(results: Path, files: dict[str, str]) -> list[Path]:
    return [file for file in sorted((results / "figures").glob("*")) if f"figures/{file.name}" not in files]
