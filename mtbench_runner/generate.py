"""Replies of a local model to many conversations at once."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import psutil
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from mtbench_runner import decode
from mtbench_runner.store import InputError

T = TypeVar("T")
Conversation = list[dict[str, str]]
SEED = 0  # FastChat seeds with the index of the choice, and there is one


@dataclass(frozen=True)
class Candidate:
    """A model to answer with: local, or the name that an endpoint at `url` serves it under.

    `batch_size` 0: on a GPU all questions at once, in parts if memory asks for it; 10 on a CPU; with an endpoint as
    many as calls may be under way.
    """

    model: str
    adapter: str | None = None
    url: str | None = None
    max_new_tokens: int = 1024
    batch_size: int = 0
    thinking: bool = False


class LocalModel:
    """A transformers model, with its PEFT adapter if it has one, and its tokenizer's own chat template."""

    def __init__(self, candidate: Candidate) -> None:
        logging.set_verbosity_error()  # no advice on sampling settings that a model's own generation_config makes
        self.candidate = candidate
        self.device = (
            f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"
        )
        placed = {
            "dtype": "float32" if self.device == "cpu" else "auto",
            "device_map": {"": self.device},
        }
        loading = candidate.model
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(candidate.model, padding_side="left")
            self.model = AutoModelForCausalLM.from_pretrained(candidate.model, **placed).eval()
            if candidate.adapter:
                from peft import PeftModel

                loading = candidate.adapter
                self.model = (
                    PeftModel.from_pretrained(self.model, candidate.adapter).eval().get_base_model()
                )
        except (OSError, ValueError) as error:
            raise InputError(f"cannot load {loading}: {str(error).splitlines()[0]}") from None
        if not self.tokenizer.chat_template:
            raise InputError(
                f"{candidate.model}: its tokenizer has no chat template, so it cannot hold a conversation"
            )
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token

    def reply(self, conversations: list[Conversation], temperatures: list[float]) -> list[str]:
        """The assistant's next message in each conversation, each at its temperature (0: greedy)."""
        settings = {
            "add_generation_prompt": True,
            "enable_thinking": self.candidate.thinking,
            "tokenize": False,
        }
        prompts = self.tokenizer.apply_chat_template(conversations, **settings)
        size = self.rows_that_fit(max(map(len, self.tokenizer(prompts).input_ids)))
        tokens = decode_in_parts(self._decode, list(zip(prompts, temperatures, strict=True)), size)
        return [
            text.strip() for text in self.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        ]

    def _decode(self, rows: list[tuple[str, float]]) -> list[list[int]]:
        prompts, temperatures = map(list, zip(*rows, strict=True))
        inputs = self.tokenizer(
            prompts, return_tensors="pt", padding=True, add_special_tokens=False
        ).to(self.device)
        pad, new = self.tokenizer.pad_token_id, self.candidate.max_new_tokens
        batch = decode.Batch(
            inputs["input_ids"], inputs["attention_mask"], temperatures, new, pad, SEED
        )
        fast = self.device != "cpu" and decode.supports(self.model)
        return list((decode.decode if fast else decode.plain)(self.model, batch).tolist())

    def rows_that_fit(self, prompt_length: int) -> int:
        """How many conversations' caches and logits the free memory holds, with a quarter of it to spare."""
        config, on_gpu = self.model.config.get_text_config(), self.device != "cpu"
        free = (
            torch.cuda.mem_get_info(self.device)[0] if on_gpu else psutil.virtual_memory().available
        )
        head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        token = 2 * config.num_hidden_layers * heads * head * (2 if on_gpu else 4)
        row = token * (prompt_length + self.candidate.max_new_tokens) + 24 * config.vocab_size
        return max(1, int(0.75 * free / row))


def default_batch_size(questions: int) -> int:
    return (
        questions if torch.cuda.is_available() else 10
    )  # a CPU gains little from more, and progress shows


def strip_thinking(reply: str) -> str:
    """The reply without a leading <think> block; empty if the model never finished thinking."""
    thought, closed, rest = reply.partition("</think>")
    if closed and ("<think>" not in thought or thought.lstrip().startswith("<think>")):
        return rest.strip()
    return "" if reply.lstrip().startswith("<think>") else reply.strip()


def decode_in_parts(
    run: Callable[[list[T]], list[list[int]]], rows: list[T], size: int
) -> list[list[int]]:
    """`run(rows)`, `size` rows at a time, half as many when memory does not suffice. Raises InputError at one."""
    done: list[list[int]] = []
    while len(done) < len(rows):
        try:
            done += run(rows[len(done) : len(done) + size])
        except torch.OutOfMemoryError:
            if size == 1:
                raise InputError(
                    "one conversation alone does not fit into memory; lower --max-new-tokens"
                ) from None
            size = min(size, len(rows) - len(done)) // 2 or 1
            torch.cuda.empty_cache()
    return done
