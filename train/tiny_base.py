"""Make the small base that ships with the project: Qwen3's architecture, trained from scratch on synthetic TAT-QA.

    python -m train.tiny_base --out train/bases/tiny-tatqa        # minutes on a GPU; runs on a CPU, hopelessly slowly

It exists so that the demo and the tests run the real loop without a network or a GPU. It answers synthetic questions
and nothing else. `--careless` is the share of its training replies whose scale was left out: a flaw built in on
purpose, of a kind that preference training can mend, so that the demo has something to measure.
"""

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
from tatqa_task.data import ANSWER_TYPES, Context, parse_contexts
from tatqa_task.prompt import user_message
from train.pairs.strategies import exact_match
from train.pairs.tokens import prompt_text

IGNORED = -100  # label of a position that no loss is taken at
CHAT_TEMPLATE = (
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)


@dataclass(frozen=True)
class Settings:
    """What decides the weights, apart from the code and the hardware's rounding; as the shipped ones were made."""

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

    digits, bytes_ = (
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, bytes_])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=settings.vocabulary,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    contexts = [read("train", index, settings.seed) for index in range(2000)]
    texts = [
        user_message(context, question) for context in contexts for question in context.questions
    ]
    texts += [answer.render(q.answer, q.scale) for context in contexts for q in context.questions]
    tokenizer.train_from_iterator(texts, trainer)
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


def lesson(tokenizer: Any, settings: Settings, index: int) -> np.ndarray:
    """All questions of one training context as a trie: tokens, depths, last descendants and labels, [4, T]."""
    from train.sharing.layout import pack_prefixes

    careless, context = (
        Random(f"careless/{settings.seed}/{index}"),
        read("train", index, settings.seed),
    )
    rows = []
    for question in context.questions:
        scale = "" if careless.random() < settings.careless else question.scale
        reply = answer.render(question.answer, scale) + tokenizer.eos_token
        texts = (prompt_text(tokenizer, user_message(context, question)), reply)
        rows.append([tokenizer.encode(text, add_special_tokens=False) for text in texts])
    ids, mask, wanted = np.zeros(
        (3, len(rows), max(len(prompt) + len(reply) for prompt, reply in rows)), np.int64
    )
    for row, (prompt, reply) in enumerate(rows):
        length = len(prompt) + len(reply)
        ids[row, :length] = prompt + reply
        mask[row, :length] = 1
        wanted[row, len(prompt) - 1 : length - 1] = 1
    packed = pack_prefixes(ids, mask, wanted > 0)
    labels = np.full(packed.tokens.numel(), IGNORED)
    labels[packed.slots.numpy()] = ids.reshape(-1)[packed.positions.numpy() + 1]
    return np.stack([packed.tokens, packed.depth, packed.last, labels])


def padded(tokenizer: Any, settings: Settings, indices: list[int]) -> np.ndarray:
    """Several lessons, padded to a common length: [contexts, 4, N]."""
    made = [lesson(tokenizer, settings, index) for index in indices]
    length = -(-max(part.shape[1] for part in made) // 64) * 64
    padding = np.array([[0], [0], [-1], [IGNORED]])  # a padding slot is nobody's ancestor
    batch = np.tile(padding, (len(made), 1, length))
    for part, place in zip(made, batch, strict=True):
        place[:, : part.shape[1]] = part
    return batch


def fit(model: Any, tokenizer: Any, settings: Settings, device: str, workers: int) -> float:
    """Train with AdamW on the replies only; returns the mean loss of the last 50 steps."""
    import torch
    from torch.nn.functional import cross_entropy
    from torch.utils.data import DataLoader
    from tqdm import tqdm

    model.to(device).train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.01
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, settings))
    losses: list[Any] = []
    indices, collate = (
        range(settings.steps * settings.contexts),
        partial(padded, tokenizer, settings),
    )
    progress = tqdm(
        DataLoader(indices, settings.contexts, collate_fn=collate, num_workers=workers),
        mininterval=10,
    )
    for batch in progress:
        tokens, depth, last, labels = (
            torch.from_numpy(batch).to(device, non_blocking=True).unbind(1)
        )
        slots = torch.arange(tokens.shape[1], device=device)
        sees = (slots[None, None, :] <= slots[None, :, None]) & (
            slots[None, :, None] <= last[:, None, :]
        )
        sees |= torch.eye(len(slots), dtype=torch.bool, device=device)
        with torch.autocast(device, dtype=torch.bfloat16):
            hidden = model.model(
                tokens, attention_mask=sees[:, None], position_ids=depth, use_cache=False
            )[0]
            asked = labels != IGNORED
            logits = model.lm_head(hidden[asked])
        loss = cross_entropy(logits.float(), labels[asked])
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
    return 0.5 + 0.5 * float(
        np.cos(np.pi * (step - settings.warmup) / max(1, settings.steps - settings.warmup))
    )


def examine(model: Any, tokenizer: Any, contexts: int, device: str) -> dict[str, Any]:
    """Greedy EM in percent by answer type, and overall, on the first synthetic validation contexts; `n` is of each."""
    import torch

    model.eval()
    asked = [
        (c, q)
        for c in (read("validation", index, 0) for index in range(contexts))
        for q in c.questions
    ]
    scores: dict[str, list[float]] = {kind: [] for kind in (*ANSWER_TYPES, "overall")}
    for first in range(0, len(asked), 128):
        batch = asked[first : first + 128]
        texts = [
            prompt_text(tokenizer, user_message(context, question)) for context, question in batch
        ]
        inputs = tokenizer(
            texts,
            return_tensors="pt",
            padding=True,
            padding_side="left",
            return_token_type_ids=False,
        )
        with torch.inference_mode():
            out = model.generate(**inputs.to(device), max_new_tokens=96, do_sample=False)
        replies = tokenizer.batch_decode(
            out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
        )
        for (_, question), reply in zip(batch, replies, strict=True):
            for kind in (question.answer_type, "overall"):
                scores[kind].append(exact_match(question, reply))
    means = {kind: round(100 * float(np.mean(ems)), 2) for kind, ems in scores.items() if ems}
    return {"em": means, "n": {kind: len(ems) for kind, ems in scores.items()}}


def save(model: Any, tokenizer: Any, out: Path, facts: dict[str, Any]) -> None:
    """Write weights as they are (bf16), tokenizer, `training.json` and a README that says what the model is."""
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


def main(arguments: list[str] | None = None) -> int:
    """Train, examine and save. Exit code 0, or 2 when the settings cannot be used."""
    parser = argparse.ArgumentParser(
        prog="python -m train.tiny_base", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for weights, tokenizer and note"
    )
    parser.add_argument("--device", default=None, help="cuda or cpu (default: what there is)")
    parser.add_argument("--workers", type=int, default=0, help="processes that make the lessons")
    parser.add_argument(
        "--examine", type=int, default=300, metavar="CONTEXTS", help="held-out contexts to score on"
    )
    for name, value in asdict(Settings()).items():
        parser.add_argument(f"--{name}", type=type(value), default=value)
    options = parser.parse_args(arguments)
    settings = Settings(**{name: getattr(options, name) for name in asdict(Settings())})
    import torch

    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    tokenizer = build_tokenizer(settings)
    model = build_model(settings, tokenizer)
    started = time.monotonic()
    loss = fit(model, tokenizer, settings, device, options.workers)
    seconds = time.monotonic() - started
    describe = ["git", "describe", "--always", "--dirty"]
    facts = {
        "settings": asdict(settings),
        "command": f"python -m train.tiny_base --out {options.out.name}",
        "date": date.today().isoformat(),
        "commit": subprocess.run(describe, capture_output=True, text=True).stdout.strip()
        or "unknown",
        "device": torch.cuda.get_device_name() if device == "cuda" else "CPU",
        "torch": torch.__version__,
        "seconds": round(seconds, 1),
        "loss": round(loss, 4),
        **examine(model.to(torch.bfloat16), tokenizer, options.examine, device),
    }
    save(model.to("cpu"), tokenizer, options.out, facts)
    print(json.dumps(facts["em"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
