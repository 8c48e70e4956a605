"""One run, from recipe to adapter and train.json."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from . import record
from .dpo import TrainError, make_trainer, train
from .pairs import Counts, Pair, build, stratified
from .recipe import Recipe, RecipeError
from .tokens import TokenPair, tokenize

__all__ = ["TrainError", "run"]


def run(recipe: Recipe, out: Path) -> int:
    """Train what the recipe says into the folder `out`. Raises RecipeError, DataError, TrainError."""
    tokenizer = load_tokenizer(recipe.model_name_or_path)
    counts = Counts()
    pairs = stratified(list(build(recipe, counts)), recipe.max_pairs, recipe.seed)
    rows = tokenize(pairs, tokenizer, recipe.max_prompt_length, recipe.max_length, counts.dropped)
    if not rows:
        raise RecipeError(f"no pair is left to train on\n{counts.table()}")
    out.mkdir(parents=True, exist_ok=True)
    trainer = make_trainer(recipe, rows, tokenizer, out, micro_batch(recipe))
    measured = train(trainer, out)
    record.write_json(out / "train.json", {**about(recipe, rows, counts), **measured})
    return 0


def micro_batch(recipe: Recipe) -> int:
    """Pairs per forward pass."""
    return 1 if recipe.memory == "small" else min(8, recipe.effective_batch_size)


def load_tokenizer(path: str) -> Any:
    """The base model's tokenizer. Raises RecipeError if there is no such model."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RecipeError(f"model_name_or_path: cannot load {path}: {reason}") from None


def about(recipe: Recipe, rows: list[TokenPair], counts: Counts) -> dict[str, Any]:
    """The part of train.json that is known before training."""
    kept: list[Pair] = [row.pair for row in rows]
    by_type: dict[str, int] = {}
    for pair in kept:
        by_type[pair.answer_type] = by_type.get(pair.answer_type, 0) + 1
    return {
        "recipe": recipe.model_dump(),
        "versions": record.versions(),
        "git": record.git_state(),
        "device": record.device_name(),
        "data_sha256": record.digest(json.dumps(pair.row(), sort_keys=True) for pair in kept),
        "pairs": {"kept": len(kept), "dropped": dict(counts.dropped), "by_type": by_type},
        "command": sys.argv,
    }
