"""How a metric is shown and judged: its unit, range, direction and the margin of no difference.

Our own metrics are in MEASURES; any other one is known by its scores and by what its output says.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from results import InputError
from results.record import Scores


@dataclass(frozen=True)
class Measure:
    """How a metric is shown and judged.

    Attributes:
        factor: From the score to the unit shown: 100 for a share shown in points.
        span: The largest change of one score, in the score's unit.
        margin: A difference whose interval stays within it both ways is called none: 3 points of
            exact match are about what the whole validation split can tell apart, half a point of
            rating about what 80 judged questions can. 0: nothing is called none.
        higher_is_better: None where the output does not say.
        rare: Whether losses larger than any seen are allowed for.
        lowest: The lowest score there can be; the highest is `span` above it.
    """

    label: str
    factor: float = 100
    span: float = 1
    margin: float = 0.03
    higher_is_better: bool | None = True
    rare: bool = False
    lowest: float = 0


MEASURES = {
    "em": Measure("exact match, %"),
    "em_strict": Measure("exact match in the format asked for, %"),
    "f1": Measure("F1, %"),
    "scale_em": Measure("scale right, %"),
    "parsed": Measure("replies in the format asked for, %"),
    "lenient_em": Measure("right by the experiment log's lenient rule, %"),
    "calc_used": Measure("replies with an expression worked out, %", higher_is_better=None),
    "prompt_level_strict_acc": Measure("prompts followed, strict, %"),
    "score": Measure("rating from 1 to 10", factor=1, span=9, margin=0.5, rare=True, lowest=1),
    "success": Measure("rated 7 or more, %", margin=0.1),
}
LOGARITHMS = ("perplexity", "bits_per_byte")  # no shares, even where all lie between 0 and 1


def measure_of(runs: Sequence[Scores], metric: str, margin: float | None) -> Measure:
    """How a metric is shown: as MEASURES says of our own, else by the range of its scores."""
    ours = is_ours(runs[0], metric) and within(runs, metric, MEASURES[metric])
    known = MEASURES[metric] if ours else unknown_measure(runs, metric)
    return known if margin is None else replace(known, margin=margin / known.factor)


def is_ours(scores: Scores, metric: str) -> bool:
    """Whether MEASURES speaks of this metric; other tasks use the same names for other scales."""
    if metric in ("score", "success"):
        return "judge" in scores.identity
    is_tatqa = "answer_type" in scores.groups
    return metric in MEASURES and (is_tatqa or metric == "prompt_level_strict_acc")


def within(runs: Sequence[Scores], metric: str, measure: Measure) -> bool:
    """Whether all scores are such as this measure has: others are in other units."""
    highest = measure.lowest + measure.span
    for run in runs:
        scores = run.scored(metric).values()
        if scores and not measure.lowest <= min(scores) <= max(scores) <= highest:
            return False
    return True


def unknown_measure(runs: Sequence[Scores], metric: str) -> Measure:
    """A metric known by its scores and its direction alone; nothing is called no difference."""
    values: list[float] = []
    complete = True
    items = runs[0].scored(metric).keys()
    for run in runs:
        scored = run.scored(metric)
        values += scored.values()
        complete = complete and scored.keys() == items
    lowest, highest = min(values), max(values)
    name = metric.split(",")[0]
    toward = direction(runs, metric)
    if 0 <= lowest <= highest <= 1 and not name.endswith(LOGARITHMS):
        return Measure(f"{metric}, %", margin=0, higher_is_better=toward)
    seen = (highest - lowest) if complete else math.inf  # -inf is left out, say
    label = f"log of {metric}" if name.endswith("perplexity") else metric
    return Measure(label, factor=1, span=seen or math.inf, margin=0, higher_is_better=toward)


def direction(runs: Sequence[Scores], metric: str) -> bool | None:
    """Whether higher is better, as far as any output says. Raises InputError where they differ."""
    known = set()
    for run in runs:
        if metric in run.higher_is_better:
            known.add(run.higher_is_better[metric])
    if len(known) > 1:
        raise InputError(
            f"{runs[0].bench}: not comparable, higher {metric} is better in one output and worse "
            "in another; score both with one version of the task"
        )
    return known.pop() if known else None
