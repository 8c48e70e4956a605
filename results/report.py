"""`python -m results report`: README.md, figures and report.html, from the records and nothing else."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from results import figures, page, published
from results.compare import Row, compare_all, compare_metric, figure, measure, p_value, tables, words
from results.page import Block
from results.record import Record, load_all, write_whole
from results.statistics import holm, verdict

HEADLINES = {"tatqa": "em", "mtbench": "score", "instruct": "score", "ifeval": "prompt_level_strict_acc"}
FIELDS = {"lora_r": "LoRA capacity (rank, alpha)", "learning_rate": "learning rate", "num_train_epochs": "epochs"}
INTRO = (
    "Before is the base model, after is base and adapter, on the same questions, greedily decoded. A difference comes "
    "with its 95 % interval (bootstrap over TAT-QA contexts or MT-Bench questions) and its p (sign-flip permutation; "
    "Holm over the runs or answer types shown). Better and worse need both; no difference means the interval stays "
    "within 3 points of TAT-QA or half a point of a rating; otherwise the sample cannot tell."
)


@dataclass(frozen=True)
class Run:
    """A run, its base, all comparisons by bench, and the headline of each bench with p adjusted over all runs."""

    record: Record
    base: Record
    rows: dict[str, list[Row]]
    headlines: dict[str, Row]

    @property
    def training(self) -> dict[str, Any]:
        return dict(self.record.training or {})

    @property
    def recipe(self) -> dict[str, Any]:
        """The resolved recipe; rank and alpha go together as one field."""
        recipe = dict(self.training["recipe"])
        return {**recipe, "lora_r": f"{recipe.pop('lora_r')}, {recipe.pop('lora_alpha')}"}


def collect(runs: Path) -> list[Run]:
    """Every run with its comparisons."""
    records = load_all(runs)
    found = []
    for record in records.values():
        if record.base:
            base = records[record.base]
            rows = {b: compare_all({b: base.scores[b]}, {b: after})[0] for b, after in record.scores.items()}
            found.append(Run(record, base, rows, {}))
    for bench, metric in HEADLINES.items():
        rows_ = [(run, row) for run in found for row in run.rows.get(bench, [])]
        family = [(run, row) for run, row in rows_ if (row.metric, row.group) == (metric, "overall")]
        for (run, row), p in zip(family, holm([row.p for _, row in family]), strict=True):
            run.headlines[bench] = replace(row, p=p, verdict=verdict(row.difference, p, measure(metric).margin))
    return found


def sentence(run: Run) -> str:
    """The verdict in words, all benches."""
    return f"{run.record.name}: " + ". ".join(clause(run, bench, row) for bench, row in run.headlines.items()) + "."


def clause(run: Run, bench: str, row: Row) -> str:
    d = row.difference
    text = (
        f"{row.bench} {words(row)}: {figure(row.metric, d.before)} to {figure(row.metric, d.after)} "
        f"({span(row)}, p {p_value(row.p)}, could have detected {figure(row.metric, d.detectable)})"
    )
    parts = [r for r in run.rows[bench] if r.metric == row.metric and bench == "tatqa" and r.group in TYPES]
    kinds = [f"{r.group} {words(r)} ({figure(r.metric, r.difference.delta, '+')})" for r in parts]
    return text + ("; by answer type: " + ", ".join(kinds) if kinds else "")


TYPES = ("span", "multi-span", "arithmetic", "count")


def span(row: Row) -> str:
    """Delta and interval in one cell."""
    d = row.difference
    low, high = figure(row.metric, d.low, "+"), figure(row.metric, d.high, "+")
    return f"{figure(row.metric, d.delta, '+')} [{low}, {high}]"


def verdict_table(found: list[Run]) -> list[list[str]]:
    """One line a run and bench."""
    lines = [["run", "bench", "before", "after", "delta [95 % interval]", "p (Holm over runs)", "verdict"]]
    for run in found:
        for row in run.headlines.values():
            d = row.difference
            shown = [figure(row.metric, x) for x in (d.before, d.after)]
            lines.append([run.record.name, row.bench, *shown, span(row), p_value(row.p), words(row)])
    return lines


def by_field(found: list[Run]) -> Iterator[Block]:
    """For each recipe field: the runs that agree in all others and have the same base."""
    for field in sorted({key for run in found for key in run.recipe}):
        groups: dict[str, list[Run]] = {}
        for run in found:
            rest = {**run.recipe, field: None}
            groups.setdefault(repr((run.base.name, sorted(rest.items()))), []).append(run)
        for group in groups.values():
            group.sort(key=lambda run: in_order(run.recipe[field]))
            if len({repr(run.recipe[field]) for run in group}) > 1:
                yield "h3", f"By {FIELDS.get(field, field)}"
                yield "table", field_table(field, group)


def in_order(value: Any) -> tuple[float, str]:
    """Numbers by size, then everything else by its text."""
    return (value, "") if isinstance(value, int | float) else (float("inf"), str(value))


def field_table(field: str, group: list[Run]) -> list[list[str]]:
    """Each run of the group against its base, and against the group's first run on the same questions."""
    lines = [[FIELDS.get(field, field), "run", "TAT-QA, delta to base", "MT-Bench, delta to base", "loss",
              f"TAT-QA, delta to {group[0].record.name}", "p"]]  # fmt: skip
    for run in group:
        deltas = [span(run.headlines[b]) if b in run.headlines else "" for b in ("tatqa", "mtbench")]
        direct = next(compare_metric(group[0].record.scores["tatqa"], run.record.scores["tatqa"], "em"))
        against = ["", ""] if run is group[0] else [span(direct), p_value(direct.p)]
        lines.append([str(run.recipe[field]), run.record.name, *deltas, f"{last(run, 'loss'):.3f}", *against])
    return lines


def history(run: Run) -> list[dict[str, Any]]:
    return list(run.training["history"])


def last(run: Run, key: str) -> float:
    """The last logged value of a training curve."""
    return next((float(entry[key]) for entry in reversed(history(run)) if key in entry), float("nan"))


def one_run(run: Run) -> Iterator[Block]:
    """A run's own section: facts, figures, all tables."""
    name, p = run.record.name, run.record.provenance
    yield "h3", name
    yield "p", sentence(run)
    versions = ", ".join(map(" ".join, p.versions.items()))
    changed = " with uncommitted changes" if p.git["dirty"] else ""
    yield "p", (
        f"Trained on {run.training['pairs']['kept']} pairs in {run.training['seconds']:.0f} s on {p.device}; last loss "
        f"{last(run, 'loss'):.3f}, reward accuracy {last(run, 'rewards/accuracies'):.2f}. Base {run.base.name}, data "
        f"{p.data['source']}, code {str(p.git['commit'])[:10]}{changed}, {versions}."
    )
    for key, (drawn, alt) in drawings(run).items():
        yield "figure", (f"{name}-{key}.svg", alt, drawn)
    for bench in run.rows.values():
        for title, table in tables(bench):
            yield "h4", title
            yield "table", table
    yield "h4", "Commands"
    yield "code", "\n".join([*run.base.provenance.commands, *p.commands])


def drawings(run: Run) -> dict[str, tuple[str, str]]:
    """The run's figures: name -> (SVG, what it shows)."""
    drawn, name = {}, run.record.name
    rows = [r for r in run.rows.get("tatqa", []) if r.metric == "em" and r.group in TYPES]
    if rows:
        drawn["types"] = figures.by_group(rows, f"{name}: TAT-QA exact match, %"), "exact match by answer type"
    if history(run):
        drawn["training"] = figures.training(history(run), name), "loss and rewards while training"
    categories = set(run.base.scores["mtbench"].groups.get("category", [])) if "mtbench" in run.rows else set()
    rows = [r for r in run.rows.get("mtbench", []) if r.metric == "score" and r.group in categories]
    if len(rows) > 2:
        drawn["radar"] = figures.radar(rows, rows[0].bench), "mean rating by category"
    return drawn


def blocks(found: list[Run]) -> Iterator[Block]:
    """The whole page, in reading order."""
    yield "h1", "Results"
    yield "p", INTRO
    if found:
        yield "h2", "Verdict"
        yield "table", verdict_table(found)
        for run in found:
            yield "li", sentence(run)
    else:
        yield "p", "No run is recorded yet: `make demo`, or `python -m results run RECIPE`."
    yield "h2", "What single fields change"
    yield "figure", ("beta.svg", "delta against beta", beta_figure(found))
    yield from by_field(found)
    yield "h2", "The experiment log (measured another way)"
    yield "p", "The figures of the experiment log came from home-made scoring and cannot be set against those above."
    yield "table", published.overview()
    yield "p", "What these differences can support: [published/README.md](published/README.md)."
    yield "h2", "Runs"
    for run in found:
        yield from one_run(run)


def beta_figure(found: list[Run]) -> str:
    """Delta against beta of all runs, the log's beside them."""
    panels = {}
    for bench, title in (("tatqa", "TAT-QA, points"), ("mtbench", "MT-Bench")):
        rows = [(run.recipe["beta"], run.headlines[bench]) for run in found if bench in run.headlines]
        here = [(beta, *shown(row)) for beta, row in rows]
        panels[title] = here, published.by_beta("overall" if bench == "tatqa" else bench)
    return figures.against_beta(panels)


def shown(row: Row) -> tuple[float, float, float]:
    """Delta and interval in the unit shown."""
    d, factor = row.difference, measure(row.metric).factor
    return d.delta * factor, d.low * factor, d.high * factor


def render(results: Path) -> dict[str, str]:
    """Path below `results` -> content of every file that follows from the records."""
    found = collect(results / "runs")
    content = list(blocks(found))
    drawn = {f"figures/{name}": drawing for kind, item in content if kind == "figure" for name, _, drawing in [item]}
    return {"README.md": page.markdown(content), "published/README.md": page.markdown(published.blocks()), **drawn}


def write(results: Path) -> None:
    """Write the report; figures that no record supports any more go."""
    files = render(results)
    for name, text in files.items():
        write_whole(results / name, text)
    for old in (results / "figures").glob("*.svg"):
        if f"figures/{old.name}" not in files:
            old.unlink()
    found = collect(results / "runs")
    questions = page.questions(results / "runs", [(run.base.name, run.record.name) for run in found])
    write_whole(results / "report.html", page.html(list(blocks(found)), questions))


def stale(results: Path) -> list[str]:
    """What `report` would change, one line each."""
    files = render(results)
    lines = [f"{results / old} is stale" for old in files if not same(results / old, files[old])]
    extra = [old for old in sorted((results / "figures").glob("*.svg")) if f"figures/{old.name}" not in files]
    return lines + [f"{old} is supported by no record" for old in extra]


def same(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text
