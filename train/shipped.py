"""Recipes and base models that ship with the project, found by name.

`demo` means the file recipes/demo.yaml of this package, `tiny-tatqa` the folder bases/tiny-tatqa,
from any working folder. A file or folder of the user's with that name comes first.
"""

import os
from pathlib import Path

SHIPPED = Path(__file__).parent


def recipe_file(recipe: Path) -> Path:
    """The file that is meant: the path itself, or else the shipped recipe of that name."""
    shipped = SHIPPED / "recipes" / f"{recipe}.yaml"
    is_name = len(recipe.parts) == 1
    if is_name and not os.path.isfile(recipe) and os.path.isfile(shipped):  # also if too long
        return nearby(shipped)
    return recipe


def base_model(model: str) -> str:
    """What is to be loaded: a folder or Hub id as it is, or else the shipped base of that name."""
    shipped = SHIPPED / "bases" / model
    is_name = len(Path(model).parts) == 1
    if is_name and not os.path.isdir(model) and os.path.isdir(shipped):
        return str(nearby(shipped))
    return model


def nearby(path: Path) -> Path:
    """The path from the working folder, where it lies below it: records then name no machine."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
