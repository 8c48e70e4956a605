"""The sections of the report, from collected runs: what a reader needs first, then everything."""

import math
import multiprocessing
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from results.compare import HEADER, Row, p_value
from results.files import file_name
from results.measures import MEASURES
from results.record import Example
from results.report import figures, page
from results.report import log as published
from results.report.between import AGAIN, STEP, Between, between_runs, differing_fields
from results.report.choice import Choice, chosen
from results.report.collect import Run, runs_by_bench
from results.report.costs import stage_seconds, training_cost
from results.report.displacement import Displacement, displacement
from results.report.figures import BetaPanel
from results.report.page import Block
from results.statistics import ALPHA, POWER

FIELDS = {
    "loss_type": "loss",
    "lora_r": "LoRA rank and alpha",
    "learning_rate": "learning rate",
    "num_train_epochs": "epochs",
    "init_adapter": "trained on from another adapter",
}
FORMAT = {"em_strict": "strict", "parsed": "in format"}  # beside exact match, and their columns
MOST_FIELDS = 8  # recipe fields in a sentence
FEW_RUNS = 4  # drawn one after the other
MOST_DRAWERS = 4  # processes, each with the records in memory
MOST_NAMES = 6  # runs in a sentence
OF_TATQA = (
    "Questions and right answers of TAT-QA are by Zhu et al., ACL 2021, CC BY 4.0: "
    "https://nextplusplus.github.io/TAT-QA/"
)


def blocks(found: list[Run], problems: list[str], own: bool) -> Iterator[Block]:
    """The whole page, in reading order; `own`: the project's own, with the experiment log."""
    parts = {
        "opening": opening(found),
        "unread": unread(problems),
        "verdicts": verdicts(found),
        "sources": sources(found),
        "between": between(found),
        "beta": beta_section(found) if own else [],
        "log": log_section() if own else [],
        "runs": run_sections(found),
    }
    facts = {
        "level": f"{100 * (1 - ALPHA):.0f} %",
        "alpha": ALPHA,
        "power": f"{100 * POWER:.0f} %",
        "points": f"{100 * MEASURES['em'].margin:.0f}",
        "rating": MEASURES["score"].margin,
    }
    return page.from_template("report.md", parts, **facts)


def opening(found: list[Run]) -> Iterator[Block]:
    """What a reader needs in 30 seconds: the best run, its verdict, three replies, its cost."""
    if not found:
        yield "p", "No run is recorded yet: `make demo`, or `tatqa-bench run RECIPE --runs RUNS`."
        return
    recipes = real_recipes(found)
    choice = chosen(recipes)
    run = choice.run
    if len(recipes) > 1:
        yield "p", opening_words(choice, len(recipes))
    yield "p", f"**{run.name}**: {recipe_words(run, recipes)}"
    for bench in sorted(run.rows, key=lambda bench: bench != run.best_bench):
        yield "li", bench_sentence(run, bench)
    for sentence in [*cautions(run), *choice_words(choice)]:
        yield "li", sentence
    yield "li", training_cost(run)
    shown = example_rows(opening_examples(run))
    if shown:
        yield "examples", shown


def real_recipes(found: Sequence[Run]) -> list[Run]:
    """Every recipe once: those on real questions, or all if there are none."""
    recipes = [run for run in found if not run.again]
    real = [run for run in recipes if run.stands_for_itself]
    return real or recipes


def opening_words(choice: Choice, recipes: int) -> str:
    """Of how many recipes this one was chosen, and why."""
    title = choice.run.headline(choice.highest.best_bench).title
    count = len(choice.as_high)
    if count == 1:
        return f"Of {recipes} recipes the one that ends highest, in {title}:"
    why = "most training seeds" if len(choice.run.records) > 1 else "highest figure"
    return (
        f"Of {recipes} recipes {count} end as high as these questions can tell, in {title}. Of "
        f"them the one with the {why}:"
    )


def choice_words(choice: Choice) -> Iterator[str]:
    """Which runs end as high, and what it is worth that one of them was chosen."""
    if not choice.rivals:
        return
    next_highest, row = choice.rivals[0]
    text = f"The highest, {choice.highest.name}, against the next, {next_highest.name}: "
    text += f"{row.words}, {row.change}. "
    text += "Chosen on these same questions, the highest figure is flattered."
    names = [f"{run.name} ({end_words(run, choice)})" for run in choice.as_high]
    if len(names) > 1:
        more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
        text += f" Runs that end as high: {', '.join(names[:MOST_NAMES])}{more}."
    yield text


def end_words(run: Run, choice: Choice) -> str:
    """Where a run ends in the bench of the choice."""
    row = run.headline(choice.highest.best_bench)
    return row.show(row.difference.after)


def opening_examples(run: Run) -> list[Example]:
    """One reply that gained, one that lost, one that only changed its form."""
    examples: list[Example] = []
    for record in run.records:
        examples += record.examples
    examples.sort(key=lambda example: example.bench != run.best_bench)
    first: dict[str, Example] = {}
    for example in examples:
        first.setdefault(example.kind, example)
    return [first[kind] for kind in ("gained", "lost", "format") if kind in first]


def example_rows(examples: Sequence[Example]) -> list[list[str]]:
    """Kind, question, gold, before and after of each."""
    rows = []
    for example in examples:
        kind = f"{example.kind} ({example.group})"
        rows.append([kind, example.question, example.gold, example.before, example.after])
    return rows


def recipe_words(run: Run, found: Sequence[Run]) -> str:
    """The recipe: the fields that say what was done, then those that most runs have otherwise."""
    words = []
    for field in dict.fromkeys([*MAIN_FIELDS, *unusual_fields(run, found)]):
        if run.recipe.get(field):
            words.append(f"{FIELDS.get(field, field)} {value_words(run.recipe[field])}")
    more = len(words) - MOST_FIELDS
    if more > 0:
        words[MOST_FIELDS:] = [f"and {more} more fields"]
    return ", ".join(words) + "."


MAIN_FIELDS = (
    "loss_type",
    "strategy",
    "form",
    "beta",
    "learning_rate",
    "num_train_epochs",
    "lora_r",
    "lora_target_modules",
)


def unusual_fields(run: Run, found: Sequence[Run]) -> list[str]:
    """Fields of a run's recipe whose value no more than half of the runs have."""
    unusual = []
    for field in differing_fields(found):
        alike = sum(other.recipe.get(field) == run.recipe.get(field) for other in found)
        if 2 * alike <= len(found):
            unusual.append(field)
    return unusual


def value_words(value: Any) -> str:
    if isinstance(value, list):
        return " and ".join(map(str, value))
    return str(value)


def bench_sentence(run: Run, bench: str) -> str:
    """One bench's verdict in words; for TAT-QA by answer type and with the format's own figures."""
    row = run.headline(bench)
    d = row.difference
    text = (
        f"{row.title}: {row.words}, {row.show(d.before)} to {row.show(d.after)}, "
        f"{row.change}, p {p_words(d.p)}"
    )
    if d.runs < len(run.records):
        text += f" ({d.runs} of {len(run.records)} seeds)"
    for word, groups in groups_by_verdict(run.groups(bench, "answer_type")).items():
        text += f"; {word} on {', '.join(groups)}"
    for metric in FORMAT:
        beside = run.overall(bench, metric)
        if beside is not None:
            text += f"; {beside.measure.label}: {before_after(beside)}, {beside.words}"
    return text + "."


def groups_by_verdict(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Groups with their deltas under each verdict, in the order of the rows."""
    found: dict[str, list[str]] = {}
    for row in rows:
        delta = row.show(row.difference.delta, "+")
        found.setdefault(row.verdict, []).append(f"{row.group} ({delta})")
    return found


def p_words(p: float) -> str:
    return p_value(p) if p < 0.001 else f"= {p_value(p)}"


def cautions(run: Run) -> Iterator[str]:
    """What a reader must know beside the score: whose verdict it is, the format, displacement."""
    yield whose_verdict(run)
    for bench in run.tatqa:
        for metric in FORMAT:
            row = run.overall(bench, metric)
            if row is not None and row.verdict == "worse":
                yield f"{row.title} fell by more than the noise: {row.change}."
    moved = displacement(run.training)
    if moved is not None:
        yield displacement_words(moved)


def whose_verdict(run: Run) -> str:
    """Is the verdict about one adapter or about the recipe?"""
    row = run.headline(run.best_bench)
    d = row.difference
    if d.runs < 2:
        return "One training seed: the verdict is about this adapter, not about its recipe."
    commits = {str(record.provenance.git.get("commit"))[:10] for record in run.records}
    mixed = f" They were scored with code of {len(commits)} commits." if len(commits) > 1 else ""
    return (
        f"Mean of {d.runs} training seeds: the interval holds for the recipe. Standard error "
        f"{row.show(d.se)}: questions {row.show(d.questions.se)} ({d.df:.0f} degrees of freedom), "
        f"seeds {row.show(d.se_runs)} ({d.df_runs:.0f}).{mixed}"
    )


def displacement_words(moved: Displacement) -> str:
    """Did the chosen replies become likelier, or only the rejected ones less likely?"""
    both = f"chosen {moved.chosen:+.2f}, rejected {moved.rejected:+.2f} nats"
    figures = f"(mean log-probability of a whole reply: {both})"
    if abs(moved.chosen) <= 2 * moved.error:
        noise = f"by more than its noise of {2 * moved.error:.2f} nats"
        return f"The chosen replies became neither likelier nor less likely {noise} {figures}."
    if moved.chosen >= 0:
        return f"The chosen replies became likelier {figures}."
    fallen = f"The chosen replies became LESS likely in training {figures}"
    both_fell = ": probability went to replies that are in no pair" if moved.rejected < 0 else ""
    return f"{fallen}{both_fell}."


def unread(problems: list[str]) -> Iterator[Block]:
    """What the report has to do without."""
    if problems:
        yield "p", "Not in this report:"
    for line in problems:
        yield "li", line


def sources(found: list[Run]) -> Iterator[Block]:
    """Whose questions the page quotes, as their licence asks."""
    for run in found:
        for bench in run.tatqa:
            if not run.is_stand_in(bench):
                yield "p", OF_TATQA
                return


def verdicts(found: list[Run]) -> Iterator[Block]:
    """All runs, a table for each bench: verdict and delta first, for narrow pages."""
    for bench, runs in runs_by_bench(found):
        runs.sort(key=lambda run: -run.headline(bench).difference.after)
        yield "h3", runs[0].headline(bench).title
        yield "table", verdict_table(runs, bench)


def verdict_table(runs: Sequence[Run], bench: str) -> list[list[str]]:
    """One line a run; no column for a figure of the format that no run has."""
    header = ["run", "verdict", "delta (95 % interval)", "before", "after"]
    metrics = []
    for metric, column in FORMAT.items():
        if any(run.overall(bench, metric) for run in runs):
            metrics.append(metric)
            header.append(column)
    lines = [[*header, "p (adjusted)", "detectable", "minutes", "GiB"]]
    for run in runs:
        row = run.headline(bench)
        d = row.difference
        line = [run.name, row.words, row.change, row.show(d.before), row.show(d.after)]
        for metric in metrics:
            beside = run.overall(bench, metric)
            line.append("" if beside is None else before_after(beside))
        memory = "" if run.gib is None else f"{run.gib:.1f}"
        line += [p_value(d.p), row.show(d.detectable), f"{run.minutes:.1f}", memory]
        lines.append(line)
    return lines


def before_after(row: Row) -> str:
    return f"{row.show(row.difference.before)} to {row.show(row.difference.after)}"


def between(found: list[Run]) -> Iterator[Block]:
    """Runs against each other: one field at a time, and steps from one adapter to the next."""
    pairs = between_runs(found)
    if not pairs:
        return
    yield "h2", "Between runs"
    count = len(pairs)
    yield (
        "p",
        f"Exact match of runs that differ in one field, on the same questions; p and intervals are "
        f"adjusted over all {count} comparison{'s' if count > 1 else ''} of this section.",
    )
    by_field: dict[str, list[Between]] = {}
    for pair in pairs:
        by_field.setdefault(pair.field, []).append(pair)
    for field, of_field in by_field.items():
        yield "h3", TITLES.get(field, f"By {FIELDS.get(field, field)}")
        yield "table", between_table(field, of_field)


TITLES = {
    STEP: "A second training step against the run that it started from",
    AGAIN: "The same recipe with the same seed, trained once more",
}


def between_table(field: str, pairs: Sequence[Between]) -> list[list[str]]:
    """Each run against its reference."""
    lines = [
        ["run", "verdict", "delta (95 % interval)", "against", "p (adjusted)", "detectable", "loss"]
    ]
    for pair in pairs:
        row = pair.row
        lines.append(
            [
                name_and_value(pair.run, field),
                row.words,
                row.change,
                name_and_value(pair.reference, field),
                p_value(row.difference.p),
                row.show(row.difference.detectable),
                loss_words(pair.run),
            ]
        )
    return lines


def name_and_value(run: Run, field: str) -> str:
    """The run, with its value of the field that a table of pairs is about, if it is about one."""
    if field in TITLES:
        return run.name
    return f"{run.name} ({value_words(run.recipe.get(field))})"


def run_sections(found: list[Run]) -> Iterator[Block]:
    """Every run's own section."""
    for run, figures_of_run in zip(found, drawn(found), strict=True):
        yield from section(run, figures_of_run)


def drawn(found: list[Run]) -> list[list[Block]]:
    """Every run's figures, drawn on several cores: that is most of a report's time."""
    if len(found) < FEW_RUNS or sys.platform != "linux":
        return list(map(drawings, found))
    workers = min(MOST_DRAWERS, os.cpu_count() or 1)
    with ProcessPoolExecutor(workers, multiprocessing.get_context("fork")) as pool:
        return list(pool.map(drawings, found))


def section(run: Run, figures_of_run: list[Block]) -> Iterator[Block]:
    """A run's own section: verdict, origin, replies, figures, tables, commands."""
    yield "h3", run.name
    for bench in run.rows:
        yield "li", bench_sentence(run, bench)
    for sentence in cautions(run):
        yield "li", sentence
    yield "p", origin(run)
    if where := stage_seconds(run):
        yield "p", where
    yield from figures_of_run
    for rows in run.rows.values():
        yield from bench_tables(rows)
    examples = example_rows(run.record.examples)
    if examples:
        yield "h4", "Some replies that changed"
        yield "examples", examples
    commands = [*run.base.provenance.commands]
    for record in run.records:
        commands += record.provenance.commands
    yield "code", "\n".join(commands)


def bench_tables(rows: Sequence[Row]) -> Iterator[Block]:
    """The headline metric by group, and every other metric overall."""
    headline, others = [HEADER], [HEADER]
    for row in rows:
        if row.metric == rows[0].metric:
            headline.append(row.cells)
        elif row.column == "overall":
            others.append([row.measure.label, *row.cells[1:]])
    yield "h4", rows[0].title
    yield "table", headline
    if len(others) > 1:
        yield "p", f"{rows[0].bench}, other measures, overall:"
        yield "table", others


def loss_words(run: Run) -> str:
    """The loss at the end of training, where it was logged."""
    loss = run.last("loss")
    return f"{loss:.3f}" if math.isfinite(loss) else "n/a"


def training_end(run: Run) -> str:
    """How training ended, by its last tenth: a single step may hold two pairs."""
    accuracy = run.last("rewards/accuracies")
    words = f"Loss over the last tenth of the steps {loss_words(run)}"
    return words + ("." if math.isnan(accuracy) else f", reward accuracy {accuracy:.2f}.")


def origin(run: Run) -> str:
    """Where the run's numbers come from."""
    source = run.record.provenance
    limit = source.settings.get("limit")
    only = f" (only {limit} questions of each answer type)" if limit else ""
    changes = " with uncommitted changes" if source.git.get("dirty") else ""
    commit = str(source.git.get("commit") or "unknown")[:10]
    versions = ", ".join(map(" ".join, source.versions.items()))
    weights = str(run.record.model.get("base_sha256", ""))[:12]
    revision = run.record.model.get("revision")
    named = f" at revision {str(revision)[:12]}" if revision else ""
    seeds = [str(record.provenance.seeds.get("train")) for record in run.records]
    return (
        f"{training_cost(run)} {training_end(run)} Scored on {source.device}; base "
        f"{run.record.model.get('base')}{named} (hash {weights}, scores in {run.base.name}), data "
        f"{source.data.get('source', 'unknown')} (hash {str(source.data.get('sha256', ''))[:12]})"
        f"{only}, training seed {', '.join(seeds)}, code {commit}{changes}, {versions}."
    )


def drawings(run: Run) -> list[Block]:
    """The run's figures."""
    found: list[Block] = []
    name = file_name(run.name)
    for bench in run.tatqa:
        by_type = run.groups(bench, "answer_type")
        if by_type:
            drawing = figures.by_group(by_type, f"{run.name}, {by_type[0].title}")
            form = "" if bench == "tatqa" else f"-{file_name(bench)}"
            title = "exact match by answer type, before and after"
            found.append(("figure", (f"{name}{form}-types.svg", title, drawing)))
    drawing = figures.training(run.training.history, run.name)
    found.append(("figure", (f"{name}-training.svg", "loss and rewards by step", drawing)))
    rows = run.groups("mtbench", "category")
    if len(rows) > 2:
        drawing = figures.radar(rows, rows[0].bench)
        title = "rating by category, before and after"
        found.append(("figure", (f"{name}-radar.svg", title, drawing)))
    return found


def log_section() -> Iterator[Block]:
    """The experiment log's own figures; in the project's own report only."""
    overview = published.overview(("overall", "mtbench", "instruct"))
    yield from page.from_template("log.md", {"log": [("table", overview)]})


def beta_section(found: list[Run]) -> Iterator[Block]:
    """Delta against beta beside the log's, where anything was measured that stands for itself."""
    yield "figure", ("beta.svg", "delta against beta", beta_figure(found))


def beta_figure(found: list[Run]) -> str:
    """Delta against beta over all runs, the log's beside them; stand-ins have no place here."""
    tatqa = BetaPanel("TAT-QA, points", beta_points(found, "tatqa"), published.by_beta("overall"))
    mtbench = BetaPanel("MT-Bench", beta_points(found, "mtbench"), published.by_beta("mtbench"))
    return figures.against_beta([tatqa, mtbench])


def beta_points(found: list[Run], bench: str) -> list[figures.Point]:
    """Beta, delta and its interval in the unit shown, of the runs that have both."""
    points = []
    for run in found:
        beta = run.recipe.get("beta")
        if bench in run.rows and not run.is_stand_in(bench) and isinstance(beta, int | float):
            row = run.headline(bench)
            d, factor = row.difference, row.measure.factor
            points.append((beta, d.delta * factor, d.low * factor, d.high * factor))
    return points
