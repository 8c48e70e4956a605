"""Answer objects in a reply: `{"answer": [...], "scale": "..."}`, valid JSON or nearly so.

`valid` finds the objects that are JSON; `broken` reads what looks like one by a forgiving grammar:
other quotes, none, full-width punctuation, comments, trailing commas, numbers as reports write
them, an object that is cut off. Both read the text from left to right and never go back behind the
end of an object.
"""

import html
import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

WORK = 8  # characters that may be looked at in vain, for each character of the text
LEAST_WORK = 20_000  # and for a short text
LONGEST_UNNAMED = 2_000  # characters in which an object that names no answer is looked for
PIECE = 512  # characters that it is given first


class Stated(NamedTuple):
    """An object that states an answer: its items and scale as written, and where it stands.

    `scale` is None where the object has none that is a text; `as_asked`: a list of texts under
    "answer", a text under "scale", nothing mended.
    """

    items: list[str]
    scale: str | None
    as_asked: bool
    start: int
    end: int


class _Number(str):
    """A number in JSON, kept as it was written."""


def _number(text: str) -> _Number:
    """A number with an exponent as Python writes it, since the metric stops before one."""
    return _Number(str(float(text)) if "e" in text.lower() else text)


_JSON = json.JSONDecoder(parse_float=_number, parse_int=_Number, parse_constant=_Number)
_ESCAPED = re.compile(r"""\{\s{0,20}\\["']""")
_JSON_START = re.compile(r"\{(?=\s{0,20}\")")
_START = re.compile(
    r"""[{｛] | (?:^\s*+ | (?<!\s)[^\S\n]*+(?P<line>\n)\s*+)(?=["'“„«]?answer["'”“»]\s*[:：])""",
    re.VERBOSE,
)
_QUOTE = r"""["'“”„‘’`«»]"""
_KEY = re.compile(
    rf"""\s*(?:{_QUOTE}\s*)?([A-Za-z][A-Za-z_ -]{{0,30}}?[0-9]{{0,2}})\s*
    (?:{_QUOTE}\s*)?(?:[:：](?:\s*{_QUOTE}\s*:)?|=>?(?!=)|(?=\[))\s*""",
    re.VERBOSE,
)
_ANSWER = re.compile(
    r"""(?:(?:final|correct|predicted)[ _-]?)?(?:answers?|ans)
        (?:[ _-]?(?:texts?|values?|spans?|list))?""",
    re.IGNORECASE | re.VERBOSE,
)
_NUMBERED_ANSWER = re.compile(r"(?:answer|ans|span|item)[ _-]?\d{1,2}", re.IGNORECASE)
_OTHER_ANSWER = re.compile(
    r"results?|response|values?|predictions?|solution|output|spans?|texts?|amount", re.IGNORECASE
)
_SCALE = re.compile(
    r"""(?:(?:answer|unit|numeric|value)[ _-]?)?(?:scales?|units?|magnitude|multiplier)
        (?:[ _-]?(?:unit|of[ _-]measure|word))?""",
    re.IGNORECASE | re.VERBOSE,
)
_NO_ANSWER = re.compile(
    r"""questions?|reason(?:ing|s)?|explanations?|derivations?|calculations?|steps?|thoughts?
      | thinking|context|table|text|source|currency|type|answer_?type|answer_?from|notes?|uid|id
      | index|years?|from|to|on|code|language""",
    re.IGNORECASE | re.VERBOSE,
)
_FACTORS: dict[str, str] = {"1": "", "1000": "thousand", "1000000": "million"}
_FACTORS["1000000000"] = "billion"


def is_answer_key(key: str) -> bool:
    """`answer`, `Answers`, `final_answer`."""
    return _ANSWER.fullmatch(key.strip(" :")) is not None


def is_scale_key(key: str) -> bool:
    """`scale`, `Unit`."""
    return _SCALE.fullmatch(key.strip()) is not None


def valid(text: str) -> Iterator[Stated]:
    """The JSON objects with an answer, first to last, none inside another."""
    at = 0
    work = WORK * len(text) + LEAST_WORK
    for found in _JSON_START.finditer(text):
        start = found.start()
        if start < at or work <= 0:
            continue
        content, length = decoded(text, start)
        stated = _stated(content, text, start, start + length) if content else None
        if stated is None:
            work -= length
        else:
            at = stated.end
            yield stated


def unnamed(text: str) -> Iterator[Stated]:
    """The first JSON object, if it is a scale and one other key of any name: `{"total": 5, ...}`.

    For a text without any object that names an answer.
    """
    found = _JSON_START.search(text[:LONGEST_UNNAMED])
    if found is None:
        return
    start = found.start()
    content, length = decoded(text[:LONGEST_UNNAMED], start)
    if not isinstance(content, dict) or len(content) != 2:
        return
    scale_key = _scale_key(content)
    if scale_key is None:
        return
    (key,) = content.keys() - {scale_key}
    if any(map(str.isalnum, key)) and not _NO_ANSWER.fullmatch(key.strip()):
        named = {"answer": content[key], "scale": content[scale_key]}
        stated = _stated(named, text, start, start + length)
        if stated is not None:
            yield stated._replace(as_asked=False)


def without_escapes(text: str) -> str:
    """A text in which every quote of an object is escaped, without that: `{\\"answer\\": ...}`."""
    if "{&quot;" in text and '"' not in text:
        return html.unescape(text)
    if _ESCAPED.search(text) is None or _JSON_START.search(text) is not None:
        return text
    return text.replace('\\"', '"')


def decoded(text: str, start: int) -> tuple[Any, int]:
    """The JSON object that begins here, or None, and how many characters were looked at.

    The decoder is given a piece of the text, a longer one where the object goes on: its errors
    count the lines before them, so that many errors in a long text would cost the square of its
    length.
    """
    size = PIECE
    while True:
        piece = text[start : start + size]
        whole = start + size >= len(text)
        try:
            return _JSON.raw_decode(piece)
        except json.JSONDecodeError as error:
            unterminated = error.msg.startswith("Unterminated")
            if whole or not (unterminated or error.pos > size - 10):
                return None, len(piece) if unterminated else error.pos + 1
        except (ValueError, RecursionError):
            return None, LEAST_WORK
        size *= 4


def _stated(content: Any, text: str, start: int, end: int) -> Stated | None:
    """What an object states; None if it has no answer, or one that is no text, number or list."""
    key = _key_of(content) if isinstance(content, dict) else None
    if key is None:
        return None
    answer = _value_of(content, key)
    items = _scalars(answer)
    if items is None:
        return _nested(content, answer, start, end)
    are_numbers = all(isinstance(item, _Number) for item in items)
    grouped = []
    if are_numbers and len(items) > 1:
        grouped = _grouped_numbers(text[start:end])
    return Stated(
        items=grouped or list(map(str, items)),
        scale=_text(_scale_value(content)),
        as_asked=_is_as_asked(content),
        start=start,
        end=end,
    )


def _value_of(content: dict[str, Any], key: str) -> Any:
    """What an object has as its answer: `answer1` and `answer2` are one."""
    if _NUMBERED_ANSWER.fullmatch(key):
        return [value for name, value in content.items() if _NUMBERED_ANSWER.fullmatch(name)]
    return content[key]


def _is_as_asked(content: dict[str, Any]) -> bool:
    """Whether an object has a list of texts under "answer" and a text under "scale"."""
    answer, scale = content.get("answer"), content.get("scale")
    if not isinstance(answer, list) or type(scale) is not str:
        return False
    texts = all(type(item) is str for item in answer)  # a `_Number` is no such text
    return texts and _scale_key(content) == "scale"


def _scale_value(content: dict[str, Any], otherwise: Any = None) -> Any:
    """What an object has as its scale, under whatever key."""
    return _only_item(content.get(_scale_key(content) or "scale", otherwise))


def _scale_key(content: dict[str, Any]) -> str | None:
    """The first key that names a scale."""
    for key in content:
        if _SCALE.fullmatch(key.strip(" :")):
            return key
    return None


def _only_item(value: Any) -> Any:
    """The item of a list that says one thing, once or for each span; other values as they are."""
    if isinstance(value, list) and value and value.count(value[0]) == len(value):
        return value[0]
    return value


def _nested(content: dict[str, Any], answer: Any, start: int, end: int) -> Stated | None:
    """What `{"answer": {"value": "5", "scale": "million"}}` states, or a list of such objects.

    None where an item is something else.
    """
    if isinstance(answer, dict) and "answer" in answer:
        return None  # that object is found by itself
    scale = _scale_value(content)
    items: list[str] = []
    scales = set()
    for part in _parts(answer):
        key = _key_of(part) if isinstance(part, dict) else None
        found = _scalars(part[key]) if key is not None else None
        if found is None:
            return None
        items += found
        scales.add(_text(_scale_value(part, scale)))
    stated = scales.pop() if len(scales) == 1 else _text(scale)
    return Stated(list(map(str, items)), stated, as_asked=False, start=start, end=end)


def _parts(answer: Any) -> list[Any]:
    """The objects that an answer is made of: itself, or one for each key of `{"2019": "5"}`."""
    if isinstance(answer, list):
        return answer
    if isinstance(answer, dict) and _key_of(answer) is None:
        return [{"answer": value} for key, value in answer.items() if not _SCALE.fullmatch(key)]
    return [answer]


def _text(value: Any) -> str | None:
    """A scale that is a text, or a number that is a scale's factor: `1000`."""
    if isinstance(value, _Number):
        return _FACTORS.get(value.removesuffix(".0"), str(value))
    return str(value) if isinstance(value, str) else None


def _key_of(content: dict[str, Any]) -> str | None:
    """The key that holds the answer: `answer`, else a word like it, `answer1` or another word."""
    if "answer" in content:
        return "answer"
    for pattern in (_ANSWER, _NUMBERED_ANSWER, _OTHER_ANSWER):
        for key in content:
            if pattern.fullmatch(key.strip(" :")):
                return key
    return None


def _scalars(answer: Any) -> list[str] | None:
    """Texts and numbers of an answer, from lists in it too; [] for null, None for objects."""
    if not isinstance(answer, list):
        answer = [answer]
    found: list[str] = []
    for item in answer:
        if isinstance(item, list):
            found += [inner for inner in item if isinstance(inner, str)]
        elif isinstance(item, bool):
            found.append(str(item))
        elif isinstance(item, str):
            found.append(item)
        elif item is not None:
            return None
    return found


_ONE_NUMBER = r"[-+]?\d{1,3}(?:,\d{3})*(?:\.\d+)?"
_GROUPED = re.compile(rf"""["']\s*:\s*\[\s*({_ONE_NUMBER}(?:,\s+{_ONE_NUMBER})*)\s*\]""")


def _grouped_numbers(text: str) -> list[str]:
    """`1,496.5` and `12` of `[1,496.5, 12]`, which JSON takes for three numbers.

    [] where no number has a comma inside.
    """
    found = _GROUPED.search(text)
    if found is None or "," not in found.group(1):
        return []
    return re.split(r",\s+", found.group(1))


# --- nearly JSON ---


def broken(text: str) -> Iterator[Stated]:
    """What looks like an object with an answer, first to last."""
    reader = _Reader(text)
    work = WORK * len(text) + LEAST_WORK
    for found in _START.finditer(text):
        start = max(found.start(), found.start("line"))
        if start < reader.at or work <= 0:
            continue
        first_key = _SKIPPED.match(text, found.end())
        at = first_key.end() if first_key else found.end()
        if _KEY.match(text, at) is None:
            work -= at - start
            continue
        reader.at = at
        stated = reader.read(start)
        if stated is not None:
            yield stated


_OPENING = re.compile(r"""["'“„‘`«]""")
_CLOSERS = {'"': '"', "“": '”"', "„": '“”"', "'": "'’", "‘": "’'", "`": "`", "«": "»"}
_LIST = re.compile(
    r"""[\[［]\s* | \((?=\s*["'“„‘«])\s* | \{(?=\s*"[^"{}:\n]{0,200}"\s*[,}])\s*""", re.VERBOSE
)
_SKIPPED = re.compile(
    r"""(?:\s+ | [,，;] | (?://|--\s|\#)[^\n]* | /\*[^*]{0,200}\*/ | <!--[^>]{0,200}-->)*+""",
    re.DOTALL | re.VERBOSE,
)
_NOTE = re.compile(r"\s*\([^()\[\]{}\n]{0,100}\)(?=\s*[,，;}｝])")  # `["5"] (see note 3),`
_NO_ITEM = ("", "null", "None", "nil", "undefined", "...", "…")  # where they stand without quotes
_SCALE_KEY = re.compile(rf"[\[{{]?\s*{_QUOTE}?(?:scale|unit){_QUOTE}?\s*[:：]", re.IGNORECASE)
_LONE_SCALE = re.compile(
    r"""[\[{]\s*["'](thousand|million|billion|percent)s?["']\s*[\]}]""", re.IGNORECASE
)
_STRAY_QUOTE = re.compile(r"""["“](?=\s*[\]］]\s*(?:[}｝]|[,，]\s*["“']?(?:scale|unit)))""")
_OPENED_AGAIN = re.compile(rf"[\[{{](?=\s*{_QUOTE}?(?:scale|unit){_QUOTE}?\s*[:：])", re.IGNORECASE)
_WRONG_END = re.compile(
    rf"[}}｝](?=\s*[,，]\s*{_QUOTE}?(?:scale|unit){_QUOTE}?\s*[:：])", re.IGNORECASE
)
_END = re.compile(r"[}｝]")
_LIST_END = re.compile(r"[\])］}｝]")
_SPECIAL = re.compile(r"""\\.|["'“”‘’`»]|\n""", re.DOTALL)
_AFTER_QUOTE = re.compile(
    r"""\s* (?:[,，;\])］}｝] | $ | // | /\* | \# | [:：] | \.\.\.\s*\] | =>)
      | \s* \([^()\n]{0,100}\)\s*[\]},] | \s+["“]""",
    re.VERBOSE,
)
_BARE_ITEM = re.compile(r"(?:(?<=\d),(?=\d{3}(?!\d))|[^,，\[\]］{}｛｝\n])++")
_BARE_VALUE = re.compile(rf"(?:(?!,\s*{_QUOTE}?[A-Za-z_]+{_QUOTE}?\s*[:：])[^{{}}｛｝\n])++")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)


class _Reader:
    """Reads objects from left to right; `at` is where it stands."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.unclosed: set[str] = set()  # quotes that nothing closes from here on

    def read(self, start: int) -> Stated | None:
        """Key after key, up to the closing bracket or what is no key."""
        found: dict[str, list[str]] = {}
        while not self.takes(_END):
            self.takes(_SKIPPED)
            key = _KEY.match(self.text, self.at)
            if key is None:
                break
            self.at = key.end()
            found.setdefault(key.group(1).strip(), self.value())
            self.takes(_NOTE)
            self.takes(_SKIPPED)
            lone = _LONE_SCALE.match(self.text, self.at)  # `"answer": ["5"], ["million"]}`
            if lone:
                found.setdefault("scale", [lone.group(1)])
                self.at = lone.end()
            self.takes(_OPENED_AGAIN)  # `"answer": ["5"], {"scale": "million"}}`
        return _of_pairs(found, start, self.at)

    def takes(self, pattern: re.Pattern[str]) -> bool:
        """Go on behind the pattern, if it stands here."""
        match = pattern.match(self.text, self.at)
        if match is None:
            return False
        self.at = match.end()
        return True

    def value(self) -> list[str]:
        """A list, a quoted text or whatever stands up to the next key."""
        if self.takes(_LIST):
            return self.items()
        return self.quoted_or_bare(_BARE_VALUE)

    def items(self) -> list[str]:
        """The items of a list and of lists in it, up to its end or the end of the text."""
        found = []
        inner = 0  # lists that are open in this one
        while self.at < len(self.text):
            before = self.at
            self.takes(_SKIPPED)
            if self.takes(_WRONG_END) or _END.match(self.text, self.at):
                break
            if self.takes(_LIST_END):
                if not inner:
                    break
                inner -= 1
                continue
            if _SCALE_KEY.match(self.text, self.at):
                break  # the list is not closed
            if self.takes(_LIST):
                inner += 1
                continue
            if self.takes(_STRAY_QUOTE):
                continue
            found += self.quoted_or_bare(_BARE_ITEM)
            if self.at == before:
                break
        return found

    def quoted_or_bare(self, pattern: re.Pattern[str]) -> list[str]:
        """A quoted text, else what the pattern takes; [] if that is nothing."""
        if _OPENING.match(self.text, self.at):
            return [self.quoted()]
        return self.bare(pattern)

    def quoted(self) -> str:
        """A quoted text, to the quote after which an object can go on, or the line's end."""
        quote = self.text[self.at]
        begin = self.at + 1
        line_end = len(self.text)
        inner = 0  # quotes in curly ones
        for special in _SPECIAL.finditer(self.text, begin):
            sign = special.group()
            if sign == "\n" and line_end == len(self.text):
                line_end = special.start()
                if quote in self.unclosed:
                    break
            elif sign == quote == "“":
                inner += 1
            elif sign in _CLOSERS[quote]:
                if inner and sign == "”":
                    inner -= 1
                elif _AFTER_QUOTE.match(self.text, special.end()):
                    self.at = special.end()
                    return unescaped(self.text[begin : special.start()])
        self.unclosed.add(quote)
        self.at = line_end
        return unescaped(self.text[begin : self.at])

    def bare(self, pattern: re.Pattern[str]) -> list[str]:
        """A value without quotes."""
        found = pattern.match(self.text, self.at)
        if found is None:
            return []
        self.at = found.end()
        item = unescaped(found.group().strip(" \t\r"))
        return [] if item in _NO_ITEM else [item]


def listed(text: str) -> list[str]:
    """The items of a list that the text begins with; [] if it begins with none."""
    if text.startswith(" ") or not _LIST.match(text):
        return []
    return _Reader(text).value()


def unescaped(text: str) -> str:
    """A text without the backslashes of JSON, and without others too: `12.6\\%`."""

    def character(found: re.Match[str]) -> str:
        escape = found.group(1)
        if len(escape) == 5:
            return chr(int(escape[1:], 16))
        return _ESCAPES.get(escape, escape)

    return _ESCAPE.sub(character, text)


def _of_pairs(found: dict[str, list[str]], start: int, end: int) -> Stated | None:
    """What the pairs state; None where no key holds an answer."""
    key = _key_of(found)
    if key is None:
        return None
    if _NUMBERED_ANSWER.fullmatch(key):
        items = []
        for name, values in found.items():
            if _NUMBERED_ANSWER.fullmatch(name):
                items += values
    else:
        items = [item for item in found[key] if item not in ("", "null")]
    scale_key = _scale_key(found)
    scale = found[scale_key][0] if scale_key and found[scale_key] else None
    return Stated(items, scale, as_asked=False, start=start, end=end)
