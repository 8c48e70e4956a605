"""Token ids of preference pairs: the prompt as lm-eval sends it in scoring, then the reply.

A reply is encoded as what the chat template makes of it after the prompt: with what the template
writes before it (Llama 2's space, an answer channel) and after it (the end of the turn). Without a
chat template the prompt is plain text, as in scoring, and the reply follows after a space.
"""

from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from os.path import commonprefix
from typing import Any, NamedTuple

from train.pairs.pair import Message, Pair
from train.recipe import RecipeError, one_line


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

    def as_bytes(self) -> bytes:
        """Its ids for a hash, with an end after each list: the same for the same lists alone."""
        content = b""
        for ids in (self.prompt_ids, self.chosen_ids, self.rejected_ids):
            content += array("q", [*ids, -1]).tobytes()
        return content


class Around(NamedTuple):
    """What stands around a reply: between it and the prompt, and after it."""

    before: str
    after: str


def tokenize(
    pairs: Sequence[Pair],
    tokenizer: Any,
    max_prompt: int | None,
    max_length: int | None,
    dropped: Counter[str],
) -> list[TokenPair]:
    """Ids of the pairs, prompts cut to their last `max_prompt` tokens.

    Pairs of more than `max_length` tokens are counted, not kept. Raises RecipeError if the chat
    template does not continue its own prompt.
    """
    if not pairs:
        return []
    if len({pair.plain_text for pair in pairs}) > 1:
        raise RecipeError("pairs: some rows are texts and some conversations; train on one kind")
    conversational = tokenizer.chat_template and not pairs[0].plain_text
    rows = _conversations(pairs, tokenizer) if conversational else _texts(pairs, tokenizer)
    kept = []
    for row in rows:
        most = max_prompt or len(row.prompt_ids)
        cut = replace(row, prompt_ids=row.prompt_ids[-most:])
        reason = unusable(cut, max_length)
        if reason:
            dropped[reason] += 1
        else:
            kept.append(cut)
    return kept


def unusable(row: TokenPair, max_length: int | None) -> str | None:
    """Why a pair teaches nothing, or something wrong; None if it can be trained on."""
    if max_length and row.length > max_length:
        return "longer than max_length"
    if row.chosen_ids == row.rejected_ids:  # texts that the tokenizer takes for one
        return "chosen and rejected are the same tokens"
    if not row.prompt_ids:
        return "no token of the prompt stands before the reply"
    return None


def _conversations(pairs: Sequence[Pair], tokenizer: Any) -> Iterable[TokenPair]:
    """Prompt and reply encoded apart, as in generation, where the reply's tokens follow.

    What stands around replies is tried on one pair for each course of roles; a reply that the
    template may change, having spaces at an end or marks, is tried itself.
    """
    around: dict[tuple[str, ...], Around] = {}
    prompts, chosen, rejected = [], [], []
    for pair in pairs:
        roles = _roles(pair.turns)
        if roles not in around:
            around[roles] = around_reply(tokenizer, pair)
        prompt = conversation_text(tokenizer, pair.turns)
        refuse_left_out(pair.turns, prompt)
        prompts.append(prompt)
        chosen.append(_after_prompt(tokenizer, pair.turns, pair.chosen, around[roles]))
        rejected.append(_after_prompt(tokenizer, pair.turns, pair.rejected, around[roles]))
    return map(
        TokenPair,
        pairs,
        _ids(tokenizer, prompts),
        _ids(tokenizer, chosen),
        _ids(tokenizer, rejected),
    )


def _after_prompt(tokenizer: Any, turns: list[Message], reply: str, around: Around) -> str:
    """A reply with what stands around it, which is tried anew where the template may change it."""
    if reply.strip() and (reply != reply.strip() or "<" in reply):
        reply = as_written(tokenizer, turns, reply)
        around = _around(tokenizer, turns, reply)
    return f"{around.before}{reply}{around.after}"


def _texts(pairs: Sequence[Pair], tokenizer: Any) -> Iterable[TokenPair]:
    """Prompt and reply encoded as one text, special tokens as the tokenizer adds them.

    The reply begins where the two sides part from the prompt alone, as in TRL.
    """
    end = tokenizer.eos_token or ""
    for pair in pairs:
        if not isinstance(pair.prompt, str):
            raise RecipeError("the base has no chat template, and the pairs are conversations")
        space = "" if pair.plain_text else " "
        sides = []
        for reply in (pair.chosen, pair.rejected):
            sides.append(f"{pair.prompt}{space}{reply}".removesuffix(end) + end)
        prompt, chosen, rejected = tokenizer([pair.prompt, *sides])["input_ids"]
        n = len(commonprefix([prompt, chosen, rejected]))
        yield TokenPair(pair, prompt[:n], chosen[n:], rejected[n:])


def _ids(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    """Ids of texts that a chat template has written; each different one is encoded once."""
    different = list(dict.fromkeys(texts))
    encoded = tokenizer(different, add_special_tokens=False)["input_ids"]
    by_text = dict(zip(different, encoded, strict=True))
    return [by_text[text] for text in texts]


def prompt_text(tokenizer: Any, message: str) -> str:
    """A user's message in the chat template, up to where the reply begins; thinking off."""
    return conversation_text(tokenizer, [{"role": "user", "content": message}])


def conversation_text(tokenizer: Any, turns: list[Message]) -> str:
    """A conversation in the chat template, up to where the reply begins; thinking off."""
    return _in_template(tokenizer, turns, add_generation_prompt=True)


def _with_reply(tokenizer: Any, turns: list[Message], reply: str) -> str:
    """A conversation in the chat template with the assistant's reply at its end."""
    return _in_template(tokenizer, [*turns, {"role": "assistant", "content": reply}])


def _roles(turns: list[Message]) -> tuple[str, ...]:
    """Who speaks, turn by turn."""
    return tuple(turn["role"] for turn in turns)


def _in_template(tokenizer: Any, turns: list[Message], **options: Any) -> str:
    """Raises RecipeError where the template takes no such conversation, or is damaged."""
    try:
        text = tokenizer.apply_chat_template(
            turns, tokenize=False, enable_thinking=False, **options
        )
    except Exception as error:  # a template may raise anything
        roles = ", ".join(_roles(turns))
        problem = f"the base's chat template fails on a conversation ({roles})"
        raise RecipeError(f"{problem}: {one_line(error)}") from None
    return str(text)


def refuse_left_out(turns: list[Message], written: str) -> None:
    """Raise RecipeError where a template passes over a message, as of a role that it does not know.

    Some leave out what was thought before an earlier reply; that is meant.
    """
    for turn in turns:
        content = turn["content"].strip()
        if content not in written and "</think>" not in content:
            raise RecipeError(
                f"the base's chat template leaves out, or changes, a message of the role "
                f"{turn['role']!r}: {content[:60]!r}"
            )


def around_reply(tokenizer: Any, pair: Pair) -> Around:
    """What the template writes around a reply, tried on both replies of a pair.

    Raises RecipeError where it cannot be said, or where a reply would stand in an open think block.
    """
    found = set()
    for reply in (pair.chosen, pair.rejected):
        if reply.strip():
            written = as_written(tokenizer, pair.turns, reply)
            found.add(_around(tokenizer, pair.turns, written))
    if len(found) > 1:
        raise RecipeError("the base's chat template writes two replies in two ways")
    return found.pop()


def as_written(tokenizer: Any, turns: list[Message], reply: str) -> str:
    """The reply as the template writes it: some leave out spaces at its ends.

    Raises RecipeError where the template makes something else of it.
    """
    whole = _with_reply(tokenizer, turns, reply)
    for written in (reply, reply.strip()):
        if written in whole:
            return written
    raise RecipeError(f"the base's chat template changes a reply: {reply[:60]!r}")


def _around(tokenizer: Any, turns: list[Message], reply: str) -> Around:
    """What stands around one reply.

    A prompt that already ends with more than the finished conversation has before a reply (an empty
    think block) needs nothing before it: that is where generation begins.
    """
    prompt = conversation_text(tokenizer, turns)
    whole = _with_reply(tokenizer, turns, reply)
    head, _, after = whole.rpartition(reply)
    more = prompt.removeprefix(head)
    if head.startswith(prompt):
        return Around(head.removeprefix(prompt), after)
    if not prompt.startswith(head) or ("<think>" in more and "</think>" not in more):
        n = len(commonprefix([prompt, whole]))
        differ = f"{prompt[n : n + 60]!r}, and one with its reply goes on {whole[n : n + 60]!r}"
        raise RecipeError(f"the base's chat template ends a prompt with {differ}")
    return Around("", after)
