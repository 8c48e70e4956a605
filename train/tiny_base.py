"""Make the small base that ships here: Qwen3's architecture, trained on synthetic TAT-QA alone.

    python -m train.tiny_base --out tiny-tatqa        # minutes on a GPU; hours on a CPU

It exists so that the demo and the tests run the real loop without a network or a GPU. It answers
synthetic questions and nothing else. `--careless` is the share of its training replies whose scale
was left out: a flaw built in on purpose, of a kind that preference training can mend, so that the
demo has something to measure.
"""

if __name__ == "__main__":  # a Ctrl-C may come while the rest is imported
    from tatqa_task.command_line import stop_at_once

    stop_at_once()

import argparse
import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from datetime import date
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from tatqa_task import answer, synthetic
from tatqa_task.command_line import exit_code, say_error
from tatqa_task.data import ANSWER_TYPES, Context, parse_contexts
from tatqa_task.prompt import user_message
from train.pairs.strategies import exact_match
from train.pairs.tokens import prompt_text

IGNORED = -100  # label of a position that no loss is taken at
TOKENIZER_CONTEXTS = 2000  # synthetic contexts that the vocabulary is made of
EXAMINED_AT_ONCE = 128  # questions in a batch
LONGEST_REPLY = 96  # tokens
MULTIPLE = 64  # lengths of lessons are rounded up to it
CHAT_TEMPLATE = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)


@dataclass(frozen=True)
class Settings:
    """What decides the weights, apart from code and rounding; as the shipped ones were made."""

    steps: int = 1861
    contexts: int = 128  # a step; 6 questions each
    learning_rate: float = 2e-3
    warmup: int = 200
    careless: float = 0.55
    seed: int = 0
    vocabulary: int = 2048
    hidden: int = 256
    layers: int = 6


def read(split: str, index: int, seed: int) -> Context:
    """Synthetic context number `index` of a split."""
    return parse_contexts([synthetic.context(split, index, seed)], "synthetic")[0]


def build_tokenizer(settings: Settings) -> Any:
    """Byte-level BPE with single digits, trained on synthetic prompts, with Qwen's turn markers."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    digits = pre_tokenizers.Digits(individual_digits=True)
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, bytes_])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=settings.vocabulary,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    prompts, replies = [], []
    for index in range(TOKENIZER_CONTEXTS):
        context = read("train", index, settings.seed)
        for question in context.questions:
            prompts.append(user_message(context, question))
            replies.append(answer.render(question.answer, question.scale))
    tokenizer.train_from_iterator([*prompts, *replies], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=8192,
        chat_template=CHAT_TEMPLATE,
    )


def build_model(settings: Settings, tokenizer: Any) -> Any:
    """A Qwen3 of the settings' size with fresh weights in fp32."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(settings.seed)
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=settings.vocabulary,
            hidden_size=settings.hidden,
            intermediate_size=3 * settings.hidden,
            num_hidden_layers=settings.layers,
            num_attention_heads=settings.hidden // 64,
            num_key_value_heads=settings.hidden // 64,
            head_dim=64,
            max_position_embeddings=8192,
            tie_word_embeddings=True,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=None,
        )
    )


def taught(tokenizer: Any, settings: Settings, index: int) -> list[tuple[list[int], list[int]]]:
    """Prompt and reply of each question of a training context, as token ids; some without scale."""
    careless = Random(f"careless/{settings.seed}/{index}")
    context = read("train", index, settings.seed)
    rows = []
    for question in context.questions:
        scale = "" if careless.random() < settings.careless else question.scale
        reply = answer.render(question.answer, scale) + tokenizer.eos_token
        prompt = prompt_text(tokenizer, user_message(context, question))
        prompt_ids = tokenizer.encode(prompt, add_special_tokens=False)
        rows.append((prompt_ids, tokenizer.encode(reply, add_special_tokens=False)))
    return rows


def lesson(tokenizer: Any, settings: Settings, index: int) -> np.ndarray:
    """All questions of one training context as a trie.

    [4, T]: tokens, depths, last descendants, and as labels the token that follows in a reply.
    """
    from train.sharing.layout import pack_prefixes

    rows = taught(tokenizer, settings, index)
    longest = max(len(prompt) + len(reply) for prompt, reply in rows)
    ids, mask, wanted = np.zeros((3, len(rows), longest), np.int64)
    for row, (prompt, reply) in enumerate(rows):
        length = len(prompt) + len(reply)
        ids[row, :length] = prompt + reply
        mask[row, :length] = 1
        wanted[row, len(prompt) - 1 : length - 1] = 1
    packed = pack_prefixes(ids, mask, wanted > 0)
    labels = np.full(packed.tokens.numel(), IGNORED)
    labels[packed.slots.numpy()] = ids.reshape(-1)[packed.places.numpy() + 1]
    return np.stack([packed.tokens, packed.depth, packed.last, labels])


def padded(tokenizer: Any, settings: Settings, indices: list[int]) -> np.ndarray:
    """Several lessons, padded to a common length: [contexts, 4, N]."""
    made = [lesson(tokenizer, settings, index) for index in indices]
    longest = max(part.shape[1] for part in made)
    length = -(-longest // MULTIPLE) * MULTIPLE
    padding = np.array([[0], [0], [-1], [IGNORED]])  # a padding slot is nobody's ancestor
    batch = np.tile(padding, (len(made), 1, length))
    for part, place in zip(made, batch, strict=True):
        place[:, : part.shape[1]] = part
    return batch


def lessons(tokenizer: Any, settings: Settings, workers: int) -> Any:
    """A loader of each step's lessons, in order."""
    from torch.utils.data import DataLoader

    indices = range(settings.steps * settings.contexts)
    collate = partial(padded, tokenizer, settings)
    return DataLoader(indices, settings.contexts, collate_fn=collate, num_workers=workers)


def optimization(model: Any, settings: Settings) -> tuple[Any, Any]:
    """AdamW and its learning rate's schedule."""
    from torch.optim import AdamW
    from torch.optim.lr_scheduler import LambdaLR

    optimizer = AdamW(
        model.parameters(), lr=settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.01
    )
    return optimizer, LambdaLR(optimizer, lambda step: _rate(step, settings))


def ancestors(last: Any) -> Any:
    """Which slots each slot sees, [contexts, N, N]: its ancestors and itself (docs/DESIGN.md)."""
    import torch

    slots = torch.arange(last.shape[1], device=last.device)
    query, key = slots[None, :, None], slots[None, None, :]
    sees = (key <= query) & (query <= last[:, None, :])
    return sees | torch.eye(len(slots), dtype=torch.bool, device=last.device)


def loss_of(model: Any, batch: Any) -> Any:
    """Cross entropy of the replies' tokens in lessons [contexts, 4, N]."""
    import torch
    from torch.nn.functional import cross_entropy

    tokens, depth, last, labels = batch.unbind(1)
    asked = labels != IGNORED
    mask = ancestors(last)[:, None]
    with torch.autocast(batch.device.type, dtype=torch.bfloat16):
        hidden = model.model(tokens, attention_mask=mask, position_ids=depth, use_cache=False)[0]
        logits = model.lm_head(hidden[asked])
    return cross_entropy(logits.float(), labels[asked])


def fit(model: Any, tokenizer: Any, settings: Settings, device: str, workers: int) -> float:
    """Train on the replies only; returns the mean loss of the last 50 steps."""
    import torch
    from tqdm import tqdm

    model.to(device).train()
    optimizer, schedule = optimization(model, settings)
    losses: list[Any] = []
    progress = tqdm(lessons(tokenizer, settings, workers), mininterval=10)
    for batch in progress:
        loss = loss_of(model, torch.from_numpy(batch).to(device, non_blocking=True))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
        if len(losses) % 100 == 0:
            progress.set_postfix(loss=float(losses[-1]))
    return float(torch.stack(losses[-50:]).mean())


def _rate(step: int, settings: Settings) -> float:
    """Linear warm-up, then a cosine to zero."""
    if step < settings.warmup:
        return (step + 1) / settings.warmup
    done = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    return 0.5 + 0.5 * float(np.cos(np.pi * done))


def examine(model: Any, tokenizer: Any, contexts: int, device: str) -> dict[str, Any]:
    """Greedy EM in per cent, by answer type and overall, on synthetic validation contexts.

    `n` is the number of questions of each.
    """
    model.eval()
    asked = []
    for index in range(contexts):
        context = read("validation", index, 0)
        asked += [(context, question) for question in context.questions]
    scores: dict[str, list[float]] = {kind: [] for kind in (*ANSWER_TYPES, "overall")}
    for first in range(0, len(asked), EXAMINED_AT_ONCE):
        batch = asked[first : first + EXAMINED_AT_ONCE]
        prompts = [user_message(context, question) for context, question in batch]
        replies = generated(model, tokenizer, prompts, device)
        for (_, question), reply in zip(batch, replies, strict=True):
            score = exact_match(question, reply)
            scores[question.answer_type].append(score)
            scores["overall"].append(score)
    means = {kind: round(100 * float(np.mean(ems)), 2) for kind, ems in scores.items() if ems}
    return {"em": means, "n": {kind: len(ems) for kind, ems in scores.items()}}


def generated(model: Any, tokenizer: Any, prompts: list[str], device: str) -> list[str]:
    """Greedy replies to user messages."""
    import torch

    inputs = tokenizer(
        [prompt_text(tokenizer, prompt) for prompt in prompts],
        return_tensors="pt",
        padding=True,
        padding_side="left",
        return_token_type_ids=False,
    )
    with torch.inference_mode():
        out = model.generate(**inputs.to(device), max_new_tokens=LONGEST_REPLY, do_sample=False)
    replies = out[:, inputs["input_ids"].shape[1] :]
    return list(tokenizer.batch_decode(replies, skip_special_tokens=True))


def save(model: Any, tokenizer: Any, out: Path, facts: dict[str, Any]) -> None:
    """Write weights as they are (bf16), tokenizer, `training.json` and a README."""
    model.save_pretrained(out)
    model.config.dtype = "float32"  # stored in half the size; loaded in what CPUs compute faster
    model.config.save_pretrained(out)
    tokenizer.save_pretrained(out)
    (out / "training.json").write_text(json.dumps(facts, indent=2) + "\n")
    (out / "README.md").write_text(note(facts))


def note(facts: dict[str, Any]) -> str:
    """The README beside the weights: what they are, how they were made, how well they score."""
    rows = "\n".join(f"| {kind} | {em} | {facts['n'][kind]} |" for kind, em in facts["em"].items())
    template = Path(__file__).with_name("tiny_base.md").read_text(encoding="utf-8")
    return template.format(**facts, careless=100 * facts["settings"]["careless"], rows=rows)


def commit() -> str:
    """The commit of the checkout that this runs in, `unknown` outside of one."""
    describe = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    found = subprocess.run(describe, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def make(options: argparse.Namespace, settings: Settings) -> dict[str, float]:
    """Train, examine and save the base; returns its exact match by answer type, in per cent."""
    import torch

    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    tokenizer = build_tokenizer(settings)
    model = build_model(settings, tokenizer)
    started = time.monotonic()
    loss = fit(model, tokenizer, settings, device, options.workers)
    seconds = time.monotonic() - started
    scores = examine(model.to(torch.bfloat16), tokenizer, options.examine, device)
    facts = {
        "settings": asdict(settings),
        "command": f"python -m train.tiny_base --out {options.out.name}",
        "date": date.today().isoformat(),
        "commit": commit(),
        "device": torch.cuda.get_device_name() if device == "cuda" else "CPU",
        "torch": torch.__version__,
        "seconds": round(seconds, 1),
        "loss": round(loss, 4),
        **scores,
    }
    save(model.to("cpu"), tokenizer, options.out, facts)
    means: dict[str, float] = scores["em"]
    return means


def parser() -> argparse.ArgumentParser:
    """The command line; each of the settings is an option."""
    made = argparse.ArgumentParser(
        prog="python -m train.tiny_base", description=(__doc__ or "").partition("\n\n")[0]
    )
    made.add_argument("--out", type=Path, required=True, help="new folder for what is made")
    made.add_argument("--device", help="cuda or cpu (default: what there is)")
    made.add_argument("--workers", type=int, default=0, help="processes that make the lessons")
    made.add_argument(
        "--examine", type=int, default=300, metavar="CONTEXTS", help="held-out contexts to score on"
    )
    for name, value in asdict(Settings()).items():
        made.add_argument(f"--{name}", type=type(value), default=value)
    return made


def main(arguments: list[str] | None = None) -> int:
    """Train, examine and save. Exit code 0, or 2 where the folder is not a new one."""
    options = parser().parse_args(arguments)
    if options.out.exists():
        say_error(f"{options.out} exists; name a new folder")
        return 2
    settings = Settings(**{name: getattr(options, name) for name in asdict(Settings())})
    print(json.dumps(make(options, settings)))
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
