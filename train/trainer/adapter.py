"""The LoRA adapter that a recipe trains: fresh, or another run's (`init_adapter`).

Training on keeps one plain LoRA adapter: a fresh one of the recipe's shape gets the other's
weights. The adapter as it starts is the reference model of DPO; it is needed only while reference
log-probabilities are computed, which is before the first step, so no second copy is kept.
"""

from typing import Any

import torch
from peft import (
    LoraConfig,
    get_peft_model_state_dict,
    load_peft_weights,
    set_peft_model_state_dict,
)

from train.init_adapter import WEIGHTS, InitAdapter
from train.recipe import Recipe, RecipeError, one_line

# Fields of adapter_config.json that do not decide what its weights mean, or that weights show.
DECIDE_NOTHING = {
    "auto_mapping", "base_model_name_or_path", "exclude_modules", "fan_in_fan_out",
    "inference_mode", "layers_pattern", "layers_to_transform", "lora_dropout", "peft_version",
    "revision", "target_modules", "task_type",
}  # fmt: skip
PLAIN_STARTS = (True, False, "gaussian", "orthogonal")  # which leave the base's weights alone


def lora(recipe: Recipe) -> LoraConfig:
    """The adapter that a recipe describes, in PEFT's terms."""
    targets = recipe.lora_target_modules
    return LoraConfig(
        r=recipe.lora_r,
        lora_alpha=recipe.lora_alpha,
        lora_dropout=recipe.lora_dropout,
        use_rslora=recipe.use_rslora,
        use_dora=recipe.use_dora,
        target_modules=targets if isinstance(targets, str) else list(targets),
        task_type="CAUSAL_LM",
    )


def refuse_other_kind(recipe: Recipe, adapter: InitAdapter) -> None:
    """Raise RecipeError for an adapter that is more than plain LoRA, which a recipe describes."""
    plain = lora(recipe).to_dict()
    if adapter.config.get("init_lora_weights") in PLAIN_STARTS:
        plain["init_lora_weights"] = adapter.config["init_lora_weights"]
    for name in sorted(adapter.config.keys() - DECIDE_NOTHING):
        value = adapter.config[name]
        if value != plain.get(name) and (value or plain.get(name)):
            raise RecipeError(
                f"init_adapter: {adapter.folder} has {name} {value}, which no recipe can describe"
            )


def start_from(model: Any, adapter: InitAdapter) -> None:
    """Put the adapter's weights in the place of the model's fresh ones.

    Raises RecipeError if it is damaged, or covers other layers than the recipe's
    lora_target_modules.
    """
    try:
        weights = load_peft_weights(str(adapter.folder), device="cpu")
    except Exception as error:  # safetensors' own
        problem = f"{adapter.folder / WEIGHTS} is damaged: {one_line(error)}"
        raise RecipeError(f"init_adapter: {problem}") from None
    wanted = {name: w.shape for name, w in get_peft_model_state_dict(model).items()}
    found = {name: w.shape for name, w in weights.items()}
    differing = sorted(name for name, _ in wanted.items() ^ found.items())
    if differing:
        raise RecipeError(
            f"init_adapter: {adapter.folder} covers other layers than the recipe's "
            f"lora_target_modules, the first {differing[0]}"
        )
    if not all(torch.isfinite(weight).all() for weight in weights.values()):
        raise RecipeError(f"init_adapter: {adapter.folder} has weights that are no numbers")
    set_peft_model_state_dict(model, weights)
