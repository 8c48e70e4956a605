"""Wrong answers that a model would really give, made from the gold one: one method per mistake.

Each kind returns (answer items, scale), without items where it does not apply. A kind that errs in
a calculation errs in its expression; in the form `calc` that expression is the answer, in the form
`direct` its value. Whether the result is wrong under the official metric is for the caller to check
(`train.pairs.strategies` does).
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, combinations
from random import Random

from tatqa_task import calculator
from tatqa_task.types import SCALES, Context, Form, Question

Answer = tuple[list[str], str]

FORMAT = "format"
"""The kind whose answer is right and whose reply is not what was asked for: see `misformatted`."""
KINDS = {  # answer type: its kinds of mistake
    "span": ("other_cell", "neighbouring_span", "cut_span", "overlong_span", "wrong_scale", FORMAT),
    "multi-span": ("one_missing", "one_extra", "one_replaced", "wrong_scale", FORMAT),
    "arithmetic": (
        "swapped_operands",
        "wrong_operation",
        "wrong_cell",
        "lost_hundred",
        "wrong_scale",
        "wrong_sign",
        FORMAT,
    ),
    "count": ("off_by_few", "listed_items", FORMAT),
}
NAMES = sorted(set(chain.from_iterable(KINDS.values())))
NUMBER = re.compile(r"\d[\d,]*\.?\d*|\.\d+")
YEAR = re.compile(r"\b(19|20)\d\d\b")
SIGN = re.compile(r"(?<=[\d)%\]}] )[-+](?= )")  # a plus or minus between two operands
TIMES_100 = " * 100"


@dataclass(frozen=True)
class Mistakes:
    """The mistakes that can be made with one question; each call of a method draws again."""

    context: Context
    question: Question
    rng: Random
    form: Form = "direct"

    # --- spans ---

    def other_cell(self) -> Answer:
        """Another cell of the gold cell's row or column: the wrong year or the wrong item."""
        cells = neighbour_cells(self.context, self._gold[0])
        return self._one_of(cells), self.question.scale

    def neighbouring_span(self) -> Answer:
        """As many words of the same paragraph, right before or after the gold span."""
        gold = self._gold[0]
        around = words_around(self.context, gold, len(gold.split()))
        return self._one_of(around), self.question.scale

    def cut_span(self) -> Answer:
        """The gold span without up to half of its words, at the front or the end."""
        words = self._gold[0].split()
        n = self.rng.randint(1, max(1, len(words) // 2))
        cut = [" ".join(words[n:]), " ".join(words[:-n])]
        return self._one_of(cut), self.question.scale

    def overlong_span(self) -> Answer:
        """The gold span with one to eight words more of its paragraph."""
        gold = self._gold[0]
        around = words_around(self.context, gold, self.rng.randint(1, 8))
        if not around:
            return [], self.question.scale
        before, after = around
        return self._one_of([before + gold, gold + after]), self.question.scale

    def wrong_scale(self) -> Answer:
        """The right numbers with another scale, half the time with none."""
        right = self._right
        others = [scale for scale in SCALES if scale not in ("", self.question.scale)]
        none = self.question.scale != "" and self.rng.random() < 0.5
        scale = "" if none else self.rng.choice(others)
        if not all(NUMBER.search(item) for item in right):
            return [], scale
        return right, scale

    # --- several spans ---

    def one_missing(self) -> Answer:
        """One of several gold spans left out."""
        at = self.rng.randrange(len(self._gold))
        return self._gold[:at] + self._gold[at + 1 :], self.question.scale

    def one_extra(self) -> Answer:
        """One span too many, from beside a gold one."""
        other = self._beside()
        return (self._gold + other if other else []), self.question.scale

    def one_replaced(self) -> Answer:
        """One gold span replaced by a neighbour."""
        other = self._beside()
        at = self.rng.randrange(len(self._gold))
        replaced = self._gold[:at] + other + self._gold[at + 1 :]
        return (replaced if other else []), self.question.scale

    # --- calculations ---

    def swapped_operands(self) -> Answer:
        """Two operands changed places: 2018 - 2019 instead of 2019 - 2018."""
        operands = sorted(set(NUMBER.findall(self._calculation)))
        swapped = []
        for a, b in combinations(operands, 2):
            swapped.append(self._replaced({a: b, b: a}))
        return self._calculated(swapped)

    def wrong_operation(self) -> Answer:
        """The difference for a percentage change, a sum for a mean, a ratio inverted, + for -."""
        text = self._calculation
        changed = []
        for sign in SIGN.finditer(text):
            other = "+" if sign.group() == "-" else "-"
            changed.append(text[: sign.start()] + other + text[sign.end() :] + self._times_100)
        above, division, below = text.rpartition(" / ")
        if division:
            changed += [_without_brackets(above), f"{below} / {above}{self._times_100}"]
        return self._calculated(changed)

    def wrong_cell(self) -> Answer:
        """One operand taken from another year's column or another item's row."""
        changed = []
        for operand in sorted(set(NUMBER.findall(self._calculation))):
            for number in self._numbers_beside(operand):
                changed.append(self._replaced({operand: number}))
        return self._calculated(changed)

    def lost_hundred(self) -> Answer:
        """A share given as a fraction where per cent were asked."""
        if self.form == "calc" and self._calculation:
            return self._calculated([self._calculation] if self._times_100 else [])
        if self.question.scale != "percent" or not self._value:
            return [], self.question.scale
        return [f"{self._value / 100:.4f}"], self.question.scale

    def wrong_sign(self) -> Answer:
        """An increase for a decrease; an expression errs so by `swapped_operands` instead."""
        if self._value is None or (self.form == "calc" and self._calculation):
            return [], self.question.scale
        return [self._rounded(-self._value)], self.question.scale

    # --- counts ---

    def off_by_few(self) -> Answer:
        """One or two too many or too few."""
        gold = int(self._value or 0)
        counts = [gold + n for n in (-2, -1, 1, 2) if gold + n >= 0]
        return [str(self.rng.choice(counts))], self.question.scale

    def listed_items(self) -> Answer:
        """The things themselves instead of their number."""
        listed = []
        for item in self.question.derivation.split("##"):
            if item.strip():
                listed.append(item.strip())
        return listed, self.question.scale

    # --- what the kinds are made of ---

    @property
    def _gold(self) -> list[str]:
        return self.question.gold_items

    @property
    def _value(self) -> float | None:
        try:
            return float(str(self.question.answer).replace(",", ""))
        except ValueError:
            return None

    @property
    def _right(self) -> list[str]:
        """The right answer's items in the form that is asked for."""
        if self.form == "calc" and self._calculation:
            return [self._calculation + self._times_100]
        return self._gold

    @cached_property
    def _expression(self) -> str:
        return calculator.expression(self.question) or ""

    @property
    def _calculation(self) -> str:
        """The gold expression without a last times 100; empty if the gold answer is of none."""
        return self._expression.removesuffix(self._times_100)

    @property
    def _times_100(self) -> str:
        """What makes a percentage of the gold expression, where it is needed."""
        is_share = self.question.scale == "percent" and self._expression.endswith(TIMES_100)
        return TIMES_100 if is_share else ""

    def _replaced(self, numbers: dict[str, str]) -> str:
        """The gold expression with other numbers."""
        text = NUMBER.sub(lambda match: numbers.get(match[0], match[0]), self._calculation)
        return text + self._times_100

    def _numbers_beside(self, operand: str) -> list[str]:
        """Numbers in the row and column of the first cell with this number."""
        for row in self.context.table:
            for cell in row:
                if operand in NUMBER.findall(cell):
                    beside = neighbour_cells(self.context, cell)
                    return [NUMBER.findall(other)[0] for other in beside]
        return []

    def _calculated(self, expressions: Iterable[str]) -> Answer:
        """One of the expressions that have a value: itself, or (direct) its value."""
        drawn = list(expressions)
        self.rng.shuffle(drawn)
        for text in drawn:
            value = calculator.evaluate(text)
            if value is not None:
                items = [text] if self.form == "calc" else [self._rounded(value)]
                return items, self.question.scale
        return [], self.question.scale

    def _rounded(self, value: float) -> str:
        """As many decimals as the gold answer has."""
        decimals = len(str(self.question.answer).partition(".")[2])
        return f"{value:.{decimals}f}"

    def _one_of(self, options: Iterable[str]) -> list[str]:
        texts = []
        for option in options:
            text = option.strip(" ,;:.")
            if text:
                texts.append(text)
        return [self.rng.choice(texts)] if texts else []

    def _beside(self) -> list[str]:
        """A cell beside one of the gold spans, or words beside it."""
        cells: set[str] = set()
        for item in self._gold:
            cells.update(neighbour_cells(self.context, item))
        others = sorted(cells - set(self._gold))
        gold = self.rng.choice(self._gold)
        words = words_around(self.context, gold, len(gold.split()))
        return self._one_of(others or words)


def misformatted(items: list[str], scale: str) -> list[str]:
    """Replies that say the right thing in another format than the one line of JSON.

    These are what chat models drift to: a text in place of the list, no scale, Python's quotes,
    an object that is never closed, plain words.
    """
    text = ", ".join(items)
    as_asked = json.dumps({"answer": items, "scale": scale}, ensure_ascii=False)
    as_text = json.dumps({"answer": text, "scale": scale}, ensure_ascii=False)
    without_scale = json.dumps({"answer": items}, ensure_ascii=False)
    in_python = str({"answer": items, "scale": scale})
    never_closed = as_asked[:-1]
    in_words = f"Answer: {text} {scale}".rstrip()
    return [as_text, without_scale, in_python, never_closed, in_words]


def neighbour_cells(context: Context, text: str) -> list[str]:
    """Cells beside the first that equals `text`, of its kind: year, other number or words.

    Beside: in its row, without the first cell (a label) unless it is that, or in its column.
    """
    for row in context.table:
        if text in row:
            at = row.index(text)
            beside = row[1:] if at else []
            for other in context.table:
                if len(other) > at:
                    beside.append(other[at])
            return of_one_kind(beside, text)
    return []


def of_one_kind(cells: Iterable[str], text: str) -> list[str]:
    """The different cells that hold what `text` holds, a year, another number or words: not it."""
    found = set()
    for cell in cells:
        other = cell.strip()
        if other not in ("", text) and _kind_of(other) == _kind_of(text):
            found.add(other)
    return sorted(found)


def _kind_of(cell: str) -> tuple[bool, bool]:
    return bool(NUMBER.search(cell)), bool(YEAR.search(cell))


def words_around(context: Context, text: str, n: int) -> list[str]:
    """Up to `n` words before and after `text` in the first paragraph that holds it, [] if none."""
    for paragraph in context.paragraphs:
        before, found, after = paragraph.partition(text or "\0")
        if found:
            words_before = before.split(" ")[-n - 1 :]
            words_after = after.split(" ")[: n + 1]
            return [" ".join(words_before), " ".join(words_after)]
    return []


def _without_brackets(text: str) -> str:
    """The text without round brackets that hold the whole of it: (a - b), but not (a) - (b)."""
    inner = text[1:-1]
    if text[:1] == "(" and text[-1:] == ")" and "(" not in inner and ")" not in inner:
        return inner
    return text
