"""Synthetic TAT-QA: small company-report contexts in the official JSON schema, for tests, demos and small models.

Every context is a pure function of (split, seed, index), the same on every platform. Types, sources and scales come in
about the shares of TAT-QA's dev set. The words and the shares are in `synthetic.json`.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

SIZES = {"train": 2_000, "validation": 100, "test": 100}  # contexts that `load` gives
QUESTIONS = 6  # a context
WORDS: dict[str, Any] = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
KINDS = [kind for kind, weight in WORDS["weights"].items() for _ in range(weight)]


@dataclass(frozen=True)
class Row:
    """A line of the table: its label, one value a year, and what the values are scaled by."""

    label: str
    values: list[float]
    scale: str

    def cell(self, column: int) -> str:
        """The value as shown, without a percent sign."""
        value = self.values[column]
        text = f"{abs(value):,.1f}" if isinstance(value, float) else f"{abs(value):,}"
        return f"({text})" if value < 0 else text


@dataclass(frozen=True)
class Report:
    """Everything that questions are asked about; `rows` are the items, subtotal, total and rates, in this order."""

    draw: Random
    theme: dict[str, Any]
    years: list[str]
    items: list[Row]
    sums: list[Row]  # subtotal (or not) and total
    rates: list[Row]
    scale: str
    source: str  # where the unit stands: table or table-text
    facts: list[tuple[dict[str, Any], dict[str, Any]]]  # template and what fills it
    end: str  # of the year


def generate(split: str, n_contexts: int, seed: int = 0) -> list[dict[str, Any]]:
    """The first n contexts of a split, in the official JSON schema. Splits share no context, nor do seeds."""
    return [context(split, index, seed) for index in range(n_contexts)]


def context(split: str, index: int, seed: int = 0) -> dict[str, Any]:
    """Context number `index` of a split, in the official JSON schema, with 6 questions."""
    uid = f"synthetic-{split}-{seed}-{index}"
    report = _report(Random(uid))
    questions: dict[str, dict[str, Any]] = {}
    while len(questions) < QUESTIONS:
        question = _question(report)
        if question:
            questions.setdefault(question["question"], question)
    return {
        "table": {"uid": uid, "table": _table(report)},
        "paragraphs": [{"uid": f"{uid}-p{i}", "order": i, "text": t} for i, t in enumerate(_paragraphs(report), 1)],
        "questions": [{"uid": f"{uid}-q{i}", "order": i} | q for i, q in enumerate(questions.values(), 1)],
    }


# --- the report ---


def _report(draw: Random) -> Report:
    theme, last = draw.choice(WORDS["themes"]), draw.randint(2015, 2020)
    years = [str(last - i) for i in range(2 if draw.random() < 0.65 else 3)]
    roll = draw.random() if theme.get("money", True) else 1
    scale = "thousand" if roll < 0.55 else "million" if roll < 0.97 else "billion" if roll < 1 else ""
    items = _items(draw, theme, len(years), scale)
    half = [_sum("Subtotal", items[: len(items) // 2])] if len(items) > 3 and draw.random() < 0.25 else []
    rates = [_rate(draw, len(years))] if draw.random() < 0.35 else []
    facts = [(fact, _slots(draw, years, scale)) for fact in draw.sample(WORDS["facts"], draw.randint(2, 4))]
    source = "table-text" if scale and draw.random() < 0.52 else "table"
    sums = [*half, _sum(theme["total"], items)]
    return Report(draw, theme, years, items, sums, rates, scale, source, facts, draw.choice(WORDS["ends"]))


def _items(draw: Random, theme: dict[str, Any], n_years: int, scale: str) -> list[Row]:
    tenths = scale in ("million", "billion") and draw.random() < 0.3
    top = 999 if tenths or draw.random() < 0.8 else 4999
    labels = draw.sample(theme["items"], draw.randint(3, min(5, len(theme["items"]))))
    return [Row(label, _values(draw, n_years, top, tenths, theme.get("signed", False)), scale) for label in labels]


def _values(draw: Random, n: int, top: int, tenths: bool, signed: bool) -> list[float]:
    values = [draw.randint(10, 99) if draw.random() < 0.3 else draw.randint(100, top)]
    while len(values) < n:
        values.append(_near(draw, values[-1]))
    sign = -1 if signed and draw.random() < 0.4 else 1
    return [sign * value / 10 if tenths else sign * value for value in values]


def _near(draw: Random, value: int) -> int:
    """A whole number within a third of a positive one, as the year before often is."""
    return max(5, value + draw.randint(-value // 3, value // 3))


def _sum(label: str, rows: list[Row]) -> Row:
    sums = [sum(values) for values in zip(*(row.values for row in rows), strict=True)]
    return Row(label, [round(value, 1) for value in sums], rows[0].scale)


def _rate(draw: Random, n: int) -> Row:
    return Row(draw.choice(WORDS["rates"]), _values(draw, n, 600, tenths=True, signed=False), "percent")


def _slots(draw: Random, years: list[str], scale: str) -> dict[str, Any]:
    """What fills the templates of a paragraph and its questions."""
    slots: dict[str, Any] = {name: draw.choice(words) for name, words in WORDS["words"].items()}
    slots |= {name: draw.sample(words, draw.randint(2, 3)) for name, words in WORDS["lists"].items()}
    before = draw.randint(10, 99)
    numbers = {"before": before, "amount": _near(draw, before), "later": int(years[0]) + draw.randint(2, 9)}
    return slots | numbers | {"unit": scale or "million", "new": years[0], "old": years[1]}


def _fill(template: str, slots: dict[str, Any]) -> str:
    listed = {name: f"{', '.join(slots[name][:-1])} and {slots[name][-1]}" for name in WORDS["lists"]}
    return template.format(**slots | listed)


def _table(report: Report) -> list[list[str]]:
    draw, in_table = report.draw, report.scale and report.source == "table"
    header = [[f"(in {report.scale}s)" if in_table else "", *report.years]]
    if draw.random() < 0.25:
        header.insert(0, ["", f"Years ended {report.end},", *[""] * (len(report.years) - 1)])
    half = len(report.items) // 2 if len(report.sums) > 1 else 0
    rows = [*report.items[:half], *report.sums[:-1], *report.items[half:], report.sums[-1], *report.rates]
    first = "$" if report.scale and draw.random() < 0.4 else ""
    columns = range(len(report.years))
    signs = [(first if row is rows[0] else "", "%" if row.scale == "percent" else "") for row in rows]
    return header + [
        [row.label, *(before + row.cell(column) + after for column in columns)]
        for row, (before, after) in zip(rows, signs, strict=True)
    ]


def _paragraphs(report: Report) -> list[str]:
    draw, texts = report.draw, [_fill(fact["text"], slots) for fact, slots in report.facts]
    unit = f" (in {report.scale}s)" if report.source == "table-text" else ""
    if unit or draw.random() < 0.4:
        caption = f"The table below shows {report.theme['name']} for the years ended {report.end}{unit}:"
        texts.insert(draw.randint(0, len(texts)), caption)
    return texts


# --- questions: each kind gives the question's slots and what is known of its answer; None: not for this report ---

Known = tuple[dict[str, Any], dict[str, Any]] | None
FORMULAS: dict[str, tuple[str, Callable[[float, float], float]]] = {
    "change": ("{a} - {b}", lambda a, b: a - b),
    "difference": ("{a} - {b}", lambda a, b: a - b),
    "sum": ("{a} + {b}", lambda a, b: a + b),
    "average": ("({a} + {b}) / 2", lambda a, b: (a + b) / 2),
    "percentage change": ("({a} - {b}) / {b}", lambda a, b: (a - b) / b * 100),
    "share": ("{a} / {b}", lambda a, b: a / b * 100),
}


def _question(report: Report) -> dict[str, Any] | None:
    kind = report.draw.choice(KINDS)
    if kind == "text":
        return _from_text(report)
    known = _known(kind, report)
    if known is None:
        return None
    slots, answer = known
    slots |= {"theme": report.theme["name"], "total": report.theme["total"]}
    return _asked(report.draw.choice(WORDS["questions"][kind]).format(**slots), **{"source": report.source} | answer)


def _asked(
    question: str, answer: Any, answer_type: str, source: str, scale: str = "", derivation: str = ""
) -> dict[str, Any]:
    return {
        "question": question, "answer": answer, "derivation": derivation, "answer_type": answer_type,
        "answer_from": source, "rel_paragraphs": [], "req_comparison": ">" in derivation, "scale": scale,
    }  # fmt: skip


def _from_text(report: Report) -> dict[str, Any]:
    fact, slots = report.draw.choice(report.facts)
    kind, question, answer = report.draw.choice(fact["ask"])
    question = _fill(question, slots)
    if kind == "multi-span":
        return _asked(question, slots[answer], kind, "text")
    if kind == "count":
        return _asked(question, str(len(slots[answer])), kind, "text", derivation="##".join(slots[answer]))
    if kind == "arithmetic":
        new, old = slots["amount"], slots["before"]
        return _asked(question, new - old, kind, "text", slots["unit"], f"{new} - {old}")
    return _asked(question, [_fill(answer, slots)], kind, "text")


def _known(kind: str, report: Report) -> Known:
    if kind in FORMULAS:
        return _computed(kind, report)
    if kind.startswith("best"):
        return _best(report, report.draw.random() < 0.6, across_years=kind == "best year")
    if kind in ("years above", "items above", "how many items"):
        return _counted(kind, report)
    row = report.draw.choice([*report.items, *report.sums, *report.rates])
    column = report.draw.randint(0, len(report.years) - 1)
    slots = {"row": row.label, "new": report.years[column]}
    if kind == "value":
        return slots, {"answer": [row.cell(column)], "answer_type": "span", **_unit(report, row)}
    slots |= {"new": report.years[0], "old": report.years[1]}
    if kind == "values":
        return slots, {"answer": [row.cell(0), row.cell(1)], "answer_type": "multi-span", **_unit(report, row)}
    found = list(report.years) if kind == "years" else [item.label for item in report.items]
    return slots, {"answer": found, "answer_type": "multi-span"}


def _unit(report: Report, row: Row) -> dict[str, str]:
    """A rate shows its unit in the table."""
    return {"scale": row.scale, "source": "table" if row.scale == "percent" else report.source}


def _computed(kind: str, report: Report) -> Known:
    draw, rates = report.draw, [] if kind == "percentage change" else report.rates
    if kind in ("change", "average", "percentage change"):
        row = draw.choice([*report.items, *report.sums, *rates])
        (a, b), names = row.values[:2], {"row": row.label, "new": report.years[0], "old": report.years[1]}
    else:
        row, other = draw.sample(report.items, 2)
        other, column = report.sums[-1] if kind == "share" else other, draw.randint(0, 1)
        a, b = row.values[column], other.values[column]
        names = {"row": row.label, "other": other.label, "new": report.years[column]}
    in_percent = kind in ("percentage change", "share")
    if in_percent and (b <= 0 or (kind == "share" and a < 0)):
        return None
    derivation, formula = FORMULAS[kind]
    value = round(formula(a, b), 2)
    answer = {"answer": int(value) if value == int(value) else value, "answer_type": "arithmetic"}
    answer |= _unit(report, row) | ({"scale": "percent"} if in_percent else {})
    return (names, answer | {"derivation": derivation.format(a=_term(a), b=_term(b))}) if value else None


def _term(value: float) -> str:
    return f"({value})" if value < 0 else str(value)


def _best(report: Report, most: bool, across_years: bool) -> Known:
    row, column = report.draw.choice([*report.items, *report.sums]), report.draw.randint(0, len(report.years) - 1)
    values = row.values if across_years else [item.values[column] for item in report.items]
    names = report.years if across_years else [item.label for item in report.items]
    best = (max if most else min)(values)
    slots = {"row": row.label, "new": report.years[column], "best": "highest" if most else "lowest"}
    derivation = " > ".join(map(str, sorted(values, reverse=True)))
    answer = {"answer": [names[values.index(best)]], "answer_type": "span", "derivation": derivation}
    return (slots, answer) if values.count(best) == 1 else None


def _counted(kind: str, report: Report) -> Known:
    row, column = report.draw.choice([*report.items, *report.sums]), report.draw.randint(0, len(report.years) - 1)
    limit = int(row.values[column]) // 10 * 10
    if kind == "years above":
        found = [year for year, value in zip(report.years, row.values, strict=True) if value > limit]
    else:
        every = kind == "how many items"
        found = [item.label for item in report.items if every or item.values[column] > limit]
    slots = {"row": row.label, "new": report.years[column], "limit": f"{limit:,} {report.scale}".strip()}
    answer = {"answer": str(len(found)), "answer_type": "count", "derivation": "##".join(found)}
    return (slots, answer) if found else None
