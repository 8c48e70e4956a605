"""Token ids of preference pairs: the prompt as lm-eval sends it in scoring, then the reply, by the chat template."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from train.pairs.build import Pair


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
    pairs: Sequence[Pair],
    tokenizer: Any,
    max_prompt: int | None,
    max_length: int | None,
    dropped: Counter[str],
) -> list[TokenPair]:
    """Ids of the pairs, prompts cut to their last `max_prompt` tokens; pairs over `max_length` are counted, not kept.

    Prompt and reply are encoded apart, as in generation, where the reply's tokens follow the prompt's.
    """
    if not pairs:
        return []
    end = end_of_turn(tokenizer)
    texts = (
        [prompt_text(tokenizer, pair.prompt) for pair in pairs],
        [pair.chosen + end for pair in pairs],
        [pair.rejected + end for pair in pairs],
    )
    sides = (tokenizer(side, add_special_tokens=False)["input_ids"] for side in texts)
    rows = [
        TokenPair(pair, prompt[-(max_prompt or len(prompt)) :], chosen, rejected)
        for pair, prompt, chosen, rejected in zip(pairs, *sides, strict=True)
    ]
    kept = [row for row in rows if row.length <= (max_length or row.length)]
    if len(kept) < len(rows):
        dropped["longer than max_length"] += len(rows) - len(kept)
    return kept


def prompt_text(tokenizer: Any, message: str) -> str:
    """The user's message in the chat template, up to where the reply begins; thinking off."""
    turns = [{"role": "user", "content": message}]
    text = tokenizer.apply_chat_template(
        turns, tokenize=False, add_generation_prompt=True, enable_thinking=False
    )
    return str(text)


def end_of_turn(tokenizer: Any) -> str:
    """What the chat template writes after a reply."""
    turns = [{"role": "user", "content": "a question"}, {"role": "assistant", "content": "a reply"}]
    return str(
        tokenizer.apply_chat_template(turns, tokenize=False, enable_thinking=False).rpartition(
            "a reply"
        )[2]
    )
