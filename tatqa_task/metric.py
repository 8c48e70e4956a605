"""TAT-QA's official metric: exact match, token F1 and scale accuracy of one answer.

Gives the numbers of `tatqa_eval.py` in NExTplusplus/TAT-QA at commit 870accc on every input that
script survives, and zeros where it crashes. Pure: no torch, no numpy, and linear in the length of
the answer.
"""

import re
import string
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from tatqa_task.types import Question

_DROPPED_IN_NUMBERS = str.maketrans("", "", "'\"\\$€£¥%(),[]")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_FACTORS = {
    "hundred": 100,
    "thousand": 1000,
    "million": 1_000_000,
    "billion": 1_000_000_000,
    "percent": 0.01,
}

# Each finds what the official, backtracking pattern finds first, without rescanning runs of digits.
_VALUE = re.compile(r"([+-]?\d+(?:\.\d+)?)|[+-]?\.\d+")
_WORD_AFTER_DIGITS = re.compile(r"[\d.]\s?([a-zA-Z]+)")
_PARENTHESISED = re.compile(r"\([\d.\s]+\)")
_PERCENT = re.compile(r"[\d.\s]%")
_ARTICLES = re.compile(r"\b(a|an|the)\b")


class Score(NamedTuple):
    """One question's exact match, F1 and scale accuracy, each from 0.0 to 1.0."""

    em: float
    f1: float
    scale: float


ZERO = Score(0.0, 0.0, 0.0)


def score(question: Question, answer: Any, scale: Any) -> Score:
    """The official score of a predicted answer (a list of texts, or one item) and its scale.

    Never raises.
    """
    try:
        return _score(question, answer, scale) if answer else ZERO
    except Exception:
        # what stops the official script: mixed types, scale None with a number, 10^4 digits
        return ZERO


def mean(scores: Sequence[Score]) -> Score:
    """The mean over questions; zeros for no questions."""
    if not scores:
        return ZERO
    exact, f1, scale = zip(*scores, strict=True)
    n = len(scores)
    return Score(sum(exact) / n, sum(f1) / n, sum(scale) / n)


def _score(question: Question, answer: Any, scale: Any) -> Score:
    """As `score`, but it raises where the official script stops."""
    gold = question.gold_items
    if question.answer_type == "count":
        gold = [str(int(gold[0]))]
    gold_text = _normalise(_answer_text(gold, question.scale))
    items = answer if isinstance(answer, list) else [answer]
    em, f1 = max(_compare(_normalise(text), gold_text) for text in _readings(items, scale))
    return Score(
        em,
        em if question.answer_type in ("arithmetic", "count") else f1,
        float(scale == question.scale),
    )


def _readings(items: list[Any], scale: Any) -> Iterable[str]:
    """The answer as text, and, for one bare number without scale, its unrounded value.

    So 0.1234 may stand for 12.34 percent.
    """
    yield _answer_text(items, scale)
    text = str(items[0])
    value = to_number(text)
    if len(items) == 1 and not scale and "%" not in text and value is not None:
        yield f"{value:.4f}"


def _answer_text(items: list[Any], scale: Any) -> str:
    """The whole answer as one text, its items in the order of their words."""
    return " ".join(_item_text(str(item), scale) for item in sorted(items))


def _item_text(text: str, scale: Any) -> str:
    """A number as what it is worth, four decimals; other text with the scale behind it."""
    value = to_number(text)
    if value is None:
        return f"{text} {scale}" if scale else text
    if "%" in text:
        return f"{value:.4f}"
    return f"{round(value, 2) * scale_factor(scale):.4f}"


def scale_factor(text: str) -> float:
    """What the first scale word in the text multiplies by; 1 if there is none."""
    lowered = text.lower()
    for word, factor in _FACTORS.items():
        if word in lowered:
            return factor
    return 1


@lru_cache(maxsize=1 << 16)
def is_number(text: str) -> bool:
    """Whether the metric reads the text as a number: `1,023`, `$ (12.5)`, `3 million`."""
    words = text.translate(_DROPPED_IN_NUMBERS).split()
    try:
        value = float(words[0]) if words else float("nan")
    except ValueError:
        return False
    return value == value and (len(words) < 2 or scale_factor(words[1]) != 1)


@lru_cache(maxsize=1 << 16)
def to_number(text: str) -> float | None:
    """The value of a text that `is_number`, rounded to 4 places.

    None if it is none, or starts with a point (`.5`).
    """
    found = _VALUE.search(text.translate(_DROPPED_IN_NUMBERS)) if is_number(text) else None
    if found is None or found.group(1) is None:
        return None
    digits = found.group(1)
    value = float(digits) if "." in digits else int(digits)
    word = _WORD_AFTER_DIGITS.search(text)
    factor = scale_factor(word.group(1)) if word else 1
    stripped = text.strip()
    sign = -1 if _PARENTHESISED.search(stripped) else 1
    percent = 0.01 if _PERCENT.search(stripped) else 1
    return round(value * factor * sign * percent, 4)


def _normalise(text: str) -> str:
    """The text's tokens as they are compared, one space apart."""
    tokens = map(_normalise_token, text.lower().split(" "))
    return " ".join(filter(None, tokens))


@lru_cache(maxsize=1 << 16)
def _normalise_token(token: str) -> str:
    """A number as Python writes it; another token without punctuation and articles."""
    if not is_number(token):
        token = token.translate(_PUNCTUATION)
    if is_number(token):  # `#5` is one only without its punctuation
        token = str(to_number(token))
    return " ".join(_ARTICLES.sub(" ", token).split())


def _compare(predicted: str, gold: str) -> tuple[float, float]:
    """Exact match and F1 over the sets of tokens of two normalised texts."""
    predicted_set, gold_set = set(predicted.split()), set(gold.split())
    common = len(predicted_set & gold_set)
    precision = common / len(predicted_set) if predicted_set else 1.0
    recall = common / len(gold_set) if gold_set else 1.0
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    hundredths = round(f1 * 100)  # as numpy rounds: half of an even hundredth goes down
    return float(predicted == gold), hundredths / 100
