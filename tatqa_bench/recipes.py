"""The recipes that ship here: `tatqa-bench recipes ls`, `tatqa-bench recipes cp NAME [FILE]`."""

import argparse
import importlib.util
from collections.abc import Sequence
from pathlib import Path

from tatqa_bench.command_line import code_of, say_error


def folder() -> Path:
    """Where the installed `train` package keeps its recipes."""
    package = importlib.util.find_spec("train")
    if package is None or package.origin is None:
        raise RuntimeError("the package `train` is not installed")
    return Path(package.origin).parent / "recipes"


def summary(recipe: Path) -> str:
    """The first sentence of the comment that a recipe opens with."""
    words = []
    for line in recipe.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        words.append(line.lstrip("# "))
    return " ".join(words).partition(". ")[0].rstrip(".")


def list_recipes() -> int:
    """Print each recipe's name and what it is."""
    for recipe in sorted(folder().glob("*.yaml")):
        print(f"{recipe.stem:36} {summary(recipe)}")
    return 0


def copy_recipe(name: str, target: Path | None) -> int:
    """Copy a recipe for editing; nothing is overwritten."""
    known = {recipe.stem: recipe for recipe in folder().glob("*.yaml")}
    if name not in known:
        say_error(f"no recipe {name!r}; see tatqa-bench recipes ls")
        return 2
    file = target or Path(f"{name}.yaml")
    if file.is_dir():
        file = file / f"{name}.yaml"
    try:
        write_new(file, known[name].read_text(encoding="utf-8"))
    except FileExistsError:
        say_error(f"{file} exists; name another file")
        return 2
    except OSError as error:
        say_error(f"cannot write {file}: {error.strerror}")
        return code_of(error)
    print(file)
    return 0


def write_new(file: Path, text: str) -> None:
    """Write a file that is not there yet, whole or not at all. Raises OSError."""
    with file.open("x", encoding="utf-8") as copy:
        try:
            copy.write(text)
            copy.flush()
        except OSError:
            file.unlink()
            raise


def main(arguments: Sequence[str]) -> int:
    """List or copy. Exit code 0; 2 for an unknown name or a file in the way, 1 for a full disk."""
    parser = argparse.ArgumentParser(prog="tatqa-bench recipes", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("ls", help="print the names")
    copying = commands.add_parser("cp", help="copy one, to edit it")
    copying.add_argument("name")
    copying.add_argument("file", type=Path, nargs="?", help="default: NAME.yaml in this folder")
    chosen = parser.parse_args(arguments)
    if chosen.command == "ls":
        return list_recipes()
    return copy_recipe(chosen.name, chosen.file)
