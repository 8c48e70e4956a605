"""The experiment log's own rule of what is right, to relate older numbers to these.

It is never the headline.
"""

import re
import string

from tatqa_task.types import Question

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_FIRST_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


def lenient_match(question: Question, reply: str) -> float:
    """1.0 if the reply is right by the log's rule, else 0.0.

    Arithmetic: the reply's first number is within max(0.5, 5 %) of the gold one, whatever the
    scale. Other types: the reply contains any one gold text, both lower-cased and without
    punctuation.
    """
    if question.answer_type == "arithmetic":
        value = _first_number(reply)
        target = _first_number(str(question.answer))
        if value is None or target is None:
            return 0.0
        return float(abs(value - target) <= max(0.5, 0.05 * abs(target)))
    text = _plain_words(reply)
    golds = [_plain_words(item) for item in question.gold_items]
    return float(any(gold in text for gold in golds if gold))


def _first_number(text: str) -> float | None:
    """The first number in a text; None if there is none."""
    found = _FIRST_NUMBER.search(text)
    return float(found.group().replace(",", "")) if found else None


def _plain_words(text: str) -> str:
    """The text in lower case, without punctuation, one space between words."""
    return " ".join(text.lower().translate(_PUNCTUATION).split())
