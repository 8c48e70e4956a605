"""The preference pairs that a recipe asks for, and what became of the questions that gave none."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from random import Random

from tatqa_task import data
from tatqa_task.types import Context, Question
from train.pairs import mined, preferences, samples
from train.pairs.corruptions import NAMES
from train.pairs.leaks import Evaluated
from train.pairs.pair import Counts, Pair
from train.pairs.scale_markers import shows_scale
from train.pairs.strategies import corrupt, log_rule
from train.recipe import Recipe, RecipeError, nearest

EVALUATED = ("validation", "test")
LEAKED = "context occurs in an evaluated split"
NO_MARKER = "scale has no marker in its context"


def build(recipe: Recipe, counts: Counts) -> Iterator[Pair]:
    """The pairs of a recipe, in the order of the data; `counts` is filled while they stream by.

    Raises DataError (data) and RecipeError (unknown corruption, unusable samples, no pair at all).
    """
    check_corruptions(recipe)
    for pair in _made(recipe, counts):
        counts.keep(pair)
        yield pair
    if not counts.by_type:
        raise RecipeError(f"strategy {recipe.strategy} gives no pair; {reasons(counts)}")


def check_corruptions(recipe: Recipe) -> None:
    """Raise RecipeError for a kind of mistake that there is not."""
    for name in set(recipe.corruptions) - set(NAMES):
        raise RecipeError(f"corruptions: unknown kind `{name}`; {nearest(name, NAMES)}")


def reasons(counts: Counts) -> str:
    """What dropped the most questions, for a message."""
    most = [f"{name} ({n:,})" for name, n in counts.dropped.most_common(3)]
    return f"dropped: {', '.join(most)}" if most else "there is no question"


def splits_read(recipe: Recipe) -> list[str]:
    """The split that pairs are made of, and those that are scored, which they are cleared of.

    The log's rule took all questions, and so does `log`.
    """
    others = [name for name in EVALUATED if name != recipe.split]
    return [recipe.split, *([] if recipe.strategy == "log" else others)]


def scored_contexts(recipe: Recipe) -> Iterator[Context]:
    """The contexts of the other splits, which are scored."""
    for name in splits_read(recipe)[1:]:
        yield from data.load(name)


def questions(recipe: Recipe, counts: Counts) -> Iterator[tuple[Context, Question]]:
    """The questions that may be trained on: those of contexts that are not scored."""
    evaluated = Evaluated(scored_contexts(recipe))
    for context in data.load(recipe.split):
        if evaluated.hold(context):
            counts.dropped[f"{LEAKED}: {context.uid}"] += len(context.questions)
            continue
        for question in context.questions:
            if recipe.scale_markers and not shows_scale(context, question):
                counts.dropped[NO_MARKER] += 1
            else:
                yield context, question


def _made(recipe: Recipe, counts: Counts) -> Iterable[Pair]:
    """The pairs, from where the recipe says."""
    if recipe.pairs:
        return preferences.read(recipe.pairs)
    if recipe.strategy == "mined":
        return _mined(recipe, counts)
    return _by_rule(recipe, counts)


def _by_rule(recipe: Recipe, counts: Counts) -> Iterator[Pair]:
    """At most one pair a question, made by `corrupt` or `log`."""
    for context, question in questions(recipe, counts):
        if recipe.strategy == "log":
            made = log_rule(context, question, recipe.seed)
        else:
            made = corrupt(context, question, recipe.corruptions, recipe.seed, recipe.form)
        if isinstance(made, Pair):
            yield made
        else:
            counts.dropped[made] += 1


def _mined(recipe: Recipe, counts: Counts) -> list[Pair]:
    """Pairs of a model's own replies, limited by question and balanced by answer type."""
    base = None if recipe.load_in_4bit else recipe.model_name_or_path  # scored as a 4-bit copy
    replies = samples.read(recipe.samples, recipe.form, base or None)
    limit = recipe.max_pairs_per_question
    every: list[Pair] = []
    asked: Counter[str] = Counter()
    gold_chosen: set[str] = set()
    beyond_limit = 0
    for context, question in questions(recipe, counts):
        asked[question.answer_type] += 1
        of_question = replies.get(question.uid)
        made = mined.mined(context, question, of_question, recipe.form, limit)
        if isinstance(made, str):
            counts.dropped[made] += 1
            continue
        every += made.pairs
        beyond_limit += made.beyond_limit
        if made.gold_chosen:
            gold_chosen.add(question.uid)
    kept = mined.balanced(every, asked, recipe.seed)
    counts.dropped[mined.BEYOND_LIMIT] += beyond_limit
    counts.dropped[mined.BEYOND_SHARE] += len(every) - len(kept)
    counts.notes[mined.GOLD_CHOSEN] += sum(pair.uid in gold_chosen for pair in kept)
    counts.dropped += Counter()  # without zeros
    return kept


def held_out(pairs: Sequence[Pair], share: float, seed: int) -> tuple[list[Pair], list[Pair]]:
    """The pairs to train on, and those of a `share` of the contexts, drawn by `seed`.

    Raises RecipeError where the share is too small for a context, or leaves none.
    """
    if not share:
        return list(pairs), []
    contexts = contexts_of(pairs)
    n = round(share * len(contexts))
    if not 0 < n < len(contexts):
        raise RecipeError(f"eval_share: {share} of {len(contexts)} contexts are {n}")
    drawn = set(Random(f"held out {seed}").sample(contexts, n))
    trained, held = [], []
    for pair in pairs:
        if pair.context_uid in drawn:
            held.append(pair)
        else:
            trained.append(pair)
    return trained, held


def contexts_of(pairs: Sequence[Pair]) -> list[str]:
    """The contexts that pairs are of, by name, each once."""
    return sorted({pair.context_uid for pair in pairs})


def stratified(pairs: Sequence[Pair], n: int | None, seed: int) -> list[Pair]:
    """At most `n` pairs in their old order: answer types in proportion, contexts kept whole.

    As whole, that is, as the proportions allow.
    """
    n = min(n or len(pairs), len(pairs))
    contexts = contexts_of(pairs)
    Random(seed).shuffle(contexts)
    rank = {uid: place for place, uid in enumerate(contexts)}
    by_type: dict[str, list[int]] = {}
    for i in sorted(range(len(pairs)), key=lambda i: rank[pairs[i].context_uid]):
        by_type.setdefault(pairs[i].answer_type, []).append(i)
    taken: list[int] = []
    before = 0
    for _, of_type in sorted(by_type.items()):
        after = before + len(of_type)
        share = after * n // len(pairs) - before * n // len(pairs)
        taken += of_type[:share]
        before = after
    return [pairs[i] for i in sorted(taken)]
