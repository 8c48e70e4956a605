"""Answers that a reply gives in words, without an object: `Answer: 1,496.5 million`.

`stated` finds what is stated, by the first of these ways that finds anything: a final answer, an
answer in tags or in a box, an answer behind "answer:" or "answer is", one number at the end of a
sentence, the first line. Of several by the same way the first counts, or the last where reasoning
came before.
"""

import re
from typing import NamedTuple

from tatqa_task import objects
from tatqa_task.amounts import amount, scale_of
from tatqa_task.types import SCALES, Scale
from tatqa_task.typography import plain

LONGEST = 2_000  # characters of one statement
NEAR = 200  # characters before a statement in which its scale is looked for

_IS = r"(?:\s+(?:is|was|are|were|would\s+be|should\s+be)\b)?[\s*_:=：]*"
_WAYS = [
    re.compile(rf"\bfinal\s+answer\b[*_]*{_IS}(?=\S)", re.IGNORECASE),
    re.compile(r"[<\[]\|?(?:final[_ ]?)?ans(?:wer)?\|?[>\]]\s*", re.IGNORECASE),
    re.compile(r"\\(?:f|frame)?box(?:ed)?\s*\{\s*"),
    re.compile(
        r"(?:^\s*+|(?<!\s)[^\S\n]*+(?P<line>\n)\s*+)\**(?:A\**\s*[:：]|Ans\**\s*[.:：])\s*(?=\S)"
    ),
    re.compile(r"(?:^|\n)[ \t*_#]*answer[ \t*_]+[-–—][ \t*_]+(?=\S)", re.IGNORECASE),
    re.compile(
        r"""\banswers?\b[ \t*_]*(?:is\b|was\b|are\b|would\s+be\b|:|=|：)
        [ \t*_:]*(?:\n[\s_:]*(?:\*\*)?)?(?=\S)""",
        re.IGNORECASE | re.VERBOSE,
    ),
    re.compile(r"(?:^|\n)[ \t#*_]*(?:the\s)?answers?[ \t:*_]*\n\s*(?=\S)", re.IGNORECASE),
    re.compile(r"(?:^|\n)[ \t]*\#{4}[ \t]+(?=[-+(]?[$€£¥]?\d)"),  # `#### 5`, as in GSM8K
]
_SCALE = re.compile(
    r"""\b(?:scale|unit)\b["'*_> ]{0,4}(?:(?:is|of)\b|[:=：]|>\s{0,3}|\n{1,3}(?=[a-z]+\s*$))
        [ "'*_]{0,4}([^\n<>,;)]{0,40})""",
    re.IGNORECASE | re.VERBOSE,
)
_BEFORE_SCALE = " \t\n,;|(<*_\"'-"
_LEADING_TO_SCALE = ("the", "a", "its", "and", "with")
_TAGS = re.compile(r"\s*(?:<[^<>\n]{1,30}>\s*)+")
_IN_TAG = re.compile(r"\s{0,20}<(answer|ans|span)>([^<>]{0,200})</\1>", re.IGNORECASE)
_CLOSING = re.compile(r"<|\[/")
_ARROW = re.compile(r"\s*(?:[=-]*>|[→⇒=∴])\s*")
_FENCE = re.compile(r"\s*```\w{0,10}[ \t]*\n")
_LEAD = re.compile(r"(?:therefore|thus|hence|so)\b[,:]?\s+(?=[-+(]?[$€£¥]?\d)", re.IGNORECASE)
_EXPLAINED = re.compile(
    r"""[,;.]\s+(?![-+$€£¥(]?\d|(?:and|or)\b) | \s\((?!in\b)
      | \s(?:because|since|as|which|based|according|calculated|representing)\b""",
    re.IGNORECASE | re.VERBOSE,
)
_RULE = re.compile(r"[|\s:-]+")
_BULLET = re.compile(r"^\s*(?:[-*•–—◦▪‣·]|\d+[.)])\s+(.+)$")
_MARKUP = re.compile(r"\*\*|__|`+|\\(?:text|mathrm|boxed|mathbf)\s*\{|\\[()\[\]]")
_MATHS = re.compile(r"\$([^$\n]*)\$(?!\d)")  # not the currency of `$5 and $6`
_NUMBER_AT_END = re.compile(
    r"""\b(?:is|was|are|were|be|of|by|to|at|equals|totall?ed|totals|=|:)[ ]{1,3}
        ((?:about\s+|approximately\s+|around\s+)?[^\sa-z]{0,8}\d[\d.,]{0,30}[)%]{0,2}
         (?:\s*(?:thousand|million|billion|percent|%)s?)?(?:\s+(?:dollars|USD))?)
        (?:\s+(?:in|for|during|at|as\s+of|on)\s[^.,;\d]{0,30}(?:(?:19|20)\d\d)?)?
        (?:,\s[^.;\d]{0,60}(?:(?:19|20)\d\d)?)?
        \s*[.!]?\s*$""",
    re.IGNORECASE | re.VERBOSE,
)
_NUMBER = re.compile(r"\d[\d.,]*")
_YEAR = re.compile(r"(?:19|20)\d\d[.,]?")


class Said(NamedTuple):
    """Items and scale of an answer in words."""

    items: list[str]
    scale: Scale


def stated(text: str, last: bool) -> Said | None:
    """What a text without an answer object states; None if it is empty."""
    found = introduced(text, last) or _tabled(text[:LONGEST]) or _only_number(text)
    return found or _said(text.strip()[:LONGEST])


def introduced(text: str, last: bool) -> Said | None:
    """What a text introduces as its answer."""
    for way in _WAYS:
        found = list(way.finditer(text))
        if found:
            said = _behind(text, found[-1 if last else 0])
            if said is not None:
                return said._replace(items=_tagged(text, found) or said.items)
    return None


def _tagged(text: str, found: list[re.Match[str]]) -> list[str]:
    """The texts in tags side by side, `<answer>a</answer><answer>b</answer>`; else []."""
    first = _IN_TAG.match(text, found[0].start())
    items: list[str] = []
    while first is not None:
        items.append(without_markup(first.group(2)))
        first = _IN_TAG.match(text, first.end())
    return items if len(items) > 1 else []


def _tabled(text: str) -> Said | None:
    """An answer in a table whose first row, or first column, names answer and scale."""
    pairs = _names_and_values(_rows(text))
    answers = [value for key, value in pairs if objects.is_answer_key(key)]
    scales = [value for key, value in pairs if objects.is_scale_key(key)]
    said = _said(answers[0]) if answers else None
    if said is None or not scales:
        return said
    return said._replace(scale=scale_of(scales[0]) or said.scale)


def _rows(text: str) -> list[list[str]]:
    """The cells of the lines that have several, parted by `|` or tabulators."""
    rows = []
    for line in text.splitlines():
        cells = [without_markup(cell) for cell in re.split(r"[|\t]", line.strip("| \t"))]
        if len(cells) > 1 and not _RULE.fullmatch(line):
            rows.append(cells)
    return rows


def _names_and_values(rows: list[list[str]]) -> list[tuple[str, str]]:
    """What a table names in its first column, or else in its first row, with what it says there."""
    if not rows:
        return []
    first = rows[0]
    if objects.is_answer_key(first[0]) and not objects.is_scale_key(first[1]):
        return [(row[0], row[1]) for row in rows]
    if len(rows) < 2:
        return []
    return list(zip(first, rows[1], strict=False))


def _behind(text: str, introduction: re.Match[str]) -> Said | None:
    """What stands behind an introduction, with a scale that stands before it: `Scale: million`."""
    body = text[introduction.end() :][:LONGEST]
    if "\n" in introduction.group():
        body = _one_bullet(body)
    said = _said(body)
    if said is None or said.scale:
        return said
    start = introduction.start()
    if "line" in introduction.re.groupindex:
        start = max(start, introduction.start("line"))
    before = _SCALE.search(text[max(0, start - NEAR) : start])
    scale = scale_of(before.group(1).strip()) if before else None
    return said._replace(scale=scale or "")


def _one_bullet(body: str) -> str:
    """A text without the bullet of its first line, where it has no second."""
    first, _, rest = body.partition("\n")
    found = _BULLET.match(first)
    if found is None or _BULLET.match(rest.partition("\n")[0]):
        return body
    return f"{found.group(1)}\n{rest}"


def _said(text: str) -> Said | None:
    """An answer that begins here: a line, or the items of a list, with the scale behind it."""
    for mark in (_TAGS, _FENCE, _ARROW, _LEAD):
        text = _without(mark, text)
    body, beside = _scale_apart(text)
    items = _list_items(body)
    if items:
        return _said_list(items, beside)
    unclosed = _CLOSING.split(body, maxsplit=1)[0]
    first, _, rest = unclosed.strip().partition("\n")
    line = without_markup(first)
    found = amount(line) or amount(_EXPLAINED.split(line, maxsplit=1)[0])
    if found:
        number, inside = found
        return Said([number], beside or inside or _scale_line(rest))
    return Said([line], beside or "") if line else None


def _scale_apart(text: str) -> tuple[str, Scale | None]:
    """A text up to the scale that is said behind it, and that scale; None if none is said."""
    scale = _SCALE.search(text)
    if scale is None:
        return text, None
    body = _before_scale(text[: scale.start()]) if scale.start() else text
    return body, scale_of(scale.group(1).strip())


def _said_list(items: list[str], beside: Scale | None) -> Said:
    """Items with their scale, which may be the last of them.

    `[["5"], "million"]` is how the official script takes an answer.
    """
    if len(items) > 1 and items[-1] in SCALES and not beside:
        return Said(items[:-1], items[-1])
    return Said(items, beside or "")


def _before_scale(text: str) -> str:
    """A text without what leads to a scale behind it: `5, and the` scale is ..."""
    text = text.rstrip(_BEFORE_SCALE)
    for word in _LEADING_TO_SCALE:
        if text.lower().endswith(f" {word}"):
            text = text[: -len(word)].rstrip(_BEFORE_SCALE)
    return text


def _without(pattern: re.Pattern[str], text: str) -> str:
    """A text without the pattern that it begins with."""
    found = pattern.match(text)
    return text[found.end() :] if found else text


def _scale_line(rest: str) -> Scale:
    """The scale that a line of its own states behind a number."""
    first = rest.lstrip().partition("\n")[0]
    line = without_markup(first).strip("() ").lower()
    if len(line.split()) > 2:
        return ""
    return scale_of(line) or ""


def _list_items(body: str) -> list[str]:
    """The items of the list, in brackets or with bullets, that a text begins with; else []."""
    if body.startswith("["):
        return list(filter(None, objects.listed(body)))
    items = []
    for line in body.splitlines():
        if not line.strip():
            continue
        found = _BULLET.match(line)
        if found is None:
            break
        items.append(without_markup(found.group(1)))
    return items if len(items) > 1 else []


def without_markup(line: str) -> str:
    """A line without bold, code, boxes and the marks of maths."""
    line = _MATHS.sub(r"\1", _MARKUP.sub("", line.replace("{,}", ",")))
    if "{" not in line:
        line = line.replace("}", "")
    line = line.rstrip(" \t.").strip(" \t*`\"'").rstrip(".")
    if line.startswith("“") and line.endswith("”"):
        return line[1:-1]
    return line


def _only_number(text: str) -> Said | None:
    """The number at the end of a sentence, if the text has no other.

    `The change was -12.6 million.`
    """
    text = plain(text.strip())
    if len(text) > LONGEST:
        return None
    every = _NUMBER.findall(text)
    no_years = [number for number in every if not _YEAR.fullmatch(number)]
    numbers = no_years or every
    found = _NUMBER_AT_END.search(text)
    if found is None or len(numbers) != 1:
        return None
    read = amount(without_markup(text)) or amount(without_markup(found.group(1)))
    if read is None:
        return None
    number, scale = read
    return Said([number], scale)
