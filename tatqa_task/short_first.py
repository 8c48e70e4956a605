"""lm-eval's `hf` model, in which one long reply does not hold up a batch of short ones.

A batch of `hf` goes on until its last reply has ended, so that one reply that runs on to the limit
holds up all others. Here every batch gets a few tokens first; replies that have not ended by then
are begun again together, with a higher limit. Greedy decoding gives the same reply each time. Stop
strings are looked for once, in the text, not after each token. What it gains on a GPU has not been
measured; on a CPU it is within a tenth of `hf`, slower at a batch of 16 and faster at 32.

`python -m tatqa_task evaluate --model hf-short-first --model_args pretrained=BASE ...`
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import postprocess_generated_text
from tqdm import tqdm

FIRST_TOKENS = 32  # most replies of TAT-QA have ended by then
TIMES = 4  # as many tokens in each further try


@dataclass
class Open:
    """A request without a reply yet, by its place among the requests."""

    place: int
    prompt: str
    length: int  # of the prompt, in tokens


class ShortFirst(HFLM):
    """`hf` with replies in several tries; what is not plain greedy generation goes to `hf` itself.

    Takes the options of `hf`.
    """

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """A reply to each request, in their order."""
        settings = [request.args[1] for request in requests]
        if not settings or not self._is_plain(settings):
            return list(super().generate_until(requests, disable_tqdm))
        limit = settings[0].get("max_gen_toks", self.max_gen_toks)
        stops = settings[0].get("until") or []
        waiting = self._longest_first([request.args[0] for request in requests])
        replies: dict[int, str] = {}
        tokens = min(FIRST_TOKENS, limit)
        with tqdm(total=len(requests), disable=disable_tqdm, desc="Replies") as bar:
            while waiting:
                waiting = self._try(waiting, tokens, limit, stops, replies, bar)
                tokens = min(tokens * TIMES, limit)
        return [replies[place] for place in range(len(requests))]

    def _is_plain(self, settings: Sequence[dict[str, Any]]) -> bool:
        """Whether all requests are decoded greedily, alike, by a model that knows its own end."""
        known = {"until", "do_sample", "max_gen_toks", "temperature"}
        first = settings[0]
        greedy = not first.get("do_sample") and not first.get("temperature")
        alike = all(given == first for given in settings)
        fixed = str(self.batch_size).isdigit() and self.backend == "causal"
        ends = self.eot_token_id in self._ends() and self.think_end_token is None
        stops = isinstance(first.get("until", []), list)
        return greedy and alike and fixed and ends and stops and known >= first.keys()

    def _ends(self) -> list[int]:
        """The tokens with which the model ends a reply."""
        ends = self.model.generation_config.eos_token_id
        return ends if isinstance(ends, list) else [ends]

    def _longest_first(self, prompts: Sequence[str]) -> list[Open]:
        """In the order of `hf`: batches of like lengths, too little memory shows at once."""
        found = []
        for place, prompt in enumerate(prompts):
            found.append(Open(place, prompt, len(self.tok_encode(prompt))))
        return sorted(found, key=lambda one: (-one.length, one.prompt))

    def _try(
        self,
        waiting: Sequence[Open],
        tokens: int,
        limit: int,
        stops: list[str],
        replies: dict[int, str],
        bar: "tqdm[Any]",
    ) -> list[Open]:
        """Give each so many tokens; returns those whose replies have not ended."""
        left = []
        size = int(self.batch_size)
        for begin in range(0, len(waiting), size):
            batch = waiting[begin : begin + size]
            made = self._generated([one.prompt for one in batch], tokens, limit)
            for one, row in zip(batch, made, strict=True):
                whole = self.tok_decode(row)
                text = postprocess_generated_text(whole, stops, None)
                ended = row[-1] in {self.tokenizer.pad_token_id, *self._ends()}
                if ended or text != whole or tokens >= limit:
                    replies[one.place] = text
                    bar.update(1)
                else:
                    left.append(one)
        return left

    def _generated(self, prompts: list[str], tokens: int, limit: int) -> list[list[int]]:
        """Token ids of the replies, padded to one length. Prompts leave room for `limit` tokens."""
        ids, mask = self.tok_batch_encode(
            prompts, left_truncate_len=self.max_length - limit, truncation=self.truncation
        )
        length = ids.shape[1]
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
