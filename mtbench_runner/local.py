"""Replies of a local model to many conversations at once, as candidate or as judge."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import psutil
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from mtbench_runner import decode
from mtbench_runner.endpoint import fold_system
from mtbench_runner.outcome import Outcome, named
from mtbench_runner.rows import Conversation, Usage
from mtbench_runner.store import InputError, first_line

T = TypeVar("T")
SEED = 0  # FastChat seeds with the index of the choice, and there is one
SPARE = 0.75  # share of the free memory that a batch may take
BYTES_A_LOGIT = 24  # of one row's logits: fp32, their sorted copy, probabilities
ON_A_CPU = 10  # conversations at once: more gain little there, and progress shows


@dataclass(frozen=True)
class Candidate:
    """A model to answer with: local, or the name that an endpoint at `url` serves it under.

    `batch_size` 0: on a GPU all questions at once, in parts if memory asks for it; 10 on a CPU;
    with an endpoint as many as calls may be under way.
    """

    model: str
    adapter: str | None = None
    url: str | None = None
    max_new_tokens: int = 1024
    batch_size: int = 0
    thinking: bool = False
    system: str | None = None


class LocalModel:
    """A transformers model, with its PEFT adapter if any, and its tokenizer's own chat template."""

    def __init__(self, candidate: Candidate) -> None:
        logging.set_verbosity_error()  # no advice on settings that a generation_config makes
        self.candidate = candidate
        self.device = (
            f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"
        )
        self.tokenizer, self.model = load(candidate, self.device)
        if not self.tokenizer.chat_template:
            raise InputError(
                f"{candidate.model}: its tokenizer has no chat template, "
                "so it cannot hold a conversation"
            )
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        ends = self.model.generation_config.eos_token_id
        self.ends = set(ends) if isinstance(ends, list) else {ends}

    def reply(self, conversations: list[Conversation], temperatures: list[float]) -> list[Outcome]:
        """The assistant's next message in each conversation, each at its temperature (0: greedy).

        As many at once as memory holds.
        """
        prompts = [self.prompt(conversation) for conversation in conversations]
        encoded = self.tokenizer(prompts, add_special_tokens=False)
        lengths = list(map(len, encoded.input_ids))
        size = self.rows_that_fit(max(lengths))
        rows = list(zip(prompts, temperatures, strict=True))
        tokens = decode_in_parts(self._decode, rows, size)
        return list(map(self._outcome, tokens, lengths))

    def prompt(self, conversation: Conversation) -> str:
        """The text that the model continues. A template without a system role gets it folded in."""
        settings: dict[str, Any] = {
            "add_generation_prompt": True,
            "enable_thinking": self.candidate.thinking,
            "tokenize": False,
        }
        try:
            return str(self.tokenizer.apply_chat_template(conversation, **settings))
        except Exception:  # jinja's, which a template raises for a role that it does not know
            folded = fold_system(conversation)
            return str(self.tokenizer.apply_chat_template(folded, **settings))

    def _decode(self, rows: list[tuple[str, float]]) -> list[list[int]]:
        """The new tokens after each prompt, at its temperature, all in one batch."""
        prompts = [prompt for prompt, _ in rows]
        temperatures = [temperature for _, temperature in rows]
        inputs = self.tokenizer(
            prompts,
            return_tensors="pt",
            padding=True,
            pad_to_multiple_of=decode.ALIGNED,
            add_special_tokens=False,
        ).to(self.device)
        batch = decode.Batch(
            prompts=inputs["input_ids"],
            mask=inputs["attention_mask"],
            temperatures=temperatures,
            max_new_tokens=self.candidate.max_new_tokens,
            pad=self.tokenizer.pad_token_id,
            seed=SEED,
        )
        if self.device != "cpu" and decode.supports(self.model):
            tokens = decode.decode(self.model, batch)
        else:
            tokens = decode.plain(self.model, batch)
        return list(tokens.tolist())

    def _outcome(self, tokens: list[int], prompt_length: int) -> Outcome:
        """A reply of so many tokens up to its end; cut at the limit if it has none."""
        length, finish = len(tokens), "length"
        for position, token in enumerate(tokens, 1):
            if token in self.ends:
                length, finish = position, "stop"
                break
        text = self.tokenizer.decode(tokens, skip_special_tokens=True).strip()
        usage = Usage(prompt=prompt_length, completion=length)
        said = Outcome(kind="text", text=text, finish=finish, usage=usage, raw=text)
        return named(said)

    def rows_that_fit(self, prompt_length: int) -> int:
        """How many conversations' caches and logits the free memory holds, with some to spare."""
        config = self.model.config.get_text_config()
        on_gpu = self.device != "cpu"
        if on_gpu:
            free = torch.cuda.mem_get_info(self.device)[0]
        else:
            free = psutil.virtual_memory().available
        head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        bytes_a_number = 2 if on_gpu else 4
        token = 2 * config.num_hidden_layers * heads * head * bytes_a_number
        positions = prompt_length + self.candidate.max_new_tokens
        row = token * positions + BYTES_A_LOGIT * config.vocab_size
        return max(1, int(SPARE * free / row))


def load(candidate: Candidate, device: str) -> tuple[Any, Any]:
    """Tokenizer and model, the adapter in it. Raises InputError for what cannot be loaded."""
    dtype = "float32" if device == "cpu" else "auto"
    loading = candidate.model
    try:
        tokenizer = AutoTokenizer.from_pretrained(candidate.model, padding_side="left")
        model = AutoModelForCausalLM.from_pretrained(
            candidate.model, dtype=dtype, device_map={"": device}
        ).eval()
        if candidate.adapter:
            from peft import PeftModel

            loading = candidate.adapter
            adapted = PeftModel.from_pretrained(model, candidate.adapter).eval()
            model = adapted.get_base_model()
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"cannot load {loading}: {first_line(error)}") from None
    return tokenizer, model


def default_batch_size(questions: int) -> int:
    """How many conversations are decoded at once, memory apart."""
    return questions if torch.cuda.is_available() else ON_A_CPU


def decode_in_parts(
    run: Callable[[list[T]], list[list[int]]], rows: Sequence[T], size: int
) -> list[list[int]]:
    """`run(rows)`, `size` rows at a time, half as many when memory does not suffice.

    Raises InputError at one.
    """
    done: list[list[int]] = []
    while len(done) < len(rows):
        part = list(rows[len(done) : len(done) + size])
        try:
            done += run(part)
        except torch.OutOfMemoryError:
            if size == 1:
                raise InputError(
                    "one conversation alone does not fit into memory; lower --max-new-tokens"
                ) from None
            size = len(part) // 2 or 1
            torch.cuda.empty_cache()
    return done
