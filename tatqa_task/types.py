"""TAT-QA's vocabulary: contexts, questions, answer types, scales, and the forms of a reply.

Pure, nothing is read here.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

AnswerType = Literal["span", "multi-span", "arithmetic", "count"]
Source = Literal["table", "table-text", "text"]
Scale = Literal["", "thousand", "million", "billion", "percent"]
Form = Literal["direct", "cot", "calc"]
"""What is asked for: the answer, reasoning before it, or an expression where it is computed."""

ANSWER_TYPES: tuple[AnswerType, ...] = get_args(AnswerType)
SCALES: tuple[Scale, ...] = get_args(Scale)
FORMS: tuple[Form, ...] = get_args(Form)


@dataclass(frozen=True)
class Question:
    """One question with its gold answer, as in the official files.

    `answer` is a list of texts for spans, a number for arithmetic, a whole number for counts;
    `answer_from` is None where it is not known.
    """

    uid: str
    question: str
    answer: list[str] | int | float | str
    answer_type: AnswerType
    answer_from: Source | None
    scale: Scale
    derivation: str
    order: int

    @property
    def gold_items(self) -> list[str]:
        """The gold answer as a list of texts."""
        return self.answer if isinstance(self.answer, list) else [str(self.answer)]


@dataclass(frozen=True)
class Context:
    """A table (rows of cells), the paragraphs around it in their order, and the questions."""

    uid: str
    table: list[list[str]]
    paragraphs: list[str]
    questions: list[Question]


def questions_of(contexts: Iterable[Context]) -> list[Question]:
    """The questions of all contexts, in their order."""
    found = []
    for context in contexts:
        found += context.questions
    return found
