"""On-policy pairs: what a model replied itself, sampled several times a question.

Chosen is a reply that is right and nothing but the line of JSON (the gold reply where there is
none); rejected is one that scores EM 0, or that is not in the format. Replies that say the same
count once, the most frequent first.
"""

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from random import Random
from typing import NamedTuple

from tatqa_task import answer, calculator, metric, prompt
from tatqa_task.types import Context, Form, Question
from train.pairs.pair import Pair, tatqa_pair
from train.pairs.samples import Replies
from train.pairs.strategies import NOT_RIGHT, is_right

WRONG, MISFORMATTED = "mined", "mined_format"  # kinds of rejected replies
NO_REPLY = "no reply in the samples"
ALL_RIGHT = "no reply is wrong"
BEYOND_LIMIT = "more wrong replies than max_pairs_per_question"
BEYOND_SHARE = "more than the answer type's share"
GOLD_CHOSEN = "of a question that no reply answers right: chosen is the gold reply"

# Whether it follows the format, is an expression and has nothing beside it; items; scale.
Substance = tuple[tuple[bool, bool, bool], tuple[object, ...], str]


class Mined(NamedTuple):
    """The pairs of a question, whether they choose the gold reply, and what the limit left out."""

    pairs: list[Pair]
    gold_chosen: bool
    beyond_limit: int


@dataclass
class Judged:
    """The different replies to a question: right ones, and wrong ones with their kind."""

    right: list[str]
    wrong: list[tuple[str, str]]


def mined(
    context: Context,
    question: Question,
    replies: Replies | None,
    form: Form,
    limit: int | None = None,
) -> Mined | str:
    """One pair for each different wrong reply of a question, or the reason why there is none.

    The most frequent wrong replies count where there are more than `limit`.
    """
    if replies is None:
        return NO_REPLY
    judged = judge(question, replies, form)
    if not judged.wrong:
        return ALL_RIGHT
    gold = answer.gold_reply(question, form)
    if not judged.right and not is_right(question, gold, form):
        return NOT_RIGHT
    chosen = itertools.cycle(judged.right or [gold])
    wrong = judged.wrong[:limit]
    text = prompt.user_message(context, question, form)
    pairs = []
    for (kind, rejected), right in zip(wrong, chosen, strict=False):
        pairs.append(tatqa_pair(context, question, text, kind, right, rejected))
    return Mined(pairs, not judged.right, len(judged.wrong) - len(wrong))


def judge(question: Question, replies: Replies, form: Form) -> Judged:
    """Sort a question's replies, the most frequent first, without those that say the same.

    In the form calc, a right number where the gold answer is an expression is neither right (the
    model worked it out in its head) nor wrong.
    """
    judged = Judged([], [])
    calculated = form == "calc" and calculator.expression(question) is not None
    seen: set[Substance] = set()
    for text in replies.most_frequent():
        reply = answer.parse(text, form)
        key = substance(reply)
        if key in seen:
            continue
        seen.add(key)
        if not reply.parsed:
            judged.wrong.append((MISFORMATTED, text.strip()))
        elif metric.score(question, reply.answer, reply.scale).em < 1:
            judged.wrong.append((WRONG, text.strip()))
        elif reply.strict and (reply.calc_used or not calculated):
            judged.right.append(text.strip())
    return judged


def substance(reply: answer.Reply) -> Substance:
    """What a reply says, however it is spelled: numbers as values, words in lower case."""
    items: list[object] = []
    for item in reply.answer:
        value = metric.to_number(item)
        words = " ".join(item.lower().split())
        items.append(words if value is None else value)
    manner = (reply.parsed, reply.strict, reply.calc_used)
    return manner, tuple(items), reply.scale


def balanced(pairs: Sequence[Pair], asked: Counter[str], seed: int) -> list[Pair]:
    """Pairs of which no answer type has more than its share of the questions `asked`.

    A model errs most where it is weakest; without this, its pairs would be mostly of one type.
    First pairs of a question are kept before second ones, in an order drawn by `seed`.
    """
    room = {}
    for answer_type, n in asked.items():
        room[answer_type] = math.ceil(Fraction(len(pairs) * n, asked.total()))
    kept: list[int] = []
    for i in _first_pairs_first(pairs, seed):
        answer_type = pairs[i].answer_type
        if room[answer_type] > 0:
            room[answer_type] -= 1
            kept.append(i)
    return [pairs[i] for i in sorted(kept)]


def _first_pairs_first(pairs: Sequence[Pair], seed: int) -> Iterable[int]:
    of_question: Counter[str] = Counter()
    ranks = []
    for pair in pairs:
        ranks.append(of_question[pair.uid])
        of_question[pair.uid] += 1
    order = list(range(len(pairs)))
    Random(seed).shuffle(order)
    return sorted(order, key=lambda i: ranks[i])
