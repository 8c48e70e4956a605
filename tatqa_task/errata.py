"""Gold answers that do not stand: rules that find them, and the list made of what they found.

    python -m tatqa_task errata --gold tatqa_dataset_dev.json

prints what the rules find in a file. `errata.json` holds what a reader confirmed against the table,
one entry a question: `wrong` (the report says otherwise), `unmatchable` (no reply that follows the
prompt can score), `ambiguous` (another reading of the question is as good), each with the evidence,
and with the right value where it is certain. The group `tatqa_verified` leaves them out; `tatqa`
never does.
"""

import json
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Literal, NamedTuple

from tatqa_task import calculator, metric
from tatqa_task.types import Context, Question

LIST = Path(__file__).with_suffix(".json")
Verdict = Literal["wrong", "unmatchable", "ambiguous"]


class Finding(NamedTuple):
    """A question whose gold answer a rule doubts, and why."""

    uid: str
    rule: str
    evidence: str


class Erratum(NamedTuple):
    """A gold answer that does not stand.

    `answer` and `scale` are the right ones where these are certain, else None.
    """

    uid: str
    split: str
    rule: str
    verdict: Verdict
    evidence: str
    answer: list[str] | None
    scale: str | None


@lru_cache(maxsize=1)
def listed() -> dict[str, Erratum]:
    """The confirmed errata, by question uid."""
    entries = json.loads(LIST.read_text(encoding="utf-8"))
    return {entry["uid"]: Erratum(**entry) for entry in entries}


def findings(contexts: list[Context]) -> Iterator[Finding]:
    """What the rules find, context by context."""
    for context in contexts:
        for question in context.questions:
            for rule, evidence_by in RULES.items():
                evidence = evidence_by(context, question)
                if evidence:
                    yield Finding(question.uid, rule, evidence)


# --- rules: the evidence, or nothing ---

_SCALE_WORD = re.compile(r"thousand|million|billion|percent", re.IGNORECASE)
_TYPOGRAPHIC_MINUS = re.compile(r"[−–―]\s*\$?\d")
_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")
_YEAR = re.compile(r"\b(?:19|20)\d\d\b")
_DIFFERENCE = re.compile(
    r"[\s(\[$]* (?P<a>\d[\d,]*(?:\.\d+)?) [%)\s]* [-−] [\s(\[$]* (?P<b>\d[\d,]*(?:\.\d+)?)",
    re.VERBOSE,
)
_CHANGE = re.compile(r"\(*(?P<old>[\d.,]+)-(?P<new>[\d.,]+)\)/(?P=old)\)*(?:\*100)?$")
_ASKS_FOR_DECREASE = re.compile(r"decreas|declin|reduc|loss in", re.IGNORECASE)
_SMALL_DIVISOR = re.compile(r"/\s*\d{1,2}[\s)]*$")
_AMOUNT = re.compile(r"[-$€£¥()\s]*\d[\d,.]*[\s)]*")
_UNIT = re.compile(r"\bin (?:US|U\.S\.|[$€£ ])*(thousand|million|billion)s?\b", re.IGNORECASE)
_OTHER_UNIT = re.compile(
    r"""share|\bper\b|ratio|percent|number|rate\b|price|life|lives|days?\b|employees|units
      | how\ many\ years""",
    re.IGNORECASE | re.VERBOSE,
)
_MARKERS = {
    "thousand": re.compile(r"thousand|000|\bk\b", re.IGNORECASE),
    "million": re.compile(r"million|millones|mn\b|[\w$€£]m\b|\bm\b", re.IGNORECASE),
    "billion": re.compile(r"billion|bn\b|\db\b", re.IGNORECASE),
}


def scale_twice(context: Context, question: Question) -> str:
    """A span that states its scale, with a scale beside it: the metric scales twice."""
    for item in question.gold_items:
        if question.scale and _SCALE_WORD.search(item):
            return f"`{item}` and scale {question.scale}"
    return ""


def typographic_minus(context: Context, question: Question) -> str:
    """A span with a minus sign that the metric does not read as one."""
    for item in question.gold_items:
        if isinstance(question.answer, list) and _TYPOGRAPHIC_MINUS.match(item):
            return f"`{item}` begins with U+{ord(item[0]):04X}"
    return ""


def words_with_scale(context: Context, question: Question) -> str:
    """A span of words with a scale, which the metric appends as a word."""
    if not question.scale or not isinstance(question.answer, list):
        return ""
    for item in question.answer:
        if not any(map(str.isdigit, item)):
            return f"`{item}` and scale {question.scale}"
    return ""


def ratio_without_hundred(context: Context, question: Question) -> str:
    """A percentage that is the ratio itself: 0.5 for 49.93 percent."""
    value = calculator.evaluate(question.derivation)
    if question.scale != "percent" or not value or "/" not in question.derivation:
        return ""
    if _SMALL_DIVISOR.search(question.derivation) or "%" in question.derivation:
        return ""  # a mean of percentages
    hundredfold = "* 100" in question.derivation or "*100" in question.derivation
    if hundredfold or not _scores(question, value):
        return ""
    return f"{question.derivation.strip()} = {100 * value:.2f} percent"


def earlier_minus_later(context: Context, question: Question) -> str:
    """A change whose derivation takes the later year from the earlier one."""
    found = _DIFFERENCE.match(question.derivation)
    if question.answer_type != "arithmetic" or not found:
        return ""
    if _ASKS_FOR_DECREASE.search(question.question):
        return ""
    first, second = found["a"], found["b"]
    years_of_first, years_of_second = years_of(context, first), years_of(context, second)
    if len(years_of_first) != 1 or len(years_of_second) != 1:
        return ""
    (year_of_first,) = years_of_first
    (year_of_second,) = years_of_second
    if year_of_first >= year_of_second:
        return ""
    return f"{first} is of {year_of_first}, {second} of {year_of_second}"


def old_minus_new(context: Context, question: Question) -> str:
    """A percentage change worked out from the wrong end: (old - new) / old."""
    plain = question.derivation.replace("$", "").replace(" ", "")
    found = _CHANGE.match(plain)
    if not found or found["old"] == found["new"] or "change" not in question.question.lower():
        return ""
    return (
        f"{question.derivation.strip()}: positive for a fall from {found['old']} to {found['new']}"
    )


def twin(context: Context, question: Question) -> str:
    """The same question about the same context with another gold answer."""
    asked = _folded(question.question)
    for other in context.questions:
        same = other.uid != question.uid and _folded(other.question) == asked
        if same and (other.answer, other.scale) != (question.answer, question.scale):
            return f"asked twice, with {question.answer} and {other.answer}"
    return ""


def unit_not_stated(context: Context, question: Question) -> str:
    """A scale that neither table nor text mentions."""
    marker = _MARKERS.get(question.scale)
    if marker is None:
        return ""
    report = "\n".join(_texts(context))
    if marker.search(report):
        return ""
    evidence = f"neither table nor text says {question.scale}"
    for other in _MARKERS:
        if f"in {other}s" in report:
            return f"{evidence}, it says in {other}s"
    return evidence


def unit_left_out(context: Context, question: Question) -> str:
    """A number of a table without the scale that the report gives for that table."""
    if question.scale or not _is_amount(question):
        return ""
    units = _units(context)
    numbers = _numbers(question)
    labels = []
    for number in numbers:
        labels += _labels(context, number)
    if len(units) != 1 or not labels:
        return ""
    if any(map(_OTHER_UNIT.search, [question.question, *labels])):
        return ""
    named = "`, `".join(numbers)
    return f"no scale for `{named}` of a table in {units.pop()}s"


def two_units(context: Context, question: Question) -> str:
    """A number of a table with another scale than it has in another gold answer."""
    if question.scale not in _MARKERS or not _is_amount(question):
        return ""
    own = {number for number in _numbers(question) if _labels(context, number)}
    for other in context.questions:
        comparable = other.scale in _MARKERS and other.scale != question.scale
        if comparable and _is_amount(other):
            shared = sorted(own.intersection(_numbers(other)))
            if shared:
                return f"`{shared[0]}` is {question.scale} here and {other.scale} in {other.uid}"
    return ""


RULES: dict[str, Callable[[Context, Question], str]] = {
    "scale_twice": scale_twice,
    "typographic_minus": typographic_minus,
    "words_with_scale": words_with_scale,
    "ratio_without_hundred": ratio_without_hundred,
    "earlier_minus_later": earlier_minus_later,
    "old_minus_new": old_minus_new,
    "twin": twin,
    "unit_not_stated": unit_not_stated,
    "unit_left_out": unit_left_out,
    "two_units": two_units,
}


def _is_amount(question: Question) -> bool:
    """Whether the answer is numbers, or a sum or mean of them, so that it has their unit."""
    if isinstance(question.answer, list):
        return all(_AMOUNT.fullmatch(item) for item in question.answer)
    divided = _SMALL_DIVISOR.sub("", question.derivation)
    return question.answer_type == "arithmetic" and not re.search(r"[/*%]", divided)


def _numbers(question: Question) -> list[str]:
    """The numbers that the answer is, or is made of; years are none."""
    if isinstance(question.answer, list):
        text = " ".join(question.answer)
    else:
        text = _SMALL_DIVISOR.sub("", question.derivation)
    return [number for number in _NUMBER.findall(text) if not _YEAR.fullmatch(number)]


def _labels(context: Context, number: str) -> list[str]:
    """The names of the rows in which a number stands."""
    labels = []
    for row in context.table:
        if any(number in _NUMBER.findall(cell) for cell in row[1:]):
            labels.append(row[0])
    return labels


def _units(context: Context) -> set[str]:
    """The scales that a report says it counts in: `in thousands`."""
    units: set[str] = set()
    for text in _texts(context):
        units.update(map(str.lower, _UNIT.findall(text)))
    return units


def _texts(context: Context) -> list[str]:
    """All cells and paragraphs of a report."""
    return [*chain.from_iterable(context.table), *context.paragraphs]


def _scores(question: Question, value: float) -> bool:
    """Whether a value is right by the metric."""
    answer = [calculator.rounded(value)]
    return metric.score(question, answer, question.scale).em == 1


def _folded(text: str) -> str:
    """The text in lower case, one space between words."""
    return " ".join(text.lower().split())


def years_of(context: Context, number: str) -> set[str]:
    """The years of the columns in which a number stands: the lowest year above it in each."""
    found = set()
    for at, row in enumerate(context.table):
        for column, cell in enumerate(row):
            if column and number in _NUMBER.findall(cell):
                years = _years_above(context.table[:at], column)
                if years:
                    found.add(years[-1])
    return found


def _years_above(rows: list[list[str]], column: int) -> list[str]:
    """The years that a column has in these rows, from the top."""
    years: list[str] = []
    for row in rows:
        if column < len(row):
            years += _YEAR.findall(row[column])
    return years
