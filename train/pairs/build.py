"""Preference pairs from TAT-QA: chosen is the gold answer, rejected a wrong one, both in the reply format."""

import fileinput
import glob
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from tatqa_task import answer, data, metric, prompt
from tatqa_task.data import Context, Question
from train.pairs.corruptions import KINDS, NAMES, Mistakes, spans
from train.recipe import Recipe, RecipeError, nearest

EVALUATED = ("validation", "test")
LEAKED = "context occurs in an evaluated split"
LONG = 200  # characters; shorter paragraphs ("The following table shows:") recur between reports
NOT_RIGHT = "gold answer scores below EM 1"
NOT_WRONG = "no wrong answer found"


@dataclass(frozen=True)
class Pair:
    """One preference pair; `chosen` and `rejected` are whole replies, `kind` says how the rejected one was made."""

    uid: str
    context_uid: str
    answer_type: str
    kind: str
    prompt: str
    chosen: str
    rejected: str

    def row(self) -> dict[str, Any]:
        """The pair in TRL's conversational preference format, thinking off."""
        roles = {"prompt": "user", "chosen": "assistant", "rejected": "assistant"}
        turns = {
            key: [{"role": role, "content": getattr(self, key)}] for key, role in roles.items()
        }
        return {**vars(self), **turns, "chat_template_kwargs": {"enable_thinking": False}}


@dataclass
class Counts:
    """What became of the questions: pairs kept, by answer type and by kind, and what was dropped, by reason."""

    by_type: Counter[str] = field(default_factory=Counter)
    by_kind: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)

    def table(self) -> str:
        """The counts as text, one a line."""
        titles = {"kept ": self.by_type, "kept, made by ": self.by_kind, "dropped: ": self.dropped}
        rows = [
            (n, title + name)
            for title, counter in titles.items()
            for name, n in counter.most_common()
        ]
        return "\n".join(
            f"{n:>8,}  {name}" for n, name in [(self.by_type.total(), "pairs kept"), *rows]
        )


# Three strategies: the pair, or pairs, of one question, or as a text the reason why there is none.


def corrupt(
    context: Context, question: Question, mix: Mapping[str, float], seed: int
) -> Pair | str:
    """A pair whose rejected reply is made by one kind of corruption, drawn by weight among those that apply."""
    chosen = answer.render(question.answer, question.scale)
    if exact_match(question, chosen) < 1:
        return NOT_RIGHT
    rng = Random(f"{seed}:{question.uid}")
    weights = {kind: mix.get(kind, 0.0) if mix else 1.0 for kind in KINDS[question.answer_type]}
    keys = {kind: rng.random() ** (1 / weight) for kind, weight in weights.items() if weight}
    mistakes = Mistakes(context, question, rng)
    for kind in sorted(
        keys, key=lambda kind: keys[kind], reverse=True
    ):  # weighted sampling without replacement
        items, scale = getattr(mistakes, kind)()
        rejected = answer.render(items, scale)
        if any(items) and answer.parse(rejected).parsed and exact_match(question, rejected) == 0:
            return _pair(context, question, kind, chosen, rejected)
    return NOT_WRONG


def log_rule(context: Context, question: Question, seed: int) -> Pair | str:
    """The experiment log's own rule; neither side is checked with the metric, as in the log."""
    rng = Random(f"{seed}:{question.uid}")
    if question.answer_type == "arithmetic":
        gold = float(str(question.answer).replace(",", ""))
        factor = 1 + rng.choice((-1, 1)) * rng.uniform(0.10, 0.35)
        wrong = round(gold * factor if gold else rng.choice((-1, 1)) * rng.uniform(1, 10), 1)
        chosen, rejected = [f"{gold:.4g}"], [f"{wrong:.4g}"]
    else:
        chosen = spans(question)
        cells = (cell.strip() for row in context.table for cell in row)
        options = [cell for cell in cells if cell and len(cell) <= 60 and cell not in chosen]
        rejected = [rng.choice(options)] if options else chosen
    if chosen == rejected:
        return "chosen equals rejected"
    sides = (answer.render(side, question.scale) for side in (chosen, rejected))
    return _pair(context, question, "log", *sides)


def mined(context: Context, question: Question, replies: Sequence[str]) -> Iterator[Pair | str]:
    """One pair for each different wrong reply that a model gave to this question."""
    chosen = answer.render(question.answer, question.scale)
    if not replies or exact_match(question, chosen) < 1:
        yield NOT_RIGHT if replies else "no reply in the samples"
        return
    for text in dict.fromkeys(replies):
        reply = answer.parse(text)
        rejected = answer.render(reply.answer, reply.scale)
        if not reply.parsed:
            yield "reply not in the format"
        elif exact_match(question, rejected) > 0:
            yield "reply is right"
        else:
            yield _pair(context, question, "mined", chosen, rejected)


def exact_match(question: Question, reply: str) -> float:
    """Official EM of a reply, read as in scoring."""
    read = answer.parse(reply)
    return metric.score(question, read.answer, read.scale).em


def _pair(context: Context, question: Question, kind: str, chosen: str, rejected: str) -> Pair:
    text = prompt.user_message(context, question)
    return Pair(question.uid, context.uid, question.answer_type, kind, text, chosen, rejected)


def build(recipe: Recipe, counts: Counts) -> Iterator[Pair]:
    """The pairs that a recipe asks for, in the order of the data; `counts` is filled while they stream by.

    Raises DataError (data) and RecipeError (unknown corruption, no samples).
    """
    for name in set(recipe.corruptions) - set(NAMES):
        raise RecipeError(f"corruptions: unknown kind `{name}`; {nearest(name, NAMES)}")
    for result in _results(recipe):
        if isinstance(result, str):
            counts.dropped[result] += 1
        else:
            counts.by_type[result.answer_type] += 1
            counts.by_kind[result.kind] += 1
            yield result


def _results(recipe: Recipe) -> Iterator[Pair | str]:
    """What becomes of every question of the recipe's split, by its strategy."""
    replies = read_replies(recipe.samples) if recipe.strategy == "mined" else {}
    contexts = data.load(recipe.split)
    scored = [name for name in EVALUATED if name != recipe.split and recipe.strategy != "log"]
    evaluated = {
        document
        for name in scored
        for context in data.load(name)
        for document in documents(context)
    }
    for context in contexts:
        leaked = not evaluated.isdisjoint(documents(context))
        for question in context.questions:
            if leaked:
                yield f"{LEAKED}: {context.uid}"
            elif recipe.strategy == "mined":
                yield from mined(context, question, replies.get(question.uid, []))
            elif recipe.strategy == "log":
                yield log_rule(context, question, recipe.seed)
            else:
                yield corrupt(context, question, recipe.corruptions, recipe.seed)


def documents(context: Context) -> set[str]:
    """A context's table, its whole text and its long paragraphs, without differences of white space and case."""
    table = " ".join(cell for row in context.table for cell in row)
    long = [paragraph for paragraph in context.paragraphs if len(paragraph) >= LONG]
    return {
        " ".join(text.lower().split()) for text in (table, " ".join(context.paragraphs), *long)
    } - {""}


def read_replies(patterns: Sequence[str]) -> dict[str, list[str]]:
    """Replies by question uid from lm-eval's `--log_samples` files. Raises RecipeError if there are none."""
    paths = sorted({path for pattern in patterns for path in glob.glob(pattern)})
    if not paths:
        raise RecipeError(
            f"samples: nothing matches {patterns}; run lm_eval --tasks tatqa_train --log_samples"
        )
    replies: dict[str, list[str]] = {}
    with fileinput.input(paths, encoding="utf-8") as lines:
        for line in lines:
            try:
                sample = json.loads(line)
                replies.setdefault(sample["doc"]["uid"], []).append(
                    str(sample["filtered_resps"][0])
                )
            except (ValueError, LookupError, TypeError):
                where = f"{lines.filename()}:{lines.filelineno()}"
                raise RecipeError(f"{where}: not a sample of lm_eval --log_samples") from None
    return replies


def stratified(pairs: Sequence[Pair], n: int | None, seed: int) -> list[Pair]:
    """At most `n` pairs in their old order: each answer type in proportion, and contexts as whole as that allows."""
    n = min(n or len(pairs), len(pairs))
    contexts = sorted({pair.context_uid for pair in pairs})
    Random(seed).shuffle(contexts)
    rank = {uid: i for i, uid in enumerate(contexts)}
    by_context = sorted(range(len(pairs)), key=lambda i: rank[pairs[i].context_uid])
    taken: list[int] = []
    before = 0
    for answer_type, size in sorted(Counter(pair.answer_type for pair in pairs).items()):
        share = (before + size) * n // len(pairs) - before * n // len(pairs)
        taken += [i for i in by_context if pairs[i].answer_type == answer_type][:share]
        before += size
    return [pairs[i] for i in sorted(taken)]
