"""Replies of a local model to a batch of conversations. Imports torch and transformers only, and only when used."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from mtbench_runner.store import InputError

Message = dict[str, str]
Conversation = list[Message]


@dataclass(frozen=True)
class Candidate:
    """A model to answer with. `batch_size` 0: as many conversations at once as memory holds."""

    model: str
    adapter: str | None = None
    max_new_tokens: int = 1024
    batch_size: int = 0
    thinking: bool = False


class LocalModel:
    """A transformers model, with its PEFT adapter if it has one, and its tokenizer's own chat template."""

    def __init__(self, candidate: Candidate) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.candidate = candidate
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(candidate.model, padding_side="left")
            dtype = "auto" if self.device == "cuda" else "float32"
            self.model = AutoModelForCausalLM.from_pretrained(candidate.model, dtype=dtype).to(self.device)
            if candidate.adapter:
                from peft import PeftModel

                self.model = PeftModel.from_pretrained(self.model, candidate.adapter)
        except (OSError, ValueError) as error:
            raise InputError(
                f"cannot load {candidate.adapter or candidate.model}: {str(error).splitlines()[0]}"
            ) from None
        if not self.tokenizer.chat_template:
            raise InputError(f"{candidate.model}: its tokenizer has no chat template, so it cannot hold a conversation")
        self.model.eval()
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token

    def reply(self, conversations: list[Conversation], temperature: float, seed: int) -> list[str]:
        """The assistant's next message in each conversation. Greedy below 1e-4, as FastChat has it; else seeded."""
        prompts = [self._prompt(conversation) for conversation in conversations]
        return halve_on_out_of_memory(lambda part: self._generate(part, temperature, seed), prompts)

    def _prompt(self, conversation: Conversation) -> str:
        return str(
            self.tokenizer.apply_chat_template(
                conversation, tokenize=False, add_generation_prompt=True, enable_thinking=self.candidate.thinking
            )
        )

    def _generate(self, prompts: list[str], temperature: float, seed: int) -> list[str]:
        import torch

        batch = self.tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False).to(self.device)
        sampling: dict[str, Any] = {"do_sample": temperature >= 1e-4}
        if sampling["do_sample"]:
            sampling["temperature"] = temperature
        torch.manual_seed(seed)
        with torch.inference_mode(), quiet():
            ids = self.model.generate(
                **batch,
                **sampling,
                max_new_tokens=self.candidate.max_new_tokens,
                pad_token_id=self.tokenizer.pad_token_id,
            )
        new = ids[:, batch["input_ids"].shape[1] :]
        return [text.strip() for text in self.tokenizer.batch_decode(new, skip_special_tokens=True)]


def strip_thinking(reply: str) -> str:
    """The reply without a leading <think> block; empty if the model never finished thinking."""
    thought, closed, rest = reply.partition("</think>")
    if closed and ("<think>" not in thought or thought.lstrip().startswith("<think>")):
        return rest.strip()
    return "" if reply.lstrip().startswith("<think>") else reply.strip()


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' advice on sampling flags that a model's own generation_config sets."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)


def halve_on_out_of_memory(generate: Callable[[list[str]], list[str]], prompts: list[str]) -> list[str]:
    """`generate(prompts)`, in halves, quarters ... while memory does not suffice. Raises InputError at one prompt."""
    import torch

    try:
        return generate(prompts)
    except torch.OutOfMemoryError:
        if len(prompts) == 1:
            raise InputError("one conversation alone does not fit into memory; lower --max-new-tokens") from None
    torch.cuda.empty_cache()
    middle = len(prompts) // 2
    return halve_on_out_of_memory(generate, prompts[:middle]) + halve_on_out_of_memory(generate, prompts[middle:])
