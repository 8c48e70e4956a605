"""Pairs per second of shared-prefix DPO against stock TRL, side by side on one CUDA GPU.

    python benchmarks/dpo_throughput.py --shape SHAPE --data FOLDER --json out.json

SHAPE: a folder with a model's config.json and tokenizer (weights are drawn at random: speed and
memory do not depend on them), or a Hugging Face id. FOLDER: TAT-QA's files (or `synthetic`). Rows
are timed on steps that compile nothing; compilation is reported apart. `--only fast,trl_log` runs
some rows, `--profile` prints the kernels of a few steps. On several GPUs: `accelerate launch
--num_processes 2 benchmarks/dpo_throughput.py --only fast ...`.
"""

import argparse
import contextlib
import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")

DISTANCE = "relative_distance_of_gradients_from_fp32"  # an entry of the report
EPOCH = 13_176  # pairs, as in the experiment log
COMMON: dict[str, Any] = {
    "strategy": "log",
    "split": "validation",
    "beta": 0.02,
    "learning_rate": 5e-6,
    "load_in_4bit": True,
    "lora_r": 16,
    "lora_alpha": 32,
    "lora_dropout": 0.05,
    "lora_target_modules": ["q_proj", "v_proj"],
}


@dataclass
class Bench:
    """What every row needs: the random-weight base, its tokenizer and the pairs as token ids."""

    base: str
    tokenizer: Any
    rows: list[Any]
    profile: bool


def random_base(shape: str, folder: str) -> tuple[str, Any]:
    """Folder and tokenizer of a model of the given shape with random bf16 weights, written once."""
    import torch
    from accelerate import PartialState
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(shape)
    with PartialState().main_process_first():
        if not Path(folder, "tokenizer_config.json").exists():
            torch.manual_seed(0)
            with torch.device("cuda"):
                model = AutoModelForCausalLM.from_config(
                    AutoConfig.from_pretrained(shape), dtype=torch.bfloat16
                )
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
    return folder, tokenizer


def token_rows(recipe: Any, tokenizer: Any) -> list[Any]:
    """The recipe's pairs as token ids; this benchmark alone trains on the validation split."""
    from collections import Counter

    from train.pairs.build import Counts, build
    from train.pairs.tokens import tokenize

    return tokenize(list(build(recipe, Counts())), tokenizer, None, None, Counter())


class Clock:
    """Notes the end of every step of a trainer."""

    def __init__(self, trainer: Any) -> None:
        from transformers import TrainerCallback

        self.ends: list[float] = []
        ends = self.ends

        class Callback(TrainerCallback):
            def on_step_end(self, *args: Any, **kwargs: Any) -> None:
                ends.append(_now())

        trainer.add_callback(Callback())

    def mean(self, warm: int) -> float:
        """Mean seconds of the steps after the first `warm`, which compile every shape."""
        return (self.ends[-1] - self.ends[warm - 1]) / (len(self.ends) - warm)


def _now() -> float:
    """The time at which the device has done all that it was given."""
    import torch

    torch.cuda.synchronize()
    return time.perf_counter()


@contextlib.contextmanager
def measured_memory() -> Iterator[dict[str, float]]:
    """Peak GiB that PyTorch allocated inside the block, and that it reserved."""
    import torch

    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    found: dict[str, float] = {}
    yield found
    found["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
    found["reserved_gib"] = torch.cuda.max_memory_reserved() / 2**30


def ours(bench: Bench, name: str, steps: int, warm: int, **fields: Any) -> dict[str, Any]:
    """Train with the product's own trainer.

    `pairs_per_second` is of a run whose reference was cached.
    """
    from train.recipe import Recipe
    from train.trainer.assemble import make_trainer
    from train.trainer.config import config
    from train.trainer.plan import processes
    from train.trainer.reference import attach_reference

    recipe = Recipe(model_name_or_path=bench.base, **{**COMMON, **fields})
    rows = bench.rows
    with measured_memory() as memory, tempfile.TemporaryDirectory() as out:
        started = time.perf_counter()
        args = config(recipe, Path(out), recipe.effective_batch_size // processes(), processes())
        args.max_steps, args.save_strategy = steps, "no"
        trainer = make_trainer(recipe, rows, bench.tokenizer, args)
        as_in_a_whole_epoch(trainer, rows)
        attach_reference(trainer, None)
        reference = reference_seconds(trainer)
        clock = Clock(trainer)
        with profiled(bench.profile):
            trainer.train()
    mean, pairs = clock.mean(warm), recipe.effective_batch_size
    setup = time.perf_counter() - started - reference * len(rows) - mean * steps
    facts = {
        "row": name,
        "pairs_per_second": pairs / mean,
        "first_run_pairs_per_second": 1 / (mean / pairs + reference),
        "reference_pairs_per_second": 1 / reference,
        "timed_steps": steps - warm,
        "compile_and_setup_seconds": setup,
        "shapes": sorted(trainer.sharing.shapes) if trainer.sharing else [],
        "tokens": {key: int(value) for key, value in trainer.tokens.items()},
        "losses": first_losses(trainer),
        **memory,
    }
    return facts


def first_losses(trainer: Any, number: int = 3) -> list[float]:
    """The first losses that a trainer logged, four decimals."""
    losses = []
    for entry in trainer.state.log_history:
        if "loss" in entry:
            losses.append(round(entry["loss"], 4))
    return losses[:number]


def as_in_a_whole_epoch(trainer: Any, rows: list[Any]) -> None:
    """Give the trainer the packed lengths that it would choose in an epoch of EPOCH such pairs."""
    from train.sharing.lengths import RECORDING
    from train.trainer.assemble import packed_lengths

    if trainer.sharing:
        lengths = packed_lengths(trainer, rows, RECORDING * len(rows) / EPOCH)
        trainer.sharing.rounding["lengths"] = lengths


def reference_seconds(trainer: Any, warm: int = 4) -> float:
    """Seconds a pair of a second reference pass, after its first `warm` batches.

    Nothing is compiled in it.
    """
    from train.trainer.reference import compute_reference

    starts: list[float] = []
    inner = trainer.compute_ref_log_probs

    def noted(*args: Any) -> Any:
        starts.append(time.perf_counter() if len(starts) != warm else _now())
        return inner(*args)

    trainer.compute_ref_log_probs = noted
    compute_reference(trainer)
    seconds = _now() - starts[warm]
    trainer.compute_ref_log_probs = inner
    batch = trainer.args.per_device_train_batch_size * trainer.args.world_size
    return seconds / (len(trainer.train_dataset) - warm * batch)


@contextlib.contextmanager
def profiled(wanted: bool) -> Iterator[None]:
    """Print the kernels of the block, by device time."""
    if not wanted:
        yield
        return
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
        yield
    rows = []
    microseconds = 0.0
    for event in found.key_averages():
        microseconds += event.self_device_time_total
        rows.append((event.self_device_time_total, event.count, event.key))
    print(f"device ms in all: {microseconds / 1e3:.1f}")
    for device, count, key in sorted(rows, reverse=True)[:45]:
        print(f"{device / 1e3:10.2f} ms {count:7d}x  {key[:100]}")


def stock(
    bench: Bench, name: str, micro: int, accumulate: int, checkpointing: bool, steps: int
) -> dict[str, Any]:
    """TRL's own trainer on the same token ids, in TRL's random order."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from trl import DPOConfig, DPOTrainer

    from train.trainer.config import nf4

    class OnTokenIds(DPOTrainer):
        def _prepare_dataset(self, dataset: Dataset, *args: Any) -> Dataset:
            return dataset

    rows = bench.rows[: micro * accumulate * (steps + 1)]
    columns = {}
    for name in ("prompt_ids", "chosen_ids", "rejected_ids"):
        columns[name] = [getattr(row, name) for row in rows]
    data = Dataset.from_dict(columns)
    with measured_memory() as memory, tempfile.TemporaryDirectory() as out:
        trainer = OnTokenIds(
            model=bench.base,
            args=DPOConfig(
                output_dir=out, per_device_train_batch_size=micro,
                gradient_accumulation_steps=accumulate,
                max_steps=steps, learning_rate=5e-6, beta=0.02, max_length=None, bf16=True,
                report_to="none",
                gradient_checkpointing=checkpointing, save_strategy="no", logging_steps=1,
                disable_tqdm=True,
                model_init_kwargs={"dtype": "bfloat16", "device_map": {"": 0}},
            ),
            train_dataset=data,
            processing_class=bench.tokenizer,
            quantization_config=nf4("bfloat16"),
            peft_config=LoraConfig(
                r=16, lora_alpha=32, lora_dropout=0.05,
                target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"
            ),
        )  # fmt: skip
        ends: list[float] = []
        inner = trainer.training_step

        def noted(*args: Any, **kwargs: Any) -> torch.Tensor:
            loss = inner(*args, **kwargs)
            ends.append(_now())
            return loss

        trainer.training_step = noted
        trainer.train()
    skip = min(2, len(ends) - 2)
    return {
        "row": name,
        "pairs_per_second": micro * (len(ends) - 1 - skip) / (ends[-1] - ends[skip]),
        **memory,
    }


def equality(bench: Bench, pairs: int = 8) -> dict[str, float]:
    """How far one batch's loss and LoRA gradients in bf16 are from fp32: plain, and shared."""
    plain = gradients(bench, pairs, share=False, dtype="bfloat16")
    shared = gradients(bench, pairs, share=True, dtype="bfloat16")
    exact = gradients(bench, pairs, share=False, dtype="float32")
    return {
        "plain": float((plain - exact).norm() / exact.norm()),
        "shared": float((shared - exact).norm() / exact.norm()),
    }


def gradients(bench: Bench, pairs: int, share: bool, dtype: str) -> Any:
    """The gradients of every LoRA weight, flattened, in fp32."""
    import torch

    from train.recipe import Recipe
    from train.trainer.assemble import make_trainer
    from train.trainer.config import config

    fields = {**COMMON, "lora_dropout": 0.0, "share_prefixes": share, "dtype": dtype}
    fields["memory"] = "fast" if share else "small"
    recipe = Recipe(model_name_or_path=bench.base, **fields)
    with tempfile.TemporaryDirectory() as out:
        trainer = make_trainer(
            recipe, bench.rows[:pairs], bench.tokenizer, config(recipe, Path(out), pairs, 1)
        )
    trained = [parameter for parameter in trainer.model.parameters() if parameter.requires_grad]
    torch.manual_seed(1)
    for parameter in trained:
        parameter.data = torch.randn_like(parameter) * 0.02
    examples = [trainer.train_dataset[place] for place in range(pairs)]
    inputs = trainer._prepare_inputs(trainer.data_collator(examples))
    trainer.model.train()
    trainer.state.max_steps = trainer.current_gradient_accumulation_steps = 1
    # Trainer's own autocast comes with `train` alone; without it LoRA's products are in fp32
    with trainer.compute_loss_context_manager(), trainer.accelerator.autocast():
        loss = trainer.compute_loss(trainer.model, inputs, num_items_in_batch=pairs)
    loss.backward()
    return torch.cat([parameter.grad.flatten().float() for parameter in trained])


def repeated(rows: Sequence[Any], length: int, questions: int, pairs: int) -> list[Any]:
    """Pairs whose prompts of `length` tokens are shared, but for 40, by `questions` neighbours."""
    made = []
    for number in range(pairs):
        context_number = number // questions
        row = rows[number % len(rows)]
        source = rows[(context_number * 7) % len(rows)].prompt_ids * 20
        prompt_ids = []
        for token in source[: length - 40]:  # of the context
            prompt_ids.append((token + context_number) % 1000 + 1000)
        for place in range(40):  # of the question
            prompt_ids.append((place + number) % 900)
        pair = replace(row.pair, context_uid=str(context_number))
        made.append(replace(row, pair=pair, prompt_ids=prompt_ids))
    return made


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    head = "| trainer | pairs/s | epoch of 13,176 | with reference pass | peak GiB | reserved GiB |"
    lines = [head, "|---|---|---|---|---|---|"]
    for row in rows:
        if "failed" in row:
            lines.append(f"| {row['row']} | {row['failed']} | | | | |")
            continue
        rate = row["pairs_per_second"]
        first = row.get("first_run_pairs_per_second")
        with_reference = f"{first:.1f} pairs/s" if first else "included"
        memory = f"{row['peak_gib']:.1f} | {row['reserved_gib']:.1f}"
        epoch = f"{EPOCH / rate:,.0f} s"
        lines.append(f"| {row['row']} | {rate:.1f} | {epoch} | {with_reference} | {memory} |")
    return "\n".join(lines)


def plans(bench: Bench) -> dict[str, Callable[[], dict[str, Any]]]:
    """Every row by name."""

    def varied(length: int, questions: int) -> dict[str, Any]:
        few = replace(bench, rows=repeated(bench.rows, length, questions, 192))
        name = f"prompt of {length} tokens, {questions} questions a context"
        return ours(few, name, 24, 12, effective_batch_size=16)

    def own_data(trainer: Callable[..., dict[str, Any]], name: str, *how: Any) -> dict[str, Any]:
        """What a user's data are like: nothing shared but a pair's own prompt of 1,024 tokens."""
        alone = replace(bench, rows=repeated(bench.rows, 1024, 1, 96))
        fields = {"effective_batch_size": 8} if trainer is ours else {}
        return trainer(alone, f"{name}, two replies a prompt of 1,024 tokens", *how, **fields)

    rows: dict[str, Callable[[], dict[str, Any]]] = {
        "own": lambda: own_data(ours, "shared prefixes, batch 8", 24, 12),
        "trl_own_8": lambda: own_data(stock, "TRL 1.16, batch 8 x 1", 8, 1, False, 6),
        "trl_own_4": lambda: own_data(stock, "TRL 1.16, batch 4 x 2", 4, 2, False, 3),
        "fast": lambda: ours(bench, "shared prefixes, NF4, fast", 104, 53),
        "small": lambda: ours(bench, "shared prefixes, NF4, small", 72, 53, memory="small"),
        "trl_log": lambda: stock(
            bench, "TRL 1.16, NF4, batch 1 x 32, checkpointing", 1, 32, True, 1
        ),
        "trl_8": lambda: stock(
            bench, "TRL 1.16, NF4, batch 8 x 4, no checkpointing", 8, 4, False, 2
        ),
        "trl_16": lambda: stock(
            bench, "TRL 1.16, NF4, batch 16 x 2, no checkpointing", 16, 2, False, 3
        ),
    }
    for length in (256, 1024, 4096):
        rows[f"length{length}"] = lambda length=length: varied(length, 6)  # type: ignore[misc]
    for questions in (1, 3, 12):
        rows[f"questions{questions}"] = lambda questions=questions: varied(512, questions)  # type: ignore[misc]
    return rows


@contextlib.contextmanager
def shared_folder() -> Iterator[str]:
    """A temporary folder that all processes of this launch know."""
    from accelerate import PartialState
    from accelerate.utils import broadcast_object_list

    with tempfile.TemporaryDirectory() as folder:
        name = [folder]
        if PartialState().num_processes > 1:
            broadcast_object_list(name)
        yield name[0]
        PartialState().wait_for_everyone()


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else "")
    parser.add_argument("--shape", default="Qwen/Qwen3-1.7B")
    parser.add_argument("--data", default="synthetic")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", help="rows, separated by commas")
    parser.add_argument("--profile", action="store_true")
    return parser.parse_args()


def main() -> int:
    """Run the rows; print one table last."""
    args = options()
    os.environ["TATQA_DATA"] = args.data
    from train.trainer.plan import processes

    report: dict[str, Any] = {**circumstances(), "rows": [], "processes": processes()}
    with shared_folder() as folder:
        bench = open_bench(args, folder)
        measure(bench, args, report)
    if is_first():
        print(f"relative distance of bf16 gradients from fp32: {report.get(DISTANCE)}")
        print(report["processes"], "x", report["device"], report["versions"])
        print(table(report["rows"]))
    return 0


def circumstances() -> dict[str, Any]:
    """The GPU and the versions that the figures are of."""
    import torch
    import transformers
    import trl

    versions = {}
    for module in (torch, transformers, trl):
        versions[module.__name__] = module.__version__
    return {"device": torch.cuda.get_device_name(), "versions": versions}


def open_bench(args: argparse.Namespace, folder: str) -> Bench:
    """A base of random weights, and the pairs that all rows train on."""
    from train.recipe import Recipe

    base, tokenizer = random_base(args.shape, folder)
    rows = token_rows(Recipe(model_name_or_path=base, **COMMON), tokenizer)
    return Bench(base, tokenizer, rows, args.profile)


def is_first() -> bool:
    """Whether this process is the only one, or the first of several."""
    return os.environ.get("RANK", "0") == "0"


def measure(bench: Bench, args: argparse.Namespace, report: dict[str, Any]) -> None:
    """Run the rows that are asked for; each is shown, and kept in the file, when it is done."""
    wanted = args.only.split(",") if args.only else None
    if wanted is None or "equality" in wanted:
        report[DISTANCE] = equality(bench)
    for name, row in plans(bench).items():
        if wanted is not None and name not in wanted:
            continue
        report["rows"].append(outcome(name, row))
        if is_first():
            print(json.dumps(report["rows"][-1]), flush=True)
            if args.json:
                args.json.write_text(json.dumps(report, indent=1))


def outcome(name: str, row: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a row measured; one row's failure costs no other row."""
    try:
        return row()
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        return {"row": name, "failed": f"{type(error).__name__}: {reason}"}


if __name__ == "__main__":
    sys.exit(main())
