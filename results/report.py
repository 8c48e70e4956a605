"""`python -m results report`: README.md, figures and report.html, from the records and nothing else."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from results import figures, page, published
from results.compare import HEADER, Row, compare, compare_metric, judged, p_value, tables
from results.page import Block
from results.record import InputError, Record, load_all, write_whole
from results.statistics import holm

HEADLINES = {"tatqa": "em", "mtbench": "score", "instruct": "score", "ifeval": "prompt_level_strict_acc"}
TYPES = ("span", "multi-span", "arithmetic", "count")
FIELDS = {"lora_r": "LoRA rank and alpha", "learning_rate": "learning rate", "num_train_epochs": "epochs"}
INTRO = (
    "Before is the base model, after the same with the adapter, on the same questions. A delta comes with its 95 % "
    "interval (bootstrap over TAT-QA contexts or MT-Bench questions) and p (sign-flip permutation; Holm over the runs, "
    "in a run's own tables over the answer types). Better and worse: the interval leaves out 0 and p is below 0.05. No "
    "difference: the interval stays within 3 points of TAT-QA or half a point of rating. Otherwise the sample cannot "
    "tell; detectable is the true difference that it would have found four times out of five."
)


@dataclass(frozen=True)
class Run:
    """A run, its base, all comparisons by bench, and each bench's headline with p adjusted over all runs."""

    record: Record
    base: Record
    rows: dict[str, list[Row]]
    headlines: dict[str, Row]

    @property
    def training(self) -> dict[str, Any]:
        return dict(self.record.training or {})

    @property
    def recipe(self) -> dict[str, Any]:
        """The resolved recipe; rank and alpha count as one field."""
        recipe = dict(self.training["recipe"])
        alpha = recipe.pop("lora_alpha")
        return {**recipe, "lora_r": f"{recipe['lora_r']}, {alpha}"}

    def last(self, key: str) -> float:
        """The last logged value of a training curve."""
        return next((float(e[key]) for e in reversed(self.training["history"]) if key in e), float("nan"))


def collect(runs: Path) -> list[Run]:
    """Every run with its comparisons. Raises InputError for one that cannot be compared with its base."""
    records = load_all(runs)
    found = []
    for record in records.values():
        if record.base:
            base = records[record.base]
            both = [bench for bench in record.scores if bench in base.scores]
            try:
                rows = {bench: compare(base.scores[bench], record.scores[bench]) for bench in both}
            except InputError as error:
                raise InputError(f"{record.name} and {base.name}: {error}; run the recipe again") from None
            found.append(Run(record, base, rows, {}))
    for bench, metric in HEADLINES.items():
        rows_ = [(run, row) for run in found for row in run.rows.get(bench, [])]
        family = [(run, row) for run, row in rows_ if (row.metric, row.group) == (metric, "overall")]
        for (run, row), p in zip(family, holm([row.p for _, row in family]), strict=True):
            run.headlines[bench] = judged(row, p)
    return found


def sentence(run: Run) -> str:
    """The verdict in words."""
    parts = [f"{row.bench}, {row.measure.label}: {row.words}, {row.change}" for row in run.headlines.values()]
    types = [row for row in run.rows["tatqa"] if row.metric == "em" and row.group in TYPES]
    for words in dict.fromkeys(row.verdict for row in types):
        named = [f"{r.group} ({r.show(r.difference.delta, '+')})" for r in types if r.verdict == words]
        parts.append(f"{words} on {', '.join(named)}")
    return f"{run.record.name}. {'; '.join([parts[0], *parts[len(run.headlines):], *parts[1:len(run.headlines)]])}."


def verdict_table(found: list[Run]) -> list[list[str]]:
    """All runs, a line for each bench."""
    lines = [["run", "bench", "verdict", "delta (95 % interval)", "before", "after", "p (Holm)", "detectable"]]
    for run in found:
        for row in run.headlines.values():
            shown = dict(zip(HEADER, row.cells, strict=True)) | {"delta": row.change}
            cells = [shown[name] for name in ("verdict", "delta", "before", "after", "p (Holm)", "detectable")]
            lines.append([run.record.name, f"{row.bench}: {row.measure.label}", *cells])
    return lines


def by_field(found: list[Run]) -> Iterator[Block]:
    """For each field of the recipes: the runs of one base that agree in every other field."""
    for field in sorted({key for run in found for key in run.recipe}):
        groups: dict[str, list[Run]] = {}
        for run in found:
            rest = {**run.recipe, field: None, "base": run.base.name}
            groups.setdefault(repr(sorted(rest.items())), []).append(run)
        for group in groups.values():
            if len({repr(run.recipe[field]) for run in group}) > 1:
                yield "h3", f"By {FIELDS.get(field, field)}"
                yield "table", field_table(field, sorted(group, key=lambda run: in_order(run.recipe[field])))


def in_order(value: Any) -> tuple[float, str]:
    """Numbers by size, then everything else by its text."""
    return (value, "") if isinstance(value, int | float) else (float("inf"), str(value))


def field_table(field: str, group: list[Run]) -> list[list[str]]:
    """Each run against its base, and against the group's first run on the same questions."""
    first = group[0].record
    titles = {bench: row.bench for run in group for bench, row in run.headlines.items()}
    lines = [[FIELDS.get(field, field), "run", *titles.values(), "loss", f"TAT-QA against {first.name}", "p"]]
    for run in group:
        deltas = [run.headlines[bench].change if bench in run.headlines else "" for bench in titles]
        direct = next(compare_metric(first.scores["tatqa"], run.record.scores["tatqa"], "em"))
        against = ["", ""] if run.record is first else [direct.change, p_value(direct.p)]
        lines.append([str(run.recipe[field]), run.record.name, *deltas, f"{run.last('loss'):.3f}", *against])
    return lines


def one_run(run: Run) -> Iterator[Block]:
    """A run's own section: facts, figures, tables, commands."""
    yield "h3", run.record.name
    yield "p", sentence(run)
    yield "p", origin(run)
    yield from drawings(run)
    for bench, rows in run.rows.items():
        yield "h4", rows[0].bench
        main, *others = tables(rows)
        yield "p", f"{main[0]}:"
        yield "table", main[1]
        if others:
            yield "p", f"Other measures of {bench}, overall:"
            yield "table", [HEADER, *([title.rpartition(": ")[2], *table[1][1:]] for title, table in others)]
    yield "code", "\n".join([*run.base.provenance["commands"], *run.record.provenance["commands"]])  # type: ignore[misc]


def origin(run: Run) -> str:
    """Where the run's numbers come from, in two sentences."""
    from_, trained = dict[str, Any](run.record.provenance), run.training
    code = str(from_["git"]["commit"])[:10] + (" with uncommitted changes" if from_["git"]["dirty"] else "")
    versions = ", ".join(map(" ".join, from_["versions"].items()))
    curves = f"last loss {run.last('loss'):.3f}, reward accuracy {run.last('rewards/accuracies'):.2f}"
    return (
        f"Trained on {trained['pairs']['kept']} pairs in {trained['seconds']:.0f} s on {trained['device']}; {curves}. "
        f"Scored on {from_['device']}; base {run.base.name}, data {from_['data']['source']}, code {code}, {versions}."
    )


def drawings(run: Run) -> Iterator[Block]:
    """The run's figures."""
    name = run.record.name
    types = [row for row in run.rows["tatqa"] if row.metric == "em" and row.group in TYPES]
    drawing = figures.by_group(types, f"{name}: TAT-QA exact match, %")
    yield "figure", (f"{name}-types.svg", "exact match by answer type, before and after", drawing)
    yield "figure", (f"{name}-training.svg", "loss and rewards", figures.training(run.training["history"], name))
    categories = run.base.scores["mtbench"].groups.get("category", []) if "mtbench" in run.rows else []
    rows = [row for row in run.rows.get("mtbench", []) if row.metric == "score" and row.group in categories]
    if len(rows) > 2:
        drawing = figures.radar(rows, rows[0].bench)
        yield "figure", (f"{name}-radar.svg", "rating by category, before and after", drawing)


def beta_figure(found: list[Run]) -> str:
    """Delta against beta over all runs, the log's beside them; a stand-in judge's ratings have no place here."""
    panels = {}
    for bench, title, measure in (("tatqa", "TAT-QA, points", "overall"), ("mtbench", "MT-Bench", "mtbench")):
        real = [run for run in found if bench in run.headlines and not run.record.scores[bench].stand_in]
        rows = [(run.recipe["beta"], run.headlines[bench]) for run in real]
        sizes = [(beta, row.difference, row.measure.factor) for beta, row in rows]
        here = [(beta, d.delta * f, d.low * f, d.high * f) for beta, d, f in sizes]
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
    yield "p", INTRO
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
    drawn = {f"figures/{item[0]}": item[2] for kind, item in content if kind == "figure"}
    log = {"published/README.md": page.markdown(published.blocks())}
    questions = [q for run in found for q in page.questions(results / "runs", run.base.name, run.record.name)]
    return {"README.md": page.markdown(content), **log, **drawn}, page.html(content, questions)


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
    old = [name for name, text in files.items() if not same(results / name, text)]
    lines = [f"{results / name} is not what the records say" for name in old]
    return lines + [f"{file} is supported by no record" for file in unsupported(results, files)]


def same(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text


def unsupported(results: Path, files: dict[str, str]) -> list[Path]:
    return [file for file in sorted((results / "figures").glob("*")) if f"figures/{file.name}" not in files]
