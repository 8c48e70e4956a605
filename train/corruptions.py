"""Wrong answers that a model would really give, made from the gold answer: one function per kind of mistake.

Each kind returns (answer items, scale), without items where it does not apply. Whether the result is wrong under the
official metric is for the caller to check (train.pairs does).
"""

import ast
import operator
import re
from collections.abc import Callable, Iterable
from itertools import combinations
from random import Random

from tatqa_task.data import SCALES, Context, Question

Answer = tuple[list[str], str]
Kind = Callable[[Context, Question, Random], Answer]

NUMBER = re.compile(r"\d[\d,]*\.?\d*|\.\d+")
YEAR = re.compile(r"\b(19|20)\d\d\b")
OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


def spans(question: Question) -> list[str]:
    """The gold answer as texts."""
    return [str(item) for item in question.answer] if isinstance(question.answer, list) else [str(question.answer)]


def gold_value(question: Question) -> float | None:
    """The gold answer as a number, if it is one."""
    try:
        return float(str(question.answer).replace(",", ""))
    except ValueError:
        return None


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


def _recomputed(question: Question, rng: Random, changed: Iterable[str]) -> Answer:
    """The answer by one of the `changed` derivations, if the gold answer follows from its own derivation."""
    gold, derived = gold_value(question), evaluate(question.derivation)
    if gold is None or derived is None:
        return [], ""
    factors = [factor for factor in (1, 100) if abs(derived * factor - gold) <= 0.01 * max(1.0, abs(gold))]
    values = [value for value in map(evaluate, changed) if value is not None]
    return _rounded(question, rng.choice(values) * factors[0]) if factors and values else ([], "")


def _rounded(question: Question, value: float) -> Answer:
    decimals = len(str(question.answer).partition(".")[2])  # as many as the gold answer has
    return [f"{value:.{decimals}f}"], question.scale


def _replaced(derivation: str, numbers: dict[str, str]) -> str:
    return NUMBER.sub(lambda match: numbers.get(match[0], match[0]), derivation)


def _one_of(rng: Random, options: Iterable[str]) -> list[str]:
    """One of the options that say something, in a list of its own; [] if there is none."""
    texts = [text for text in (option.strip(" ,;:.") for option in options) if text]
    return [rng.choice(texts)] if texts else []


def other_cell(context: Context, question: Question, rng: Random) -> Answer:
    """Another cell of the gold cell's row or column: the wrong year or the wrong item."""
    return _one_of(rng, neighbour_cells(context, spans(question)[0])), question.scale


def neighbouring_span(context: Context, question: Question, rng: Random) -> Answer:
    """As many words of the same paragraph, right before or after the gold span."""
    gold = spans(question)[0]
    return _one_of(rng, words_around(context, gold, len(gold.split()))), question.scale


def cut_span(context: Context, question: Question, rng: Random) -> Answer:
    """The gold span without up to half of its words, at the front or the end."""
    words = spans(question)[0].split()
    n = rng.randint(1, max(1, len(words) // 2))
    return _one_of(rng, [" ".join(words[n:]), " ".join(words[:-n])]), question.scale


def overlong_span(context: Context, question: Question, rng: Random) -> Answer:
    """The gold span with one to eight words more of its paragraph."""
    gold, around = spans(question)[0], words_around(context, spans(question)[0], rng.randint(1, 8))
    return _one_of(rng, [around[0] + gold, gold + around[1]] if around else []), question.scale


def wrong_scale(context: Context, question: Question, rng: Random) -> Answer:
    """The right numbers with another scale, half the time with none."""
    others = [scale for scale in SCALES if scale not in ("", question.scale)]
    scale = "" if question.scale and rng.random() < 0.5 else rng.choice(others)
    return (spans(question) if all(NUMBER.search(item) for item in spans(question)) else []), scale


def one_missing(context: Context, question: Question, rng: Random) -> Answer:
    """One of several gold spans left out."""
    items = spans(question)
    items.pop(rng.randrange(len(items)))
    return items, question.scale


def one_extra(context: Context, question: Question, rng: Random) -> Answer:
    """One span too many, from beside a gold one."""
    other = _beside(context, question, rng)
    return (spans(question) + other if other else []), question.scale


def one_replaced(context: Context, question: Question, rng: Random) -> Answer:
    """One gold span replaced by a neighbour."""
    items, other = spans(question), _beside(context, question, rng)
    at = rng.randrange(len(items))
    return (items[:at] + other + items[at + 1 :] if other else []), question.scale


def _beside(context: Context, question: Question, rng: Random) -> list[str]:
    items = spans(question)
    cells = sorted({cell for item in items for cell in neighbour_cells(context, item)} - set(items))
    gold = rng.choice(items)
    return _one_of(rng, cells or words_around(context, gold, len(gold.split())))


def swapped_operands(context: Context, question: Question, rng: Random) -> Answer:
    """Two operands of the derivation changed places: 2018 - 2019 instead of 2019 - 2018."""
    numbers = sorted(set(NUMBER.findall(question.derivation)))
    swaps = ({a: b, b: a} for a, b in combinations(numbers, 2))
    return _recomputed(question, rng, (_replaced(question.derivation, swap) for swap in swaps))


def wrong_operation(context: Context, question: Question, rng: Random) -> Answer:
    """The difference for a percentage change, no division for a mean, a ratio upside down, + for - and the reverse."""
    text = question.derivation.strip()
    above, division, below = text.rpartition("/")
    signs = [match.end() for match in re.finditer(r"[\d)%\]]\s*[-+]", text)]
    changed = [text[: i - 1] + {"-": "+", "+": "-"}[text[i - 1]] + text[i:] for i in signs]
    undivided = f"({above})/100" if question.scale == "percent" else above  # the answer's own times 100 undone
    return _recomputed(question, rng, changed + [undivided, f"({below})/({above})"] * bool(division))


def wrong_cell(context: Context, question: Question, rng: Random) -> Answer:
    """One operand taken from another year's column or another item's row."""
    changed = []
    for operand in sorted(set(NUMBER.findall(question.derivation))):
        holders = [cell for row in context.table for cell in row if operand in NUMBER.findall(cell)]
        for cell in neighbour_cells(context, holders[0]) if holders else []:
            changed.append(_replaced(question.derivation, {operand: NUMBER.findall(cell)[0]}))
    return _recomputed(question, rng, changed)


def lost_hundred(context: Context, question: Question, rng: Random) -> Answer:
    """A share given as a fraction where per cent were asked."""
    gold = gold_value(question)
    return ([f"{gold / 100:.4f}"] if gold and question.scale == "percent" else []), question.scale


def wrong_sign(context: Context, question: Question, rng: Random) -> Answer:
    """An increase for a decrease."""
    gold = gold_value(question)
    return _rounded(question, -gold) if gold else ([], "")


def off_by_few(context: Context, question: Question, rng: Random) -> Answer:
    """One or two too many or too few."""
    gold = int(gold_value(question) or 0)
    return [str(rng.choice([gold + n for n in (-2, -1, 1, 2) if gold + n >= 0]))], question.scale


def listed_items(context: Context, question: Question, rng: Random) -> Answer:
    """The things themselves instead of their number."""
    return [item.strip() for item in question.derivation.split("##") if item.strip()], question.scale


KINDS: dict[str, tuple[Kind, ...]] = {
    "span": (other_cell, neighbouring_span, cut_span, overlong_span, wrong_scale),
    "multi-span": (one_missing, one_extra, one_replaced, wrong_scale),
    "arithmetic": (swapped_operands, wrong_operation, wrong_cell, lost_hundred, wrong_scale, wrong_sign),
    "count": (off_by_few, listed_items),
}
NAMES = sorted({kind.__name__ for kinds in KINDS.values() for kind in kinds})
