"""Train one adapter: python -m train RECIPE.yaml [--field value ...]"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from .recipe import Recipe, RecipeError, load


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, run, and turn expected failures into one line and an exit code."""
    from tatqa_task.data import DataError

    args, rest = _parser().parse_known_args(argv)
    try:
        recipe = load(args.recipe, overrides(rest))
    except RecipeError as error:
        return _fail(error, 2)
    out = args.output_dir or Path("results/runs") / args.recipe.stem
    try:
        from . import run

        return run.run(recipe, out)
    except (RecipeError, DataError) as error:
        return _fail(error, 2)
    except run.TrainError as error:
        return _fail(error, 1)


def _fail(error: Exception, code: int) -> int:
    print(f"error: {error}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    fields = "\n".join(f"  {name:22} {f.description}" for name, f in Recipe.model_fields.items())
    parser = argparse.ArgumentParser(
        prog="python -m train",
        description=__doc__,
        epilog=f"fields of a recipe, each also an option (--beta 0.03):\n{fields}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("recipe", type=Path, metavar="RECIPE.yaml")
    parser.add_argument("--output_dir", type=Path, help="run folder; default results/runs/<recipe name>")
    return parser


def overrides(rest: Sequence[str]) -> dict[str, Any]:
    """`--field value` and `--field=value` as a mapping, values read as YAML. Raises RecipeError."""
    mapping: dict[str, Any] = {}
    words = [word for item in rest for word in (item.split("=", 1) if item.startswith("--") else [item])]
    while words:
        name = words.pop(0)
        if not name.startswith("--") or not words:
            raise RecipeError(f"command line: expected --field value, found `{name}`")
        mapping[name[2:]] = yaml.safe_load(words.pop(0))
    return mapping


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    sys.exit(main())
