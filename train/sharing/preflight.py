"""Before anything is trained: one small batch, plainly and with shared prefixes, compared.

Refusing by what a model says of itself (support.py) cannot know every architecture. This computes.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from train.sharing.layout import SharingError

PAIRS = 2
# Of the largest log-probability, and of the gradient's norm; rounding alone stays well below.
TOLERANCE = {torch.float32: (1e-4, 1e-3), torch.bfloat16: (0.05, 0.3), torch.float16: (0.02, 0.2)}


def compare(
    model: torch.nn.Module,
    plain: Callable[[], dict[str, Any]],
    shared: Callable[[], dict[str, Any]],
    switch: Callable[[bool], None],
) -> None:
    """Raise SharingError unless a batch gives the same log-probabilities and gradient both ways.

    plain, shared: make the batch for TRL's fused forward, as collated without and with sharing.
    switch: turns the sharing of the model on (True) or off.
    """
    switch(False)
    try:
        expected = log_probs_and_gradient(model, plain())
    finally:
        switch(True)
    found = log_probs_and_gradient(model, shared())
    names = ("log-probabilities", "gradients")
    limits = TOLERANCE.get(compute_dtype(model), TOLERANCE[torch.bfloat16])
    for name, a, b, limit in zip(names, expected, found, limits, strict=True):
        distance = float((a - b).norm() / a.norm().clamp(min=1e-12))
        if not distance <= limit:
            raise SharingError(
                f"{type(model).__name__}: {name} with shared prefixes differ from the plain "
                f"forward's by {distance:.1e} of their size. Set share_prefixes: false"
            )


def compute_dtype(model: torch.nn.Module) -> torch.dtype:
    """That of autocast where it is on, else of the weights."""
    if torch.is_autocast_enabled("cuda"):
        return torch.get_autocast_dtype("cuda")
    if torch.is_autocast_enabled("cpu"):
        return torch.get_autocast_dtype("cpu")
    return next(model.parameters()).dtype


def log_probs_and_gradient(model: torch.nn.Module, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the replies [2 B], and the gradient of their sum, flattened."""
    completion = batch["completion_mask"]
    inputs = {name: value for name, value in batch.items() if name != "completion_mask"}
    labels = batch["input_ids"].masked_fill(completion == 0, -100)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    output = model(**inputs, labels=labels, fused_lm_head=True, use_cache=False)
    sums = output.log_probs.sum(1)
    gradients = torch.autograd.grad(sums.sum(), trained, allow_unused=True)
    flat = [g.flatten().float() for g in gradients if g is not None]
    return sums.detach().float(), torch.cat(flat)


def small_batch(examples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The shortest pairs, so that the plain forward costs little."""

    def length(example: dict[str, Any]) -> int:
        return len(example["prompt_ids"]) + len(example["chosen_ids"])

    return sorted(examples, key=length)[:PAIRS]
