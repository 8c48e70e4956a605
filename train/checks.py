"""What a recipe's files tell before torch is loaded: data, base, adapter, the run's folder.

The libraries look at all of it again and more closely. Here a mistake costs a second, and a sweep
hears of it (`python -m train RECIPE --check`) before it scores anything.
"""

import os
from pathlib import Path

from tatqa_task import data
from train.base import ADAPTER, check_base, files_of, hash_of
from train.folder import check_place
from train.init_adapter import read_init_adapter
from train.pairs.build import check_corruptions, splits_read
from train.pairs.preferences import check_file
from train.recipe import Recipe


def check(recipe: Recipe, out: Path | None, ahead: bool) -> None:
    """Raise RecipeError or DataError for what cannot be trained on, or trained into `out`.

    `ahead` of a sweep the adapter to train on from may still have to be made.
    """
    check_corruptions(recipe)
    if recipe.pairs:
        check_file(recipe.pairs)
    elif is_folder_of_data():
        for split in splits_read(recipe):
            data.load(split)
    targets = recipe.lora_target_modules
    check_base(recipe.model_name_or_path, [] if isinstance(targets, str) else targets)
    check_adapter(recipe, ahead)
    if out is not None:
        check_place(out, recipe.model_dump())


def is_folder_of_data() -> bool:
    """Whether TAT-QA's files are the user's: else they are generated, or downloaded when needed."""
    return os.environ.get("TATQA_DATA", "") not in ("", "synthetic")


def check_adapter(recipe: Recipe, ahead: bool) -> None:
    """Raise RecipeError if the adapter to train on from does not belong to recipe and base."""
    if recipe.init_adapter is None:
        return
    if ahead and not (Path(recipe.init_adapter) / ADAPTER).is_file():
        return  # a sweep knows whether one of its runs makes it
    base = Path(recipe.model_name_or_path)
    read_init_adapter(recipe, hash_of(files_of(base)) if base.is_dir() else None)
