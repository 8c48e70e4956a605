"""Wrong answers that a model would really give, made from the gold answer: one method per kind of mistake.

Each kind returns (answer items, scale), without items where it does not apply. Whether the result is wrong under the
official metric is for the caller to check (train.pairs does).
"""

import ast
import operator
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from random import Random

from tatqa_task.data import SCALES, Context, Question

Answer = tuple[list[str], str]

KINDS = {  # answer type: its kinds of mistake
    "span": ("other_cell", "neighbouring_span", "cut_span", "overlong_span", "wrong_scale"),
    "multi-span": ("one_missing", "one_extra", "one_replaced", "wrong_scale"),
    "arithmetic": (
        "swapped_operands",
        "wrong_operation",
        "wrong_cell",
        "lost_hundred",
        "wrong_scale",
        "wrong_sign",
    ),
    "count": ("off_by_few", "listed_items"),
}
NAMES = sorted({kind for kinds in KINDS.values() for kind in kinds})
NUMBER = re.compile(r"\d[\d,]*\.?\d*|\.\d+")
YEAR = re.compile(r"\b(19|20)\d\d\b")
OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


@dataclass(frozen=True)
class Mistakes:
    """The mistakes that can be made with one question; each call of a method draws again."""

    context: Context
    question: Question
    rng: Random

    def other_cell(self) -> Answer:
        """Another cell of the gold cell's row or column: the wrong year or the wrong item."""
        return self._one_of(neighbour_cells(self.context, self._gold[0])), self.question.scale

    def neighbouring_span(self) -> Answer:
        """As many words of the same paragraph, right before or after the gold span."""
        gold = self._gold[0]
        return self._one_of(
            words_around(self.context, gold, len(gold.split()))
        ), self.question.scale

    def cut_span(self) -> Answer:
        """The gold span without up to half of its words, at the front or the end."""
        words = self._gold[0].split()
        n = self.rng.randint(1, max(1, len(words) // 2))
        return self._one_of([" ".join(words[n:]), " ".join(words[:-n])]), self.question.scale

    def overlong_span(self) -> Answer:
        """The gold span with one to eight words more of its paragraph."""
        gold, around = (
            self._gold[0],
            words_around(self.context, self._gold[0], self.rng.randint(1, 8)),
        )
        return self._one_of(
            [around[0] + gold, gold + around[1]] if around else []
        ), self.question.scale

    def wrong_scale(self) -> Answer:
        """The right numbers with another scale, half the time with none."""
        others = [scale for scale in SCALES if scale not in ("", self.question.scale)]
        scale = "" if self.question.scale and self.rng.random() < 0.5 else self.rng.choice(others)
        return (self._gold if all(NUMBER.search(item) for item in self._gold) else []), scale

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
        other, at = self._beside(), self.rng.randrange(len(self._gold))
        return (
            self._gold[:at] + other + self._gold[at + 1 :] if other else []
        ), self.question.scale

    def swapped_operands(self) -> Answer:
        """Two operands of the derivation changed places: 2018 - 2019 instead of 2019 - 2018."""
        operands = sorted(set(NUMBER.findall(self.question.derivation)))
        return self._recomputed(self._replaced({a: b, b: a}) for a, b in combinations(operands, 2))

    def wrong_operation(self) -> Answer:
        """The difference for a percentage change, no division for a mean, a ratio upside down, + for - or - for +."""
        text = self.question.derivation.strip()
        above, division, below = text.rpartition("/")
        signs = [match.end() for match in re.finditer(r"[\d)%\]]\s*[-+]", text)]
        changed = [text[: i - 1] + {"-": "+", "+": "-"}[text[i - 1]] + text[i:] for i in signs]
        undivided = (
            f"({above})/100" if self.question.scale == "percent" else above
        )  # _recomputed multiplies again
        return self._recomputed(changed + [undivided, f"({below})/({above})"] * bool(division))

    def wrong_cell(self) -> Answer:
        """One operand taken from another year's column or another item's row."""
        changed = []
        for operand in sorted(set(NUMBER.findall(self.question.derivation))):
            holders = [
                cell
                for row in self.context.table
                for cell in row
                if operand in NUMBER.findall(cell)
            ]
            for cell in neighbour_cells(self.context, holders[0]) if holders else []:
                changed.append(self._replaced({operand: NUMBER.findall(cell)[0]}))
        return self._recomputed(changed)

    def lost_hundred(self) -> Answer:
        """A share given as a fraction where per cent were asked."""
        value = self._value if self.question.scale == "percent" else None
        return ([f"{value / 100:.4f}"] if value else []), self.question.scale

    def wrong_sign(self) -> Answer:
        """An increase for a decrease."""
        return self._rounded(-self._value if self._value else None)

    def off_by_few(self) -> Answer:
        """One or two too many or too few."""
        gold = int(self._value or 0)
        return [
            str(self.rng.choice([gold + n for n in (-2, -1, 1, 2) if gold + n >= 0]))
        ], self.question.scale

    def listed_items(self) -> Answer:
        """The things themselves instead of their number."""
        return [
            item.strip() for item in self.question.derivation.split("##") if item.strip()
        ], self.question.scale

    @property
    def _gold(self) -> list[str]:
        return spans(self.question)

    @property
    def _value(self) -> float | None:
        try:
            return float(str(self.question.answer).replace(",", ""))
        except ValueError:
            return None

    def _one_of(self, options: Iterable[str]) -> list[str]:
        texts = [text for text in (option.strip(" ,;:.") for option in options) if text]
        return [self.rng.choice(texts)] if texts else []

    def _beside(self) -> list[str]:
        cells = {cell for item in self._gold for cell in neighbour_cells(self.context, item)} - set(
            self._gold
        )
        gold = self.rng.choice(self._gold)
        return self._one_of(sorted(cells) or words_around(self.context, gold, len(gold.split())))

    def _replaced(self, numbers: dict[str, str]) -> str:
        return NUMBER.sub(lambda match: numbers.get(match[0], match[0]), self.question.derivation)

    def _recomputed(self, changed: Iterable[str]) -> Answer:
        """The answer by one of the `changed` derivations, if the gold answer follows from its own derivation."""
        gold, derived = self._value, evaluate(self.question.derivation)
        if gold is None or derived is None:
            return self._rounded(None)
        factors = [
            factor
            for factor in (1, 100)
            if abs(derived * factor - gold) <= 0.01 * max(1.0, abs(gold))
        ]
        values = [value for value in map(evaluate, changed) if value is not None]
        return self._rounded(self.rng.choice(values) * factors[0] if factors and values else None)

    def _rounded(self, value: float | None) -> Answer:
        decimals = len(
            str(self.question.answer).partition(".")[2]
        )  # as many as the gold answer has
        return ([] if value is None else [f"{value:.{decimals}f}"]), self.question.scale


def spans(question: Question) -> list[str]:
    """The gold answer as texts."""
    return (
        [str(item) for item in question.answer]
        if isinstance(question.answer, list)
        else [str(question.answer)]
    )


def neighbour_cells(context: Context, text: str) -> list[str]:
    """Cells in the row and column of the first cell that equals `text`, of its kind: year, other number or words."""
    for row in context.table:
        if text in row:
            at = row.index(text)
            beside = row[1:] if at else []
            column = [other[at] for other in context.table if len(other) > at]
            cells = {cell.strip() for cell in beside + column} - {"", text}
            return sorted(cell for cell in cells if _kind_of(cell) == _kind_of(text))
    return []


def _kind_of(cell: str) -> tuple[bool, bool]:
    return bool(NUMBER.search(cell)), bool(YEAR.search(cell))


def words_around(context: Context, text: str, n: int) -> list[str]:
    """Up to `n` words right before and right after `text` in the first paragraph that holds it; [] if none does."""
    for paragraph in context.paragraphs:
        before, found, after = paragraph.partition(text or "\0")
        if found:
            return [" ".join(before.split(" ")[-n - 1 :]), " ".join(after.split(" ")[: n + 1])]
    return []


def evaluate(derivation: str) -> float | None:
    """Value of an expression of numbers, + - * / and brackets; None if it is anything else."""
    cleaned = re.sub(r"[,$%\s]", "", derivation).replace("[", "(").replace("]", ")")
    try:
        return _value(ast.parse(re.sub(r"(?<![\d.])0+(?=\d)", "", cleaned), mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError, OverflowError, RecursionError, MemoryError):
        return None


def _value(node: ast.expr) -> float:
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        return float(OPERATORS[type(node.op)](_value(node.left), _value(node.right)))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand)
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return float(node.value)
    raise ValueError(f"not arithmetic: {ast.dump(node)}")
