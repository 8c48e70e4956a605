"""Synthetic TAT-QA: small company-report contexts in the official JSON schema, for tests, demos and small models.

Every context is a pure function of (split, seed, index): only `random.Random(text).random()` is drawn from, which
Python keeps the same everywhere. Types, sources and scales come in about the shares of TAT-QA's dev set.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")
SIZES = {"train": 2_000, "validation": 100, "test": 100}  # contexts that `load` gives, 6 questions each
QUESTIONS = 6


@dataclass(frozen=True)
class Theme:
    """What a table is about: its name, line items, the label of their sum, and whether it shows money or signs."""

    name: str
    items: tuple[str, ...]
    total: str
    money: bool = True
    signed: bool = False


THEMES = (
    Theme("revenue by region", ("United States", "Europe", "Asia Pacific", "Latin America", "Japan", "China", "Canada",
                                "Middle East"), "Total revenue"),
    Theme("revenue by product", ("Software", "Hardware", "Services", "Licenses", "Subscriptions", "Maintenance",
                                 "Consulting", "Training"), "Total revenue"),
    Theme("operating expenses", ("Research and development", "Sales and marketing", "General and administrative",
                                 "Depreciation", "Amortization", "Restructuring", "Rent"), "Total operating expenses"),
    Theme("current assets", ("Cash", "Accounts receivable", "Inventories", "Prepaid expenses", "Short-term investments",
                             "Tax receivable", "Other assets"), "Total current assets"),
    Theme("accrued liabilities", ("Payroll", "Warranty", "Income taxes", "Interest", "Deferred revenue",
                                  "Customer deposits", "Other liabilities"), "Total accrued liabilities"),
    Theme("cash flows", ("Operating activities", "Investing activities", "Financing activities", "Exchange rate effect",
                         "Discontinued operations"), "Net change in cash", signed=True),
    Theme("deferred taxes", ("Tax credits", "Loss carryforwards", "Stock compensation", "Valuation allowance",
                             "Intangible assets", "Leases"), "Net deferred taxes", signed=True),
    Theme("inventories", ("Raw materials", "Work in process", "Finished goods", "Spare parts", "Packaging"),
          "Total inventories"),
    Theme("employees", ("Engineering", "Sales", "Manufacturing", "Support", "Administration", "Research"),
          "Total employees", money=False),
    Theme("stores", ("Company owned", "Franchised", "Outlets", "Airports", "Online pickup"), "Total stores",
          money=False),
)
RATES = ("Gross margin", "Effective tax rate", "Discount rate", "Inflation rate", "Operating margin", "Dividend yield")
REASONS = ("higher demand", "lower volumes", "new customers", "the strong dollar", "the acquisition of Delta",
           "price increases", "lower headcount", "the sale of a plant", "timing of payments", "seasonal orders",
           "a new contract", "currency effects", "cost savings", "weaker markets")
STANDARDS = ("Topic 606", "Topic 842", "IFRS 9", "IFRS 16", "ASU 2016-09")
METHODS = ("the modified retrospective method", "the full retrospective method", "the prospective method")
DATES = ("January 1", "April 1", "July 1", "October 1")
CHARGES = ("legal settlement", "plant closure", "goodwill impairment", "product recall", "severance plan")
EXPENSES = ("Advertising", "Freight", "Insurance", "Travel", "Repairs")
SITES = ("a warehouse", "our headquarters", "a data center", "a laboratory", "office space")
PLACES = ("Austin", "Dublin", "Singapore", "Toronto", "Munich", "San Jose", "Boston", "Osaka")
RISKS = ("interest rate risk", "credit risk", "currency risk", "commodity price risk", "liquidity risk")
PARTS = ("salaries", "bonuses", "materials", "travel costs", "license fees", "shipping costs", "consulting fees")
ENDS = ("December 31", "June 30", "March 31", "September 30")
UNIT_WORDS = {"thousand": "in thousands", "million": "in millions", "billion": "in billions"}


class Draw:
    """Choices from one seeded stream of random.random()."""

    def __init__(self, key: str) -> None:
        self.random = random.Random(key).random

    def chance(self, share: float) -> bool:
        return self.random() < share

    def whole(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return low + int(self.random() * (high - low + 1))

    def pick(self, items: Sequence[T]) -> T:
        return items[int(self.random() * len(items))]

    def some(self, items: Sequence[T], n: int) -> list[T]:
        """n different items, in a random order."""
        rest = list(items)
        return [rest.pop(int(self.random() * len(rest))) for _ in range(n)]


@dataclass(frozen=True)
class Row:
    """A line of the table: its label, one value a year, the values as shown, and what the values are scaled by."""

    label: str
    values: list[float]
    cells: list[str]
    scale: str


@dataclass(frozen=True)
class Fact:
    """A paragraph that answers a question by itself."""

    text: str
    question: str
    answer: Any
    answer_type: str = "span"
    scale: str = ""
    derivation: str = ""


@dataclass(frozen=True)
class Report:
    """Everything that questions are asked about."""

    draw: Draw
    theme: Theme
    years: list[str]
    items: list[Row]
    lines: list[Row]  # items, subtotal and total
    rates: list[Row]
    source: str  # where the unit stands: table or table-text
    facts: list[Fact]


def generate(split: str, n_contexts: int, seed: int = 0) -> list[dict[str, Any]]:
    """The first n contexts of a split. Splits share no context, nor do seeds."""
    return [context(split, index, seed) for index in range(n_contexts)]


def context(split: str, index: int, seed: int = 0) -> dict[str, Any]:
    """Context number `index` of a split, in the official JSON schema, with 6 questions."""
    uid = f"synthetic-{split}-{seed}-{index}"
    draw = Draw(uid)
    report, table, paragraphs = _report(draw)
    return {
        "table": {"uid": uid, "table": table},
        "paragraphs": [{"uid": f"{uid}-p{i}", "order": i, "text": text} for i, text in enumerate(paragraphs, 1)],
        "questions": [
            {"uid": f"{uid}-q{i}", "order": i} | question for i, question in enumerate(_questions(report), 1)
        ],
    }


# --- the report ---


def _report(draw: Draw) -> tuple[Report, list[list[str]], list[str]]:
    theme = draw.pick(THEMES)
    last = draw.whole(2015, 2020)
    years = [str(last - i) for i in range(2 if draw.chance(0.65) else 3)]
    scale = _scale(draw) if theme.money else ""
    items = _items(draw, theme, len(years), scale)
    lines = _with_totals(draw, theme, items)
    rates = [_rate(draw, len(years))] if draw.chance(0.35) else []
    in_text = scale != "" and draw.chance(0.45)
    table = _table(draw, years, [*lines, *rates], UNIT_WORDS.get(scale, "") if not in_text else "")
    facts = [make(draw, years, scale or "million") for make in draw.some(FACTS, draw.whole(2, 4))]
    caption = f"The table below shows {theme.name} for the years ended {draw.pick(ENDS)}"
    caption += f" ({UNIT_WORDS[scale]}):" if in_text else ":"
    texts = [fact.text for fact in facts]
    if in_text or draw.chance(0.4):
        texts.insert(draw.whole(0, len(texts)), caption)
    report = Report(draw, theme, years, items, lines, rates, "table-text" if in_text else "table", facts)
    return report, table, texts


def _scale(draw: Draw) -> str:
    roll = draw.random()
    return "thousand" if roll < 0.55 else "million" if roll < 0.97 else "billion"


def _items(draw: Draw, theme: Theme, n_years: int, scale: str) -> list[Row]:
    tenths = scale in ("million", "billion") and draw.chance(0.3)
    top = 999 if draw.chance(0.8) or tenths else 4999
    return [
        _row(label, _values(draw, n_years, top, tenths, theme.signed), scale)
        for label in draw.some(theme.items, draw.whole(3, min(5, len(theme.items))))
    ]


def _values(draw: Draw, n: int, top: int, tenths: bool, signed: bool) -> list[float]:
    """Values that move by up to a third from one year to the next, as a report's do."""
    now = draw.whole(10, 99) if draw.chance(0.3) else draw.whole(100, top)
    sign = -1 if signed and draw.chance(0.4) else 1
    wholes = []
    for _ in range(n):
        wholes.append(sign * now)
        now = max(10, now + draw.whole(-now // 3, now // 3))
    return [whole / 10 if tenths else whole for whole in wholes]


def _row(label: str, values: list[float], scale: str) -> Row:
    return Row(label, values, [_cell(value) for value in values], scale)


def _cell(value: float) -> str:
    text = f"{abs(value):,.1f}" if isinstance(value, float) else f"{abs(value):,}"
    return f"({text})" if value < 0 else text


def _with_totals(draw: Draw, theme: Theme, items: list[Row]) -> list[Row]:
    total = _sum_row(theme.total, items)
    if len(items) < 4 or not draw.chance(0.25):
        return [*items, total]
    half = len(items) // 2
    return [*items[:half], _sum_row("Subtotal", items[:half]), *items[half:], total]


def _sum_row(label: str, rows: list[Row]) -> Row:
    sums = [sum(values) for values in zip(*(row.values for row in rows), strict=True)]
    return _row(label, [round(value, 1) if isinstance(value, float) else value for value in sums], rows[0].scale)


def _rate(draw: Draw, n_years: int) -> Row:
    tenths = [draw.whole(10, 600)]
    for _ in range(n_years - 1):
        tenths.append(max(5, tenths[-1] + draw.whole(-40, 40)))
    values = [whole / 10 for whole in tenths]
    return Row(draw.pick(RATES), values, [f"{value}%" for value in values], "percent")


def _table(draw: Draw, years: list[str], rows: list[Row], unit: str) -> list[list[str]]:
    header = [[f"({unit})" if unit else "", *years]]
    if draw.chance(0.25):
        header.insert(0, ["", f"Years ended {draw.pick(ENDS)},", *[""] * (len(years) - 1)])
    dollar = bool(rows[0].scale) and draw.chance(0.4)
    first = [[f"${cell}" for cell in rows[0].cells] if dollar else rows[0].cells]
    cells = first + [row.cells for row in rows[1:]]
    return header + [[row.label, *shown] for row, shown in zip(rows, cells, strict=True)]


# --- paragraphs that answer questions ---


def _reason(draw: Draw, years: list[str], scale: str) -> Fact:
    subject, up = draw.pick(EXPENSES).lower(), draw.chance(0.5)
    verb, noun = ("increased", "increase") if up else ("decreased", "decrease")
    amount, reason = draw.whole(2, 99), draw.pick(REASONS)
    text = f"In {years[0]}, {subject} costs {verb} by ${amount} {scale}, mainly due to {reason}."
    if draw.chance(0.3):
        return Fact(text, f"By how much did {subject} costs change in {years[0]}?", [f"${amount} {scale}"])
    ask = draw.pick((f"What caused the {noun} in {subject} costs?", f"Why did {subject} costs {noun} in {years[0]}?"))
    return Fact(text, ask, [reason])


def _method(draw: Draw, years: list[str], scale: str) -> Fact:
    standard, date, method = draw.pick(STANDARDS), f"{draw.pick(DATES)}, {draw.pick(years)}", draw.pick(METHODS)
    text = f"On {date}, the Company adopted {standard} using {method}."
    if draw.chance(0.5):
        return Fact(text, f"When did the Company adopt {standard}?", [date])
    return Fact(text, f"What method was used to adopt {standard}?", [method])


def _charge(draw: Draw, years: list[str], scale: str) -> Fact:
    amount, purpose = f"${draw.whole(2, 250)} {scale}", draw.pick(CHARGES)
    text = f"In {draw.pick(years)}, we recorded a charge of {amount} for a {purpose}."
    if draw.chance(0.3):
        return Fact(text, f"What was the charge of {amount} for?", [f"a {purpose}"])
    return Fact(text, f"How much was the charge for the {purpose}?", [amount])


def _list(draw: Draw, years: list[str], scale: str) -> Fact:
    if draw.chance(0.5):
        subject = draw.pick(("cost of sales", "other income", "project work"))
        parts = draw.some(PARTS, draw.whole(2, 3))
        text = f"{subject.capitalize()} mainly consists of {_listed(parts)}."
        return Fact(text, f"What does {subject} consist of?", parts, "multi-span")
    risks = draw.some(RISKS, draw.whole(2, 3))
    text = f"We are exposed to {_listed(risks)}."
    if draw.chance(0.4):
        return Fact(text, "How many risks are we exposed to?", str(len(risks)), "count", derivation="##".join(risks))
    return Fact(text, "Which risks is the Company exposed to?", risks, "multi-span")


def _place(draw: Draw, years: list[str], scale: str) -> Fact:
    kind, place = draw.pick(SITES), draw.pick(PLACES)
    text = f"We lease {kind} in {place} under an agreement that ends in {int(years[0]) + draw.whole(2, 9)}."
    return Fact(text, f"Where does the Company lease {kind}?", [place])


def _two_amounts(draw: Draw, years: list[str], scale: str) -> Fact:
    subject, old = draw.pick(EXPENSES), draw.whole(10, 99)
    new = max(5, old + draw.whole(-old // 3, old // 3))
    text = f"{subject} expense was ${new} {scale} in {years[0]} and ${old} {scale} in {years[1]}."
    if draw.chance(0.6) or new == old:
        year, amount = draw.pick(((years[0], new), (years[1], old)))
        return Fact(text, f"How much was {subject.lower()} expense in {year}?", [f"${amount} {scale}"])
    question = f"What is the change in {subject.lower()} expense from {years[1]} to {years[0]}?"
    return Fact(text, question, new - old, "arithmetic", scale, f"{new} - {old}")


FACTS: tuple[Callable[[Draw, list[str], str], Fact], ...] = (_reason, _method, _charge, _list, _place, _two_amounts)


def _listed(items: list[str]) -> str:
    return f"{', '.join(items[:-1])} and {items[-1]}"


# --- questions ---

Asked = dict[str, Any] | None  # None: this report does not support the question


def _questions(report: Report) -> list[dict[str, Any]]:
    """Six different questions; kinds are drawn by their weights, from the kinds that this report supports."""
    questions: dict[str, dict[str, Any]] = {}
    while len(questions) < QUESTIONS:
        asked = report.draw.pick(_WEIGHTED)(report)
        if asked is not None:
            questions.setdefault(asked["question"], asked)
    return list(questions.values())


def _asked(question: str, answer: Any, answer_type: str, source: str, scale: str = "", derivation: str = "") -> Asked:
    return {
        "question": question, "answer": answer, "derivation": derivation, "answer_type": answer_type,
        "answer_from": source, "rel_paragraphs": [], "req_comparison": ">" in derivation, "scale": scale,
    }  # fmt: skip


def _row_source(report: Report, row: Row) -> str:
    """A rate needs no unit from the text."""
    return "table" if row.scale == "percent" else report.source


def _from_text(report: Report) -> Asked:
    fact = report.draw.pick(report.facts)
    return _asked(fact.question, fact.answer, fact.answer_type, "text", fact.scale, fact.derivation)


def _look_up(report: Report) -> Asked:
    row, column = report.draw.pick([*report.lines, *report.rates]), report.draw.whole(0, len(report.years) - 1)
    year = report.years[column]
    question = report.draw.pick((f"What was {row.label} in {year}?", f"How much was {row.label} in {year}?",
                                 f"What is the amount of {row.label} for {year}?"))
    return _asked(question, [row.cells[column].rstrip("%")], "span", _row_source(report, row), row.scale)


def _best_year(report: Report) -> Asked:
    row, most = report.draw.pick([*report.lines, *report.rates]), report.draw.chance(0.6)
    best = (max if most else min)(row.values)
    if row.values.count(best) > 1:
        return None
    year = report.years[row.values.index(best)]
    derivation = ">".join(_cell(value) for value in sorted(row.values, reverse=True))
    question = f"In which year was {row.label} {'higher' if most else 'lower'}?"
    if len(report.years) > 2:
        question = f"In which year was {row.label} the {'highest' if most else 'lowest'}?"
    return _asked(question, [year], "span", _row_source(report, row), "", derivation)


def _best_item(report: Report) -> Asked:
    column, most = report.draw.whole(0, len(report.years) - 1), report.draw.chance(0.6)
    values = [row.values[column] for row in report.items]
    best = (max if most else min)(values)
    if values.count(best) > 1:
        return None
    word = "largest" if most else "smallest"
    question = f"Which item of {report.theme.name} was the {word} in {report.years[column]}?"
    derivation = ">".join(_cell(value) for value in sorted(values, reverse=True))
    return _asked(question, [report.items[values.index(best)].label], "span", report.source, "", derivation)


def _respective(report: Report) -> Asked:
    row, years = report.draw.pick([*report.lines, *report.rates]), report.years[:2]
    question = f"What was {row.label} in {years[0]} and {years[1]} respectively?"
    cells = [cell.rstrip("%") for cell in row.cells[:2]]
    return _asked(question, cells, "multi-span", _row_source(report, row), row.scale)


def _which_items(report: Report) -> Asked:
    question = report.draw.pick((f"What are the items of {report.theme.name}?", f"What makes up {report.theme.total}?"))
    return _asked(question, [row.label for row in report.items], "multi-span", report.source)


def _which_years(report: Report) -> Asked:
    row = report.draw.pick(report.lines)
    return _asked(f"In which years was {row.label} reported?", list(report.years), "multi-span", report.source)


def _computed(report: Report, question: str, value: float, scale: str, source: str, derivation: str) -> Asked:
    value = round(value, 2)
    if not value:
        return None
    return _asked(question, int(value) if value == int(value) else value, "arithmetic", source, scale, derivation)


def _change(report: Report) -> Asked:
    row, (new, old) = report.draw.pick([*report.lines, *report.rates]), report.years[:2]
    question = report.draw.pick((f"What is the change in {row.label} from {old} to {new}?",
                                 f"What was the change in {row.label} between {old} and {new}?"))
    a, b = row.values[:2]
    return _computed(report, question, a - b, row.scale, _row_source(report, row), f"{_term(a)} - {_term(b)}")


def _average(report: Report) -> Asked:
    row, (new, old) = report.draw.pick([*report.lines, *report.rates]), report.years[:2]
    question = report.draw.pick((f"What is the average {row.label} for {old} and {new}?",
                                 f"What was the average {row.label} in {old} and {new}?"))
    a, b = row.values[:2]
    derivation = f"({_term(a)} + {_term(b)}) / 2"
    return _computed(report, question, (a + b) / 2, row.scale, _row_source(report, row), derivation)


def _sum(report: Report) -> Asked:
    first, second = report.draw.some(report.items, 2)
    column = report.draw.whole(0, 1)
    a, b = first.values[column], second.values[column]
    question = f"What is the sum of {first.label} and {second.label} in {report.years[column]}?"
    return _computed(report, question, a + b, first.scale, report.source, f"{_term(a)} + {_term(b)}")


def _difference(report: Report) -> Asked:
    first, second = report.draw.some(report.items, 2)
    column = report.draw.whole(0, 1)
    a, b = first.values[column], second.values[column]
    question = f"What is the difference between {first.label} and {second.label} in {report.years[column]}?"
    return _computed(report, question, a - b, first.scale, report.source, f"{_term(a)} - {_term(b)}")


def _percent_change(report: Report) -> Asked:
    row, (new, old) = report.draw.pick(report.lines), report.years[:2]
    a, b = row.values[:2]
    if b <= 0:
        return None
    question = f"What is the percentage change in {row.label} from {old} to {new}?"
    derivation = f"({_term(a)} - {_term(b)}) / {_term(b)}"
    return _computed(report, question, (a - b) / b * 100, "percent", report.source, derivation)


def _share(report: Report) -> Asked:
    row, total, column = report.draw.pick(report.items), report.lines[-1], report.draw.whole(0, 1)
    a, b = row.values[column], total.values[column]
    if report.theme.signed:
        return None
    question = f"What is {row.label} as a percentage of {total.label} in {report.years[column]}?"
    return _computed(report, question, a / b * 100, "percent", report.source, f"{_term(a)} / {_term(b)}")


def _term(value: float) -> str:
    """A value in a derivation, as Python and a reader evaluate it."""
    return f"({value})" if value < 0 else str(value)


def _years_above(report: Report) -> Asked:
    row = report.draw.pick(report.lines)
    limit = int(report.draw.pick(row.values)) // 10 * 10
    above = [year for year, value in zip(report.years, row.values, strict=True) if value > limit]
    amount = f"{limit:,} {row.scale}".strip()
    return _counted(report, f"In how many years did {row.label} exceed {amount}?", above)


def _items_above(report: Report) -> Asked:
    column = report.draw.whole(0, len(report.years) - 1)
    limit = int(report.draw.pick(report.items).values[column]) // 10 * 10
    above = [row.label for row in report.items if row.values[column] > limit]
    amount = f"{limit:,} {report.items[0].scale}".strip()
    question = f"How many items of {report.theme.name} exceeded {amount} in {report.years[column]}?"
    return _counted(report, question, above)


def _how_many_items(report: Report) -> Asked:
    return _counted(report, f"How many items make up {report.theme.total}?", [row.label for row in report.items])


def _counted(report: Report, question: str, found: list[str]) -> Asked:
    return _asked(question, str(len(found)), "count", report.source, "", "##".join(found)) if found else None


WEIGHTS: dict[Callable[[Report], Asked], int] = {
    _from_text: 36,
    _look_up: 11, _best_year: 5, _best_item: 4,
    _respective: 4, _which_items: 4, _which_years: 2,
    _change: 11, _difference: 4, _average: 7, _sum: 5, _percent_change: 8, _share: 7,
    _years_above: 1, _items_above: 1, _how_many_items: 1,
}  # fmt: skip
_WEIGHTED = [kind for kind, weight in WEIGHTS.items() for _ in range(weight)]
