"""Preference pairs as a file: chosen is a right reply, rejected a wrong one.

    python -m train.pairs --split train --strategy corrupt --out pairs.jsonl

writes one pair a line in TRL's conversational format, which a recipe can train on (`pairs:
pairs.jsonl`), and prints what was kept and what was dropped, and why.
"""

if __name__ == "__main__":  # a Ctrl-C may come while the rest is imported
    from tatqa_task.command_line import stop_at_once

    stop_at_once()

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tatqa_task import data
from tatqa_task.command_line import code_of, exit_code, say_error
from tatqa_task.files import refuse_existing
from train.pairs.build import EVALUATED, build
from train.pairs.pair import Counts
from train.recipe import Recipe, RecipeError, parse

NOT_CHECKED = (
    "like the log's own, these pairs may be of evaluated contexts "
    "and are not checked with the metric"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Write pairs and print the table of what was kept and dropped."""
    args = parser().parse_args(argv)
    counts = Counts()
    try:
        fields = {key: value for key, value in vars(args).items() if key != "out"}
        recipe = parse({"model_name_or_path": "", **fields}, "command line")
        refuse_existing(args.out)
        write(recipe, counts, args.out)
    except (data.DataError, RecipeError) as error:
        say_error(error)
        return 2
    except OSError as error:
        say_error(f"cannot write {args.out}: {error.strerror or error}")
        return code_of(error)
    if recipe.strategy == "log":
        print(NOT_CHECKED)
    print(counts.table())
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line: fields of a recipe, and where to write."""
    made = argparse.ArgumentParser(
        prog="python -m train.pairs", description=(__doc__ or "").partition("\n")[0]
    )
    made.add_argument("--split", default="train", choices=("train", *EVALUATED))
    made.add_argument("--form", default="direct", choices=("direct", "calc"))
    made.add_argument("--strategy", default="corrupt", choices=("corrupt", "log", "mined"))
    made.add_argument(
        "--samples", nargs="*", default=[], help="mined: sample files of lm_eval --log_samples"
    )
    made.add_argument(
        "--max_pairs_per_question", type=int, help="mined: default: each different wrong reply"
    )
    made.add_argument(
        "--scale_markers", action="store_true", help="drop questions whose scale stands nowhere"
    )
    made.add_argument("--seed", type=int, default=42)
    made.add_argument("--out", type=Path, required=True, help="JSON Lines file, a new one")
    return made


def write(recipe: Recipe, counts: Counts, out: Path) -> None:
    """Write the pairs of a recipe whole or not at all, one a line."""
    partial = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        with partial.open("w", encoding="utf-8") as file:
            for pair in build(recipe, counts):
                file.write(json.dumps(pair.row(), ensure_ascii=False) + "\n")
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(exit_code(main))
