"""The score of one row, from whatever a metric of lm-eval leaves there."""

import math
from typing import Any

from results.record import LARGEST

# metrics of (log-likelihood, units): the mean log-perplexity per unit, in nats or bits
PER_UNIT = {"word_perplexity": 1.0, "byte_perplexity": 1.0, "bits_per_byte": 1 / math.log(2)}
LOG_LIKELIHOODS = ("perplexity",)  # of one log-likelihood a row: exp of minus its mean


def score(metric: str, value: Any) -> tuple[Any, float]:
    """A row's score and weight; None: no score; NotImplemented: no score of a single question."""
    if value is None:
        return None, 1.0
    if isinstance(value, bool | int | float):
        return number(metric, value), 1.0
    if metric in PER_UNIT and _pair(value):
        likelihood, units = value
        return per_unit(metric, finite(likelihood), finite(units))
    if _bools(value):
        return sum(value) / len(value), float(len(value))
    return NotImplemented, 1.0


def number(metric: str, value: float) -> float | None:
    """A score that is a number; a log-likelihood as its negative, which is lower where better."""
    known = finite(value)
    if known is not None and metric in LOG_LIKELIHOODS:
        known = -known
    return known


def per_unit(
    metric: str, likelihood: float | None, units: float | None
) -> tuple[float | None, float]:
    """The log-perplexity of a text per word or byte, which it weighs by their number."""
    if likelihood is None or units is None:
        return None, 1.0
    if units <= 0:
        return None, units
    return finite(-likelihood / units * PER_UNIT[metric]), units


def finite(value: float) -> float | None:
    """The number; None for what is none, or too large for the squares of statistics."""
    return float(value) if -LARGEST <= value <= LARGEST else None


def _pair(value: Any) -> bool:
    """Is this a log-likelihood and a number of units?"""
    if not isinstance(value, list) or len(value) != 2:
        return False
    return all(isinstance(x, int | float) for x in value)


def _bools(value: Any) -> bool:
    """Are these the answers to several parts of a question, right or wrong each?"""
    if not isinstance(value, list) or not value:
        return False
    return all(isinstance(x, bool) for x in value)
