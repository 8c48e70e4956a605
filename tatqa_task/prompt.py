"""The one user turn: instruction, then the report (table and paragraphs), then the question.

The same text is trained on and scored. The question comes last, so that the questions of a context share a prefix.
"""

from tatqa_task.data import Context, Question

INSTRUCTION = """\
Read the table and the text of a company's report and answer the question with one line of JSON:
{"answer": ["..."], "scale": "..."}
The answer is a list of texts copied from the report, or one calculated number, rounded to two decimals, without unit. \
The scale is the unit of a number: "thousand", "million", "billion", "percent", or "" if there is none."""


def user_message(context: Context, question: Question | str) -> str:
    """The user turn that asks one question about the whole context; it ends with `Answer:`."""
    text = question if isinstance(question, str) else question.question
    return f"{INSTRUCTION}\n\n{report_text(context)}\n\nQuestion: {text.strip()}\nAnswer:"


def report_text(context: Context) -> str:
    """The table, one line a row with cells parted by ` | `, then one line a paragraph."""
    text = "\n".join(map(_one_line, context.paragraphs))
    return "\n\n".join(part for part in (table_text(context.table), text) if part)


def table_text(table: list[list[str]]) -> str:
    """One line a row. Cells keep their text, but for line breaks and white space around them."""
    return "\n".join(" | ".join(_one_line(cell) for cell in row) for row in table)


def _one_line(text: str) -> str:
    return " ".join(text.splitlines()).strip()
