"""The reply: one line of JSON, `{"answer": ["..."], "scale": ""}`, rendered from gold answers and parsed from replies.

`parse` reads the reply alone, in time linear in its length, and never raises:

1. A think block before the answer is dropped; a reply that never leaves its think block says nothing.
2. The text is cut where the model invents a next question; the first part with an answer object in it counts.
3. In it, the last complete JSON object with an "answer" counts; failing that, the last one that is cut off or has slips
   (single quotes, trailing comma, no list); failing that, plain text such as "Answer: 12.5 million".

`Reply.parsed` is true only where nothing had to be mended: valid JSON, a list of texts, one of the five scales.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

from tatqa_task.data import SCALES


@dataclass(frozen=True)
class Reply:
    """What a reply says; `parsed`: whether it followed the format."""

    answer: list[str]
    scale: str
    parsed: bool


NOTHING = Reply([], "", False)


class _Number(str):
    """A number in a reply, kept as it was written."""


_JSON = json.JSONDecoder(parse_float=_Number, parse_int=_Number, parse_constant=_Number)
_NEXT_TURN = re.compile(r"\n[ \t]*(?=Question:|Read the table and the text)|<\|(?:im_start|im_end|endoftext)\|>")
_ANSWER_KEY = re.compile(r"""["']?\banswer["']?\s*:""", re.IGNORECASE)
_SCALE_KEY = re.compile(r"""["']?\bscale["']?\s*:\s*["']?([a-z%]*)""", re.IGNORECASE)
_BETWEEN_ITEMS = re.compile(r"""["']\s*,\s*["']""")
_LEAD = re.compile(r"\banswer\b[ \t*]*(?:is\b|:|=)[\s*:]*([^\n]+)", re.IGNORECASE)
_AMOUNT = re.compile(r"(.*\d\)?)\s*(thousand|million|billion|percent|%)s?", re.IGNORECASE)
_BARE_AMOUNT = re.compile(r"([-+(]?[\d.,]+\)?)\s*(thousand|million|billion)s?", re.IGNORECASE)
_OBJECT = re.compile(r'\{(?=\s*")')
_LONGEST_OBJECT, _MOST_OBJECTS = 20_000, 500  # characters of one, and how many are tried, from the last
_LONGEST_PLAIN = 2_000  # characters of plain text that are read as an answer


def render(answer: list[str] | int | float | str, scale: str) -> str:
    """The one JSON line that is asked for, from a gold answer and its scale."""
    items = answer if isinstance(answer, list) else [answer]
    return json.dumps({"answer": [str(item) for item in items], "scale": scale}, ensure_ascii=False)


def parse(reply: str) -> Reply:
    """The answer and scale of a reply; an empty answer if it says nothing. Never raises; linear time."""
    parts = _NEXT_TURN.split(_after_thinking(reply))
    for part in parts:
        found = _valid(part) or _mended(part)
        if found:
            return found
    return next((_plain(part) for part in parts if part.strip()), NOTHING)


def _after_thinking(reply: str) -> str:
    _, closed, after = reply.rpartition("</think>")
    return "" if not closed and "<think>" in reply else after


def _valid(text: str) -> Reply | None:
    """The reply of the last complete JSON object with an answer."""
    starts = [match.start() for match in _OBJECT.finditer(text)]
    for start in reversed(starts[-_MOST_OBJECTS:]):
        try:
            found, _ = _JSON.raw_decode(text[start : start + _LONGEST_OBJECT])
        except (ValueError, RecursionError):
            continue
        reply = _of_object(found)
        if reply:
            return reply
    return None


def _of_object(found: dict[str, Any]) -> Reply | None:
    items, scale = found.get("answer", {}), found.get("scale")
    listed = items if isinstance(items, list) else [] if items is None else [items]
    if not all(isinstance(item, str) for item in listed):
        return None
    as_asked = isinstance(items, list) and not any(isinstance(item, _Number) for item in items) and scale in SCALES
    return _reply([str(item) for item in listed], scale, as_asked)


def _mended(text: str) -> Reply | None:
    """The reply of the last thing that looks like an answer object but is no valid JSON, read by its keys."""
    last_first = reversed(text.split("{")[1:])
    for piece in sorted(last_first, key=lambda piece: "}" not in piece):  # those that are cut off come last
        key = _ANSWER_KEY.search(piece)
        if key is None:
            continue
        scale = _SCALE_KEY.search(piece)
        value = piece[key.end() : scale.start() if scale and scale.start() > key.end() else len(piece)]
        inner = value.partition("}")[0].strip(" \t\r\n,[]").replace('\\"', '"')
        items = [item.strip() for item in _BETWEEN_ITEMS.split(inner.strip("\"'"))]
        if any(items):
            return _reply([item for item in items if item], scale.group(1) if scale else "", False)
    return None


def _plain(text: str) -> Reply:
    """The reply in plain text: what follows the last "answer:" or "answer is", else the first line."""
    leads = _LEAD.findall(text)
    line = (leads[-1] if leads else text.strip().partition("\n")[0])[:_LONGEST_PLAIN]
    line = line.lstrip(" \t*`\"'").rstrip(" \t*`\"'.")
    amount = _AMOUNT.fullmatch(line)
    if amount:
        return _reply([amount.group(1)], amount.group(2), False)
    return _reply([line], "", False) if line else NOTHING


def _reply(items: list[str], scale: Any, as_asked: bool) -> Reply:
    """The reply with its scale as one of the five words, and without that word again after a bare number.

    "12.5 million" with scale million would be scaled twice. "$12.5 million" stays: gold spans are written so.
    """
    word = _scale_word(scale)
    once = [_without_scale(item, word) for item in items]
    return Reply(once, word, as_asked and once == items)


def _scale_word(scale: Any) -> str:
    word = str(scale or "").strip().lower().rstrip("s").replace("%", "percent")
    return word if word in SCALES else ""


def _without_scale(item: str, scale: str) -> str:
    amount = _BARE_AMOUNT.fullmatch(item) if scale else None
    return amount.group(1) if amount and amount.group(2).lower() == scale else item
