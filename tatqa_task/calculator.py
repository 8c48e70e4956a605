r"""The calculator of `tatqa_calc`: the value of one arithmetic expression of a reply, or None.

    >>> evaluate("($1,496.5 - 1,202.9) / 1,202.9 * 100")
    24.407681436528374

It reads numbers as reports write them, `+ - * /`, brackets, sums and averages. It knows nothing of
the gold answer, and multiplies by 100 only where the expression says so. It is total (None for
anything else, for a division by zero, for a result that is too large), has no powers, and reads
each character once. Two operands without an operator are no product: a bracket behind a number is
a note or a negative number.

| written | read as |
|---|---|
| `1,496.5`, `$1,496.5`, `USD 1,496.5`, `.5` | 1496.5 and 0.5: separators and currency are dropped |
| `(134)`, `$(134)`, `(12.5%)` | -134 and -0.125: one number in round brackets is negative |
| `12.5%` | 0.125 |
| `a / b * 100%`, `100% * a / b` | `a / b * 100`: nobody multiplies by one |
| `[...]`, `{...}`, `\left( \right)` | brackets |
| `−`, `–`, `×`, `x`, `·`, `÷`, full-width characters | `-`, `-`, `*`, `*`, `*`, `/`, ASCII |
| `plus`, `minus`, `times`, `divided by` | `+`, `-`, `*`, `/` |
| `sum(a, b)`, `the average of a and b`, `\frac{a}{b}` | `a + b`, `(a + b) / 2`, `([a] / [b])` |
| `abs(a)`, `max(a, b)`, `min(a, b)`, `round(a, 2)` | what they say; results are rounded anyway |
| `12% of a`, `a less b` | `0.12 * a`, `a - b` |
| `1,496.5 (2019)` | `1,496.5`: a year in brackets behind a number is a note |
"""

import math
import operator
import re
from collections.abc import Callable, Iterator

from tatqa_task import metric
from tatqa_task.types import Question
from tatqa_task.typography import plain

LONGEST = 2_000  # characters of an expression that is worked out
LARGEST = 1e18  # absolute value of a result

_TOKEN = re.compile(
    r"""
    (?P<number> \d+(?:[,'’_]\d{2,3}|\ \d{3}(?!\d))*+(?:\.\d+|\.(?=[\s)\]]|$))? | \.\d+ )
  | (?P<operator> [-+*/x] | \\(?:times|cdot|div)\b | (?<=%)\s*of\b
      | \b(?:plus|minus|less|times|multiplied\s+by|divided\s+by)\b )
  | (?P<function> \b(?:sum|average|avg|mean|abs|max|min|round)\s*\( )
  | (?P<comma> , )
  | (?P<open> (?:\\left)?[(\[{] )
  | (?P<close> (?:\\right)?[)\]}] )
  | (?P<percent> \\?% )
  | (?P<dropped> \s+ | (?:US|HK|NT|AU|CA|[ACSR])?\\?\$ | [€£¥₹₩]
      | \b(?:dollars?|euros?|pounds?|yen)\b
      | \b(?:USD|EUR|GBP|JPY|CNY|RMB|INR|AUD|CAD|CHF|HKD|SGD|NTD|Rs\.?)(?![a-z]) )
    """,
    re.VERBOSE | re.IGNORECASE,
)
_SIGNS = {
    "x": "*", "times": "*", "multiplied by": "*", r"\times": "*", r"\cdot": "*",
    "divided by": "/", r"\div": "/", "plus": "+", "minus": "-", "less": "-", "of": "*",
}  # fmt: skip
_FRACTION = re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_BRACKETS = {"(": ")", "[": "]", "{": "}"}
_FUNCTIONS: dict[str, Callable[[list[float]], float]] = {
    "sum(": sum,
    "average(": lambda values: sum(values) / len(values),
    "abs(": lambda values: abs(values[0]),
    "max(": max,
    "min(": min,
    "round(": lambda values: values[0],  # answers are rounded to two decimals anyway
}
_FUNCTIONS["avg("] = _FUNCTIONS["mean("] = _FUNCTIONS["average("]
_WORDED = re.compile(r"(?:the\s+)?(sum|average|mean)\s+of\s+(.*)", re.IGNORECASE | re.DOTALL)
_LIST = re.compile(
    r"(\b(?:sum|average|avg|mean|max|min)\s*\(\s*)\[([^\[\]()]*)\](?=\s*\))", re.IGNORECASE
)
_AND = re.compile(r"(?<!\s)(?:\s*+,)?\s++and\s+", re.IGNORECASE)
_YEAR_NOTE = re.compile(r"(?<=[\d%])\s{0,3}[(\[](?:FY\s?|in\s)?(?:19|20)\d\d[)\]]", re.IGNORECASE)
_OPERATIONS: dict[str, Callable[[float, float], float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}
_PRECEDENCE = {"+": 1, "-": 1, "*": 2, "/": 2, "negative": 3}

_OPERATION = re.compile(
    r"""[\d)\]}%]\s*(?:[a-z]{3,7}\s+)?
        (?:[-+*/x] | \\times | \\div | \\cdot | (?:plus|minus|less|times|multiplied|divided)\b)
      | \b(?:sum|average|avg|mean|abs|max|min|round)\s*\(
      | \b(?:sum|average|mean)\s+of\b | %\s*of\s | \\[dt]?frac""",
    re.IGNORECASE | re.VERBOSE,
)
_NO_EXPRESSION = re.compile(
    r"""
    (?:19|20)\d\d \s*[-/]\s* (?:(?:19|20)?\d\d)  # 2018/2019, 2018-19
  | \d\d?/\d\d?/\d\d(?:\d\d)?                    # 12/31/2019
    """,
    re.VERBOSE,
)
_RANGE = re.compile(r"(\d[\d.]*)\s*+%?\s*-\s*(\d[\d.]*)\s*%")  # 1.74% - 1.94%, 5-10%

Token = tuple[str, str]  # kind, text


class _NotAnExpression(Exception):
    """The text is no arithmetic expression of numbers."""


def evaluate(text: str) -> float | None:
    """The value of an arithmetic expression; None if it is none, or none that can be worked out."""
    if len(text) > LONGEST:
        return None
    try:
        value = _value(_tokens(plain(text).strip()))
    except (_NotAnExpression, ZeroDivisionError, OverflowError):
        return None
    return value if math.isfinite(value) and abs(value) <= LARGEST else None


def worked_out(text: str) -> float | None:
    """The value of an answer that is an expression; None for others, such as a bare number.

    Spans of time, dates and ranges of percentages are answers as they stand: `2018/2019`, `5-10%`.
    """
    text = plain(text).strip()
    if not has_operation(text) or _NO_EXPRESSION.fullmatch(text) or _is_range(text):
        return None
    return evaluate(text)


def _is_range(text: str) -> bool:
    """Whether a text is a range of percentages: the first is not above the second."""
    found = _RANGE.fullmatch(text)
    if found is None:
        return False
    first = metric.to_number(found.group(1))
    second = metric.to_number(found.group(2))
    return first is None or second is None or first <= second


def is_percentage(text: str) -> bool:
    """Whether an expression is a sum of percentages, or a part of one: `(12% + 8%) / 2`, `9% - 4%`.

    Its value is one too: 10 %, 5 %.
    """
    try:
        tokens = _tokens(plain(text).strip())
    except _NotAnExpression:
        return False
    before: Token = ("", "")
    plus_end = [*tokens, ("", "")]
    for i, (kind, sign) in enumerate(tokens):
        is_percent = plus_end[i + 1][0] == "percent"
        is_divisor = before[1] == "/"
        if sign == "*" or (kind == "number" and is_percent == is_divisor):
            return False
        before = (kind, sign)
    return any(kind == "percent" for kind, _ in tokens)


def balanced(text: str) -> str:
    """A text with round brackets that match: closed at its end, or left out there.

    A bracket that is never closed is closed at the end; one at the end that nothing opened goes.
    """
    if len(text) > LONGEST:
        return text
    text = text.rstrip()
    missing = text.count("(") - text.count(")")
    while missing < 0 and text.endswith(")"):
        text = text[:-1].rstrip()
        missing += 1
    return text + ")" * missing


def has_operation(text: str) -> bool:
    """Whether an operator stands behind a number or a bracket."""
    return _OPERATION.search(text) is not None


def rounded(value: float) -> str:
    """A value as an answer: two decimals at most, without exponent: `293.6`, `-12`."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _tokens(text: str) -> list[Token]:
    """Numbers, operators, brackets and percent signs; raises where anything else stands."""
    text = _FRACTION.sub(r"([\1]/[\2])", _YEAR_NOTE.sub("", text))
    text = _LIST.sub(r"\1\2", text)
    worded = _WORDED.fullmatch(text)
    if worded:
        text = f"{worded.group(1)}({_AND.sub(', ', worded.group(2))})"
    tokens: list[Token] = []
    at = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise _NotAnExpression
        at = found.end()
        kind = str(found.lastgroup)
        if kind != "dropped":
            tokens.append((kind, _plainly(kind, found.group())))
    return list(_without_one(tokens))


def _plainly(kind: str, text: str) -> str:
    """A token as the calculator names it."""
    if kind == "operator":
        text = " ".join(text.lower().split())
        return _SIGNS.get(text, text)
    if kind in ("open", "close"):
        return text[-1]
    return "".join(text.lower().split())


def _without_one(tokens: list[Token]) -> Iterator[Token]:
    """The tokens without the percent sign of `* 100%` and `100% *`: that would be times one."""
    times, hundred = ("operator", "*"), ("number", "100")
    for i, token in enumerate(tokens):
        if token[0] == "percent" and i and tokens[i - 1] == hundred:
            before = tokens[max(0, i - 2) : i - 1]
            after = tokens[i + 1 : i + 2]
            if times in before or times in after:
                continue
        yield token


class _Stacks:
    """Dijkstra's shunting yard: known values, and operators that wait for their right side."""

    def __init__(self) -> None:
        self.values: list[float] = []
        self.waiting: list[str] = []
        self.arguments: list[int] = []  # of the functions that wait, how many there are so far

    def push_operator(self, sign: str) -> None:
        """Work out what binds at least as strongly, then wait."""
        while self.waiting and _PRECEDENCE.get(self.waiting[-1], 0) >= _PRECEDENCE[sign]:
            self.apply()
        self.waiting.append(sign)

    def apply(self) -> None:
        """Work out the operator that waits last."""
        sign = self.waiting.pop()
        if sign == "negative":
            self.values.append(-self.values.pop())
            return
        if sign not in _OPERATIONS:
            raise _NotAnExpression  # a bracket that is never closed
        right, left = self.values.pop(), self.values.pop()
        self.values.append(_OPERATIONS[sign](left, right))

    def call(self, function: str) -> None:
        """Wait for the arguments of a function, whose bracket is open."""
        self.waiting.append(function)
        self.arguments.append(1)

    def next_argument(self) -> None:
        """Work out the argument before a comma."""
        self.apply_to_bracket()
        if not self.waiting or self.waiting[-1] not in _FUNCTIONS:
            raise _NotAnExpression
        self.arguments[-1] += 1

    def apply_to_bracket(self) -> None:
        """Work out everything since the last bracket."""
        while self.waiting and self.waiting[-1] in _PRECEDENCE:
            self.apply()

    def close(self, bracket: str) -> None:
        """Work out what is in the bracket that this one closes, and the function before it."""
        self.apply_to_bracket()
        opening = self.waiting.pop() if self.waiting else ""
        if _BRACKETS.get(opening[-1:]) != bracket:
            raise _NotAnExpression
        if opening in _FUNCTIONS:
            n = self.arguments.pop()
            self.values[-n:] = [_FUNCTIONS[opening](self.values[-n:])]


def _value(tokens: list[Token]) -> float:
    """The value of the whole expression. Raises _NotAnExpression, ZeroDivisionError."""
    stacks = _Stacks()
    operand_next = True
    for i, (kind, text) in enumerate(tokens):
        if operand_next:
            operand_next = _operand(stacks, kind, text)
        else:
            operand_next = _after_operand(stacks, kind, text, _is_accounting(tokens, i))
    if operand_next:
        raise _NotAnExpression
    while stacks.waiting:
        stacks.apply()
    return stacks.values.pop()


def _operand(stacks: _Stacks, kind: str, text: str) -> bool:
    """Take a token where an operand may begin; whether one is still to come."""
    if kind == "number":
        stacks.values.append(float(re.sub("[,'’]", "", text)))
        return False
    if kind == "open":
        stacks.waiting.append(text)
    elif kind == "function":
        stacks.call(text)
    elif text == "-":
        stacks.waiting.append("negative")
    elif text != "+":
        raise _NotAnExpression
    return True


def _after_operand(stacks: _Stacks, kind: str, text: str, accounting: bool) -> bool:
    """Take a token after an operand; whether another operand must follow."""
    if kind == "operator":
        stacks.push_operator(text)
        return True
    if kind == "comma":
        stacks.next_argument()
        return True
    if kind == "percent":
        stacks.values[-1] /= 100
    elif kind == "close":
        stacks.close(text)
        if accounting:
            stacks.values[-1] *= -1
    else:
        raise _NotAnExpression
    return False


def _is_accounting(tokens: list[Token], at: int) -> bool:
    """Whether the bracket closed here holds one number without a sign: `(134)`, `(12.5%)`."""
    last = tokens[max(0, at - 3) : at + 1]
    if len(last) == 4 and last[2][0] == "percent":
        del last[2]
    kinds = [kind for kind, _ in last[-3:]]
    return kinds == ["open", "number", "close"] and last[-1][1] == ")"


# --- expressions as training targets ---


def expression(question: Question) -> str | None:
    """The gold answer as an expression made of its derivation; None where that is not possible.

    Numbers stay as the report writes them. A percentage is multiplied by 100 where the derivation
    leaves that out. The expression is used only if its value scores EM 1 by the official metric.
    """
    if question.answer_type != "arithmetic":
        return None
    for candidate in _candidates(question):
        value = worked_out(candidate)
        if value is not None:
            if metric.score(question, [rounded(value)], question.scale).em == 1:
                return candidate
    return None


def _candidates(question: Question) -> Iterator[str]:
    """The derivation, written plainly; then times 100 for a percentage."""
    written = _written(question.derivation)
    if written is None:
        return
    yield written
    if question.scale == "percent":
        yield _times_100(written)


def _written(derivation: str) -> str | None:
    """The derivation without currency and with one space around operators; None if it has none."""
    try:
        tokens = _tokens(plain(derivation).strip())
    except _NotAnExpression:
        return None
    text = ""
    operand_next = True
    operators = 0
    for kind, token in tokens:
        if kind == "operator" and not operand_next:
            text += f" {token} "
            operators += 1
        else:
            text += token
        operand_next = kind in ("operator", "open", "function", "comma")
    return text if operators else None


def _times_100(text: str) -> str:
    """The expression times 100, in brackets where it is a sum."""
    depth = 0
    is_sum = False
    for i, sign in enumerate(text):
        if sign in _BRACKETS:
            depth += 1
        elif sign in _BRACKETS.values():
            depth -= 1
        elif depth == 0 and text[i - 1 : i + 2] in (" + ", " - "):
            is_sum = True
    return f"({text}) * 100" if is_sum else f"{text} * 100"
