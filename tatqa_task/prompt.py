"""The one user turn: instruction, then the report (table and paragraphs), then the question.

The same text is trained on and scored. The question comes last, so that the questions of a context
share a prefix.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from tatqa_task.types import Context, Form, Question


class Wording(NamedTuple):
    """What stands before the report, and the cue after the question."""

    instruction: str
    cue: str


INSTRUCTION = """\
Read the table and the text of a company's report and answer the question with one line of JSON:
{"answer": ["..."], "scale": "..."}
The answer is a list of texts copied from the report, or one calculated number, rounded to two \
decimals, without unit. The scale is the unit of a number: "thousand", "million", "billion", \
"percent", or "" if there is none."""

REASONING = "Think step by step first; the line of JSON comes last."

# Words stand in the calculations because numbers of an example are copied into the answer.
CALCULATION = """\
Read the table and the text of a company's report and answer the question with one line of JSON, \
for example
{"answer": ["net income", "cash and cash equivalents"], "scale": ""}
"answer" lists the words or numbers as they stand in the report. If the answer must be calculated, \
write the calculation and not its result; a calculator works it out. With the numbers of the \
report in place of the words:
change: {"answer": ["this year - last year"], ...}
percentage change: {"answer": ["(this year - last year) / last year * 100"], ...}
average: {"answer": ["(first year + second year) / 2"], ...}
"scale" is the unit of the number: "thousand", "million", "billion", "percent", or "" if there is \
none."""

WORDINGS: dict[Form, Wording] = {
    "direct": Wording(INSTRUCTION, "Answer:"),
    "cot": Wording(f"{INSTRUCTION}\n{REASONING}", "Reasoning:"),
    "calc": Wording(CALCULATION, "Answer:"),
}


def user_message(context: Context, question: Question | str, form: Form = "direct") -> str:
    """The user turn that asks one question about the whole context; it ends with the form's cue.

    The table has one line a row, with cells parted by ` | `; then comes one line a paragraph.
    """
    return worded(WORDINGS[form], context, question)


def worded(wording: Wording, context: Context, question: Question | str) -> str:
    """The user turn with this wording."""
    asked = question if isinstance(question, str) else question.question
    rows = [" | ".join(map(_one_line, row)) for row in context.table]
    table = "\n".join(rows)
    text = "\n".join(map(_one_line, context.paragraphs))
    turn = f"Question: {asked.strip()}\n{wording.cue}"
    parts = [wording.instruction, table, text, turn]
    return "\n\n".join(filter(None, parts))


def fit(
    context: Context,
    question: str,
    budget: int,
    count_tokens: Callable[[str], int],
    form: Form = "direct",
) -> Context:
    """The context without the paragraphs that keep the user turn above `budget` tokens.

    Whole paragraphs go, those that share the fewest words with the question first, of equals the
    last. Table rows never go, so the result may still be too long.
    """
    texts = context.paragraphs
    asked = _words(question)
    shared = [len(asked & _words(text)) for text in texts]
    kept = sorted(range(len(texts)), key=lambda place: -shared[place])  # the nearest first
    while kept and count_tokens(user_message(context, question, form)) > budget:
        kept.pop()
        context = replace(context, paragraphs=[texts[place] for place in sorted(kept)])
    return context


def _words(text: str) -> set[str]:
    """What a text is about: its numbers, and its words of more than three letters."""
    return set(re.findall(r"[a-z]{4,}|\d[\d,.]*", text.lower()))


def _one_line(text: str) -> str:
    """The text without line breaks."""
    return " ".join(text.splitlines()).strip()
