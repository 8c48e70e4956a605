"""Whether a question's scale can be read at all: from its context, or from the question itself.

A model that is trained on questions whose scale stands nowhere learns to guess scales.
"""

import re
from itertools import chain

from tatqa_task.types import Context, Question, Scale

_AFTER_AMOUNT = r"(?:[\d$€£¥₹(]|\b(?:USD|EUR|GBP|RMB))\s?"  # where one letter can mean a scale
_MARKERS: dict[Scale, re.Pattern[str]] = {
    "thousand": re.compile(r"thousand|(?<![\d.,])000(?!\d)", re.IGNORECASE),  # $'000, in 000s
    "million": re.compile(rf"million|{_AFTER_AMOUNT}m[mn]?\b", re.IGNORECASE),  # $m, 5.2 mn
    "billion": re.compile(rf"billion|{_AFTER_AMOUNT}bn?\b", re.IGNORECASE),
    "percent": re.compile(r"%|per ?cent|\bpct\b", re.IGNORECASE),
}


def shows_scale(context: Context, question: Question) -> bool:
    """Whether table, paragraphs or question name the scale of the gold answer in any spelling.

    A question without a scale needs no marker.
    """
    marker = _MARKERS.get(question.scale)
    if marker is None or marker.search(question.question):
        return True
    cells = chain.from_iterable(context.table)
    return any(marker.search(text) for text in chain(context.paragraphs, cells))
