"""Beside the optimizer steps of a run: order, signals, tokens and seconds, progress."""

import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from transformers import TrainerCallback

from train.folder import remove_older, seal
from train.trainer.pair_trainer import PairTrainer

SAVE_SECONDS = 300.0  # without a checkpoint, before one is written whatever save_steps says
BETWEEN_LINES = 10.0  # seconds between two states of the bar in a file or a pipe
TOKENS = ("presented", "real", "computed")  # padded, without padding, run through the backbone


class EpochOrder(TrainerCallback):  # type: ignore[misc]
    """Tells the sampler which epoch begins, also in a resumed run: its order depends on it."""

    def __init__(self, trainer: PairTrainer) -> None:
        self.trainer = trainer

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Set the epoch of the pairs' order."""
        self.trainer.order.set_epoch(int(state.epoch or 0))


def of_any_process(trainer: PairTrainer, flag: bool) -> bool:
    """Whether the flag is set on this or any other process; the same answer on all of them."""
    if trainer.accelerator.num_processes == 1:
        return flag
    told = torch.tensor(float(flag), device=trainer.args.device)
    return bool(trainer.accelerator.reduce(told, "sum").item())


class StopOnSignal(TrainerCallback):  # type: ignore[misc]
    """On SIGTERM or Ctrl-C: a checkpoint after the step under way, then the end."""

    def __init__(self, trainer: PairTrainer) -> None:
        self.trainer = trainer
        self.stopped_by = ""
        self.handlers: dict[int, Any] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take over both signals."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self.handlers[number] = signal.signal(number, self._note)

    def _note(self, number: int, frame: Any) -> None:
        self.stopped_by = signal.Signals(number).name
        signal.signal(number, signal.SIG_DFL)  # the second one ends it at once

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop all processes in the same step, whichever of them was told to."""
        if of_any_process(self.trainer, bool(self.stopped_by)):
            control.should_save = control.should_training_stop = True
            self.stopped_by = self.stopped_by or "a signal to another process"

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Give both signals back."""
        self.give_back()

    def give_back(self) -> None:
        """Put the handlers back that were there; again, nothing."""
        while self.handlers:
            signal.signal(*self.handlers.popitem())


class SaveByTime(TrainerCallback):  # type: ignore[misc]
    """A checkpoint every SAVE_SECONDS: on a slow machine `save_steps` may take hours."""

    def __init__(self, trainer: PairTrainer) -> None:
        self.trainer = trainer
        self.saved = time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """What is there now is at most as old as the run."""
        self.saved = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """All processes save in the same step, by the first clock that says so."""
        if of_any_process(self.trainer, time.monotonic() - self.saved >= SAVE_SECONDS):
            control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count from here, whatever the checkpoint was written for."""
        self.saved = time.monotonic()


class Accounts(TrainerCallback):  # type: ignore[misc]
    """Adds tokens and seconds so far to every log entry, so that they survive an interruption."""

    def __init__(self, trainer: PairTrainer) -> None:
        self.trainer = trainer
        self.tokens = dict.fromkeys(TOKENS, 0)
        self.seconds = 0.0
        self.since = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Go on from the last entry of a resumed run."""
        before = state.log_history[-1] if state.log_history else {}
        self.tokens = {name: before.get(name, 0) for name in TOKENS}
        self.seconds = before.get("seconds", 0.0)
        self.since = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Add the step's tokens, over all processes."""
        counts = [float(self.trainer.tokens[name]) for name in TOKENS]
        self.trainer.tokens.clear()
        if self.trainer.accelerator.num_processes > 1:
            own = torch.tensor(counts, device=args.device)
            counts = self.trainer.accelerator.reduce(own, "sum").tolist()
        for name, count in zip(TOKENS, counts, strict=True):
            self.tokens[name] += int(count)

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any
    ) -> None:
        """Write the sums into the entry."""
        if "loss" not in logs:
            return
        now = time.monotonic()
        self.seconds += now - self.since
        self.since = now
        state.log_history[-1].update({**self.tokens, "seconds": self.seconds})


class Seal(TrainerCallback):  # type: ignore[misc]
    """Writes down checksums of each checkpoint, once all processes have written theirs.

    Then older ones go: Trainer's own rotation removes every folder of such a name.
    """

    def __init__(self, trainer: PairTrainer) -> None:
        self.trainer = trainer

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Seal the checkpoint that was just saved."""
        self.trainer.accelerator.wait_for_everyone()
        if self.trainer.accelerator.is_main_process:
            out = Path(args.output_dir)
            seal(out / f"checkpoint-{state.global_step}")
            remove_older(out)


class Progress(TrainerCallback):  # type: ignore[misc]
    """One bar: loss, rewards, how far log-probabilities moved, pairs a second."""

    def __init__(self, trainer: PairTrainer, show: bool) -> None:
        self.trainer = trainer
        self.show = show
        self.bar: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Open the bar where a resumed run stands."""
        self.bar = tqdm(
            total=state.max_steps,
            initial=state.global_step,
            unit="step",
            disable=not self.show,
            mininterval=0.1 if sys.stderr.isatty() else BETWEEN_LINES,
        )
        self.since = time.monotonic()

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any
    ) -> None:
        """Show the step."""
        if "loss" not in logs:
            return
        now = time.monotonic()
        rate = self.trainer.recipe.effective_batch_size / (now - self.since)
        self.since = now
        self.bar.set_postfix_str(f"{describe(logs)}, {rate:.1f} pairs/s", refresh=False)
        self.bar.update(state.global_step - self.bar.n)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close the bar."""
        self.close()

    def close(self) -> None:
        """End the bar's line, so that what is said next has its own."""
        if self.bar is not None:
            self.bar.close()


def describe(logs: dict[str, float]) -> str:
    """A log entry in a line.

    Where the start is known, both log-probabilities are shown as their change since: a chosen one
    that falls is a model driven away from the replies that it should give (displacement).
    """
    parts = [f"loss {logs['loss']:.4f}"]
    if "rewards/margins" in logs:
        parts.append(f"accuracy {logs['rewards/accuracies']:.2f}")
        parts.append(f"margin {logs['rewards/margins']:.3f}")
    if "logps/chosen_start" in logs:
        chosen = logs["logps/chosen"] - logs["logps/chosen_start"]
        rejected = logs["logps/rejected"] - logs["logps/rejected_start"]
        parts.append(f"logp chosen {chosen:+.2f} rejected {rejected:+.2f}")
    else:
        parts.append(f"logp chosen {logs['logps/chosen']:.2f}")
    return ", ".join(parts)
