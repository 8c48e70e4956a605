"""The adapter that `init_adapter` names, as far as its files tell: is it of this recipe and base?

Read without torch, so that `python -m train` refuses it at once and a sweep before it scores
anything. `train.trainer.adapter` puts its weights into the model.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from train.base import ADAPTER, tensor_names
from train.recipe import Recipe, RecipeError, one_line

WEIGHTS = "adapter_model.safetensors"
SHAPE_FIELDS = ("lora_r", "lora_alpha", "use_rslora", "use_dora")  # as recipes name them


@dataclass(frozen=True)
class InitAdapter:
    """An adapter folder in PEFT's layout. sha256: of its weights and of what scales them."""

    folder: Path
    config: dict[str, Any]
    sha256: str


def read_init_adapter(recipe: Recipe, base_sha256: str | None) -> InitAdapter | None:
    """The adapter that `init_adapter` names, checked against recipe and base; None without one.

    Raises RecipeError if it cannot be read, or is of another base, rank or kind. A base of the Hub
    is not known before it is asked for: None.
    """
    if recipe.init_adapter is None:
        return None
    folder = Path(recipe.init_adapter)
    try:
        config = json.loads((folder / ADAPTER).read_text(encoding="utf-8"))
        with (folder / WEIGHTS).open("rb") as weights:
            digest = hashlib.file_digest(weights, "sha256")
        if not isinstance(config, dict):
            raise ValueError(f"{ADAPTER} is no JSON object")
    except (OSError, ValueError) as error:
        raise RecipeError(
            f"init_adapter: {folder} holds no adapter in PEFT's layout: {one_line(error)}"
        ) from None
    refuse_damaged(folder / WEIGHTS)
    refuse_other_shape(recipe, folder, config)
    refuse_other_base(recipe, folder, config, base_sha256)
    scaling = [getattr(recipe, name) for name in SHAPE_FIELDS]
    digest.update(json.dumps(scaling).encode())
    return InitAdapter(folder, config, digest.hexdigest())


def refuse_damaged(weights: Path) -> None:
    """Raise RecipeError for a file that is cut short or no safetensors file."""
    try:
        tensor_names(weights)
    except SafetensorError as error:
        raise RecipeError(f"init_adapter: {weights} is damaged: {one_line(error)}") from None


def refuse_other_shape(recipe: Recipe, folder: Path, config: Mapping[str, Any]) -> None:
    """Raise RecipeError unless the adapter is LoRA of the recipe's rank and scale."""
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


def refuse_other_base(
    recipe: Recipe, folder: Path, config: Mapping[str, Any], base_sha256: str | None
) -> None:
    """Raise RecipeError if the adapter was trained on another base.

    A run of this program knows the hash of its base; of any other adapter only the base's name is
    known.
    """
    try:
        record = json.loads((folder / "train.json").read_text(encoding="utf-8"))
        same = base_sha256 is None or record["base_sha256"] == base_sha256
    except (OSError, ValueError, LookupError, TypeError):
        name = str(config.get("base_model_name_or_path") or "")
        same = Path(name).name == Path(recipe.model_name_or_path).name
    if not same:
        raise RecipeError(
            f"init_adapter: {folder} was trained on another base "
            f"({config.get('base_model_name_or_path')}) than {recipe.model_name_or_path}"
        )
