"""Ratings as FastChat reads them, read strictly, or read by a pattern of one's own."""

import re

from mtbench_runner.ledger import rating_of
from mtbench_runner.rows import Judgment, PairJudgment, Place, Strict
from mtbench_runner.statistics import Item, mean

LOWEST, HIGHEST = 1, 10
RATING = re.compile(r"\[\[(\d+(?:\.\d*)?)(?:\s*/\s*10)?\]\]")
SINGLE_BRACKETS = re.compile(r"\[\d+(?:\.\d*)?\]")
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
MATRIX = re.compile(r"\[\[\s*-?\d[\d.]*\s*,|\]\s*,\s*\[")
FLAGS = ("quoted", "range", "disagree")


def pair_outcome(row: PairJudgment) -> float | None:
    """1 win, 0.5 tie, 0 loss of model_1; None without a verdict in either order.

    FastChat's rule: a win or loss counts if it holds in both orders.
    """
    first, second = row["g1_winner"], row["g2_winner"]
    if "error" in (first, second):
        return None
    if first == "tie" or first != second:
        return 0.5
    return float(first == "model_1")


def out_of_range(rating: float | None) -> bool:
    """Whether there is a rating, and it is none from 1 to 10."""
    return rating is not None and not LOWEST <= rating <= HIGHEST


def strict_rating(judgment: str) -> tuple[float | None, list[str]]:
    """The last rating from 1 to 10 outside code, and what makes FastChat's own reading doubtful.

    FastChat takes the first [[n]]. quoted: brackets in code or in a matrix, or no [[n]] at all but
    an [n]; range: a rating outside 1 to 10; disagree: the first and the last rating differ.
    """
    outside_code = CODE.sub("", judgment)
    ratings = list(map(float, RATING.findall(outside_code)))
    valid = [rating for rating in ratings if not out_of_range(rating)]
    flags = []
    if _is_quoted(judgment, len(ratings)):
        flags.append("quoted")
    if len(valid) < len(ratings):
        flags.append("range")
    if ratings and ratings[0] != ratings[-1]:
        flags.append("disagree")
    return (valid[-1] if valid else None), flags


def _is_quoted(judgment: str, outside_code: int) -> bool:
    """Whether brackets may stand for something else, `outside_code` ratings being there."""
    in_code = len(RATING.findall(judgment)) > outside_code
    alone = outside_code == 0 and SINGLE_BRACKETS.search(judgment) is not None
    return in_code or alone or MATRIX.search(judgment) is not None


def strict_summary(rows: dict[Place, Judgment], categories: dict[Place, str]) -> Strict:
    """What strict reading would change: its mean, the difference to FastChat's, what is flagged.

    The difference is that of the judgments which both read: else it is one of other judgments.
    """
    items, changes = [], []
    flagged: dict[str, list[Place]] = {flag: [] for flag in FLAGS}
    for place, row in rows.items():
        rating, flags = strict_rating(row["judgment"])
        if rating is not None:
            items.append(Item(*place, categories[place], rating))
            usual = rating_of(row)
            if usual is not None:
                changes.append(rating - usual)
        for flag in flags:
            flagged[flag].append(place)
    change = sum(changes) / len(changes) if changes else None
    return Strict(overall=mean(items), change=change, flagged=flagged)
