"""Token ids of preference pairs: the prompt as lm-eval sends it in scoring, then the reply, by the chat template."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from os.path import commonprefix
from typing import Any

from train.pairs import Pair

TOO_LONG = "longer than max_length"


@dataclass(frozen=True)
class TokenPair:
    """A pair as token ids, under the names that TRL's collator reads."""

    pair: Pair
    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]

    @property
    def length(self) -> int:
        """Tokens of the prompt and the longer reply."""
        return len(self.prompt_ids) + max(len(self.chosen_ids), len(self.rejected_ids))


def tokenize(
    pairs: Sequence[Pair], tokenizer: Any, max_prompt: int | None, max_length: int | None, dropped: Counter[str]
) -> list[TokenPair]:
    """Ids of the pairs, prompts cut to their last `max_prompt` tokens; pairs over `max_length` are counted, not kept.

    A reply starts where prompt and prompt plus reply part, as in TRL 1.16 (DPOTrainer._prepare_dataset).
    """
    sides = [_ids(tokenizer, pairs, side) for side in (None, "chosen", "rejected")]
    kept = []
    for pair, prompt, chosen, rejected in zip(pairs, *sides, strict=True):
        n = len(commonprefix([prompt, chosen, rejected]))
        row = TokenPair(pair, prompt[:n][-(max_prompt or n) :], chosen[n:], rejected[n:])
        if row.length <= (max_length or row.length):
            kept.append(row)
        else:
            dropped[TOO_LONG] += 1
    return kept


def _ids(tokenizer: Any, pairs: Sequence[Pair], side: str | None) -> list[list[int]]:
    rendered = []
    for pair in pairs:
        row = pair.row()
        messages = row["prompt"] + (row[side] if side else [])
        rendered.append(
            tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=not side, **row["chat_template_kwargs"]
            )
        )
    ids: list[list[int]] = tokenizer(rendered, add_special_tokens=False)["input_ids"] if rendered else []
    return ids
