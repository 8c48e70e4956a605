"""The reply: one line of JSON, written from gold answers and read from replies.

    {"answer": ["1,496.5"], "scale": "million"}

`parse` reads the reply alone, in time linear in its length, and never raises. What counts, in this
order:

1. What follows the reasoning. A think block that is never closed says nothing.
2. The text up to an invented next question or turn, if it states an answer.
3. In it the first valid JSON object with an answer that is no placeholder (`cot`: the last); lines
   of objects with one item each are one answer. Failing that an object that is nearly JSON. Failing
   that what is said in words.
4. Its scale as the official script reads one: a scale word anywhere in the text.

The whole specification is the table in README.md, with the tests that follow it.
"""

import json
import re
from typing import NamedTuple

from tatqa_task import amounts, calculator, metric, objects, plain_text
from tatqa_task.objects import Stated
from tatqa_task.types import SCALES, Form, Question, Scale
from tatqa_task.typography import plain


class Reply(NamedTuple):
    """What a reply says, and how it was said.

    `parsed`: what counts followed the format, nothing was mended. `strict`: the reply is that line
    and nothing else (but reasoning, where it was asked for). `calc_used`: an expression was worked
    out.
    """

    answer: list[str]
    scale: str
    parsed: bool
    strict: bool = False
    calc_used: bool = False


NOTHING = Reply([], "", False)

_THINK = r"""(?:\w{1,10}:)?(?:think(?:ing)?|thoughts?|(?:thought|thinking)[ _-]process
    |reason(?:ing)?|reflection|scratch[ _-]?pad|analysis|rationale|chain[ _-]of[ _-]thought
    |(?:inner[ _-])?monologue)"""
_THINK_TAG = rf"""(?:{_THINK}|cot|internal|deliberation|workings?|planning)
    (?:[ _-](?:content|mode|block|trace|steps?))?"""  # in angle brackets alone
_OPENS, _ENDS = r"(?:[<◁]|&lt;)\ ?\|?\ ?", r"\ ?\|?\ ?(?:[>▷]|&gt;)"
_THINK_OPENS = re.compile(
    rf"""\[\ ?{_THINK}\ ?\] | <unused94> | <\|channel\|>(?:analysis|commentary)
       | {_OPENS}(?:(?:begin|start)_(?:of_)?)?{_THINK_TAG}(?:_(?:start|begin))?
         (?:\s[^<>/\n]{{0,60}})?{_ENDS}""",
    re.IGNORECASE | re.VERBOSE,
)
_THINK_CLOSES = re.compile(
    rf"""\[\ ?(?:/\ ?|end_of_){_THINK}\ ?\] | <unused95> | <\|channel\|>final<\|message\|>
       | {_OPENS}(?:(?:/\ ?|end_(?:of_)?){_THINK_TAG}|{_THINK_TAG}_end){_ENDS}""",
    re.IGNORECASE | re.VERBOSE,
)
_THINK_FENCE = re.compile(
    rf"```{_THINK}[ \t]*\n(?:[^`]|`(?!``))*+(?:```)?", re.IGNORECASE | re.VERBOSE
)
_THINK_HEADING = re.compile(
    rf"""\s*+[*\#_ ]*{_THINK}[*_ ]*[:：](?:.|\n)*?
    \n(?P<answer>[ \t*\#_]{{0,20}}(?:final[ ]|the[ ])?(?:answer|response)[*_ ]*[:：]
    \s{{0,20}}\S)""",
    re.IGNORECASE | re.VERBOSE,
)
_NEXT_TURN = re.compile(
    r"""
    <\|?(?:im_start|im_end|endoftext|eot_id|end_of_turn|start_of_turn|user|end|/s)\|?> | \[/?INST\]
  | \n[ \t]*(?:[#*_>]+[ \t]*)?(?:Next\s+|New\s+)?(?:Question|Q|User|Human)\b
    [ \t]*+\d*+[ \t]*+[*_]*+(?:[:：]|[ \t]*+(?=\n))
  | \n[ \t]*(?=Read\ the\ table\ and\ the\ text)
    """,
    re.VERBOSE,
)
_PLACEHOLDER = re.compile(
    r"""\W* | <[^<>]*> | \[[^\[\]]*\] | \.\.\.+
      | (?:your|the|my|list\ of|one|an?)?\ ?
        (?:answers?|texts?|strings?|values?|spans?|numbers?)(?:\ ?\d|\ here)?""",
    re.IGNORECASE | re.VERBOSE,
)
_BETWEEN = re.compile(r"[ \t,\[\]]*+\n?[ \t,\[\]]*+")
LONGEST_SPAN = 6  # words of an item that may be one of several


# --- writing ---


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
        expression = calculator.expression(question)
        if expression is not None:
            return render([expression], question.scale)
    line = render(question.answer, question.scale)
    if form == "cot" and question.derivation:
        return f"{question.derivation}\n{line}"
    return line


# --- reading ---


def parse(reply: str, form: Form = "direct", thinking: bool = False) -> Reply:
    """The answer and scale of a reply; an empty answer if it says nothing.

    `thinking`: the chat template opened a think block, so a reply that never closes one is all
    draft. Never raises; linear in the length of the reply.
    """
    said = _after_thinking(reply, thinking)
    read = _read(said, last=form == "cot")
    if read.parsed and _is_nothing_else(said, form):
        read = read._replace(strict=True)
    return _calculated(read, form)


def _after_thinking(reply: str, thinking: bool) -> str:
    """The reply without think blocks: after the last that is closed, before one that never is."""
    closes = list(_THINK_CLOSES.finditer(reply))
    if thinking and not closes:
        return ""
    if is_object(reply):
        return reply  # a text in it may well hold such a tag
    reply = _THINK_FENCE.sub("", reply)
    closes = list(_THINK_CLOSES.finditer(reply))
    rest = reply[closes[-1].end() :] if closes else reply
    opened = _THINK_OPENS.search(rest)
    if opened:
        return rest[: opened.start()]
    heading = _THINK_HEADING.match(rest)
    return rest[heading.start("answer") :] if heading else rest


def _read(text: str, last: bool) -> Reply:
    """The reply of the first part that holds an object with an answer, else of words."""
    parts = [part for part in _NEXT_TURN.split(text) if part.strip()]
    if is_object(text):
        parts = [text]
    placeholders = []
    for written in parts:
        part = objects.without_escapes(written)
        for find in (objects.valid, objects.broken, objects.unnamed):
            found = list(find(part))
            stated = _chosen(found, part, last)
            if stated is not None:
                as_asked = stated.as_asked and part == written
                return _settled(stated._replace(as_asked=as_asked))
            placeholders += found
    return _in_words(parts, placeholders, last)


def _chosen(found: list[Stated], part: str, last: bool) -> Stated | None:
    """The object that counts: the first that says something, the last behind reasoning."""
    found = [stated for stated in found if says_something(stated)]
    if not found:
        return None
    if last:
        found.reverse()
    run = _run(found, part)
    if len(run) == 1:
        return run[0]
    items = []
    for stated in sorted(run, key=lambda one: one.start):
        items += stated.items
    return run[0]._replace(items=items, as_asked=False)


def says_something(stated: Stated) -> bool:
    """Whether an object has an item that is no placeholder: not `...`, `<answer>` or nothing."""
    return any(_PLACEHOLDER.fullmatch(item.strip()) is None for item in stated.items)


def _run(found: list[Stated], part: str) -> list[Stated]:
    """The object that counts, and those beside it that state further spans of the same answer.

    Such objects stand line by line or in one array with nothing between them, each with one item,
    all different, all of the same scale and kind: short texts, or numbers written alike. Objects
    one behind the other on a line are other answers: a model that goes on rambling.
    """
    run = [found[0]]
    seen = {tuple(found[0].items)}
    leftmost = min(found[0].start, found[-1].start)
    in_array = part[:leftmost].rstrip().endswith("[")
    for stated in found[1:]:
        beside = _is_beside(run[-1], stated, part, in_array)
        if not beside or not _alike(run[0], stated) or tuple(stated.items) in seen:
            break
        run.append(stated)
        seen.add(tuple(stated.items))
    return run


def _is_beside(one: Stated, other: Stated, part: str, in_array: bool) -> bool:
    """Whether nothing stands between two objects but a comma, and, outside an array, a new line."""
    first, second = sorted((one, other), key=lambda stated: stated.start)
    if _BETWEEN.fullmatch(part, first.end, second.start) is None:
        return False
    return in_array or "\n" in part[first.end : second.start]


def _alike(first: Stated, second: Stated) -> bool:
    """Whether two objects state one span each of the same kind and scale."""
    if len(first.items) != 1 or len(second.items) != 1:
        return False
    if first.scale != second.scale:
        return False
    one, other = first.items[0], second.items[0]
    numbers = [item for item in (one, other) if metric.to_number(item) is not None]
    if len(numbers) == 1:
        return False
    if not numbers:
        longest = max(len(one.split()), len(other.split()))
        return longest <= LONGEST_SPAN
    return _decimals(one) == _decimals(other) and abs(_digits(one) - _digits(other)) <= 1


def _digits(number: str) -> int:
    """How many digits a number is written with."""
    return sum(map(str.isdigit, number))


def _decimals(number: str) -> int:
    """How many of them stand behind the point."""
    return _digits(number.partition(".")[2])


def _settled(stated: Stated) -> Reply:
    """The reply of an object: its scale as one of the five, its numbers readable."""
    wording = (stated.scale or "").strip()
    items, scale = _apart(stated.items, amounts.scale_of(wording))
    if scale is None and amounts.is_hundred(wording):
        items = [amounts.hundredfold(item) for item in items]
    settled = [amounts.settled(item, scale or "") for item in items]
    as_asked = stated.as_asked and settled == stated.items and stated.scale in SCALES
    return Reply(settled, scale or "", parsed=as_asked)


def _apart(items: list[str], scale: Scale | None) -> tuple[list[str], Scale | None]:
    """A number and its scale in one list taken apart, unless another scale stands beside them."""
    if _is_pair(items):
        inside = amounts.scale_of(items[1].strip().lower())
        if scale in (None, "", inside):
            return items[:1], inside
    return items, scale


def _is_pair(items: list[str]) -> bool:
    """Whether items are a number and its scale, as in the official format: `["5", "million"]`."""
    if len(items) != 2:
        return False
    number, word = items
    if word.strip().lower().removesuffix("s") not in SCALES[1:]:
        return False
    return any(map(str.isdigit, number)) and not any(map(str.isalpha, number))


def _in_words(parts: list[str], placeholders: list[Stated], last: bool) -> Reply:
    """The reply of what is said without an object; else placeholders, at their word."""
    look = plain_text.introduced if placeholders else plain_text.stated
    for part in parts:
        said = look(part, last)
        if said is not None:
            return Reply(said.items, said.scale, parsed=False)
    return _settled(placeholders[0]) if placeholders else NOTHING


def _is_nothing_else(text: str, form: Form) -> bool:
    """Whether the text is one JSON object, after reasoning where that was asked for."""
    line = text.strip()
    if form == "cot":
        line = line.rpartition("\n")[2].strip()
    return is_object(line)


def is_object(text: str) -> bool:
    """Whether a text is one JSON object and nothing else."""
    text = text.strip()
    if not text.startswith("{") or not text.endswith("}"):
        return False
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


# --- expressions ---

_SCALE_WORDS = re.compile(r"\b(thousand|million|billion|percent)s?\b", re.IGNORECASE)
_SCALE_IN_BRACKETS = re.compile(rf"\((?:in\s+)?({_SCALE_WORDS.pattern})\)", re.IGNORECASE)
_SHORT_SCALES = re.compile(r"(?<=[\d)])\s?(m|mn|bn|k)\b", re.IGNORECASE)
_MARKS = (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"), ("\\boxed{", "}"))
_LABEL = re.compile(r"^[A-Za-z][A-Za-z ]{0,40}:\s*")
_COMMENT = re.compile(r"\s(?:#|//)\s.*$", re.DOTALL)
_EQUALS = re.compile(r"[=≈~→⇒]")


def _calculated(reply: Reply, form: Form) -> Reply:
    """The reply with a number in place of a calculation, if its one item is one.

    `calc`: the value that the calculator works out; elsewhere the result that the reply states.
    """
    if len(reply.answer) != 1:
        return reply
    worked_out = _worked_out(reply) if form == "calc" else reply
    return worked_out if worked_out.calc_used else _with_result(reply)


def _worked_out(reply: Reply) -> Reply:
    """The reply with the value of its one item, if that is an expression."""
    item = plain(reply.answer[0]).strip()
    text, scale = _without_scale(item, reply.scale)
    text = calculator.balanced(_operands(text))
    value = calculator.worked_out(text)
    if value is None:
        return reply
    if scale == "percent" and calculator.is_percentage(text):
        value *= 100
    mended = text != item
    return Reply(
        answer=[calculator.rounded(value)],
        scale=scale,
        parsed=reply.parsed and not mended,
        strict=reply.strict and not mended,
        calc_used=True,
    )


def _with_result(reply: Reply) -> Reply:
    """The reply with the result that stands behind its own calculation: `5 + 6 = 11 million`."""
    calculation, _, result = plain(reply.answer[0]).rpartition("=")
    found = amounts.amount(result) if calculator.has_operation(calculation) else None
    if found is None:
        return reply
    number, inside = found
    return Reply([number], reply.scale or inside, parsed=False)


def _without_scale(text: str, scale: str) -> tuple[str, str]:
    """The text without a scale word that stands beside it too, or that is the only one there is."""
    if scale:
        text = _SHORT_SCALES.sub(lambda short: f" {amounts.scale_in(short.group(1))}", text)
    bare = _SCALE_IN_BRACKETS.sub(r" \1", text)
    words = {amounts.scale_in(word) for word in _SCALE_WORDS.findall(bare)}
    if len(words) == 1 and scale in ("", *words):
        return _SCALE_WORDS.sub("", bare).strip(), words.pop()
    return text, scale


def _operands(text: str) -> str:
    """The side of `6,148 + 5,974 = 12,138` that says how to calculate it, without what marks it."""
    text = _LABEL.sub("", _COMMENT.sub("", _unmarked(text)))
    for side in _EQUALS.split(text):
        if calculator.has_operation(side):
            return side.strip()
    return text


def _unmarked(text: str) -> str:
    """An expression without quotes, bold, maths marks or a full stop around it."""
    text = text.lstrip(" \t\n\"'`*,;").rstrip(" \t\n\"'`*.,;")  # not the point of `.5`
    for opening, closing in _MARKS:
        if text.startswith(opening) and text.endswith(closing) and len(text) > len(opening):
            text = text[len(opening) : -len(closing)].strip()
    return text
