"""Synthetic TAT-QA: small company reports in the official schema, for tests and small models.

Every context is a pure function of (split, seed, index), the same on every platform. Types, sources
and scales come in about the shares of TAT-QA's dev set. The words and the shares are in
`synthetic.json`.
"""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

SIZES = {"train": 2_000, "validation": 100, "test": 100}  # contexts that `load` gives
QUESTIONS = 6  # a context
WORDS: dict[str, Any] = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
KINDS = list(Counter(WORDS["weights"]).elements())  # each as often as its weight says
BLANK = {  # what a question says if nothing else is known of it, in the order of the official files
    "question": "", "answer": [], "derivation": "", "answer_type": "", "answer_from": "",
    "rel_paragraphs": [],
    "req_comparison": False, "scale": "",
}  # fmt: skip
FORMULAS: dict[str, tuple[str, Callable[[float, float], float]]] = {
    "change": ("{0} - {1}", lambda a, b: a - b),
    "difference": ("{0} - {1}", lambda a, b: a - b),
    "sum": ("{0} + {1}", lambda a, b: a + b),
    "average": ("({0} + {1}) / 2", lambda a, b: (a + b) / 2),
    "percentage change": ("({0} - {1}) / {1}", lambda a, b: (a - b) / b * 100),
    "share": ("{0} / {1}", lambda a, b: a / b * 100),
}


def generate(split: str, n_contexts: int, seed: int = 0) -> list[dict[str, Any]]:
    """The first n contexts of a split, in the official JSON schema.

    Splits share no context, nor do seeds.
    """
    return [context(split, index, seed) for index in range(n_contexts)]


def context(split: str, index: int, seed: int = 0) -> dict[str, Any]:
    """Context number `index` of a split, in the official JSON schema, with 6 questions."""
    uid = f"synthetic-{split}-{seed}-{index}"
    report = Report(Random(uid))
    questions: dict[str, dict[str, Any]] = {}
    while len(questions) < QUESTIONS:
        question = _question(report)
        if question:
            questions.setdefault(question["question"], question)
    table = _table(report)
    paragraphs = []
    for order, text in enumerate(_paragraphs(report), 1):
        paragraphs.append({"uid": f"{uid}-p{order}", "order": order, "text": text})
    numbered = []
    for order, question in enumerate(questions.values(), 1):
        numbered.append({"uid": f"{uid}-q{order}", "order": order} | BLANK | question)
    return {
        "table": {"uid": uid, "table": table},
        "paragraphs": paragraphs,
        "questions": numbered,
    }


# --- the report ---


class Row(NamedTuple):
    """A line of the table: its label, one value a year, and what the values are scaled by."""

    label: str
    values: list[float]
    scale: str

    def cell(self, column: int) -> str:
        """The value as shown, without a percent sign."""
        value = self.values[column]
        return f"({-value:,})" if value < 0 else f"{value:,}"


class Report:
    """Everything that questions are asked about."""

    def __init__(self, draw: Random) -> None:
        self.draw = draw
        self.theme = draw.choice(WORDS["themes"])
        last = draw.randint(2015, 2020)
        n_years = 2 if draw.random() < 0.65 else 3
        self.years = [str(last - before) for before in range(n_years)]
        self.scale = _scale(draw) if self.theme.get("money", True) else ""
        self.items = _items(draw, self.theme, len(self.years), self.scale)
        self.half = _subtotal_at(draw, len(self.items))
        self.sums = [_sum(self.theme["total"], self.items)]
        if self.half:
            self.sums.insert(0, _sum("Subtotal", self.items[: self.half]))
        self.rates = _rates(draw, n_years)
        n_facts = draw.randint(2, 4)
        self.facts = []  # each with what fills its templates
        for fact in draw.sample(WORDS["facts"], n_facts):
            self.facts.append((fact, _slots(draw, self.years, self.scale)))
        unit_in_text = self.scale != "" and draw.random() < 0.52
        self.source = "table-text" if unit_in_text else "table"
        self.end = draw.choice(WORDS["ends"])  # of the year


def _scale(draw: Random) -> str:
    """What a report counts money in."""
    roll = draw.random()
    if roll < 0.55:
        return "thousand"
    return "million" if roll < 0.97 else "billion"


def _subtotal_at(draw: Random, n_items: int) -> int:
    """How many items the subtotal adds up; 0 if there is none."""
    if n_items > 3 and draw.random() < 0.25:
        return n_items // 2
    return 0


def _rates(draw: Random, n_years: int) -> list[Row]:
    """The row of percentages that some tables have."""
    if draw.random() >= 0.35:
        return []
    label = draw.choice(WORDS["rates"])
    values = _values(draw, n_years, 600, tenths=True)
    return [Row(label, values, "percent")]


def _items(draw: Random, theme: dict[str, Any], n_years: int, scale: str) -> list[Row]:
    """The rows that the table's sums add up."""
    tenths = scale in ("million", "billion") and draw.random() < 0.3
    top = 999 if tenths or draw.random() < 0.8 else 4999
    signed = theme.get("signed", False)
    most = min(5, len(theme["items"]))
    number = draw.randint(3, most)
    items = []
    for label in draw.sample(theme["items"], number):
        values = _values(draw, n_years, top, tenths, signed)
        items.append(Row(label, values, scale))
    return items


def _values(draw: Random, n: int, top: int, tenths: bool, signed: bool = False) -> list[float]:
    """The values of one row, year by year, at first at most `top` (in tenths, if these count)."""
    is_small = draw.random() < 0.3
    newest = draw.randint(10, 99) if is_small else draw.randint(100, top)
    whole = [newest]
    while len(whole) < n:
        whole.append(_near(draw, whole[-1]))
    sign = -1 if signed and draw.random() < 0.4 else 1
    values: list[float] = [sign * value for value in whole]
    return [value / 10 for value in values] if tenths else values


def _near(draw: Random, value: int) -> int:
    """A whole number within a third of a positive one, as the year before often is."""
    return max(5, value + draw.randint(-value // 3, value // 3))


def _sum(label: str, rows: list[Row]) -> Row:
    """A row that adds up others."""
    sums = []
    for column in range(len(rows[0].values)):
        of_year = [row.values[column] for row in rows]
        sums.append(round(sum(of_year), 1))
    return Row(label, sums, rows[0].scale)


def _slots(draw: Random, years: list[str], scale: str) -> dict[str, Any]:
    """What fills the templates of a paragraph and its questions.

    `*_list` has the items of a slot that lists some.
    """
    slots: dict[str, Any] = {}
    for name, words in WORDS["words"].items():
        slots[name] = draw.choice(words)
    for name, words in WORDS["lists"].items():
        listed = draw.sample(words, draw.randint(2, 3))
        *first, last = listed
        slots[name] = f"{', '.join(first)} and {last}"
        slots[f"{name}_list"] = listed
    before = draw.randint(10, 99)
    slots["before"] = before
    slots["amount"] = _near(draw, before)
    slots["later"] = int(years[0]) + draw.randint(2, 9)
    return slots | {"unit": scale or "million", "new": years[0], "old": years[1]}


def _table(report: Report) -> list[list[str]]:
    """The table's lines, cell by cell: one or two of header, then the rows."""
    unit = f"(in {report.scale}s)" if report.scale and report.source == "table" else ""
    lines = [[unit, *report.years]]
    if report.draw.random() < 0.25:
        other_years = [""] * (len(report.years) - 1)
        lines.insert(0, ["", f"Years ended {report.end},", *other_years])
    *subtotal, total = report.sums
    first_items, other_items = report.items[: report.half], report.items[report.half :]
    rows = [*first_items, *subtotal, *other_items, total]
    in_dollars = report.scale and report.draw.random() < 0.4
    lines.append(_line(rows[0], before="$" if in_dollars else ""))
    for row in rows[1:]:
        lines.append(_line(row))
    for row in report.rates:
        lines.append(_line(row, after="%"))
    return lines


def _line(row: Row, before: str = "", after: str = "") -> list[str]:
    """A row's cells, with what stands around each value."""
    cells = [row.label]
    for column in range(len(row.values)):
        cells.append(f"{before}{row.cell(column)}{after}")
    return cells


def _paragraphs(report: Report) -> list[str]:
    """The facts in words, and among them a caption that tells what the table shows."""
    texts = [fact["text"].format(**slots) for fact, slots in report.facts]
    unit = f" (in {report.scale}s)" if report.source == "table-text" else ""
    if unit or report.draw.random() < 0.4:
        shown = report.theme["name"]
        caption = f"The table below shows {shown} for the years ended {report.end}{unit}:"
        texts.insert(report.draw.randint(0, len(texts)), caption)
    return texts


# --- questions ---

# what fills a question, and what is known of its answer
Known = tuple[dict[str, Any], dict[str, Any] | None]


def _question(report: Report) -> dict[str, Any] | None:
    """What a question adds to BLANK; None if the kind that was drawn is not for this report."""
    kind = report.draw.choice(KINDS)
    if kind == "text":
        return _from_text(report)
    work_out = _computed if kind in FORMULAS else _read_off
    slots, known = work_out(kind, report)
    if known is None:
        return None
    slots |= {"theme": report.theme["name"], "total": report.theme["total"]}
    template = report.draw.choice(WORDS["questions"][kind])
    question = template.format(**slots)
    return {"question": question, "answer_from": report.source} | known


def _from_text(report: Report) -> dict[str, Any]:
    """A question about a fact that a paragraph tells."""
    fact, slots = report.draw.choice(report.facts)
    kind, template, answer = report.draw.choice(fact["ask"])
    question = template.format(**slots)
    known = {"question": question, "answer_type": kind, "answer_from": "text"}
    if kind == "multi-span":
        return known | {"answer": slots[answer]}
    if kind == "count":
        return known | _count(slots[answer])
    if kind == "arithmetic":
        new, old = slots["amount"], slots["before"]
        return known | {"answer": new - old, "scale": slots["unit"], "derivation": f"{new} - {old}"}
    return known | {"answer": [answer.format(**slots)]}


def _read_off(kind: str, report: Report) -> Known:
    """Kinds that are read off the table: cells, or the names of items or years by their values."""
    draw = report.draw
    most = kind.startswith("best") and draw.random() < 0.6
    rates = report.rates if kind in ("value", "values", "items", "years") else []
    row = draw.choice([*report.items, *report.sums, *rates])
    column = draw.randint(0, len(report.years) - 1)
    limit = int(row.values[column]) // 10 * 10  # a round number at or below the value
    slots = {
        "row": row.label,
        "new": report.years[column],
        "old": report.years[1],
        "limit": f"{limit:,} {report.scale}".strip(),
        "best": "highest" if most else "lowest",
    }
    if kind == "value":
        known = {"answer": [row.cell(column)], "answer_type": "span"}
        return slots, known | _unit(report, row)
    if kind == "values":
        slots["new"] = report.years[0]
        known = {"answer": [row.cell(0), row.cell(1)], "answer_type": "multi-span"}
        return slots, known | _unit(report, row)
    if "year" in kind:
        values = dict(zip(report.years, row.values, strict=True))
    else:
        values = {item.label: item.values[column] for item in report.items}
    return slots, _named(kind, values, limit, most)


def _named(kind: str, values: dict[str, float], limit: int, most: bool) -> dict[str, Any] | None:
    """The answer that names items or years, or counts them; None if there is none to count."""
    if kind in ("items", "years"):
        return {"answer": list(values), "answer_type": "multi-span"}
    if kind.startswith("best"):
        return _best(values, most)
    counted = list(values)
    if kind != "how many items":
        counted = [name for name, value in values.items() if value > limit]
    return _count(counted) if counted else None


def _best(values: dict[str, float], most: bool) -> dict[str, Any] | None:
    """The name of the highest or lowest value, if one has it alone."""
    ranked = sorted(values.values(), reverse=True)
    wanted = ranked[0] if most else ranked[-1]
    best = [name for name, value in values.items() if value == wanted]
    if len(best) > 1:
        return None
    derivation = " > ".join(map(str, ranked))
    known = {"answer": best, "answer_type": "span"}
    return known | {"derivation": derivation, "req_comparison": True}


def _unit(report: Report, row: Row) -> dict[str, str]:
    """A rate shows its unit in the table."""
    source = "table" if row.scale == "percent" else report.source
    return {"scale": row.scale, "answer_from": source}


def _count(names: list[str]) -> dict[str, Any]:
    """How many there are, derived by naming them, as the official files do."""
    return {"answer": str(len(names)), "answer_type": "count", "derivation": "##".join(names)}


def _computed(kind: str, report: Report) -> Known:
    """Kinds that are calculated from two numbers of the table."""
    if kind in ("change", "average", "percentage change"):
        row, a, b, slots = _two_years(kind, report)
    else:
        row, a, b, slots = _two_rows(kind, report)
    in_percent = kind in ("percentage change", "share")
    if in_percent and (b <= 0 or (kind == "share" and a < 0)):
        return slots, None
    template, formula = FORMULAS[kind]
    value = round(formula(a, b), 2)
    if not value:
        return slots, None
    answer = int(value) if value == int(value) else value
    known = {"answer": answer, "answer_type": "arithmetic"} | _unit(report, row)
    if in_percent:
        known["scale"] = "percent"
    known["derivation"] = template.format(_operand(a), _operand(b))
    return slots, known


class Operands(NamedTuple):
    """Two numbers of the table: the row whose unit they have, and how a question calls them."""

    row: Row
    a: float
    b: float
    slots: dict[str, Any]


def _two_years(kind: str, report: Report) -> Operands:
    """A row in its first two years; there is no percentage change of a percentage."""
    rates = [] if kind == "percentage change" else report.rates
    row = report.draw.choice([*report.items, *report.sums, *rates])
    slots = {"row": row.label, "new": report.years[0], "old": report.years[1]}
    return Operands(row, row.values[0], row.values[1], slots)


def _two_rows(kind: str, report: Report) -> Operands:
    """Two rows, or a row and the total, in one year."""
    row, other = report.draw.sample(report.items, 2)
    column = report.draw.randint(0, 1)
    if kind == "share":
        other = report.sums[-1]
    slots = {"row": row.label, "other": other.label, "new": report.years[column]}
    return Operands(row, row.values[column], other.values[column], slots)


def _operand(number: float) -> str:
    """A number as a derivation has it: negative ones in brackets."""
    return f"({number})" if number < 0 else str(number)
