"""The experiment log's own figures (runs.json), measured another way, and what they can support.

The log gives shares right before and after and no per-question outcomes. So the error of a
difference can only be bounded: at best every question that changed changed the same way; without
pairing, before and after are independent.
"""

import json
from collections.abc import Iterator, Sequence
from itertools import combinations
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
from scipy import optimize, stats

from results.compare import p_value
from results.report import page
from results.report.page import Block
from results.statistics import ALPHA, GRID, holm

LOG: dict[str, Any] = json.loads((Path(__file__).parent / "runs.json").read_text(encoding="utf-8"))
SIZES: dict[str, int] = LOG["questions"]
CONTEXTS: dict[str, int] = LOG["contexts"]
DONE = [run for run in LOG["runs"] if run["status"] == "completed"]
TYPES = ("overall", "arithmetic", "count", "multi-span", "span")
NAMES = {"mtbench": "MT-Bench", "instruct": "instruct", "instruct_success": "instruct success, %"}


def delta(run: dict[str, Any], measure: str) -> float | None:
    """The log's own delta, or after minus before where it states none."""
    before, after, stated = run[measure] or (None, None, None)
    return stated if stated is not None or before is None else round(after - before, 2)


def changed(run: dict[str, Any], measure: str) -> int:
    """The fewest questions that can have changed."""
    return round(abs(delta(run, measure) or 0) * SIZES[measure] / 100)


def at_best(run: dict[str, Any], measure: str) -> float:
    """p of a sign test if every changed answer changed the same way.

    No paired test of these shares can go lower.
    """
    return float(min(1, 2 * 0.5 ** changed(run, measure)))


def independent_error(shares: tuple[float, float], n: int) -> float:
    """Standard error, in points, of the difference of two independent shares of n questions."""
    return 100 * sqrt(sum(p / 100 * (1 - p / 100) for p in shares) / n)


def context_error(shares: tuple[float, float], measure: str) -> float:
    """The same if the questions of a context were right or wrong together: its upper bound.

    The variance grows by the number of questions of this type in a context (Kish's design effect
    with an intraclass correlation of 1).
    """
    n = SIZES[measure]
    return independent_error(shares, n) * sqrt(n / CONTEXTS[measure])


def rating_error() -> tuple[float, list[float]]:
    """Standard error of an MT-Bench delta from repeated readings of one base, and these."""
    readings = [run["mtbench"][0] for run in DONE if run["mtbench"][0] is not None]
    return float(np.std(readings, ddof=1)) * sqrt(2), readings


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


def by_beta(measure: str) -> list[tuple[float, float]]:
    """(beta, delta) of every run of the log that has one."""
    return [(run["recipe"]["beta"], d) for run in DONE if (d := delta(run, measure)) is not None]


def overview(measures: Sequence[str] = (*TYPES, *NAMES)) -> list[list[str]]:
    """The log's figures as they stand; an empty cell means that the log gives none."""
    fields = ("beta", "learning_rate", "num_train_epochs", "lora_r", "lora_alpha")
    titles = [NAMES.get(measure, measure) for measure in measures]
    lines = [
        [
            f"run ({LOG['label']})",
            "beta",
            "rate",
            "epochs",
            "rank",
            "alpha",
            *titles,
            "loss",
            "seconds",
        ]
    ]
    for run in LOG["runs"]:
        plain = [text(run["recipe"][field]) for field in fields]
        shown = [change(run[measure]) for measure in measures]
        lines.append([run["name"], *plain, *shown, text(run["loss"]), text(run["seconds"])])
    return lines


def text(value: float | None, sign: str = "") -> str:
    return "" if value is None else f"{value:{sign}g}"


def change(entry: list[float | None] | None) -> str:
    """Before and after, or the delta alone, or nothing, as the log gives it."""
    before, after, *stated = entry or (None, None, None)
    return text(stated[0], "+") if before is None else f"{text(before)} to {text(after)}"


def support() -> list[list[str]]:
    """Every TAT-QA delta of the log with its bounds; Holm over the runs, type by type."""
    header = ["run", "answers", "n", "delta, points", "p at best", "SE, independent"]
    lines = [[*header, "p (Holm)", "SE, contexts as one", "p, contexts as one (Holm)"]]
    for measure in TYPES:
        lines += support_of(measure)
    return lines


def support_of(measure: str) -> list[list[str]]:
    """The lines of one answer type."""
    runs = [run for run in DONE if run[measure]]
    known = [run for run in runs if run[measure][0] is not None]
    bounds: dict[str, list[str]] = {run["name"]: [] for run in runs}
    shares = [run[measure][:2] for run in known]
    independent = [independent_error(pair, SIZES[measure]) for pair in shares]
    together = [context_error(pair, measure) for pair in shares]
    for errors in (independent, together):
        p = [
            2 * float(stats.norm.sf(abs(delta(run, measure) or 0) / e))
            for run, e in zip(known, errors, strict=True)
        ]
        for run, e, adjusted in zip(known, errors, holm(p), strict=True):
            bounds[run["name"]] += [f"{e:.1f}", p_value(adjusted)]
    lines = []
    for run in runs:
        first = [run["name"], measure, str(SIZES[measure]), text(delta(run, measure), "+")]
        empty = ["", "", "", ""]
        lines.append([*first, p_value(at_best(run, measure)), *(bounds[run["name"]] or empty)])
    return lines


def pairs_that_differ() -> tuple[int, int, int]:
    """Pairs of runs by their share after training: all, with p < 0.05 alone, and after Holm."""
    after = [run["overall"][1] for run in DONE if run["overall"][1] is not None]
    pairs = list(combinations(after, 2))
    p = [
        float(2 * stats.norm.sf(abs(a - b) / independent_error((a, b), SIZES["overall"])))
        for a, b in pairs
    ]
    return len(pairs), sum(x < ALPHA for x in p), sum(x < ALPHA for x in holm(p))


def ratings() -> list[list[str]]:
    """MT-Bench deltas in units of the noise of the base's own readings."""
    error, readings = rating_error()
    deltas = [(run["name"], delta(run, "mtbench") or 0.0) for run in DONE]
    p = [float(2 * stats.t.sf(abs(d) / error, len(readings) - 1)) for _, d in deltas]
    lines = [
        [n, f"{d:+.2f}", f"{d / error:+.1f}", f"{x:.2f}"]
        for (n, d), x in zip(deltas, p, strict=True)
    ]
    return [["run", "MT-Bench delta", "delta / SE", "p (t test)"], *lines]


def blocks() -> Iterator[Block]:
    """The page published/README.md: its template, with the numbers and tables put in."""
    error, readings = rating_error()
    count = max(
        (run for run in DONE if run["count"]), key=lambda run: abs(delta(run, "count") or 0)
    )
    pairs, alone, corrected = pairs_that_differ()
    deltas = [abs(d) for _, d in by_beta("mtbench")]
    success = [run["instruct_success"] for run in DONE if run["instruct_success"]]
    lowest, highest = min(s[0] for s in success), max(s[1] for s in success)
    prompts = round((highest - lowest) * SIZES["instruct"] / 100)
    base = sorted({run["instruct"][0] for run in DONE if run["instruct"][0] is not None})
    return page.from_template(
        "published.md",
        {
            "overview": [("table", overview())],
            "support": [("table", support())],
            "ratings": [("table", ratings())],
        },
        log=LOG,
        how="\n".join(f"- {name}: {words}" for name, words in LOG["scoring"].items()),
        count_delta=delta(count, "count"),
        count_changed=changed(count, "count"),
        count_p=p_value(at_best(count, "count")),
        pairs=pairs,
        alone=alone,
        corrected=corrected,
        readings=", ".join(f"{reading:.2f}" for reading in readings),
        error=error,
        number=len(DONE),
        freedom=len(readings) - 1,
        readings_count=len(readings),
        best=max(deltas),
        ratio=max(deltas) / error,
        largest=largest_by_chance(error, len(DONE), len(readings)),
        shared=largest_by_shared_chance(error, len(DONE), len(readings)),
        lowest=lowest,
        highest=highest,
        prompts=prompts,
        prompts_p=f"{min(1.0, 2 * 0.5**prompts):g}",
        instruct_base=" and ".join(f"{value:g}" for value in base),
    )
