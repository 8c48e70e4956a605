"""Preference pairs from TAT-QA: chosen is the gold answer, rejected a wrong one, both in the reply format.

    python -m train.pairs --split train --strategy corrupt --out pairs.jsonl

writes one pair a line in TRL's conversational format and prints what was kept and what was dropped, and why.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from tatqa_task import data
from train.pairs.build import EVALUATED, Counts, build
from train.recipe import RecipeError, parse


def main(argv: Sequence[str] | None = None) -> int:
    """Write pairs and print the table of what was kept and dropped."""
    parser = argparse.ArgumentParser(
        prog="python -m train.pairs", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--split", default="train", choices=("train", *EVALUATED))
    parser.add_argument("--strategy", default="corrupt", choices=("corrupt", "log", "mined"))
    parser.add_argument(
        "--samples", nargs="*", default=[], help="mined: sample files of lm_eval --log_samples"
    )
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--out", type=Path, required=True, help="JSON Lines file")
    args = parser.parse_args(argv)
    counts, partial = Counts(), args.out.with_name(args.out.name + ".partial")
    try:
        fields = {key: value for key, value in vars(args).items() if key != "out"}
        recipe = parse({"model_name_or_path": "", **fields}, "command line")
        with partial.open("w", encoding="utf-8") as file:
            file.writelines(
                json.dumps(pair.row(), ensure_ascii=False) + "\n" for pair in build(recipe, counts)
            )
        partial.replace(args.out)
    except (data.DataError, RecipeError, OSError) as error:
        partial.unlink(missing_ok=True)
        print(f"error: {error}", file=sys.stderr)
        return 2
    if args.strategy == "log":
        print(
            "like the log's own, these pairs may be of evaluated contexts and are not checked with the metric"
        )
    print(counts.table())
    return 0


if __name__ == "__main__":
    sys.exit(main())
