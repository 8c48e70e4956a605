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
from itertools import chain
from typing import Any, NamedTuple

from tatqa_task import calculator
from tatqa_task.types import SCALES, Form, Question
from tatqa_task.typography import plain


class Reply(NamedTuple):
    """What a reply says, and how it was said.

    `parsed`: what counts followed the format, nothing was mended. `strict`: the reply holds nothing else
    (but reasoning, where it was asked for). `calc_used`: the answer is an expression that was worked out.
    """

    answer: list[str]
    scale: str
    parsed: bool
    strict: bool = False
    calc_used: bool = False


NOTHING = Reply([], "", False)


class _Number(str):
    """A number in a reply, kept as it was written."""


_JSON = json.JSONDecoder(parse_float=_Number, parse_int=_Number, parse_constant=_Number)
_NEXT_TURN = re.compile(
    r"\n[ \t]*(?=Question:|Read the table and the text)|<\|(?:im_start|im_end|endoftext)\|>"
)
_ANSWER_KEY = re.compile(r"""["']?\banswer["']?\s*:""", re.IGNORECASE)
_SCALE_KEY = re.compile(r"""["']?\bscale["']?\s*:\s*["']?([a-z%]*)""", re.IGNORECASE)
_BETWEEN_ITEMS = re.compile(r"""["']\s*,\s*["']""")
_LEAD = re.compile(r"\banswer\b[ \t*]*(?:is\b|:|=)[\s*:]*([^\n]+)", re.IGNORECASE)
_AMOUNT = re.compile(r"(.*\d\)?)\s*(thousand|million|billion|percent|%)s?", re.IGNORECASE)
_BARE_AMOUNT = re.compile(r"([-+(]?[\d.,]+\)?)\s*(thousand|million|billion)s?", re.IGNORECASE)
_OBJECT = re.compile(r'\{(?=\s*")')
_LONGEST_OBJECT, _MOST_OBJECTS = (
    20_000,
    500,
)  # characters of one, and how many are tried, from the last
_LONGEST_PLAIN = 2_000  # characters of plain text that are read as an answer


def render(answer: list[str] | int | float | str, scale: str) -> str:
    """The one JSON line that is asked for, from a gold answer and its scale."""
    items = answer if isinstance(answer, list) else [str(answer)]
    return json.dumps({"answer": items, "scale": scale}, ensure_ascii=False)


def gold_reply(question: Question, form: Form = "direct") -> str:
    """The reply that scores full marks, in the form that is asked for.

    `calc`: an expression made of the derivation where its value scores EM 1, else as `direct`;
    `cot`: the derivation, where there is one, before the line.
    """
    if form == "calc":
        written = calculator.expression(question)
        if written is not None:
            return render([written], question.scale)
    line = render(question.answer, question.scale)
    if form == "cot" and question.derivation:
        return f"{question.derivation}\n{line}"
    return line


def parse(reply: str, form: Form = "direct") -> Reply:
    """The answer and scale of a reply; an empty answer if it says nothing. Never raises; linear time."""
    found = _read(reply)
    if found.parsed:
        found = found._replace(strict=_is_nothing_else(reply, form))
    return _worked_out(found) if form == "calc" else found


def _is_nothing_else(reply: str, form: Form) -> bool:
    """Whether the reply is one JSON object, after reasoning where that was asked for."""
    line = reply.rpartition("</think>")[2].strip()
    if form == "cot":
        line = line.rpartition("\n")[2].strip()
    try:
        return len(line) <= _LONGEST_OBJECT and isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


_PERIOD = re.compile(r"""
    (?:19|20)\d\d \s*[-/]\s* (?:(?:19|20)?\d\d)  # 2018/2019, 2018-19
  | \d\d?/\d\d?/\d\d(?:\d\d)?                    # 12/31/2019
  | [\d.]+\s*% \s*-\s* [\d.]+\s*%                 # 1.74% - 1.94%
""", re.VERBOSE)  # fmt: skip
_OPERATION = re.compile(r"[\d)\]}%]\s*(?:[-+*/x]|\\times|\\div|\\cdot)")


def _worked_out(reply: Reply) -> Reply:
    """The reply with the value of its expression, if its one item is one."""
    if len(reply.answer) != 1:
        return reply
    text = plain(reply.answer[0]).strip()
    if not _OPERATION.search(text) or _PERIOD.fullmatch(text):
        return reply
    value = calculator.evaluate(text)
    if value is None:
        return reply
    return reply._replace(answer=[calculator.rounded(value)], calc_used=True)


def _read(reply: str) -> Reply:
    _, closed, after_thinking = reply.rpartition("</think>")
    if "<think>" in reply and not closed:
        return NOTHING
    parts = _NEXT_TURN.split(after_thinking)
    found = filter(None, (_valid(part) or _mended(part) for part in parts))
    plain_texts = (_plain(part) for part in parts if part.strip())
    return next(chain(found, plain_texts), NOTHING)


def _valid(text: str) -> Reply | None:
    """The reply of the last complete JSON object with an answer."""
    starts = [match.start() for match in _OBJECT.finditer(text)]
    for start in reversed(starts[-_MOST_OBJECTS:]):
        try:
            found, _ = _JSON.raw_decode(text[start : start + _LONGEST_OBJECT])
        except (ValueError, RecursionError):
            continue
        items = found.get("answer", {})
        listed = items if isinstance(items, list) else [] if items is None else [items]
        if all(isinstance(item, str) for item in listed):
            of_texts = items is listed and not any(isinstance(item, _Number) for item in listed)
            return _reply([str(item) for item in listed], found.get("scale"), as_asked=of_texts)
    return None


def _mended(text: str) -> Reply | None:
    """The reply of the last thing that looks like an answer object but is no valid JSON, read by its keys."""
    last_first = reversed(text.split("{")[1:])
    for piece in sorted(
        last_first, key=lambda piece: "}" not in piece
    ):  # those that are cut off come last
        key = _ANSWER_KEY.search(piece)
        if key is None:
            continue
        scale = _SCALE_KEY.search(piece)
        value = piece[
            key.end() : scale.start() if scale and scale.start() > key.end() else len(piece)
        ]
        inner = value.partition("}")[0].strip(" \t\r\n,[]").replace('\\"', '"')
        items = [item.strip() for item in _BETWEEN_ITEMS.split(inner.strip("\"'"))]
        if any(items):
            return _reply([item for item in items if item], scale.group(1) if scale else "")
    return None


def _plain(text: str) -> Reply:
    """The reply in plain text: what follows the last "answer:" or "answer is", else the first line."""
    leads = _LEAD.findall(text)
    line = (leads[-1] if leads else text.strip().partition("\n")[0])[:_LONGEST_PLAIN]
    line = line.lstrip(" \t*`\"'").rstrip(" \t*`\"'.")
    amount = _AMOUNT.fullmatch(line)
    if amount:
        return _reply([amount.group(1)], amount.group(2))
    return _reply([line], "") if line else NOTHING


def _reply(items: list[str], scale: Any, as_asked: bool = False) -> Reply:
    """The reply with its scale as one of the five words, and without that word again after a bare number.

    "12.5 million" with scale million would be scaled twice. "$12.5 million" stays: gold spans are written so.
    """
    word = str(scale or "").strip().lower().rstrip("s").replace("%", "percent")
    word = word if word in SCALES else ""
    amounts = [_BARE_AMOUNT.fullmatch(item) for item in items]
    once = [
        amount.group(1) if amount and amount.group(2).lower() == word else item
        for item, amount in zip(items, amounts, strict=True)
    ]
    return Reply(once, word, as_asked and scale in SCALES and once == items)
