"""The means that a results file gives, beside those of its samples."""

import math
from typing import Any

from results.outputs.folders import Row, figures_of
from results.outputs.scores import finite
from results.record import Scores


def unlike_figures(scores: Scores, results: dict[str, Any]) -> list[str]:
    """A warning for each metric whose figure in the results is not the mean over the samples."""
    figures = figures_of(results, scores.bench)
    found = []
    for metric in scores.metrics:
        theirs, ours = figure(figures, metric), mean(scores, metric)
        if theirs is None or ours is None or is_close(theirs, ours):
            continue
        found.append(
            f"{scores.bench}: {metric} is {theirs:.6g} in the results file, but {ours:.6g} over "
            "the samples; what follows is about the samples"
        )
    return found


def figure(figures: Row, metric: str) -> float | None:
    """A metric's figure in the results, as a mean over questions; None where there is none."""
    value = figures.get(metric if "," in metric else f"{metric},none")
    if not isinstance(value, int | float) or finite(value) is None:
        return None
    if metric.split(",")[0].endswith("perplexity"):  # there it is exp of the mean
        return math.log(value) if value > 0 else None
    return float(value)


def mean(scores: Scores, metric: str) -> float | None:
    """The weighted mean of a metric over all questions that have it; None where none does."""
    weights = scores.weights.get(metric) or [1.0] * len(scores.item)
    total, total_weight = 0.0, 0.0
    for value, weight in zip(scores.metrics[metric], weights, strict=True):
        if value is not None:
            total += value * weight
            total_weight += weight
    return total / total_weight if total_weight > 0 else None


def is_close(one: float, other: float) -> bool:
    """Are two means of the same scores the same, up to rounding?"""
    return math.isclose(one, other, rel_tol=1e-5, abs_tol=1e-6)
