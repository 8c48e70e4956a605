"""Preference pairs from TAT-QA: chosen is the gold answer, rejected a wrong one, both in the reply format.

    python -m train.pairs --split train --strategy corrupt --out pairs.jsonl

writes one pair a line in TRL's conversational format and prints what was kept and what was dropped, and why.
"""

from __future__ import annotations

import argparse
import glob
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any, TextIO

from tatqa_task import answer as reply_format
from tatqa_task import data, metric, prompt
from tatqa_task.data import Context, Question

from .corruptions import KINDS, NAMES
from .recipe import Recipe, RecipeError, nearest

EVALUATED = ("validation", "test")
NOT_RIGHT = "gold answer scores below EM 1"
NOT_WRONG = "no wrong answer found"
LEAKED = "context occurs in an evaluated split"
EQUAL = "chosen equals rejected"


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
        return {
            **{key: getattr(self, key) for key in ("uid", "context_uid", "answer_type", "kind")},
            "prompt": [{"role": "user", "content": self.prompt}],
            "chosen": [{"role": "assistant", "content": self.chosen}],
            "rejected": [{"role": "assistant", "content": self.rejected}],
            "chat_template_kwargs": {"enable_thinking": False},
        }


@dataclass
class Counts:
    """What became of the questions: pairs kept by answer type and kind, and what was dropped by reason."""

    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    by_type: Counter[str] = field(default_factory=Counter)
    by_kind: Counter[str] = field(default_factory=Counter)

    def keep(self, pair: Pair) -> None:
        self.kept += 1
        self.by_type[pair.answer_type] += 1
        self.by_kind[pair.kind] += 1

    def table(self) -> str:
        lines = [f"pairs kept: {self.kept:,}"]
        for title, counter in (("", self.by_type), ("", self.by_kind), ("dropped: ", self.dropped)):
            lines += [f"  {n:>7,}  {title}{name}" for name, n in counter.most_common()]
        return "\n".join(lines)


# --- the three strategies: (context, question) -> pairs, or the reason why there is none ---


def corrupt(context: Context, question: Question, mix: Mapping[str, float], seed: int) -> Pair | str:
    """A pair whose rejected reply is made by one kind of corruption, drawn by weight among those that apply."""
    if metric.score(question, *_as_read(_gold_reply(question))).em != 1:
        return NOT_RIGHT
    rng = Random(f"{seed}:{question.uid}")
    kinds = [kind for kind in KINDS[question.answer_type] if mix.get(kind.__name__, 1.0) > 0]
    keys = {kind: rng.random() ** (1 / mix.get(kind.__name__, 1.0)) for kind in kinds}  # weighted order without repeats
    for kind in sorted(kinds, key=lambda kind: keys[kind], reverse=True):
        wrong = kind(context, question, rng)
        if wrong and _is_wrong(question, *wrong):
            return _pair(context, question, kind.__name__, reply_format.render(*wrong))
    return NOT_WRONG


def log_rule(context: Context, question: Question, seed: int) -> Pair | str:
    """The experiment log's own rule. Its rejected replies are not checked with the metric, nor are its chosen ones."""
    rng = Random(f"{seed}:{question.uid}")
    if question.answer_type == "arithmetic":
        gold = float(str(question.answer).replace(",", ""))
        share = rng.choice((-1, 1)) * rng.uniform(0.10, 0.35)
        wrong = round(gold * (1 + share) if gold else rng.choice((-1, 1)) * rng.uniform(1, 10), 1)
        chosen, rejected = [f"{gold:.4g}"], [f"{wrong:.4g}"]
    else:
        golds = question.answer if isinstance(question.answer, list) else [str(question.answer)]
        chosen = [str(item) for item in golds]
        cells = [cell.strip() for row in context.table for cell in row]
        cells = [cell for cell in cells if cell and len(cell) <= 60 and cell not in chosen]
        if not cells:
            return NOT_WRONG
        rejected = [rng.choice(cells)]
    if chosen == rejected:
        return EQUAL
    pair = _pair(context, question, "log", reply_format.render(rejected, question.scale))
    return Pair(**{**asdict(pair), "chosen": reply_format.render(chosen, question.scale)})


def mined(context: Context, question: Question, replies: Sequence[str]) -> Iterator[Pair | str]:
    """One pair for each different wrong reply that a model gave to this question."""
    if not replies:
        yield "no reply in the samples"
    elif metric.score(question, *_as_read(_gold_reply(question))).em != 1:
        yield NOT_RIGHT
    else:
        for text in dict.fromkeys(replies):
            reply = reply_format.parse(text)
            if not reply.parsed:
                yield "reply not in the format"
            elif metric.score(question, reply.answer, reply.scale).em > 0:
                yield "reply is right"
            else:
                yield _pair(context, question, "mined", reply_format.render(reply.answer, reply.scale))


def _gold_reply(question: Question) -> str:
    return reply_format.render(question.answer, question.scale)


def _as_read(reply: str) -> tuple[list[str], str]:
    parsed = reply_format.parse(reply)
    return parsed.answer, parsed.scale


def _is_wrong(question: Question, items: list[str], scale: str) -> bool:
    return any(items) and metric.score(question, *_as_read(reply_format.render(items, scale))).em == 0


def _pair(context: Context, question: Question, kind: str, rejected: str) -> Pair:
    text = prompt.user_message(context, question)
    return Pair(question.uid, context.uid, question.answer_type, kind, text, _gold_reply(question), rejected)


# --- all pairs of a split ---


def build(recipe: Recipe, counts: Counts) -> Iterator[Pair]:
    """The pairs that a recipe asks for, in the order of the data; `counts` is filled while they stream by.

    Raises DataError (data) and RecipeError (unknown corruption, no samples).
    """
    contexts = data.load(recipe.split)
    unknown = [name for name in recipe.corruptions if name not in NAMES]
    if unknown:
        raise RecipeError(f"corruptions: unknown kind `{unknown[0]}`; {nearest(unknown[0], NAMES)}")
    replies = read_replies(recipe.samples) if recipe.strategy == "mined" else {}
    evaluated = set() if recipe.strategy == "log" else evaluated_documents(recipe.split)
    for context in contexts:
        leaked = not evaluated.isdisjoint(documents(context))
        for question in context.questions:
            results = [LEAKED] if leaked else pairs_of(recipe, context, question, replies.get(question.uid, []))
            for result in results:
                if isinstance(result, str):
                    counts.dropped[result] += 1
                else:
                    counts.keep(result)
                    yield result


def pairs_of(recipe: Recipe, context: Context, question: Question, replies: Sequence[str]) -> Iterable[Pair | str]:
    """Pairs of one question under the recipe's strategy, or the reason for none."""
    if recipe.strategy == "mined":
        return mined(context, question, replies)
    if recipe.strategy == "log":
        return [log_rule(context, question, recipe.seed)]
    return [corrupt(context, question, recipe.corruptions, recipe.seed)]


def documents(context: Context) -> set[str]:
    """Fingerprints of what a context shows: its table and its text, blind to white space and case."""
    table = " ".join(cell for row in context.table for cell in row)
    texts = (" ".join(text.lower().split()) for text in (table, " ".join(context.paragraphs)))
    return {hashlib.sha256(text.encode()).hexdigest() for text in texts if text}


def evaluated_documents(split: str) -> set[str]:
    """Fingerprints of all contexts that are scored, those of `split` itself left out."""
    return set().union(*(documents(c) for name in EVALUATED if name != split for c in data.load(name)))


def read_replies(patterns: Sequence[str]) -> dict[str, list[str]]:
    """Replies by question uid from lm-eval's `--log_samples` files. Raises RecipeError if there are none."""
    paths = sorted({path for pattern in patterns for path in glob.glob(pattern)})
    if not paths:
        raise RecipeError(f"samples: nothing matches {patterns}; run lm_eval --tasks tatqa_train --log_samples")
    replies: dict[str, list[str]] = {}
    for path in paths:
        for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
            try:
                sample = json.loads(line)
                replies.setdefault(sample["doc"]["uid"], []).append(str(sample["filtered_resps"][0]))
            except (ValueError, LookupError, TypeError):
                raise RecipeError(f"{path}:{number}: not a sample of lm_eval --log_samples") from None
    return replies


def stratified(pairs: Sequence[Pair], n: int | None, seed: int) -> list[Pair]:
    """At most `n` pairs in their old order, each answer type in proportion (largest remainders)."""
    if n is None or n >= len(pairs):
        return list(pairs)
    by_type: dict[str, list[int]] = {}
    for i, pair in enumerate(pairs):
        by_type.setdefault(pair.answer_type, []).append(i)
    quota = {name: n * len(items) / len(pairs) for name, items in by_type.items()}
    take = {name: int(share) for name, share in quota.items()}
    for name in sorted(quota, key=lambda name: take[name] - quota[name])[: n - sum(take.values())]:
        take[name] += 1
    rng = Random(seed)
    return [pairs[i] for i in sorted(i for name, items in by_type.items() for i in rng.sample(items, take[name]))]


# --- command ---


def main(argv: Sequence[str] | None = None) -> int:
    """Write pairs and print the table of what was kept and dropped."""
    parser = argparse.ArgumentParser(prog="python -m train.pairs", description=__doc__.splitlines()[0])
    parser.add_argument("--split", default="train", choices=("train", *EVALUATED))
    parser.add_argument("--strategy", default="corrupt", choices=("corrupt", "log", "mined"))
    parser.add_argument("--samples", nargs="*", default=[], help="mined: sample files of lm_eval --log_samples")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--out", default="-", help="JSON Lines file; - for standard output")
    args = parser.parse_args(argv)
    counts = Counts()
    try:
        fields = {key: value for key, value in vars(args).items() if key != "out"}
        pairs = build(Recipe(model_name_or_path="", **fields), counts)
        _write(pairs, sys.stdout) if args.out == "-" else _write_whole(pairs, Path(args.out))
    except (data.DataError, RecipeError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    note = "log keeps contexts that are also evaluated, as the log did\n" if args.strategy == "log" else ""
    print(note + counts.table(), file=sys.stderr)
    return 0


def _write(pairs: Iterable[Pair], file: TextIO) -> None:
    for pair in pairs:
        file.write(json.dumps(pair.row(), ensure_ascii=False) + "\n")


def _write_whole(pairs: Iterable[Pair], path: Path) -> None:
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        _write(pairs, file)
    partial.replace(path)


if __name__ == "__main__":
    sys.exit(main())
