"""Train one adapter: python -m train RECIPE.yaml [--field value ...]"""

if __name__ == "__main__":  # a Ctrl-C may come while the rest is imported
    from tatqa_task.command_line import stop_at_once

    stop_at_once()

import argparse
import json
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from tatqa_task.command_line import exit_code, say_error
from tatqa_task.files import DataError
from train.checks import check
from train.folder import BusyError, held
from train.libraries import loading
from train.recipe import Recipe, RecipeError, load, one_line, read_yaml
from train.shipped import recipe_file
from train.stages import Stages

SWITCHES = {name for name, field in Recipe.model_fields.items() if field.annotation is bool}
LATER = "-"  # in place of a recipe: the command line comes on standard input


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, run, and turn expected failures into one line and an exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words == [LATER]:
        words = told_later()
    args, rest = parser().parse_known_args(words)
    try:
        recipe = load(recipe_file(args.recipe), overrides(rest))
        out = folder_of(args)
        planned = args.check or args.dry_run  # no folder of its own is looked at, unless given
        check(recipe, args.output_dir if planned else out, ahead=args.check)
    except (RecipeError, DataError) as error:
        return fail(error, 2)
    if args.check:
        return 0
    command = [f"python -m {__package__}", *words]
    if args.dry_run:
        return train(recipe, out, command, dry_run=True)
    try:
        with held(out):
            return train(recipe, out, command)
    except BusyError as error:
        return fail(error, 1)


def folder_of(args: argparse.Namespace) -> Path:
    """Where the run goes. Raises RecipeError where something is written, and not said where."""
    out: Path | None = args.output_dir or own_folder(args.recipe)
    if out is None and not (args.dry_run or args.check):
        raise RecipeError("no folder to write to: give --output_dir FOLDER")
    return out or Path(args.recipe.stem)


def train(recipe: Recipe, out: Path, command: list[str], dry_run: bool = False) -> int:
    """Load the libraries and run; the exit code."""
    quiet_libraries()
    base = recipe.model_name_or_path
    print(f"loading libraries, then {base} and the pairs ...", file=sys.stderr, flush=True)
    stages = Stages()
    with stages("imports"), loading():
        from train import run
        from train.trainer.pair_trainer import TrainError
    try:
        print(run.run(recipe, out, command, dry_run, stages))
    except (RecipeError, DataError) as error:
        return fail(error, 2)
    except TrainError as error:
        return fail(error, 1)
    return 0


def told_later() -> list[str]:
    """Load the libraries, then wait for the command line: one line of JSON on standard input.

    A sweep starts the program of its next run like this while one trains. Ends the program if
    nothing comes.
    """
    quiet_libraries()
    with loading():
        from train import run  # noqa: F401

    line = sys.stdin.readline()
    if not line:
        sys.exit(0)
    try:
        words = json.loads(line)
    except ValueError:
        words = None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        say_error("standard input: expected the command line as a JSON list of words, on one line")
        sys.exit(2)
    return words


def own_folder(recipe: Path) -> Path | None:
    """Where a run goes that names no folder: among the project's own, in its checkout alone."""
    if Path.cwd() != Path(__file__).resolve().parents[1]:
        return None
    return Path("results/runs") / recipe.stem


def fail(error: Exception, code: int) -> int:
    """Report an expected failure."""
    say_error(error)
    return code


def parser() -> argparse.ArgumentParser:
    """The command line; fields of the recipe are read from the rest of it."""
    fields = "\n".join(
        f"  {name:22} {field.description}" for name, field in Recipe.model_fields.items()
    )
    made = argparse.ArgumentParser(
        prog="python -m train",
        description=__doc__,
        epilog=f"fields of a recipe, each also an option (--beta 0.03):\n{fields}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("recipe", type=Path, metavar="RECIPE.yaml")
    made.add_argument(
        "--output_dir",
        type=folder,
        help="run folder, for adapter, card and train.json; in the project's checkout"
        " results/runs/<recipe> unless given",
    )
    made.add_argument("--check", action="store_true", help="read recipe and files, do no more")
    made.add_argument(
        "--dry-run", action="store_true", help="print recipe, pairs, steps and memory, do no more"
    )
    return made


def folder(text: str) -> Path:
    """A folder; an empty text (of a variable that is not set) is not the working folder."""
    if not text:
        raise argparse.ArgumentTypeError("expected a folder, found an empty text")
    return Path(text)


def overrides(rest: Sequence[str]) -> dict[str, Any]:
    """`--field value` and `--field=value` as a mapping, values read as YAML. Raises RecipeError.

    Several values are a list, a switch needs none, and hyphens will do, as with TRL:
    `--lora_target_modules q_proj v_proj`, `--use_dora`, `--no_share_prefixes`, `--learning-rate`.
    """
    mapping: dict[str, Any] = {}
    for name, words in given(rest):
        if name in mapping:
            raise RecipeError(f"command line: --{name} is given twice")
        try:
            values = [read_yaml(word) for word in words]
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            problem = f"the value of --{name} is not YAML: {one_line(error)}"
            raise RecipeError(f"command line: {problem}") from None
        mapping[name] = values[0] if len(values) == 1 else values
    return mapping


def given(rest: Sequence[str]) -> list[tuple[str, list[str]]]:
    """The name of each option of the command line, with its values. Raises RecipeError."""
    found: list[tuple[str, list[str]]] = []
    for item in rest:
        if item.startswith("--"):
            name, equals, value = item.removeprefix("--").partition("=")
            found.append((name.replace("-", "_"), [value] if equals else []))
        elif found:
            found[-1][1].append(item)
        else:
            raise RecipeError(f"command line: expected --field value, found `{item}`")
    return [(name, words) if words else switched(name) for name, words in found]


def switched(name: str) -> tuple[str, list[str]]:
    """What an option without a value says: its field is true, or with `no_` false."""
    if name in SWITCHES:
        return name, ["true"]
    field = name.removeprefix("no_")
    if field in SWITCHES:
        return field, ["false"]
    raise RecipeError(f"command line: expected --field value, found `--{name}`")


def quiet_libraries() -> None:
    """Leave the terminal to the progress bar; errors still show."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    warnings.filterwarnings("ignore", category=FutureWarning)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


if __name__ == "__main__":
    sys.exit(exit_code(main))
