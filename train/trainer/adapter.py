"""The LoRA adapter that a recipe trains: fresh, or another run's (`init_adapter`).

Training on keeps one plain LoRA adapter: a fresh one of the recipe's shape gets the other's
weights. The adapter as it starts is the reference model of DPO; it is needed only while reference
log-probabilities are computed, which is before the first step, so no second copy is kept.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import (
    LoraConfig,
    get_peft_model_state_dict,
    load_peft_weights,
    set_peft_model_state_dict,
)

from train.recipe import Recipe, RecipeError, one_line

WEIGHTS = "adapter_model.safetensors"
SHAPE_FIELDS = ("lora_r", "lora_alpha", "use_rslora", "use_dora")  # as recipes name them
# Fields of adapter_config.json that do not decide what its weights mean, or that weights show.
DECIDE_NOTHING = {
    "auto_mapping", "base_model_name_or_path", "exclude_modules", "fan_in_fan_out",
    "inference_mode", "layers_pattern", "layers_to_transform", "lora_dropout", "peft_version",
    "revision", "target_modules", "task_type",
}  # fmt: skip
PLAIN_STARTS = (True, False, "gaussian", "orthogonal")  # which leave the base's weights alone


@dataclass(frozen=True)
class InitAdapter:
    """An adapter folder in PEFT's layout. sha256: of its weights and of what scales them."""

    folder: Path
    config: dict[str, Any]
    sha256: str


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


def is_target(module: str, target: str) -> bool:
    """Whether a module's full name ends in the target's, as PEFT reads target_modules."""
    return module == target or module.endswith(f".{target}")


def read_init_adapter(recipe: Recipe, base_sha256: str) -> InitAdapter | None:
    """The adapter that `init_adapter` names, checked against recipe and base; None without one.

    Raises RecipeError if it cannot be read, or is of another base, rank or kind.
    """
    if recipe.init_adapter is None:
        return None
    folder = Path(recipe.init_adapter)
    try:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        with (folder / WEIGHTS).open("rb") as weights:
            digest = hashlib.file_digest(weights, "sha256")
        if not isinstance(config, dict):
            raise ValueError("adapter_config.json is no JSON object")
    except (OSError, ValueError) as error:
        raise RecipeError(
            f"init_adapter: {folder} holds no adapter in PEFT's layout: {one_line(error)}"
        ) from None
    refuse_other_shape(recipe, folder, config)
    refuse_other_base(recipe, folder, config, base_sha256)
    scaling = [getattr(recipe, name) for name in SHAPE_FIELDS]
    digest.update(json.dumps(scaling).encode())
    return InitAdapter(folder, config, digest.hexdigest())


def refuse_other_shape(recipe: Recipe, folder: Path, config: dict[str, Any]) -> None:
    """Raise RecipeError unless the adapter is plain LoRA of the recipe's rank, scale and kind."""
    if config.get("peft_type") != "LORA":
        raise RecipeError(f"init_adapter: {folder} is {config.get('peft_type')}, not LORA")
    for name in SHAPE_FIELDS:
        found = config.get("r" if name == "lora_r" else name)
        wanted = getattr(recipe, name)
        if found != wanted:
            raise RecipeError(
                f"init_adapter: {folder} has {name} {found!r}, the recipe {wanted}; "
                "set it as the adapter has it"
            )
    plain = lora(recipe).to_dict()
    if config.get("init_lora_weights") in PLAIN_STARTS:
        plain["init_lora_weights"] = config["init_lora_weights"]
    for name in sorted(config.keys() - DECIDE_NOTHING):
        value = config[name]
        if value != plain.get(name) and (value or plain.get(name)):
            raise RecipeError(
                f"init_adapter: {folder} has {name} {value}, which no recipe can describe"
            )


def refuse_other_base(
    recipe: Recipe, folder: Path, config: dict[str, Any], base_sha256: str
) -> None:
    """Raise RecipeError if the adapter was trained on another base.

    A run of this program knows the hash of its base; of any other adapter only the base's name is
    known.
    """
    try:
        record = json.loads((folder / "train.json").read_text(encoding="utf-8"))
        same = record["base_sha256"] == base_sha256
    except (OSError, ValueError, LookupError):
        name = str(config.get("base_model_name_or_path") or "")
        same = Path(name).name == Path(recipe.model_name_or_path).name
    if not same:
        raise RecipeError(
            f"init_adapter: {folder} was trained on another base "
            f"({config.get('base_model_name_or_path')}) than {recipe.model_name_or_path}"
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
