"""lm-eval's `hf` model, in which one long reply does not hold up a batch of short ones.

A batch of `hf` goes on until its last reply has ended, so that one reply that runs on to the limit
holds up all others. Here every batch gets a few tokens first; replies that have not ended by then
go on together, from the tokens that they have, and twice as far each time. What costs is the number
of decoding steps: batches times tokens. Greedy decoding gives the same reply each time. Stop
strings are looked for once, in the text, not after each token.

With `--batch_size auto` a batch is as large as is of use: 256 prompts on a GPU, 16 on a CPU. Where
the memory is too short for a batch, given or chosen, smaller ones are made.

`python -m tatqa_task evaluate --model hf-short-first --model_args pretrained=BASE ...`
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import handle_stop_sequences, postprocess_generated_text
from lm_eval.models.utils_hf import clear_torch_cache
from tqdm import tqdm

from tatqa_task.imports import collector_at_rest

FIRST_TOKENS = 32  # most replies of TAT-QA have ended by then
TIMES = 2  # as many tokens at the end of each further try
AUTO = {"cuda": 256, "cpu": 16}  # prompts in a batch of `--batch_size auto`
AUTO_OF_HF = 16  # prompts in its batches where `hf` itself generates
ENCODED = 512  # prompts that are tokenized at once

# What other errors than torch.OutOfMemoryError say where a batch was too large.
TOO_LITTLE_MEMORY = ("can't allocate memory", "out of memory", "ALLOC_FAILED")

LOG = logging.getLogger("lm-eval")


@dataclass
class Open:
    """A request whose reply has not ended."""

    place: int  # among the requests
    prompt: str
    tokens: list[int]  # of the prompt
    reply: list[int] = field(default_factory=list)  # token ids so far, as many in all open ones


@dataclass
class Limits:
    """When replies end."""

    tokens: int  # that a reply may have
    stops: list[str]
    ends: set[int]  # token ids


class ShortFirst(HFLM):  # type: ignore[misc]
    """`hf` with replies in several tries; what is not plain greedy generation goes to `hf` itself.

    Takes the options of `hf`.
    """

    batch_size_per_gpu: int | str  # "auto" may be given
    room: int | None = None  # padded tokens of a batch; None until a batch was too large

    def __init__(self, *arguments: Any, **named: Any) -> None:
        with collector_at_rest():
            super().__init__(*arguments, **named)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """A reply to each request, in their order.

        Raises torch.OutOfMemoryError if the memory is too short for one prompt alone.
        """
        settings = [request.args[1] for request in requests]
        if not settings or not self._is_plain(settings):
            return self._as_hf(requests, disable_tqdm)
        first = settings[0]
        limit = first.get("max_gen_toks", self.max_gen_toks)
        end = self.tok_decode(self.eot_token_id, skip_special_tokens=False)
        stops = handle_stop_sequences(first.get("until"), eos=end)
        limits = Limits(limit, stops, self._ends())
        prompts = [request.args[0] for request in requests]
        waiting = self._longest_first(prompts, limit)
        replies: dict[int, str] = {}
        tokens = min(FIRST_TOKENS, limit)
        with tqdm(total=len(requests), disable=disable_tqdm, desc="Replies") as bar:
            while waiting:
                waiting = self._try(waiting, tokens, limits, replies, bar)
                tokens = min(tokens * TIMES, limit)
        for place, request in enumerate(requests):
            self.cache_hook.add_partial("generate_until", request.args, replies[place])
        return [replies[place] for place in range(len(requests))]

    def _as_hf(self, requests: list[Instance], disable_tqdm: bool) -> list[str]:
        """The replies of `hf` itself, whose own `auto` takes minutes on a CPU and ends at 1.

        It tries the longest prompt that the model can read.
        """
        given = self.batch_size_per_gpu
        if given == "auto":
            self.batch_size_per_gpu = AUTO_OF_HF
        try:
            return list(super().generate_until(requests, disable_tqdm))
        finally:
            self.batch_size_per_gpu = given

    def _is_plain(self, settings: Sequence[dict[str, Any]]) -> bool:
        """Whether all requests are decoded greedily, alike, by a model that knows its own end."""
        known = {"until", "do_sample", "max_gen_toks", "temperature"}
        first = settings[0]
        greedy = not first.get("do_sample") and not first.get("temperature")
        alike = settings.count(first) == len(settings)
        until = first.get("until", [])
        stops = isinstance(until, list) and "" not in until
        possible = stops and self._is_length(first.get("max_gen_toks", self.max_gen_toks))
        return greedy and alike and possible and known >= first.keys() and self._ends_alone()

    def _is_length(self, tokens: Any) -> bool:
        """Whether replies of so many tokens leave room for a prompt."""
        return isinstance(tokens, int) and 0 < tokens < self.max_length

    def _ends_alone(self) -> bool:
        """Whether replies are this model's own, up to a token with which it ends them."""
        size = str(self.batch_size)
        sized = size.isdigit() or size == "auto"
        ends = self.eot_token_id in self._ends() and self.think_end_token is None
        return sized and ends and self.backend == "causal"

    def _ends(self) -> set[int]:
        """The tokens with which the model ends a reply."""
        ends = self.model.generation_config.eos_token_id
        return set(ends) if isinstance(ends, list) else {ends}

    def _longest_first(self, prompts: Sequence[str], limit: int) -> list[Open]:
        """In the order of `hf`: batches of like lengths, too little memory shows at once.

        Prompts leave room for `limit` tokens.
        """
        found = []
        for begin in range(0, len(prompts), ENCODED):
            part = list(prompts[begin : begin + ENCODED])
            ids, mask = self.tok_batch_encode(
                part, left_truncate_len=self.max_length - limit, truncation=self.truncation
            )
            for row, prompt in enumerate(part):
                tokens = ids[row][mask[row].bool()].tolist()
                found.append(Open(begin + row, prompt, tokens))
        return sorted(found, key=lambda one: (-len(one.tokens), one.prompt))

    def _try(
        self,
        waiting: Sequence[Open],
        tokens: int,
        limits: Limits,
        replies: dict[int, str],
        bar: "tqdm[Any]",
    ) -> list[Open]:
        """Bring each reply to so many tokens; returns those that have not ended."""
        left = []
        begin = 0
        while begin < len(waiting):
            size = self._size(len(waiting[begin].tokens) + tokens)
            batch = waiting[begin : begin + size]
            if not self._go_on(batch, tokens):
                continue
            begin += len(batch)
            for one in batch:
                text = self._ended(one, limits)
                if text is None:
                    left.append(one)
                else:
                    replies[one.place] = text
                    bar.update(1)
        return left

    def _size(self, length: int) -> int:
        """Prompts in a batch whose longest row has so many tokens."""
        if self.batch_size == "auto":
            most = AUTO.get(self.device.type, AUTO["cpu"])
        else:
            most = int(self.batch_size)
        if self.room is None:
            return most
        return max(1, min(most, self.room // length))

    def _go_on(self, batch: Sequence[Open], tokens: int) -> bool:
        """Bring the replies of a batch to so many tokens; False if the memory was too short.

        Raises torch.OutOfMemoryError, or what else the device says, if the batch is one prompt.
        """
        rows = [one.tokens + one.reply for one in batch]
        try:
            made = self._generated(rows, tokens - len(batch[0].reply))
        except RuntimeError as error:
            if len(batch) == 1 or not is_too_little_memory(error):
                raise
            made = None
        if made is None:  # out of the `except`, whose traceback holds what was on the GPU
            clear_torch_cache()
            half = len(batch) // 2
            self.room = half * (len(batch[0].tokens) + tokens)
            LOG.warning("too little memory for %d prompts at once; fewer from here on", len(batch))
            return False
        for one, row in zip(batch, made, strict=True):
            one.reply += row
        return True

    def _ended(self, one: Open, limits: Limits) -> str | None:
        """The text of a reply that has ended, None for one that has not."""
        whole = self.tok_decode(one.reply)
        text: str = postprocess_generated_text(whole, limits.stops, None)
        ended = not limits.ends.isdisjoint(one.reply)  # pads follow it
        full = len(one.reply) >= limits.tokens
        stopped = text != whole
        return text if ended or full or stopped else None

    def _generated(self, rows: Sequence[list[int]], tokens: int) -> list[list[int]]:
        """Token ids that follow each row, at most so many, padded to one length."""
        length = max(map(len, rows))
        ids = torch.full((len(rows), length), self.tokenizer.pad_token_id)
        mask = torch.zeros_like(ids)
        for place, row in enumerate(rows):
            ids[place, length - len(row) :] = torch.tensor(row)
            mask[place, length - len(row) :] = 1
        with torch.inference_mode():
            made = self._model_generate(
                context=ids.to(self.device),
                attention_mask=mask.to(self.device),
                max_length=length + tokens,
                stop=[],
                do_sample=False,
            )
        replies: list[list[int]] = made[:, length:].tolist()
        return replies


def is_too_little_memory(error: RuntimeError) -> bool:
    """Whether a smaller batch could help: CPUs and cuBLAS have no error of their own for it."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return any(words in str(error) for words in TOO_LITTLE_MEMORY)
