"""The experiment log's own figures (runs.json), measured another way, and what they can support.

The log gives shares right before and after and no per-question outcomes. So the error of a
difference can only be bounded: at best every question that changed changed the same way; without
pairing, before and after are independent.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import sqrt
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import optimize, stats

from results.compare import p_value
from results.report import page
from results.report.page import Block
from results.statistics import ALPHA, GRID, holm

LOG: dict[str, Any] = json.loads((Path(__file__).parent / "runs.json").read_text(encoding="utf-8"))
SIZES: dict[str, int] = LOG["questions"]
CONTEXTS: dict[str, int] = LOG["contexts"]
TYPES = ("overall", "arithmetic", "count", "multi-span", "span")
NAMES = {"mtbench": "MT-Bench", "instruct": "instruct", "instruct_success": "instruct success, %"}
MEASURES = (*TYPES, *NAMES)
RECIPE = {
    "beta": "beta",
    "learning_rate": "rate",
    "num_train_epochs": "epochs",
    "lora_r": "rank",
    "lora_alpha": "alpha",
}


class Reading(NamedTuple):
    """One measure of one run as the log gives it, None for what it does not give."""

    before: float | None = None
    after: float | None = None
    stated: float | None = None  # the log's own delta

    @property
    def delta(self) -> float | None:
        """The log's own delta, or after minus before where it states none."""
        if self.stated is not None or self.before is None or self.after is None:
            return self.stated
        return round(self.after - self.before, 2)

    @property
    def shares(self) -> tuple[float, float] | None:
        """Before and after, where the log gives both."""
        if self.before is None or self.after is None:
            return None
        return self.before, self.after

    @property
    def words(self) -> str:
        """Before and after, or the delta alone, or nothing, as the log gives it."""
        if self.before is None:
            return text(self.stated, "+")
        return f"{text(self.before)} to {text(self.after)}"


NOTHING = Reading()


@dataclass(frozen=True)
class LogRun:
    """A run of the log; one that was only planned has no readings."""

    name: str
    recipe: dict[str, float | None]
    readings: dict[str, Reading]
    loss: float | None
    seconds: float | None

    def reading(self, measure: str) -> Reading:
        return self.readings.get(measure, NOTHING)

    def changed(self, measure: str) -> int:
        """The fewest questions that can have changed."""
        return round(abs(self.reading(measure).delta or 0) * SIZES[measure] / 100)

    def at_best(self, measure: str) -> float:
        """p of a sign test if every changed answer changed the same way.

        No paired test of these shares can go lower.
        """
        return float(min(1, 2 * 0.5 ** self.changed(measure)))


def read_runs() -> list[LogRun]:
    """Every run of the log, done or planned."""
    found = []
    for entry in LOG["runs"]:
        readings = {}
        for measure in MEASURES:
            if entry[measure]:
                readings[measure] = Reading(*entry[measure])
        run = LogRun(entry["name"], entry["recipe"], readings, entry["loss"], entry["seconds"])
        found.append(run)
    return found


RUNS = read_runs()
DONE = [run for run in RUNS if run.readings]


# --- errors


def independent_error(shares: tuple[float, float], n: int) -> float:
    """Standard error, in points, of the difference of two independent shares of n questions."""
    before, after = shares[0] / 100, shares[1] / 100
    return 100 * sqrt((before * (1 - before) + after * (1 - after)) / n)


def context_error(shares: tuple[float, float], measure: str) -> float:
    """The same if the questions of a context were right or wrong together: its upper bound.

    The variance grows by the number of questions of this type in a context (Kish's design effect
    with an intraclass correlation of 1).
    """
    n = SIZES[measure]
    return independent_error(shares, n) * sqrt(n / CONTEXTS[measure])


def p_of_delta(delta: float, error: float) -> float:
    """Two-sided p of a difference on the normal distribution."""
    return float(2 * stats.norm.sf(abs(delta) / error))


def rating_error() -> tuple[float, list[float]]:
    """Standard error of an MT-Bench delta from repeated readings of one base, and these."""
    readings = known_before("mtbench")
    return float(np.std(readings, ddof=1)) * sqrt(2), readings


def known_before(measure: str) -> list[float]:
    """A measure before training, of every run for which the log has it."""
    return without_none(run.reading(measure).before for run in DONE)


def known_after(measure: str) -> list[float]:
    """A measure after training, of every run for which the log has it."""
    return without_none(run.reading(measure).after for run in DONE)


def without_none(values: Iterable[float | None]) -> list[float]:
    """Those that are known."""
    return [value for value in values if value is not None]


def largest_by_chance(error: float, runs: int, readings: int) -> float:
    """The median of the largest |delta| among so many runs that change nothing.

    The error itself is known from a few readings only, so quantiles are Student's.
    """
    return float(stats.t.ppf((0.5 ** (1 / runs) + 1) / 2, readings - 1)) * error


def largest_by_shared_chance(error: float, runs: int, readings: int) -> float:
    """The same, where all runs share the one estimate of the error.

    The chance that all of them stay within a distance is averaged over what the estimate can be.
    """
    level = (np.arange(GRID) + 0.5) / GRID
    estimated = np.sqrt(stats.chi2.ppf(level, readings - 1) / (readings - 1))

    def all_within(distance: float) -> float:
        within = 2 * stats.norm.cdf(distance * estimated) - 1
        return float(np.mean(within**runs)) - 0.5

    return float(optimize.brentq(all_within, 0, 100)) * error


# --- tables


def by_beta(measure: str) -> list[tuple[float, float]]:
    """(beta, delta) of every run of the log that has one."""
    found = []
    for run in DONE:
        beta = run.recipe["beta"]
        delta = run.reading(measure).delta
        if beta is not None and delta is not None:
            found.append((beta, delta))
    return found


def overview(measures: Sequence[str] = MEASURES) -> list[list[str]]:
    """The log's figures as they stand; an empty cell means that the log gives none."""
    header = [f"run ({LOG['label']})", *RECIPE.values()]
    for measure in measures:
        header.append(NAMES.get(measure, measure))
    lines = [[*header, "loss", "seconds"]]
    for run in RUNS:
        line = [run.name]
        for field in RECIPE:
            line.append(text(run.recipe[field]))
        for measure in measures:
            line.append(run.reading(measure).words)
        lines.append([*line, text(run.loss), text(run.seconds)])
    return lines


def text(value: float | None, sign: str = "") -> str:
    return "" if value is None else f"{value:{sign}g}"


def support() -> list[list[str]]:
    """Every TAT-QA delta of the log with its bounds; Holm over the runs, type by type."""
    header = ["run", "answers", "n", "delta, points", "p at best", "SE, independent"]
    lines = [[*header, "p (Holm)", "SE, contexts as one", "p, contexts as one (Holm)"]]
    for measure in TYPES:
        lines += support_of(measure)
    return lines


def support_of(measure: str) -> list[list[str]]:
    """The lines of one answer type."""
    independent = error_cells(measure, lambda shares: independent_error(shares, SIZES[measure]))
    together = error_cells(measure, lambda shares: context_error(shares, measure))
    lines = []
    for run in DONE:
        if measure in run.readings:
            delta = text(run.reading(measure).delta, "+")
            line = [run.name, measure, str(SIZES[measure]), delta, p_value(run.at_best(measure))]
            lines.append([*line, *independent[run.name], *together[run.name]])
    return lines


def error_cells(
    measure: str, error_of: Callable[[tuple[float, float]], float]
) -> dict[str, list[str]]:
    """By run the standard error of its delta and the p of it, adjusted over the runs.

    Two empty cells where the log gives no shares.
    """
    cells = {run.name: ["", ""] for run in DONE}
    names, errors, p = [], [], []
    for run in DONE:
        reading = run.reading(measure)
        if reading.shares is not None:
            error = error_of(reading.shares)
            names.append(run.name)
            errors.append(error)
            p.append(p_of_delta(reading.delta or 0, error))
    for name, error, adjusted in zip(names, errors, holm(p), strict=True):
        cells[name] = [f"{error:.1f}", p_value(adjusted)]
    return cells


def pairs_that_differ() -> tuple[int, int, int]:
    """Pairs of runs by their share after training: all, with p < 0.05 alone, and after Holm."""
    p = []
    for pair in combinations(known_after("overall"), 2):
        error = independent_error(pair, SIZES["overall"])
        p.append(p_of_delta(pair[0] - pair[1], error))
    alone = np.array(p) < ALPHA
    adjusted = np.array(holm(p)) < ALPHA
    return len(p), int(alone.sum()), int(adjusted.sum())


def ratings() -> list[list[str]]:
    """MT-Bench deltas in units of the noise of the base's own readings."""
    error, readings = rating_error()
    lines = [["run", "MT-Bench delta", "delta / SE", "p (t test)"]]
    for run in DONE:
        delta = run.reading("mtbench").delta or 0.0
        p = float(2 * stats.t.sf(abs(delta) / error, len(readings) - 1))
        lines.append([run.name, f"{delta:+.2f}", f"{delta / error:+.1f}", f"{p:.2f}"])
    return lines


# --- the page


def blocks() -> Iterator[Block]:
    """The page of the log, report/log/README.md: its template with numbers and tables put in."""
    parts = {
        "overview": [("table", overview())],
        "support": [("table", support())],
        "ratings": [("table", ratings())],
    }
    how_scored = [f"- {name}: {words}" for name, words in LOG["scoring"].items()]
    pairs, alone, corrected = pairs_that_differ()
    return page.from_template(
        "published.md",
        parts,
        log=LOG,
        how="\n".join(how_scored),
        pairs=pairs,
        alone=alone,
        corrected=corrected,
        **count_facts(),
        **rating_facts(),
        **instruct_facts(),
    )


def count_facts() -> dict[str, Any]:
    """The largest delta of the questions that ask for a count."""
    largest = max(DONE, key=lambda run: abs(run.reading("count").delta or 0))
    return {
        "count_delta": largest.reading("count").delta,
        "count_changed": largest.changed("count"),
        "count_p": p_value(largest.at_best("count")),
    }


def rating_facts() -> dict[str, Any]:
    """The largest MT-Bench delta beside what chance makes the largest of so many."""
    error, readings = rating_error()
    shown = [f"{reading:.2f}" for reading in readings]
    best = max(abs(run.reading("mtbench").delta or 0) for run in DONE)
    return {
        "readings": ", ".join(shown),
        "readings_count": len(readings),
        "freedom": len(readings) - 1,
        "error": error,
        "number": len(DONE),
        "best": best,
        "ratio": best / error,
        "largest": largest_by_chance(error, len(DONE), len(readings)),
        "shared": largest_by_shared_chance(error, len(DONE), len(readings)),
    }


def instruct_facts() -> dict[str, Any]:
    """The lowest success rate before and the highest after, and the base's ratings."""
    lowest = min(known_before("instruct_success"))
    highest = max(known_after("instruct_success"))
    prompts = round((highest - lowest) * SIZES["instruct"] / 100)
    ratings_of_base = [f"{value:g}" for value in sorted(set(known_before("instruct")))]
    return {
        "lowest": lowest,
        "highest": highest,
        "prompts": prompts,
        "prompts_p": f"{min(1.0, 2 * 0.5**prompts):g}",
        "instruct_base": " and ".join(ratings_of_base),
    }
