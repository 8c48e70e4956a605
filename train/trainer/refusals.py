"""Bases, pairs and targets that do not fit together: refused before anything is computed."""

from collections.abc import Sequence
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer

from train.base import is_target
from train.pairs.tokens import TokenPair
from train.recipe import Recipe, RecipeError
from train.sharing.preflight import tolerance

AHEAD = 16  # tokens in which a model that looks ahead shows it


def refuse_missing_targets(recipe: Recipe, model: torch.nn.Module) -> None:
    """Raise ValueError for a target that no layer is named after; PEFT is content if any is."""
    if isinstance(recipe.lora_target_modules, str):
        return
    names = [name for name, _ in model.named_modules()]
    missing = []
    for target in recipe.lora_target_modules:
        if not any(is_target(name, target) for name in names):
            missing.append(target)
    if missing:
        raise ValueError(
            f"lora_target_modules: the base model has no layer named {', '.join(missing)}"
        )


def refuse_embeddings(model: Any) -> None:
    """Raise ValueError for an adapter on embeddings or the head, however the model names them.

    lm-eval resizes embeddings before it loads an adapter, and then cannot load one of theirs.
    """
    base = model.get_base_model()
    ends = [base.get_input_embeddings(), base.get_output_embeddings()]
    for name, module in base.named_modules():
        if isinstance(module, BaseTunerLayer) and (
            isinstance(module.get_base_layer(), torch.nn.Embedding) or module in ends
        ):
            raise ValueError(f"lora_target_modules: {name} is an embedding or the head")


def refuse_unknown_tokens(model: Any, rows: Sequence[TokenPair]) -> None:
    """Raise RecipeError for token ids that the model has no embedding for."""
    largest = max(max(row.prompt_ids + row.chosen_ids + row.rejected_ids) for row in rows)
    known = model.get_input_embeddings().weight.shape[0]
    if largest >= known:
        raise RecipeError(
            f"model_name_or_path: the tokenizer gives token {largest}, the model knows {known}: "
            "they do not belong together"
        )


def refuse_beyond_positions(model: Any, rows: Sequence[TokenPair]) -> None:
    """Raise RecipeError for pairs longer than a learned table of positions, such as GPT-2's."""
    if not has_position_table(model):
        return
    longest = max(row.length for row in rows)
    known = model.config.get_text_config().max_position_embeddings
    if longest > known:
        raise RecipeError(
            f"max_length: the longest pair has {longest:,} tokens, the model has {known:,} "
            f"positions; set it to {known}"
        )


def has_position_table(model: torch.nn.Module) -> bool:
    """Whether the model looks positions up in a learned table."""
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Embedding) and ("wpe" in name or "position" in name):
            return True
    return False


def refuse_looking_ahead(trainer: Any, row: TokenPair) -> None:
    """Raise RecipeError for a model whose predictions depend on later tokens, such as an encoder.

    One that shares prefixes is asked more by the pre-flight.
    """
    start = (row.prompt_ids + row.chosen_ids)[:AHEAD]
    other = [*start[:-1], start[0]]
    ids = torch.tensor([start, other], device=trainer.args.device)
    trainer.model.train()
    with torch.no_grad(), trainer.compute_loss_context_manager():
        logits = trainer.model(input_ids=ids, use_cache=False).logits[:, :-1].float()
        limit, _ = tolerance(trainer.model)
    if (logits[0] - logits[1]).norm() > limit * logits[0].norm():
        raise RecipeError(
            "model_name_or_path: what it predicts depends on later tokens: it is no causal "
            "language model"
        )
