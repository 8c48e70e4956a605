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
from tatqa_task.typography import plain

LONGEST = 2_000  # characters of one statement

_IS = r"(?:\s+(?:is|was|are|were|would\s+be|should\s+be)\b)?[\s*_:=：]*"
_WAYS = [
    re.compile(rf"\bfinal\s+answer\b[*_]*{_IS}(?=\S)", re.IGNORECASE),
    re.compile(r"<answer>\s*", re.IGNORECASE),
    re.compile(r"\\boxed\s*\{\s*"),
    re.compile(r"(?:^|\n)\s*\**(?:A|Ans)\**\s*[:：]\s*(?=\S)"),
    re.compile(
        r"\banswer\b[ \t*_]*(?:is\b|was\b|are\b|would\s+be\b|:|=|：)[\s*_:]*(?=\S)", re.IGNORECASE
    ),
]
_SCALE = re.compile(
    r"""\b(?:scale|unit)\b["'*_> ]{0,4}(?:is\b|:|=|：|>)[ "'*_]{0,4}([^\n<>,;)]{0,40})""",
    re.IGNORECASE,
)
_BEFORE_SCALE = " \t\n,;(<*_\"'-"
_CLOSING = re.compile(r"</answer>|<", re.IGNORECASE)
_BULLET = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s+(.+)$")
_MARKUP = re.compile(r"\*\*|__|`+|\\(?:text|mathrm|boxed|mathbf)\s*\{|\\[()\[\]]")
_MATHS = re.compile(r"\$([^$\n]*)\$(?!\d)")  # not the currency of `$5 and $6`
_NUMBER_AT_END = re.compile(
    r"""\b(?:is|was|are|were|be|of|by|to|at|equals|totall?ed|totals|=|:)[ ]{1,3}
        ((?:about\s+|approximately\s+|around\s+)?[^\sa-z]{0,8}\d[\d.,]{0,30}[)%]{0,2}
         (?:\s*(?:thousand|million|billion|percent|%)s?)?(?:\s+(?:dollars|USD))?)
        \s*[.!]?\s*$""",
    re.IGNORECASE | re.VERBOSE,
)
_ABOUT = re.compile(r"^(?:about|approximately|approx\.?|around|roughly)\s+", re.IGNORECASE)
_MONEY = re.compile(r"(?<=\d)\s+(?:U\.?S\.?\s+)?(?:dollars?|euros?|pounds?)$", re.IGNORECASE)
_NUMBER = re.compile(r"\d[\d.,]*")
_YEAR = re.compile(r"(?:19|20)\d\d[.,]?")


class Said(NamedTuple):
    """Items and scale of an answer in words."""

    items: list[str]
    scale: str


def stated(text: str, last: bool) -> Said | None:
    """What a text without an answer object states; None if it is empty."""
    return introduced(text, last) or _only_number(text) or _said(text.strip()[:LONGEST])


def introduced(text: str, last: bool) -> Said | None:
    """What a text introduces as its answer."""
    for way in _WAYS:
        starts = [found.end() for found in way.finditer(text)]
        if starts:
            said = _said(text[starts[-1 if last else 0] :][:LONGEST])
            if said is not None:
                return said
    return None


def _said(text: str) -> Said | None:
    """An answer that begins here: a line, or the items of a list, with the scale behind it."""
    scale = _SCALE.search(text)
    body = text[: scale.start()].rstrip(_BEFORE_SCALE) if scale and scale.start() else text
    beside = scale_of(scale.group(1).strip()) if scale else None
    items = _list_items(body)
    if items:
        return Said(items, beside or "")
    line = _CLOSING.split(body, maxsplit=1)[0].strip().partition("\n")[0]
    line = without_markup(line)
    found = amount(_MONEY.sub("", _ABOUT.sub("", line)))
    if found is not None:
        number, inside = found
        return Said([number], beside or inside)
    return Said([line], beside or "") if line else None


def _list_items(body: str) -> list[str]:
    """The items of a list, in brackets or with bullets, that the text begins with; [] if it does
    not.
    """
    if body.startswith("["):
        return [item for item in objects.listed(body) if item]
    lines = [line for line in body.splitlines() if line.strip()]
    items = []
    for line in lines:
        found = _BULLET.match(line)
        if found is None:
            break
        items.append(without_markup(found.group(1)))
    return items if len(items) > 1 else []


def without_markup(line: str) -> str:
    """A line without bold, code, boxes and the marks of maths."""
    line = _MATHS.sub(r"\1", _MARKUP.sub("", line))
    if "{" not in line:
        line = line.replace("}", "")
    line = line.strip(" \t*`\"'").rstrip(".")
    return line[1:-1] if line[:1] == "“" and line[-1:] == "”" else line


def _only_number(text: str) -> Said | None:
    """`The change was -12.6 million.`: the number at the end of a sentence, if no other is in the
    text.
    """
    text = plain(text.strip())
    if len(text) > LONGEST:
        return None
    every = _NUMBER.findall(text)
    numbers = [number for number in every if not _YEAR.fullmatch(number)] or every
    found = _NUMBER_AT_END.search(text)
    if found is None or len(numbers) != 1:
        return None
    read = amount(without_markup(found.group(1)))
    return Said([read[0]], read[1]) if read else None
