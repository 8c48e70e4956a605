"""What an optimizer step knows before it is computed: its beta, and sums over all its pairs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from train.recipe import Recipe


def beta_factor(recipe: Recipe, step: int, steps: int) -> float:
    """beta at `step` of `steps`, counted from 0, as a multiple of its value at the start."""
    if recipe.beta_end is None:
        return 1.0
    if recipe.beta_schedule_unit == "epoch":
        step, steps = step * recipe.num_train_epochs // steps, recipe.num_train_epochs
    done = step / max(1, steps - 1)
    course = done if recipe.beta_schedule == "linear" else (1 - math.cos(math.pi * done)) / 2
    return 1 + (recipe.beta_end / recipe.beta - 1) * course


@dataclass(frozen=True)
class StepTotals:
    """Sums over all pairs of one optimizer step, on all processes, known before it is computed.

    chosen_tokens: of all chosen replies. chosen_start, rejected_start: sums of log-probabilities
    under the reference, which is the model as training started; None where none is computed.
    """

    pairs: float = 0.0
    chosen_tokens: float = 0.0
    chosen_start: float | None = None
    rejected_start: float | None = None

    @classmethod
    def of(cls, batches: Sequence[dict[str, Any]], accelerator: Any) -> "StepTotals":
        """The totals of the micro-batches of all processes."""
        sums = torch.zeros(4, dtype=torch.float64)
        for batch in batches:
            pairs = len(batch["beta"])
            sums[0] += pairs
            sums[1] += batch["completion_mask"][:pairs].sum()
            if "ref_chosen_logps" in batch:
                sums[2] += batch["ref_chosen_logps"].double().sum()
                sums[3] += batch["ref_rejected_logps"].double().sum()
        if accelerator.num_processes > 1:
            sums = accelerator.reduce(sums.to(accelerator.device), "sum")
        pairs, tokens, chosen, rejected = sums.tolist()
        if not batches or "ref_chosen_logps" not in batches[0]:
            return cls(pairs, tokens)
        return cls(pairs, tokens, chosen, rejected)

    def logps_at_start(self) -> dict[str, float]:
        """Mean log-probability of the step's chosen and rejected replies as training started."""
        if self.chosen_start is None or self.rejected_start is None:
            return {}
        return {
            "logps/chosen_start": self.chosen_start / self.pairs,
            "logps/rejected_start": self.rejected_start / self.pairs,
        }
