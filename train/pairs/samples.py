"""The replies of a model to training questions, from lm-eval's `--log_samples` files.

    lm_eval --tasks tatqa_train --log_samples ...

A question may have several replies in one file (`repeats`), or in several (one a seed).
"""

import glob
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tatqa_task.prompt import WORDINGS
from tatqa_task.types import Form
from train.recipe import RecipeError


@dataclass
class Replies:
    """The replies to one question, each with how often it was given."""

    counts: dict[str, int] = field(default_factory=dict)

    def add(self, reply: str) -> None:
        """Count one more reply."""
        self.counts[reply] = self.counts.get(reply, 0) + 1

    def most_frequent(self) -> list[str]:
        """The different replies, the most frequent first, of equals the first given first."""
        return sorted(self.counts, key=lambda reply: -self.counts[reply])


def read(patterns: Sequence[str], form: Form, base: str | None) -> dict[str, Replies]:
    """Replies by question uid from sample files (globs allowed, ** too).

    Raises RecipeError where there are none, where a line is no sample, and where a file says that
    its questions were asked in another form or of another base (None: any base).
    """
    paths: set[str] = set()
    for pattern in patterns:
        paths.update(glob.glob(pattern, recursive=True))
    if not paths:
        task = "tatqa_calc_train" if form == "calc" else "tatqa_train"
        found = f"nothing matches {', '.join(patterns)}"
        raise RecipeError(f"samples: {found}; run lm_eval --tasks {task} --log_samples")
    replies: dict[str, Replies] = {}
    for path in map(Path, sorted(paths)):
        if base is not None:
            check_base(path, base)
        for uid, given in read_file(path, form):
            of_question = replies.setdefault(uid, Replies())
            for reply in given:
                of_question.add(reply)
    return replies


def read_file(path: Path, form: Form) -> Iterator[tuple[str, list[str]]]:
    """Question uid and replies of each line. Raises RecipeError that names file and line."""
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                where = f"{path}:{number}"
                sample = _sample(line, where)
                _check_form(sample, form, where)
                yield sample["doc"]["uid"], sample["resps"][0]
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"samples: cannot read {path} ({error})") from None


def _sample(line: str, where: str) -> dict[str, Any]:
    """One line as a sample whose first request has replies that are texts."""
    try:
        sample: dict[str, Any] = json.loads(line)
        replies = sample["resps"][0]
        is_sample = isinstance(sample["doc"]["uid"], str) and isinstance(replies, list)
        if is_sample and all(isinstance(reply, str) for reply in replies):
            return sample
    except (ValueError, LookupError, TypeError):
        pass
    raise RecipeError(f"{where}: not a sample of lm_eval --log_samples of a tatqa task")


def _check_form(sample: dict[str, Any], form: Form, where: str) -> None:
    """Raise RecipeError if the sample holds its prompt and that is worded otherwise."""
    texts = list(_texts(sample.get("arguments")))
    if not texts:
        return
    wording = WORDINGS[form]
    turn = f"Question: {str(sample['doc'].get('question', '')).strip()}\n{wording.cue}"
    for text in texts:
        if wording.instruction in text and turn in text:
            return
    asked = "asked in another form or by another version's prompt"
    raise RecipeError(f"{where}: {asked} than form: {form} of this one; sample again")


def _texts(arguments: Any) -> Iterator[str]:
    """The texts in a request's arguments; chat messages that were written as JSON are read."""
    if isinstance(arguments, str):
        yield arguments
        if arguments.startswith("["):
            try:
                yield from _texts(json.loads(arguments))
            except ValueError:
                return
    if isinstance(arguments, dict):
        arguments = list(arguments.values())
    if isinstance(arguments, list):
        for value in arguments:
            yield from _texts(value)


def check_base(samples: Path, base: str) -> None:
    """Raise RecipeError if the run's results, beside its samples, name another base model."""
    stamp = samples.stem.rpartition("_")[2]
    results = samples.with_name(f"results_{stamp}.json")
    try:
        arguments = json.loads(results.read_text(encoding="utf-8"))["config"]["model_args"]
    except (OSError, ValueError, LookupError, TypeError):
        return  # nothing is said
    sampled = None
    if isinstance(arguments, dict):
        sampled = arguments.get("pretrained")
    elif isinstance(arguments, str):
        for item in arguments.split(","):
            key, _, value = item.partition("=")
            if key == "pretrained":
                sampled = value
    if sampled is None or sampled == base or Path(sampled).resolve() == Path(base).resolve():
        return
    raise RecipeError(f"{samples}: replies of {sampled}, but model_name_or_path is {base}")
