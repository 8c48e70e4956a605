"""Write a 4-bit (NF4) copy of a base model: an adapter is scored on the base it was trained on.

python -m train.quantize Qwen/Qwen3-1.7B bases/qwen3-1.7b-nf4
lm_eval --model hf --model_args pretrained=bases/qwen3-1.7b-nf4,peft=runs/...
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from train.recipe import one_line


def main(argv: Sequence[str] | None = None) -> int:
    """Quantise as in training with load_in_4bit, and save with the tokenizer."""
    parser = argparse.ArgumentParser(
        prog="python -m train.quantize", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("base", help="a folder or a Hugging Face id")
    parser.add_argument("out", type=Path, help="new folder for the 4-bit checkpoint")
    args = parser.parse_args(argv)
    if args.out.exists():
        print(f"error: {args.out} exists; name a new folder", file=sys.stderr)
        return 2
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from train.trainer.config import nf4

    partial = args.out.with_name(args.out.name + ".partial")
    try:
        model = AutoModelForCausalLM.from_pretrained(
            args.base, quantization_config=nf4("bfloat16"), dtype="bfloat16", device_map="auto"
        )
        AutoTokenizer.from_pretrained(args.base).save_pretrained(partial)
    except (OSError, ValueError) as error:
        print(f"error: cannot load {args.base}: {one_line(error)}", file=sys.stderr)
        return 2
    model.save_pretrained(partial)
    partial.rename(args.out)
    print(f"4-bit checkpoint in {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
