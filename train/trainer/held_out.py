"""Pairs of contexts that are not trained on (`eval_share`), measured after every epoch.

Their figures stand in that epoch's last entry of the history in train.json:

| name | what |
|---|---|
| `held_out/loss` | DPO's sigmoid loss, -log sigmoid(margin): 0.6931 as training starts |
| `held_out/margins` | beta times the change of log(chosen) - log(rejected) since the start |
| `held_out/accuracies` | share of the pairs whose margin is positive |
| `held_out/nll` | -log(chosen) a token, the supervised loss |
| `held_out/logps/chosen`, `.../rejected` | mean log-probabilities of whole replies |
"""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import TrainerCallback

from train.pairs.tokens import TokenPair
from train.trainer.assemble import dataset
from train.trainer.pair_trainer import PairTrainer
from train.trainer.reference import as_policy, as_reference, reply_logps


class HeldOut(TrainerCallback):  # type: ignore[misc]
    """Measures the held-out pairs when it is made and after every epoch, without a gradient."""

    def __init__(self, trainer: PairTrainer, rows: Sequence[TokenPair]) -> None:
        self.trainer = trainer
        self.rows = dataset(trainer.recipe, rows)
        self.chosen_tokens = sum(len(row.chosen_ids) for row in rows)
        self.start = self._measure_start()

    def _measure_start(self) -> torch.Tensor:
        """The reference's log-probabilities, before a checkpoint is loaded into the adapter.

        Where training goes on from an adapter, that one is the reference, not the resumed one.
        """
        if not self.trainer.recipe.needs_reference:
            return torch.zeros(0)
        with as_reference(self.trainer):
            return self._logps()

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any
    ) -> None:
        """Add the figures to the entry of an epoch's last step."""
        steps = state.max_steps // self.trainer.recipe.num_train_epochs
        if "loss" not in logs or state.global_step % steps:
            return
        with as_policy(self.trainer):
            now = self._logps()
        found = figures(now, self.start, self.chosen_tokens, self.trainer.recipe.beta)
        state.log_history[-1].update(found)

    def _logps(self) -> torch.Tensor:
        """Log-probabilities [pairs, 2] of chosen and rejected under the model as it is set."""
        size = self.trainer.args.per_device_train_batch_size
        done = []
        for first in range(0, len(self.rows), size):
            batch = [self.rows[i] for i in range(first, min(first + size, len(self.rows)))]
            logps = reply_logps(self.trainer, self.trainer.data_collator(batch))
            done.append(logps.double().cpu())
        return torch.cat(done)


def figures(
    now: torch.Tensor, start: torch.Tensor, chosen_tokens: int, beta: float
) -> dict[str, float]:
    """What is told of log-probabilities [pairs, 2] now and, unless empty, at the start."""
    chosen, rejected = now.mean(0).tolist()
    found = {
        "held_out/nll": -float(now[:, 0].sum()) / chosen_tokens,
        "held_out/logps/chosen": chosen,
        "held_out/logps/rejected": rejected,
    }
    if len(start):
        moved = now - start
        margins = beta * (moved[:, 0] - moved[:, 1])
        found["held_out/loss"] = -float(torch.nn.functional.logsigmoid(margins).mean())
        found["held_out/margins"] = float(margins.mean())
        found["held_out/accuracies"] = float((margins > 0).double().mean())
    return found
