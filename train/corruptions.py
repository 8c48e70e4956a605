"""Wrong answers that a model would really give, made from the gold answer: one function per kind of mistake.

Each kind takes a context, a question and a random generator and returns (answer items, scale), or None where it does
not apply. Whether the result is wrong under the official metric is for the caller to check (train.pairs does).
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Iterator
from random import Random

from tatqa_task.data import Context, Question

Answer = tuple[list[str], str]
Kind = Callable[[Context, Question, Random], Answer | None]

SCALES = ("", "thousand", "million", "billion", "percent")
NUMBER = re.compile(r"\d[\d,]*\.?\d*|\.\d+")
OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


# --- what the kinds look at ---


def spans(question: Question) -> list[str]:
    """The gold answer as texts."""
    answer = question.answer
    return [str(item) for item in answer] if isinstance(answer, list) else [str(answer)]


def neighbour_cells(context: Context, text: str, by_row: bool = True, by_column: bool = True) -> list[str]:
    """Non-empty cells in the row or column of the first cell that equals `text`, itself and its like left out."""
    at = next(((r, c) for r, row in enumerate(context.table) for c, cell in enumerate(row) if cell == text), None)
    if at is None:
        return []
    row = context.table[at[0]][1:] if by_row and at[1] else []
    column = [other[at[1]] for other in context.table if len(other) > at[1]] if by_column else []
    numeric = bool(NUMBER.search(text))
    like = (cell.strip() for cell in row + column if bool(NUMBER.search(cell)) == numeric)
    return sorted({cell for cell in like if cell and cell != text})


def place_in_text(context: Context, text: str) -> tuple[list[str], int, int] | None:
    """Words of the first paragraph that holds `text`, and the words' range [start, end) that `text` covers."""
    for paragraph in context.paragraphs:
        start = paragraph.find(text)
        if text and start >= 0:
            before, inside = paragraph[:start].split(), text.split()
            return before + inside + paragraph[start + len(text) :].split(), len(before), len(before) + len(inside)
    return None


def evaluate(derivation: str) -> float | None:
    """Value of an arithmetic expression of numbers, + - * / and brackets; None if it is anything else."""
    cleaned = re.sub(r"[,$%\s]", "", derivation).replace("[", "(").replace("]", ")")
    try:
        return _value(ast.parse(re.sub(r"(?<![\d.])0+(?=\d)", "", cleaned), mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError, OverflowError, RecursionError):
        return None


def _value(node: ast.expr) -> float:
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        return OPERATORS[type(node.op)](_value(node.left), _value(node.right))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand)
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return float(node.value)
    raise ValueError(f"not arithmetic: {ast.dump(node)}")


def _rounded(question: Question, value: float) -> Answer:
    """`value` written with as many decimals as the gold answer."""
    decimals = len(str(question.answer).partition(".")[2])
    text = f"{value:.{decimals}f}"
    return [text.lstrip("-") if float(text) == 0 else text], question.scale


def _gold_value(question: Question) -> float | None:
    try:
        return float(str(question.answer).replace(",", ""))
    except ValueError:
        return None


def _recomputed(question: Question, changed: Iterator[str], rng: Random) -> Answer | None:
    """The answer by one of the `changed` derivations, if the gold answer follows from its own derivation."""
    gold, derived = _gold_value(question), evaluate(question.derivation)
    if gold is None or derived is None:
        return None
    factor = next((k for k in (1, 100) if abs(derived * k - gold) <= 0.01 * max(1.0, abs(gold))), None)
    values = [value for value in map(evaluate, changed) if value is not None]
    return _rounded(question, rng.choice(values) * factor) if factor and values else None


# --- any type ---


def wrong_scale(context: Context, question: Question, rng: Random) -> Answer | None:
    """The right numbers with another scale."""
    if not all(NUMBER.search(item) for item in spans(question)):
        return None
    return spans(question), rng.choice([scale for scale in SCALES if scale != question.scale])


# --- span ---


def other_cell(context: Context, question: Question, rng: Random) -> Answer | None:
    """Another cell of the gold cell's row or column: the wrong year or the wrong item."""
    cells = neighbour_cells(context, spans(question)[0])
    return ([rng.choice(cells)], question.scale) if cells else None


def neighbouring_span(context: Context, question: Question, rng: Random) -> Answer | None:
    """As many words of the same paragraph, right before or after the gold span."""
    place = place_in_text(context, spans(question)[0])
    if place is None:
        return None
    words, start, end = place
    size = end - start
    options = [words[max(0, start - size) : start], words[end : end + size]]
    options = [option for option in options if option]
    return ([_trimmed(rng.choice(options))], question.scale) if options else None


def cut_span(context: Context, question: Question, rng: Random) -> Answer | None:
    """The gold span without its first or last words."""
    words = spans(question)[0].split()
    if len(words) < 2:
        return None
    n = rng.randint(1, max(1, len(words) // 2))
    return [_trimmed(rng.choice([words[n:], words[:-n]]))], question.scale


def overlong_span(context: Context, question: Question, rng: Random) -> Answer | None:
    """The gold span with one to eight words more of its paragraph."""
    place = place_in_text(context, spans(question)[0])
    if place is None:
        return None
    words, start, end = place
    n = rng.randint(1, 8)
    options = [words[max(0, start - n) : end], words[start : end + n]]
    return [_trimmed(max(options, key=len) if rng.random() < 0.5 else rng.choice(options))], question.scale


def _trimmed(words: list[str]) -> str:
    return " ".join(words).strip(" ,;:.")


# --- multi-span ---


def one_missing(context: Context, question: Question, rng: Random) -> Answer | None:
    """One of the gold spans left out."""
    items = spans(question)
    if len(items) < 2:
        return None
    left_out = rng.randrange(len(items))
    return items[:left_out] + items[left_out + 1 :], question.scale


def one_extra(context: Context, question: Question, rng: Random) -> Answer | None:
    """One span too many, from the row or column of a gold one or from the text beside it."""
    items, other = spans(question), _alternative(context, question, rng)
    return (items + [other], question.scale) if other else None


def one_replaced(context: Context, question: Question, rng: Random) -> Answer | None:
    """One gold span replaced by a neighbour."""
    items, other = spans(question), _alternative(context, question, rng)
    if other is None:
        return None
    at = rng.randrange(len(items))
    return items[:at] + [other] + items[at + 1 :], question.scale


def _alternative(context: Context, question: Question, rng: Random) -> str | None:
    items = spans(question)
    cells = {cell for item in items for cell in neighbour_cells(context, item)} - set(items)
    if cells:
        return rng.choice(sorted(cells))
    place = place_in_text(context, rng.choice(items))
    return _trimmed(place[0][place[2] : 2 * place[2] - place[1]]) or None if place else None


# --- arithmetic ---


def swapped_operands(context: Context, question: Question, rng: Random) -> Answer | None:
    """Two operands of the derivation changed places: 2018 - 2019 instead of 2019 - 2018."""
    operands = sorted(set(NUMBER.findall(question.derivation)))
    pairs = [(a, b) for a in operands for b in operands if a < b]
    swapped = (_replaced(question.derivation, {a: b, b: a}) for a, b in pairs)
    return _recomputed(question, swapped, rng)


def wrong_operation(context: Context, question: Question, rng: Random) -> Answer | None:
    """The difference for a percentage change, no division for a mean or a ratio, + for - and the reverse."""
    text = question.derivation.strip()
    changed = []
    if "/" in text:
        numerator, _, denominator = text.rpartition("/")
        changed += [numerator, f"({denominator})/({numerator})"]
    operators = [m.start() for m in re.finditer(r"(?<=[\d)%\]])\s*[-+]", text)]
    changed += [text[:i] + re.sub(r"[-+]", _other_sign, text[i:], count=1) for i in operators]
    return _recomputed(question, iter(changed), rng)


def _other_sign(match: re.Match[str]) -> str:
    return "+" if match[0] == "-" else "-"


def wrong_cell(context: Context, question: Question, rng: Random) -> Answer | None:
    """One operand taken from another year's column or another item's row."""
    changed = []
    for operand in sorted(set(NUMBER.findall(question.derivation))):
        cells = [cell for row in context.table for cell in row if operand in NUMBER.findall(cell)]
        for cell in neighbour_cells(context, cells[0]) if cells else []:
            changed += [_replaced(question.derivation, {operand: number}) for number in NUMBER.findall(cell)[:1]]
    return _recomputed(question, iter(changed), rng)


def lost_hundred(context: Context, question: Question, rng: Random) -> Answer | None:
    """A share given as a fraction where per cent were asked."""
    gold = _gold_value(question)
    if question.scale != "percent" or not gold:
        return None
    return [f"{gold / 100:.4f}".rstrip("0")], question.scale


def wrong_sign(context: Context, question: Question, rng: Random) -> Answer | None:
    """An increase for a decrease."""
    gold = _gold_value(question)
    return _rounded(question, -gold) if gold else None


def _replaced(text: str, numbers: dict[str, str]) -> str:
    return NUMBER.sub(lambda match: numbers.get(match[0], match[0]), text)


# --- count ---


def off_by_few(context: Context, question: Question, rng: Random) -> Answer | None:
    """One or two too many or too few."""
    gold = _gold_value(question)
    options = [n for n in (-2, -1, 1, 2) if gold is not None and gold + n >= 0]
    return ([str(int(gold or 0) + rng.choice(options))], question.scale) if options else None


def listed_items(context: Context, question: Question, rng: Random) -> Answer | None:
    """The things themselves instead of their number."""
    items = [item.strip() for item in question.derivation.split("##") if item.strip()]
    return (items, question.scale) if items else None


KINDS: dict[str, tuple[Kind, ...]] = {
    "span": (other_cell, neighbouring_span, cut_span, overlong_span, wrong_scale),
    "multi-span": (one_missing, one_extra, one_replaced, wrong_scale),
    "arithmetic": (swapped_operands, wrong_operation, wrong_cell, lost_hundred, wrong_scale, wrong_sign),
    "count": (off_by_few, listed_items),
}
NAMES = sorted({kind.__name__ for kinds in KINDS.values() for kind in kinds})
