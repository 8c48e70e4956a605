"""The pairs of a recipe as token ids, kept in the cache by the content of all that decides them.

Building takes seconds and tokenizing some more; a sweep over learning rates does both once.
"""

import hashlib
import json
import os
from collections import Counter
from dataclasses import asdict
from glob import glob
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import transformers

import tatqa_task
from tatqa_task import download
from train import pairs as pairs_package
from train.base import Known, cache_folder
from train.pairs.build import build, held_out, stratified
from train.pairs.pair import Counts, Pair
from train.pairs.tokens import TokenPair, tokenize
from train.recipe import Recipe
from train.stages import Stages

# Fields that decide nothing about pairs or their tokens; any other one is part of the key.
NOT_OF_PAIRS = {
    "init_adapter", "load_in_4bit", "dtype", "loss_type", "loss_weights", "label_smoothing", "beta",
    "beta_end", "beta_schedule", "beta_schedule_unit", "beta_by_type", "learning_rate",
    "lr_scheduler_type", "warmup_ratio", "max_grad_norm", "num_train_epochs",
    "effective_batch_size", "lora_r", "lora_alpha", "lora_dropout", "lora_target_modules",
    "use_rslora", "use_dora", "memory", "share_prefixes", "order", "save_steps", "report_to",
}  # fmt: skip
SIDES = ("prompt_ids", "chosen_ids", "rejected_ids")


class Prepared(NamedTuple):
    """Pairs to train on and pairs held out, as token ids, and what became of the questions."""

    rows: list[TokenPair]
    eval_rows: list[TokenPair]
    counts: Counts


def prepare(recipe: Recipe, tokenizer: Any, stages: Stages) -> Prepared:
    """The recipe's pairs as token ids.

    Raises RecipeError and DataError for what the pairs cannot be made of.
    """
    with stages("pairs"):
        path = cache_file(recipe, tokenizer)
        found = read(path)
        if found:
            return found
        counts = Counts()
        every = stratified(list(build(recipe, counts)), recipe.max_pairs, recipe.seed)
        pairs, eval_pairs = held_out(every, recipe.eval_share, recipe.seed)
    with stages("tokenize"):
        limits = recipe.max_prompt_length, recipe.max_length
        rows = tokenize(pairs, tokenizer, *limits, counts.dropped)
        eval_rows = tokenize(eval_pairs, tokenizer, *limits, Counter())
    made = Prepared(rows, eval_rows, counts)
    if rows and path:
        write(path, made)
    return made


def cache_file(recipe: Recipe, tokenizer: Any) -> Path | None:
    """The file of these pairs, named by what decides them; None where that cannot be read."""
    files = files_read(recipe)
    if not all(path.is_file() for path in files):
        return None  # TAT-QA is still to be downloaded, or the pairs are a dataset of the Hub
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None  # a tokenizer written in Python, such as ByT5's
    decides = recipe.model_dump(exclude=NOT_OF_PAIRS)
    key = hashlib.sha256(json.dumps(decides, sort_keys=True).encode())
    known = Known()
    for path in files:
        key.update(f"{path.name} {known.sha256(path)} ".encode())
    known.keep()
    backend.no_padding()  # both are state of the last call, and set anew by the next one
    backend.no_truncation()
    key.update(backend.to_str().encode())
    in_python = [tokenizer.chat_template, tokenizer.special_tokens_map, transformers.__version__]
    key.update(json.dumps(in_python, default=str).encode())
    return cache_folder() / "pairs" / f"{key.hexdigest()}.npz"


def files_read(recipe: Recipe) -> list[Path]:
    """The files that pairs are made of: code, TAT-QA's files, samples or the user's own pairs."""
    files: list[Path] = []
    for package in (tatqa_task, pairs_package):
        files += sorted(Path(next(iter(package.__path__))).rglob("*.py"))
    if recipe.pairs:
        return [*files, Path(recipe.pairs)]
    source = os.environ.get("TATQA_DATA")
    if source != "synthetic":  # whose contexts are made by the code
        folder = Path(source) if source else download.cache()
        for file in download.FILES.values():
            files.append(folder / file.name)
    for pattern in recipe.samples:
        files += sorted(map(Path, glob(pattern, recursive=True)))
    return files


def write(path: Path, made: Prepared) -> None:
    """Keep them; a cache folder that cannot be written costs time alone."""
    rows = [*made.rows, *made.eval_rows]
    facts = {
        "pairs": [asdict(row.pair) for row in rows],
        "held_out": len(made.eval_rows),
        "counts": vars(made.counts),
    }
    arrays: dict[str, Any] = {"facts": np.frombuffer(json.dumps(facts).encode(), np.uint8)}
    for side in SIDES:
        tokens: list[int] = []
        lengths: list[int] = []
        for row in rows:
            ids = getattr(row, side)
            tokens += ids
            lengths.append(len(ids))
        arrays[side] = np.array(tokens, np.int32)
        arrays[f"{side}_lengths"] = np.array(lengths)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = path.with_name(f".{os.getpid()}.npz")
        np.savez(whole, **arrays)
        whole.replace(path)
    except OSError:
        pass


def read(path: Path | None) -> Prepared | None:
    """What the file holds; None if there is none or it is damaged."""
    if path is None or not path.exists():
        return None
    try:
        with np.load(path) as arrays:
            facts = json.loads(arrays["facts"].tobytes())
            sides = [cut(arrays[side], arrays[f"{side}_lengths"]) for side in SIDES]
        rows = []
        for fields, prompt, chosen, rejected in zip(facts["pairs"], *sides, strict=True):
            rows.append(TokenPair(Pair(**fields), prompt, chosen, rejected))
        counts = Counts()
        for name, values in facts["counts"].items():
            getattr(counts, name).update(values)
    except Exception:  # whatever damage does to a file: it is made anew
        return None
    trained = len(rows) - facts["held_out"]
    return Prepared(rows[:trained], rows[trained:], counts)


def cut(flat: np.ndarray, lengths: np.ndarray) -> list[list[int]]:
    """One list of ids as the lists that it was made of."""
    if len(flat) != lengths.sum():
        raise ValueError("lengths and tokens do not agree")
    tokens = flat.tolist()
    lists = []
    start = 0
    for length in lengths.tolist():
        lists.append(tokens[start : start + length])
        start += length
    return lists
