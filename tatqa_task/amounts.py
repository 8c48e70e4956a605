"""Numbers and scales as replies write them, brought to what the official metric reads.

Pure text; the gold answer is not known here.
"""

import html
import re

from tatqa_task import metric
from tatqa_task.types import SCALES, Scale
from tatqa_task.typography import plain

_CODE = (
    r"(?:(?:US|HK|NT|AU|CA|NZ|[ACSR])(?=\\?\$)|\b(?:USD|EUR|GBP|JPY|CNY|RMB|INR|AUD|CAD|CHF|HKD|SGD|"
    r"NTD|NZD)(?![a-z])|[₹₩])"
)
_CODES = re.compile(_CODE, re.IGNORECASE)
_SPACED_CODE = re.compile(rf"(?:{_CODE}\s+|\s+{_CODE})", re.IGNORECASE)
_ABOUT_WORD = (
    r"(?:(?:about|approximately|approx\.?|around|roughly|nearly|almost|circa|ca\.?)\s|ca?\.\s?)"
)
_ABOUT_IN_WORDS = re.compile(rf"\s*{_ABOUT_WORD}", re.IGNORECASE)
_ABOUT = re.compile(rf"^(?:[~≈]|{_ABOUT_WORD})\s*", re.IGNORECASE)
_SPACED_SIGN = re.compile(r"^(?:([-+])|(?:minus|negative))\s+(?=[$€£¥\d(.])", re.IGNORECASE)
_SIGN_BEHIND = re.compile(r"[$€£¥]?\d[\d,]*(?:\.\d+)?-")  # `12.6-`, as ledgers write it
_MONEY = re.compile(r"(?<=\d)\s+(?:U\.?S\.?\s+)?(?:dollars?|euros?|pounds?|yen)$", re.IGNORECASE)
_MARKED = re.compile(r"(?:\\(?:boxed|text|mathbf)\{|[*_`]+)(.*?)(?:\}|[*_`]+)")
_GROUPS = re.compile(r"([-+($€£¥]*\d{1,3})((?:[ '’]\d{3})+)(\D.*)?")
_ABBREVIATED: dict[str, Scale] = {"k": "thousand", "pct": "percent"}
_ABBREVIATED |= dict.fromkeys(("m", "mm", "mn", "mln", "mil", "mio"), "million")
_ABBREVIATED |= dict.fromkeys(("b", "bn", "bln"), "billion")
_SCALE_WORD = (
    r"thousand|million|billion|percentage\s+points?|percent(?:age)?|per\s+cent|\\?%|"
    rf"(?:{'|'.join(_ABBREVIATED)})\b"
)
_SCALED = re.compile(
    rf"""
    (?P<number> [^a-z]*? \d [\d.,]* [)\]]? | (?:[^a-z]|{_CODE})* \d [\d.,]* [)\]]? )
    [\s/|,;-]* [(\[]?\s* (?:in\s+)? (?:(?:US\s*)?\$\s* | {_CODE}\s+)?
    (?P<word>{_SCALE_WORD})s? \s*[)\]]?
    (?:\s+(?:of\s+)?(?:U\.?S\.?\s+)?(?:dollars?|euros?|pounds?|yen|{_CODE}))?
    [\s.]*
    """,
    re.IGNORECASE | re.VERBOSE,
)
_SCALE_FIRST = re.compile(
    rf"(?:{_CODE}|\$)?\s*(?P<word>thousand|million|billion)s?\s*:?\s*(?P<number>[^a-z]+)",
    re.IGNORECASE,
)
_FOOTNOTE = "*†‡§"  # signs behind a number that lead to a note
LONGEST = 100  # characters of an amount


def scale_of(wording: str) -> Scale | None:
    """The scale that a wording names, None if it names none: `in millions`, `US$ million`, `%`.

    As the official script reads a scale: the first of hundred, thousand, million, billion and
    percent that stands anywhere in it. `hundred` is no scale of TAT-QA: see `hundredfold`.
    """
    if wording in SCALES:
        return wording
    factor = metric.scale_factor(wording)
    for scale in SCALES:
        if scale and metric.scale_factor(scale) == factor:
            return scale
    return "percent" if "%" in plain(wording) or "per cent" in wording.lower() else None


def is_hundred(wording: str) -> bool:
    """Whether the official script reads the wording as the scale `hundred`."""
    return metric.scale_factor(wording) == 100


def hundredfold(item: str) -> str:
    """A number times a hundred, since the official script reads the scale `hundred` so."""
    value = metric.to_number(item)
    return item if value is None or "%" in item else f"{round(value, 2) * 100:.4f}"


def amount(text: str) -> tuple[str, Scale] | None:
    """A text that is one number, and the scale in it: `$1,496.5 million`, `12.6%`, `$1.5bn`."""
    if len(text) > LONGEST:
        return None
    text = _without_marks(plain(html.unescape(text)))
    found = _SCALED.fullmatch(text) or _SCALE_FIRST.fullmatch(text)
    written = found["number"].strip() if found else text
    if written.startswith("(") and ")" not in written and text.endswith(")"):
        written = written[1:]  # `(12.6 million)` is no negative number, as the metric reads it
    number = number_in(written)
    if number is None:
        return None
    return number, scale_in(found["word"]) if found else ""


def scale_in(word: str) -> Scale:
    """The scale of a word or an abbreviation beside a number."""
    return _ABBREVIATED.get(word.lower()) or scale_of(word) or ""


def _without_marks(text: str) -> str:
    """A text without bold, code or a box around it, without `about`, `-` in place of `minus`."""
    text = text.strip()
    marked = _MARKED.fullmatch(text)
    text = marked.group(1) if marked else text
    return _SPACED_SIGN.sub(lambda sign: sign.group(1) or "-", _ABOUT.sub("", text))


def number_in(text: str) -> str | None:
    """The number that a text is, as the metric can read it; None if it is none."""
    if len(text) > LONGEST:
        return None
    text = _MONEY.sub("", _without_marks(plain(html.unescape(text))))
    bare = _without_marks(_CODES.sub("", text).replace("{,}", ",").replace("\\", ""))
    bare = _joined(bare.rstrip("., " + _FOOTNOTE))
    if _SIGN_BEHIND.fullmatch(bare):
        bare = f"-{bare[:-1]}"
    has_words = any(map(str.isalpha, bare))
    return None if has_words or metric.to_number(bare) is None else bare


def _joined(number: str) -> str:
    """A number with commas in place of the spaces or apostrophes between its thousands."""
    found = _GROUPS.fullmatch(number)
    if found is None:
        return number
    return found.group(1) + re.sub(r"[ '’]", ",", found.group(2)) + (found.group(3) or "")


def settled(item: str, scale: Scale) -> str:
    """An item with its number readable, and without the scale that stands beside it too.

    `~12.6` and `3.14.` become numbers, `$1,496.5 million` with scale million `$1,496.5`. An item
    that the metric reads as it is stays, and so does one without scale that begins with a currency
    code or with `about`, which is how a few gold spans are written (`US$261,518`).
    """
    found = amount(item)
    if found is None:
        return item
    number, inside = found
    if inside == scale != "" and "%" not in number:
        return item if _is_percent_sign(item) else number
    if metric.to_number(item) is not None:
        return item
    if inside:
        readable = plain(item)
        return item if metric.to_number(readable) is None else readable
    return item if not scale and _is_as_golds_are(item) else number


def _is_as_golds_are(item: str) -> bool:
    """Whether a number is written as gold spans are: `about 100`, `US$261,518`."""
    joined_code = _CODES.search(_SPACED_CODE.sub("", item.strip()))
    return bool(joined_code or _ABOUT_IN_WORDS.match(item))


def _is_percent_sign(item: str) -> bool:
    """`12.6%`: the metric takes the sign for the scale, and does not scale again."""
    return "%" in item and metric.to_number(item) is not None
