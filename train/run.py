"""One run, from recipe to adapter and train.json: `python -m train RECIPE.yaml` calls `run`.

An interrupted run goes on where its last checkpoint stands.
"""

import gc
import hashlib
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from tatqa_task.files import write_whole
from train import record
from train.base import fix_date, open_base, refuse_missing_weights
from train.callbacks import (
    TOKENS,
    Accounts,
    EpochOrder,
    Progress,
    SaveByTime,
    Seal,
    StopOnSignal,
)
from train.card import card
from train.curves import curves
from train.folder import (
    DAY,
    checkpoints,
    day_of_prompts,
    forget_without_checkpoint,
    holds,
    last_checkpoint,
    remove,
    set_readme_aside,
    unwritable,
)
from train.init_adapter import InitAdapter, read_init_adapter
from train.pairs.pair import Counts
from train.pairs.tokens import TokenPair
from train.prepared import prepare
from train.recipe import Recipe, RecipeError, one_line
from train.sources import data_source
from train.stages import Stages
from train.trainer import plan
from train.trainer.adapter import refuse_other_kind
from train.trainer.assemble import make_trainer
from train.trainer.config import compute_dtype, config
from train.trainer.held_out import HeldOut
from train.trainer.pair_trainer import PairTrainer, TrainError
from train.trainer.reference import attach_reference, cache_file

logger = logging.getLogger(__name__)


def run(
    recipe: Recipe,
    out: Path,
    command: list[str],
    dry_run: bool = False,
    stages: Stages | None = None,
) -> str:
    """Train what the recipe says into the folder `out`; returns what to tell the user.

    Raises RecipeError and DataError for bad input, TrainError for failed work.
    """
    stages = stages or Stages()
    with stages("load"):
        tokenizer, base = open_base(recipe.model_name_or_path)
        day = day_of_prompts(out)
        dated = fix_date(tokenizer, day)
        init = read_init_adapter(recipe, base)
        if init:
            refuse_other_kind(recipe, init)
    rows, eval_rows, counts = prepare(recipe, tokenizer, stages)
    if not rows:
        raise RecipeError(f"no pair is left to train on; dropped: {dict(counts.dropped)}")
    with stages("plan"):
        micro = plan.micro_batch(recipe, rows)
    if dry_run:
        return plan.describe(recipe, rows, counts, micro)
    with stages("plan"):
        identity = identify(recipe, rows, base, init)
        if dated:
            identity[DAY] = day.isoformat()
            say_which_day(day)
    if holds(out, identity):
        return f"{out} holds this run already, finished; delete the folder to train again"
    task = Task(recipe, out, rows, eval_rows, tokenizer, init, identity, stages)
    spent = train_within_memory(task, micro)
    if spent:
        pairs_facts = kept(rows, counts)
        facts = {**identity, **record.surroundings(), "data": data_source(recipe)}
        facts |= {"pairs": pairs_facts, **spent}
        finish(out, {**facts, "command": command})
    return f"adapter in {out}"


def say_which_day(day: date) -> None:
    """Prompts of other days differ, and so may what is scored on them."""
    logger.warning(
        "the base's chat template writes the date into every prompt: this run's say %s, resumed "
        "or not; scoring on another day writes that day",
        day,
    )


@dataclass(frozen=True)
class Task:
    """All that one training needs, but for the micro-batch, which memory decides."""

    recipe: Recipe
    out: Path
    rows: list[TokenPair]
    eval_rows: list[TokenPair]
    tokenizer: Any
    init: InitAdapter | None
    identity: dict[str, Any]
    stages: Stages

    def reference_cache(self) -> Path:
        """Where the reference log-probabilities of these pairs under this model are kept."""
        model = self.identity["base_sha256"]
        if self.init:
            model += self.init.sha256
        precision = compute_dtype(self.recipe)
        if self.recipe.load_in_4bit:
            precision = f"nf4 {precision}"
        return cache_file(model, precision, self.rows)


def identify(
    recipe: Recipe, rows: Sequence[TokenPair], base: str, init: InitAdapter | None
) -> dict[str, Any]:
    """What decides which adapter comes out: a folder that holds another run is known by it."""
    data = hashlib.sha256()
    for row in rows:
        data.update(f"{row.pair.context_uid} {row.pair.answer_type} ".encode())
        data.update(row.as_bytes())
    return {
        "recipe": recipe.model_dump(),
        "data_sha256": data.hexdigest(),
        "base_sha256": base,
        "init_adapter_sha256": init.sha256 if init else None,
    }


def train_within_memory(task: Task, micro: int) -> dict[str, Any]:
    """Train with micro-batches of `micro` pairs, or fewer where memory turns out not to hold them.

    Their size changes no result but by rounding. Empty on all processes but the first.
    """
    while True:
        try:
            return train_once(task, micro)
        except torch.OutOfMemoryError:
            smaller = plan.smaller(task.recipe, micro)
        if smaller is None or plan.processes() > 1:
            raise TrainError(
                f"the GPU's memory is full with {micro} pairs at a time; "
                "the same command with --memory small goes on with less, then a smaller max_length"
            )
        logger.warning(
            "the GPU's memory is full with %d pairs at a time: going on with %d", micro, smaller
        )
        release_memory()
        micro = smaller


def release_memory() -> None:
    """Free what a failed attempt left on the GPU, so that the next one has it."""
    torch._dynamo.reset()  # compiled layers hold the model
    gc.collect()
    torch.cuda.empty_cache()


def train_once(task: Task, micro: int) -> dict[str, Any]:
    """One attempt with a given micro-batch. Raises OutOfMemoryError, RecipeError, TrainError."""
    trainer = open_trainer(task, micro)
    try:
        if trainer.accelerator.is_main_process:
            record.write_json(task.out / "run.json", task.identity)
        spent = train(trainer, task)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # the Rust libraries raise types of their own
        if trainer.accelerator.is_main_process:
            forget_without_checkpoint(task.out)
        raise TrainError(unwritable(error, task.out)) from error
    return spent if trainer.accelerator.is_main_process else {}


def open_trainer(task: Task, micro: int) -> PairTrainer:
    """The trainer of a run; what the libraries refuse is a RecipeError."""
    args = config(task.recipe, task.out, micro, plan.processes())
    try:
        with task.stages("load"):
            refuse_missing_weights(task.recipe.model_name_or_path)
            return make_trainer(task.recipe, task.rows, task.tokenizer, args, task.init)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # of TRL, PEFT, transformers, and of files that are damaged
        raise RecipeError(refused(error, task.recipe)) from None


def refused(error: Exception, recipe: Recipe) -> str:
    """One line for what was raised while base and adapter were put together."""
    text = one_line(error)
    if text.startswith("Target module "):  # PEFT shows the whole module
        return f"lora_target_modules: {text[:120]} ...: only linear layers can be named"
    if isinstance(error, (RecipeError, ValueError, OSError, RuntimeError, ImportError)):
        return text
    return f"{recipe.model_name_or_path}: {type(error).__name__}: {text}"


def train(trainer: PairTrainer, task: Task) -> dict[str, Any]:
    """Train from the last checkpoint on and save; returns the measured part of train.json.

    Raises TrainError where a signal ended it, or nothing was learned.
    """
    stages = task.stages
    stop, progress = StopOnSignal(trainer), Progress(trainer, trainer.accelerator.is_main_process)
    add_callbacks(trainer, task, stop, progress)
    checkpoint = last_checkpoint(task.out)
    reference, logps = reference_facts(trainer, task)
    trainer.first_step_is_checked = task.recipe.needs_reference and checkpoint is None
    compiled = trainer.seconds_of_recording
    try:
        with stages("train"):
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    finally:  # Trainer tells its callbacks nothing of a failure
        progress.close()
        stop.give_back()
    stages.move("train", "compile", trainer.seconds_of_recording - compiled)
    if stop.stopped_by:
        where = f"step {trainer.state.global_step} of {trainer.state.max_steps}"
        raise TrainError(
            f"stopped by {stop.stopped_by} at {where}, checkpoint saved; the same command goes on"
        )
    refuse_untrained(trainer, task.out)
    with stages("save"):
        if trainer.accelerator.is_main_process:
            set_readme_aside(task.out)
        trainer.save_model(str(task.out))
    return {**measured(trainer, logps), "reference": reference, "stages_seconds": stages.rounded()}


def add_callbacks(trainer: PairTrainer, task: Task, *more: TrainerCallback) -> None:
    """All that happens beside the steps, in this order."""
    before = [EpochOrder(trainer), SaveByTime(trainer), Accounts(trainer)]
    after = [Seal(trainer)]
    if task.eval_rows:
        after.append(HeldOut(trainer, task.eval_rows))
    for callback in (*before, *more, *after):
        trainer.add_callback(callback)


def measured(trainer: PairTrainer, logps_at_start: list[dict[str, float]]) -> dict[str, Any]:
    """What the trainer's history says of a run that has ended."""
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    last = history[-1]
    pairs = len(trainer.train_dataset) * trainer.recipe.num_train_epochs
    return {
        "history": history,
        "logps": logps_at_start + [course_of_logps(entry) for entry in history],
        "seconds": last["seconds"],
        "pairs_per_second": pairs / last["seconds"],
        "tokens": {name: last[name] for name in TOKENS},
        "peak_memory_bytes": peak_memory(),
        "micro_batch": trainer.args.per_device_train_batch_size,
        "processes": trainer.args.world_size,
    }


def refuse_untrained(trainer: PairTrainer, out: Path) -> None:
    """Raise TrainError for a fresh adapter that is still the base: LoRA's B starts at zero."""
    if trainer.recipe.init_adapter is not None or trainer.is_fsdp_enabled:
        return
    for name, parameter in trainer.model.named_parameters():
        if "lora_B" in name and parameter.any():
            return
    raise TrainError(
        "training changed nothing: the learning_rate was 0 in every step (warmup_ratio), or it, "
        f"beta or max_grad_norm is too small; mend that and delete {out}"
    )


def reference_facts(
    trainer: PairTrainer, task: Task
) -> tuple[dict[str, Any], list[dict[str, float]]]:
    """Compute or read the reference, where a loss needs one: its facts, and the logps at step 0."""
    if not task.recipe.needs_reference:
        trainer.precompute_ref_logps = True  # PairTrainer gives zeros, which nothing reads
        return {"cached": False, "seconds": 0.0, "needed": False}, []
    before = task.stages.seconds.get("reference", 0.0)
    with task.stages("reference"):
        cached = attach_reference(trainer, task.reference_cache())
    seconds = task.stages.seconds["reference"] - before
    task.stages.move("reference", "compile", trainer.seconds_of_recording)
    start: dict[str, float] = {"step": 0}
    for side in ("chosen", "rejected"):
        column = trainer.train_dataset[f"ref_{side}_logps"]
        start[side] = sum(column) / len(column)
    return {"cached": cached, "seconds": seconds, "needed": True}, [start]


def course_of_logps(entry: dict[str, float]) -> dict[str, float]:
    """Of a log entry: mean log-probabilities of whole replies, now and as training started.

    The pairs of a step differ from those of another, so each is beside the start's of the same.
    """
    found = {"step": entry["step"]}
    for name in ("chosen", "rejected", "chosen_start", "rejected_start"):
        if f"logps/{name}" in entry:
            found[name] = entry[f"logps/{name}"]
    return found


def peak_memory() -> int | None:
    """Bytes that PyTorch allocated at most on this process's GPU; None without one."""
    if not torch.cuda.is_available():
        return None
    return int(torch.cuda.max_memory_allocated())


def kept(rows: list[TokenPair], counts: Counts) -> dict[str, Any]:
    """The `pairs` entry of train.json."""
    by_type = Counter(row.pair.answer_type for row in rows)
    by_kind = Counter(row.pair.kind for row in rows)
    return {
        "kept": len(rows),
        "dropped": dict(counts.dropped),
        "by_type": dict(by_type),
        "by_kind": dict(by_kind),
        "notes": dict(counts.notes),
    }


def finish(out: Path, facts: dict[str, Any]) -> None:
    """Write card, curves and, last, train.json; then checkpoints and marker may go."""
    write_whole(out / "curves.svg", curves(facts["history"]).encode())
    write_whole(out / "README.md", card(facts, out.name).encode())
    record.write_json(out / "train.json", facts)
    for checkpoint in checkpoints(out):
        remove(checkpoint)
    for name in ("run.json", "training_args.bin"):
        (out / name).unlink(missing_ok=True)
