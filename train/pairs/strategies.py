"""Pairs made by rule, one a question: `corrupt` checks them with the metric, `log` is the log's.

Each strategy gives the pair of a question, or as a text the reason why there is none.
"""

from collections.abc import Mapping
from random import Random

from tatqa_task import answer, metric, prompt
from tatqa_task.types import Context, Form, Question
from train.pairs.corruptions import FORMAT, KINDS, Mistakes, misformatted
from train.pairs.pair import Pair, tatqa_pair

NOT_RIGHT = "gold reply scores below EM 1, or is read only after mending"
NOT_WRONG = "no wrong answer found"
SAME = "chosen equals rejected"
FORMAT_WEIGHT = 0.25  # of a kind that always applies, beside kinds that often do not


def exact_match(question: Question, reply: str, form: Form = "direct") -> float:
    """Official EM of a reply, read as in scoring."""
    read = answer.parse(reply, form)
    return metric.score(question, read.answer, read.scale).em


def is_right(question: Question, reply: str, form: Form) -> bool:
    """Whether a reply scores EM 1 and is nothing but the line that was asked for."""
    return answer.parse(reply, form).strict and exact_match(question, reply, form) == 1


def corrupt(
    context: Context,
    question: Question,
    mix: Mapping[str, float],
    seed: int,
    form: Form = "direct",
) -> Pair | str:
    """A pair whose rejected reply is made by one kind of mistake.

    The kind is drawn by its weight in `mix` (all alike if that is empty) among those that apply.
    Chosen scores EM 1, rejected EM 0; a `format` mistake says the right thing in a wrong format.
    """
    chosen = answer.gold_reply(question, form)
    if not is_right(question, chosen, form):
        return NOT_RIGHT
    rng = Random(f"{seed}:{question.uid}")
    mistakes = Mistakes(context, question, rng, form)
    for kind in drawn_order(KINDS[question.answer_type], mix, rng):
        rejected = wrong_reply(mistakes, kind, chosen)
        if rejected is not None:
            text = prompt.user_message(context, question, form)
            return tatqa_pair(context, question, text, kind, chosen, rejected)
    return NOT_WRONG


def drawn_order(kinds: tuple[str, ...], mix: Mapping[str, float], rng: Random) -> list[str]:
    """Kinds of positive weight, drawn by weight without replacement.

    Without a mix all weigh alike, but for the format, which every question could give. By the
    largest u ** (1 / weight), u uniform (Efraimidis and Spirakis, 2006).
    """
    keys = {}
    for kind in kinds:
        usual = FORMAT_WEIGHT if kind == FORMAT else 1.0
        weight = mix.get(kind, 0.0) if mix else usual
        if weight:
            keys[kind] = rng.random() ** (1 / weight)
    return sorted(keys, key=lambda kind: keys[kind], reverse=True)


def wrong_reply(mistakes: Mistakes, kind: str, chosen: str) -> str | None:
    """A reply with this kind of mistake, checked to be wrong; None where the kind gives none."""
    form = mistakes.form
    if kind == FORMAT:
        right = answer.parse(chosen)  # as written: an expression is not worked out
        candidates = misformatted(right.answer, right.scale)
        mistakes.rng.shuffle(candidates)
        for text in candidates:
            if not answer.parse(text, form).parsed:
                return text
        return None
    items, scale = getattr(mistakes, kind)()
    if not any(items):
        return None
    rejected = answer.render(items, scale)
    if not answer.parse(rejected, form).parsed:
        return None
    is_wrong = exact_match(mistakes.question, rejected, form) == 0
    return rejected if is_wrong else None


def number_nearby(question: Question, rng: Random) -> tuple[list[str], list[str]]:
    """The gold number and one that is off by 10 to 35 %, as the log wrote both."""
    gold = float(str(question.answer).replace(",", ""))
    factor = 1 + rng.choice((-1, 1)) * rng.uniform(0.10, 0.35)
    wrong = gold * factor
    if gold == 0:
        wrong = rng.choice((-1, 1)) * rng.uniform(1, 10)
    return [f"{gold:.4g}"], [f"{round(wrong, 1):.4g}"]


def random_cell(context: Context, right_items: list[str], rng: Random) -> list[str]:
    """A cell of the table that is no right item; the right ones where there is none."""
    options = []
    for row in context.table:
        for cell in row:
            text = cell.strip()
            if text and len(text) <= 60 and text not in right_items:
                options.append(text)
    return [rng.choice(options)] if options else right_items


def log_rule(context: Context, question: Question, seed: int) -> Pair | str:
    """The experiment log's own rule; neither side is checked with the metric, as in the log."""
    rng = Random(f"{seed}:{question.uid}")
    if question.answer_type == "arithmetic":
        right_items, wrong_items = number_nearby(question, rng)
    else:
        right_items = question.gold_items
        wrong_items = random_cell(context, right_items, rng)
    if right_items == wrong_items:
        return SAME
    chosen = answer.render(right_items, question.scale)
    rejected = answer.render(wrong_items, question.scale)
    text = prompt.user_message(context, question)
    return tatqa_pair(context, question, text, "log", chosen, rejected)
