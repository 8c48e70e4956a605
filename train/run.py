"""One run, from recipe to adapter and train.json; an interrupted one goes on where its last checkpoint stands."""

import errno
import hashlib
import json
import shutil
import signal
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from transformers import AutoConfig, AutoTokenizer, TrainerCallback

from tatqa_task.data import write_whole
from train import record
from train.pairs.build import Counts, build, stratified
from train.pairs.tokens import TokenPair, tokenize
from train.recipe import Recipe, RecipeError, one_line
from train.trainer import plan
from train.trainer.pair_trainer import PairTrainer, TrainError, compute_dtype, config, make_trainer
from train.trainer.reference import attach_reference, cache_file

TOKENS = ("presented", "real", "computed")  # padded, without padding, run through the backbone


class Conductor(TrainerCallback):
    """Each epoch's order, progress, seconds and tokens; on SIGTERM or Ctrl-C a checkpoint and the end."""

    def __init__(self, trainer: PairTrainer, show: bool) -> None:
        self.trainer, self.show, self.stop = trainer, show, ""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        before = state.log_history[-1] if state.log_history else {}
        self.spent = Counter({name: before.get(name, 0) for name in TOKENS})
        self.seconds, self.since = before.get("seconds", 0.0), time.monotonic()
        self.bar = tqdm(
            total=state.max_steps, initial=state.global_step, unit="step", disable=not self.show
        )
        self.handlers = {
            number: signal.signal(number, self._stop) for number in (signal.SIGTERM, signal.SIGINT)
        }

    def _stop(self, number: int, frame: Any) -> None:
        self.stop = signal.Signals(number).name
        signal.signal(number, signal.SIG_DFL)  # the second one ends it at once

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.order.set_epoch(int(state.epoch or 0))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        counts = [float(self.trainer.tokens[name]) for name in TOKENS]
        local = torch.tensor([float(bool(self.stop)), *counts], device=args.device)
        stop, *tokens = self.trainer.accelerator.reduce(local, "sum").tolist()
        self.spent.update({name: int(n) for name, n in zip(TOKENS, tokens, strict=True)})
        self.trainer.tokens.clear()
        if stop:
            control.should_save = control.should_training_stop = True
            self.stop = self.stop or "a signal to another process"

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if "loss" not in logs:
            return
        now = time.monotonic()
        seconds, self.since = now - self.since, now
        self.seconds += seconds
        state.log_history[-1].update({**self.spent, "seconds": self.seconds})
        self.bar.set_postfix_str(
            f"loss {logs['loss']:.4f}, accuracy {logs['rewards/accuracies']:.2f}, "
            f"margin {logs['rewards/margins']:.3f}, {self.trainer.recipe.effective_batch_size / seconds:.1f} pairs/s"
        )
        self.bar.update(state.global_step - self.bar.n)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.bar.close()
        for number, handler in self.handlers.items():
            signal.signal(number, handler)


def run(recipe: Recipe, out: Path, command: list[str], dry_run: bool = False) -> str:
    """Train what the recipe says into the folder `out`; returns what to tell the user.

    Raises RecipeError and DataError for bad input, TrainError for failed work.
    """
    tokenizer, base = open_base(recipe.model_name_or_path)
    counts = Counts()
    pairs = stratified(list(build(recipe, counts)), recipe.max_pairs, recipe.seed)
    rows = tokenize(pairs, tokenizer, recipe.max_prompt_length, recipe.max_length, counts.dropped)
    if not rows:
        raise RecipeError(f"no pair is left to train on; dropped: {dict(counts.dropped)}")
    micro = plan.micro_batch(recipe, rows)
    if dry_run:
        return plan.describe(recipe, rows, counts, micro)
    data = hashlib.sha256(
        "".join(json.dumps(row.pair.row(), sort_keys=True) for row in rows).encode()
    )
    identity = {"recipe": recipe.model_dump(), "data_sha256": data.hexdigest(), "base_sha256": base}
    if holds(out, identity):
        return f"{out} holds this run already, finished; delete the folder to train again"
    trainer = open_trainer(recipe, out, rows, tokenizer, micro)
    try:
        if trainer.accelerator.is_main_process:
            record.write_json(out / "run.json", identity)
        precision = f"{'nf4 ' * recipe.load_in_4bit}{compute_dtype(recipe)}"
        spent = train(trainer, out, cache_file(base, precision, rows))
        if trainer.accelerator.is_main_process:
            facts = {
                **identity,
                **record.surroundings(),
                "pairs": kept(recipe, rows, counts),
                **spent,
            }
            finish(out, {**facts, "command": command})
    except torch.OutOfMemoryError:
        raise TrainError(
            "the GPU's memory is full; try --memory small, then a smaller max_length"
        ) from None
    except Exception as error:  # the Rust libraries raise types of their own
        raise TrainError(unwritable(error, out)) from error
    return f"adapter in {out}"


def open_base(path: str) -> tuple[Any, str]:
    """The base model's tokenizer, and a sha256 of its files or of the Hub's commit. Raises RecipeError."""
    try:
        commit = getattr(AutoConfig.from_pretrained(path), "_commit_hash", None)
        tokenizer = AutoTokenizer.from_pretrained(path)
        sha = hashlib.sha256((commit or "").encode())
        for file in (
            []
            if commit
            else [Path(path) / "config.json", *sorted(Path(path).glob("*.safetensors"))]
        ):
            with file.open("rb") as content:
                hashlib.file_digest(content, lambda: sha)  # one sum over all of them
    except (OSError, ValueError) as error:
        raise RecipeError(f"model_name_or_path: cannot load {path}: {one_line(error)}") from None
    return tokenizer, sha.hexdigest()


def open_trainer(
    recipe: Recipe, out: Path, rows: list[TokenPair], tokenizer: Any, micro: int
) -> PairTrainer:
    """The trainer of a run; what the libraries refuse is a RecipeError, and leaves no folder behind."""
    new = not out.exists()
    try:
        return make_trainer(recipe, rows, tokenizer, config(recipe, out, micro, plan.processes()))
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        if new and out.exists():
            out.rmdir()
        raise RecipeError(one_line(error)) from None


def holds(out: Path, identity: dict[str, Any]) -> bool:
    """Whether `out` holds this run, finished. Raises RecipeError if it holds another one, or part of it."""
    marker = next((path for path in (out / "train.json", out / "run.json") if path.exists()), None)
    if marker is None:
        if (out / "adapter_config.json").exists() or list(out.glob("checkpoint-*")):
            raise RecipeError(
                f"{out} holds an adapter that this program did not train; choose another --output_dir"
            )
        return False
    here, there = (
        {
            **found["recipe"],
            "pairs": found["data_sha256"],
            "base model weights": found["base_sha256"],
        }
        for found in (identity, json.loads(marker.read_text(encoding="utf-8")))
    )
    differs = [name for name, value in here.items() if there.get(name) != value]
    if differs:
        raise RecipeError(
            f"{out} holds a run with other {differs[0]}; choose another --output_dir or delete it"
        )
    return marker.name == "train.json"


def last_checkpoint(out: Path) -> Path | None:
    """The newest whole checkpoint; Trainer writes trainer_state.json last, so one without it was cut short."""
    for path in sorted(
        out.glob("checkpoint-*"), key=lambda path: -int(path.name.rpartition("-")[2])
    ):
        with suppress(OSError, ValueError):
            json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
            return path
    return None


def train(trainer: PairTrainer, out: Path, cache: Path) -> dict[str, Any]:
    """Train from the last checkpoint on and save the adapter; returns the measured part of train.json."""
    conductor = Conductor(trainer, trainer.accelerator.is_main_process)
    trainer.add_callback(conductor)
    checkpoint = last_checkpoint(out)
    started = time.monotonic()
    cached = attach_reference(trainer, cache)
    reference_seconds = time.monotonic() - started
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if conductor.stop:
        where = f"step {trainer.state.global_step} of {trainer.state.max_steps}"
        raise TrainError(
            f"stopped by {conductor.stop} at {where}, checkpoint saved; the same command goes on"
        )
    trainer.save_model(str(out))
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    seconds, pairs = (
        history[-1]["seconds"],
        len(trainer.train_dataset) * trainer.recipe.num_train_epochs,
    )
    return {
        "history": history,
        "seconds": seconds,
        "pairs_per_second": pairs / seconds,
        "reference": {"cached": cached, "seconds": reference_seconds},
        "tokens": {name: history[-1][name] for name in TOKENS},
        "peak_memory_bytes": torch.cuda.max_memory_allocated()
        if torch.cuda.is_available()
        else None,
        "micro_batch": trainer.args.per_device_train_batch_size,
        "processes": trainer.args.world_size,
    }


def unwritable(error: Exception, out: Path) -> str:
    """One line for a failed write; any other error is raised again."""
    if not (
        isinstance(error, OSError)
        or "(os error" in str(error)
        or "PytorchStreamWriter" in str(error)
    ):
        raise error
    full = getattr(error, "errno", None) == errno.ENOSPC or shutil.disk_usage(out).free < 1 << 20
    reason = "no space left" if full else one_line(error)
    return f"cannot write to {out}: {reason}; mend that, then the same command goes on from the last checkpoint"


def kept(recipe: Recipe, rows: list[TokenPair], counts: Counts) -> dict[str, Any]:
    """The `pairs` entry of train.json."""
    by_type, by_kind = (
        Counter(getattr(row.pair, name) for row in rows) for name in ("answer_type", "kind")
    )
    if rest := len(rows) % recipe.effective_batch_size % plan.processes():
        counts.dropped[
            f"beyond equal shares of an epoch's last step for {plan.processes()} processes"
        ] = rest
    return {
        "kept": len(rows),
        "dropped": dict(counts.dropped),
        "by_type": dict(by_type),
        "by_kind": dict(by_kind),
    }


def finish(out: Path, facts: dict[str, Any]) -> None:
    """Write card, curves and, last, train.json; then checkpoints and marker may go."""
    record.draw(facts["history"], out / "curves.svg")
    write_whole(out / "README.md", record.card(facts, out.name).encode())
    record.write_json(out / "train.json", facts)
    for path in [*out.glob("checkpoint-*"), out / "run.json", out / "training_args.bin"]:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
