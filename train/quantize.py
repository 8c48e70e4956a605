"""Write a 4-bit (NF4) copy of a base model: an adapter is scored on the base it was trained on.

python -m train.quantize Qwen/Qwen3-1.7B bases/qwen3-1.7b-nf4
lm_eval --model hf --model_args pretrained=bases/qwen3-1.7b-nf4,peft=runs/...
"""

if __name__ == "__main__":  # a Ctrl-C may come while the rest is imported
    from tatqa_task.command_line import stop_at_once

    stop_at_once()

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from tatqa_task.command_line import exit_code, say_error
from train.recipe import RecipeError, one_line

MARKER = ".tatqa-bench-partial"  # in the folder of a copy that is not whole yet


def main(argv: Sequence[str] | None = None) -> int:
    """Check the call and write the copy. Exit code 2: wrong call or input."""
    parser = argparse.ArgumentParser(
        prog="python -m train.quantize", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("base", help="a folder or a Hugging Face id")
    parser.add_argument("out", type=Path, help="new folder for the 4-bit checkpoint")
    args = parser.parse_args(argv)
    try:
        refuse(args.base, args.out)
        write_copy(args.base, args.out)
    except RecipeError as error:
        say_error(error)
        return 2
    print(f"4-bit checkpoint in {args.out}")
    return 0


def write_copy(base: str, out: Path) -> None:
    """Quantise as in training with load_in_4bit, and save with the tokenizer, whole or not at all.

    Raises RecipeError for a base that cannot be loaded.
    """
    partial = out.with_name(out.name + ".partial")
    begin(partial)
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from train.trainer.config import nf4

    try:
        model = AutoModelForCausalLM.from_pretrained(
            base, quantization_config=nf4("bfloat16"), dtype="bfloat16", device_map="auto"
        )
        AutoTokenizer.from_pretrained(base).save_pretrained(partial)
    except (OSError, ValueError) as error:
        shutil.rmtree(partial)
        raise RecipeError(f"cannot load {base}: {one_line(error)}") from None
    model.save_pretrained(partial)
    partial.rename(out)
    (out / MARKER).unlink()


def refuse(base: str, out: Path) -> None:
    """Raise RecipeError for a copy over something, and for a base folder that is not there."""
    if out.exists() or out.is_symlink():
        raise RecipeError(f"{out} exists; name a new folder")
    is_path = base.startswith((".", "/", "~")) or base.count("/") > 1
    if is_path and not Path(base).is_dir():
        raise RecipeError(f"cannot load {base}: no such folder")


def begin(partial: Path) -> None:
    """A folder that is known as ours by what it holds, and is emptied of what a kill left.

    Raises RecipeError if it is somebody else's.
    """
    if partial.is_symlink() or (partial.exists() and not (partial / MARKER).is_file()):
        raise RecipeError(f"{partial} is in the way; move it, or name another folder")
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir(parents=True)
    (partial / MARKER).touch()


if __name__ == "__main__":
    sys.exit(exit_code(main))
