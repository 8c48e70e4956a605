"""Token ids of preference pairs: what lm-eval sends in scoring, then the reply, through the model's chat template."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from os.path import commonprefix
from typing import TYPE_CHECKING, Any

from .pairs import Pair

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TOO_LONG = "longer than max_length"


@dataclass(frozen=True)
class TokenPair:
    """A pair as token ids; the names are those that TRL's collator reads."""

    pair: Pair
    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]

    @property
    def length(self) -> int:
        """Tokens of the longer of the two sequences."""
        return len(self.prompt_ids) + max(len(self.chosen_ids), len(self.rejected_ids))


def tokenize(
    pairs: Sequence[Pair],
    tokenizer: PreTrainedTokenizerBase,
    max_prompt_length: int | None,
    max_length: int | None,
    dropped: Counter[str],
) -> list[TokenPair]:
    """Ids of the pairs, prompts cut to their last `max_prompt_length` tokens; counts those over `max_length`.

    The reply starts where prompt and prompt plus reply part, as in TRL 1.16 (DPOTrainer._prepare_dataset).
    """
    prompts = _ids(tokenizer, [_rendered(tokenizer, p) for p in pairs])
    chosen = _ids(tokenizer, [_rendered(tokenizer, p, p.chosen) for p in pairs])
    rejected = _ids(tokenizer, [_rendered(tokenizer, p, p.rejected) for p in pairs])
    kept = []
    for pair, x, y, z in zip(pairs, prompts, chosen, rejected, strict=True):
        n = len(commonprefix([x, y, z]))
        row = TokenPair(pair, x[:n][-(max_prompt_length or n) :], y[n:], z[n:])
        if max_length is None or row.length <= max_length:
            kept.append(row)
        else:
            dropped[TOO_LONG] += 1
    return kept


def _rendered(tokenizer: PreTrainedTokenizerBase, pair: Pair, reply: str | None = None) -> str:
    messages = [{"role": "user", "content": pair.prompt}]
    if reply is not None:
        messages.append({"role": "assistant", "content": reply})
    rendered: Any = tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=reply is None, enable_thinking=False
    )
    return str(rendered)


def _ids(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    ids: Any = tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
    return list(ids)
