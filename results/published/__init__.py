"""The experiment log's own figures (runs.json), measured another way, and what their differences can support.

The log gives shares right before and after and no per-question outcomes. So the error of a difference can only be
bounded: at best every question that changed changed the same way; without pairing, before and after are independent.
"""

import json
from collections.abc import Iterator
from itertools import combinations
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from results.compare import p_value
from results.page import Block
from results.statistics import ALPHA, holm

LOG: dict[str, Any] = json.loads((Path(__file__).parent / "runs.json").read_text(encoding="utf-8"))
TYPES = ("overall", "arithmetic", "count", "multi-span", "span")
DONE = [run for run in LOG["runs"] if run["status"] == "completed"]
FORMULAS = (
    "At best: k = |delta| n / 100 questions changed, all the same way; two-sided sign test, p = 2 / 2^k (at most 1).",
    "Independent: SE = sqrt(p0 (1 - p0) / n + p1 (1 - p1) / n), p from delta / SE on the normal distribution.",
    "Both take questions as independent; about 6 share a context, so true errors are larger than the second formula's "
    "wherever a context's questions rise and fall together.",
)


def delta(run: dict[str, Any], measure: str) -> float | None:
    """The log's own delta, or after minus before where it states none."""
    before, after, stated = run[measure] or (None, None, None)
    return stated if stated is not None or before is None else round(after - before, 2)


def at_best(run: dict[str, Any], measure: str) -> float:
    """p of a sign test if every net change was a change in one direction (a lower bound of any paired test's)."""
    changed = round(abs(delta(run, measure) or 0) * LOG["questions"][measure] / 100)
    return float(min(1, 2 * 0.5**changed))


def independent_error(run: dict[str, Any], measure: str) -> float | None:
    """Standard error in points if before and after were independent samples; None where the log gives no before."""
    before, after, _ = run[measure]
    if before is None:
        return None
    return 100 * sqrt(sum(p / 100 * (1 - p / 100) for p in (before, after)) / LOG["questions"][measure])


def rating_error() -> tuple[float, list[float]]:
    """Standard error of an MT-Bench delta, from the log's repeated readings of one and the same base model."""
    readings = [run["mtbench"][0] for run in DONE if run["mtbench"][0] is not None]
    return float(np.std(readings, ddof=1)) * sqrt(2), readings


def largest_by_chance(error: float, runs: int) -> float:
    """The median of the largest |delta| among so many runs that change nothing."""
    return float(stats.norm.ppf((0.5 ** (1 / runs) + 1) / 2)) * error


def text(value: float | None, pattern: str = "{:+.1f}") -> str:
    return "" if value is None else pattern.format(value)


def overview() -> list[list[str]]:
    """The log's figures as they stand; an empty cell means that the log gives none."""
    lines = [["run", "beta", "rate", "epochs", "rank, alpha", *TYPES, "MT-Bench", "instruct", "loss", "seconds"]]
    for run in LOG["runs"]:
        recipe = run["recipe"]
        shown = [recipe["beta"], recipe["learning_rate"], recipe["num_train_epochs"]]
        values = [change(run[measure], "{:.1f}") for measure in TYPES]
        values += [change(run[measure], "{:.2f}") for measure in ("mtbench", "instruct")]
        facts = [text(run["loss"], "{:.3f}"), text(run["seconds"], "{:.0f}")]
        lines.append([run["name"], *(text(x, "{:g}") for x in shown), f"{recipe['lora_r']}, {recipe['lora_alpha']}",
                      *values, *facts])  # fmt: skip
    return lines


def change(entry: list[float | None] | None, pattern: str) -> str:
    """Before and after, or the delta alone, or nothing, as the log gives it."""
    before, after, stated = entry or (None, None, None)
    return text(stated, "{:+g}") if before is None else f"{text(before, pattern)} to {text(after, pattern)}"


def support() -> list[list[str]]:
    """Every TAT-QA delta of the log with both bounds; Holm over all deltas of one column."""
    lines = [["run", "answers", "n", "delta, points", "p at best", "SE, independent", "p, independent (Holm)"]]
    for measure in TYPES:
        runs = [run for run in DONE if run[measure]]
        errors = [independent_error(run, measure) for run in runs]
        known = [2 * stats.norm.sf(abs(delta(r, measure) or 0) / e) for r, e in zip(runs, errors, strict=True) if e]
        adjusted = iter(holm(known))
        for run, error in zip(runs, errors, strict=True):
            p = p_value(next(adjusted)) if error else ""
            lines.append([run["name"], measure, str(LOG["questions"][measure]), text(delta(run, measure)),
                          p_value(at_best(run, measure)), text(error, "{:.1f}"), p])  # fmt: skip
    return lines


def between_runs() -> str:
    """Do the runs' own results differ from one another?"""
    after = {run["name"]: run["overall"][1] / 100 for run in DONE if run["overall"][1] is not None}
    pairs, n = list(combinations(after, 2)), LOG["questions"]["overall"]
    errors = [sqrt((after[a] * (1 - after[a]) + after[b] * (1 - after[b])) / n) for a, b in pairs]
    p = [2 * stats.norm.sf(abs(after[a] - after[b]) / e) for (a, b), e in zip(pairs, errors, strict=True)]
    small, corrected = sum(x < ALPHA for x in p), sum(x < ALPHA for x in holm([float(x) for x in p]))
    return (
        f"Between runs: the {len(after)} runs with an after-figure make {len(pairs)} pairs; {small} of them differ at "
        f"p < {ALPHA} taken alone, {corrected} after Holm. A winner can be named only where a pair differs after Holm."
    )


def ratings() -> list[list[str]]:
    """MT-Bench deltas in units of the noise of the baseline's own readings."""
    error, readings = rating_error()
    lines = [["run", "MT-Bench delta", "delta / SE", "p (t test)"]]
    for run in DONE:
        d = delta(run, "mtbench") or 0.0
        p = 2 * stats.t.sf(abs(d) / error, len(readings) - 1)
        lines.append([run["name"], f"{d:+.2f}", f"{d / error:+.1f}", f"{p:.2f}"])
    return lines


def by_beta(measure: str) -> list[tuple[float, float]]:
    """(beta, delta) of every run of the log that has one."""
    return [(run["recipe"]["beta"], d) for run in DONE if (d := delta(run, measure)) is not None]


def blocks() -> Iterator[Block]:
    """The page results/published/README.md."""
    error, readings = rating_error()
    yield "h1", f"The experiment log ({LOG['label']})"
    yield "p", f"Source: {LOG['source']}. Nothing here was measured by this project."
    for name, how in LOG["how"].items():
        yield "li", f"{name}: {how}"
    yield "h2", "The figures as the log gives them"
    yield "table", overview()
    yield "h2", "TAT-QA: what the differences can support"
    for formula in FORMULAS:
        yield "li", formula
    yield "table", support()
    largest = max(DONE, key=lambda run: abs(delta(run, "count") or 0))
    yield "p", (
        f"Count has {LOG['questions']['count']} questions: even the largest delta, {text(delta(largest, 'count'))} points, "
        f"is {round(abs(delta(largest, 'count') or 0) * 0.32)} questions, p = {at_best(largest, 'count'):.3f} at best. "
        "No count figure of the log supports a claim in either direction."
    )
    yield "p", between_runs()
    yield "h2", "MT-Bench: what the differences can support"
    yield "p", (
        f"The log reads the same base model {len(readings)} times: {', '.join(f'{x:.2f}' for x in readings)}. Their "
        f"standard deviation times sqrt(2), {error:.2f}, is the standard error of a delta between models that do not "
        f"differ. Of {len(DONE)} runs that change nothing, the largest delta is beyond "
        f"±{largest_by_chance(error, len(DONE)):.2f} half of the time (this error times the normal quantile of "
        f"(0.5^(1/{len(DONE)}) + 1) / 2)."
    )
    yield "table", ratings()
    yield "p", (
        f"Instruction following: a success rate of 36 % against 40 % is one prompt of {LOG['questions']['instruct']}, "
        "p = 1 at best; the ratings have no stated error, and the baseline reads 6.64 every time."
    )
