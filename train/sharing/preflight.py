"""Before anything is trained: one small batch, plainly and with shared prefixes, compared.

Refusing by what a model says of itself (support.py) cannot know every architecture; this computes.
The two shortest pairs, cut, through a dense mask show whether a model takes positions and masks as
a trie needs them, in two small passes that compile nothing and draw no dropout. Windows longer than
those rows, FlexAttention and recorded graphs are left to the tests. Where FSDP or DeepSpeed takes
the model apart, a run goes without it.

The model has TRL's fused head (DPOTrainer puts it there): with labels it returns `log_probs` of the
labelled places alone.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from train.sharing.forward import Collator, share_prefixes
from train.sharing.layout import SharingError
from train.sharing.support import dense_kernel, refusal

Batch = dict[str, Any]
PAIRS = 2
LONGEST = 256  # tokens of a prompt or reply; plain attention grows with the square
# How far log-probabilities and gradients may be apart, as a share of their size: rounding alone.
TOLERANCE = {torch.float32: (1e-4, 1e-3), torch.bfloat16: (0.05, 0.3), torch.float16: (0.02, 0.2)}


def preflight(
    model: torch.nn.Module,
    examples: Sequence[dict[str, Any]],
    collator: Collator,
    prepare: Callable[[Batch], Batch],
) -> None:
    """Raise SharingError unless a small batch gives the same numbers both ways.

    examples: pairs, as rows of TRL's dataset (prompt_ids, chosen_ids, rejected_ids). collator:
    TRL's or like it. prepare: moves a batch to the device, and leaves what the model's forward
    takes and `completion_mask`.
    """
    with without_dropout(model):
        compare(model, small_batch(examples), collator, prepare)


def compare(
    model: torch.nn.Module,
    batch: list[Batch],
    collator: Collator,
    prepare: Callable[[Batch], Batch],
) -> None:
    """The same for these pairs."""
    expected = log_probs_and_gradient(model, prepare(collator(batch)))
    if not torch.isfinite(expected[0]).all():
        return  # no fault of sharing's: whoever reads the model's numbers says so
    base: Any = model.get_base_model() if hasattr(model, "get_base_model") else model
    sharing = share_prefixes(model, dense_kernel(base))
    try:
        found = log_probs_and_gradient(model, prepare(sharing.collate(collator)(batch)))
    except (SharingError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever an unknown architecture does with the mask
        problem = f"it fails with the trie's mask ({type(error).__name__}: {error})"
        raise refusal(base, problem) from None
    finally:
        sharing.remove()
    names = ("log-probabilities", "gradients")
    for name, a, b, limit in zip(names, expected, found, tolerance(base), strict=True):
        distance = float((a - b).norm() / a.norm().clamp(min=1e-12))
        if not distance <= limit:
            raise refusal(base, f"its {name} would be off by {distance:.1e} of their size")


@contextlib.contextmanager
def without_dropout(model: torch.nn.Module) -> Iterator[None]:
    """Switch all dropout modules off, an adapter's too, and back on as they were."""
    layers = [module for module in model.modules() if isinstance(module, torch.nn.Dropout)]
    rates = [layer.p for layer in layers]
    for layer in layers:
        layer.p = 0.0
    try:
        yield
    finally:
        for layer, rate in zip(layers, rates, strict=True):
            layer.p = rate


def tolerance(model: torch.nn.Module) -> tuple[float, float]:
    """By the coarser of the weights' precision and autocast's."""
    dtype = next(model.parameters()).dtype
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
    return TOLERANCE.get(dtype, TOLERANCE[torch.bfloat16])


def log_probs_and_gradient(model: torch.nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the replies [2 B], and the gradient of their sum, flattened."""
    completion = batch["completion_mask"]
    inputs = {name: value for name, value in batch.items() if name != "completion_mask"}
    labels = batch["input_ids"].masked_fill(completion == 0, -100)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    output = model(**inputs, labels=labels, fused_lm_head=True, use_cache=False)
    sums = output.log_probs.sum(1)
    gradients = torch.autograd.grad(sums.sum(), trained, allow_unused=True)
    flat = [gradient.flatten().float() for gradient in gradients if gradient is not None]
    return sums.detach().float(), torch.cat(flat)


def small_batch(examples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The shortest pair, and the one next to it by length, cut: the plain pass costs little."""

    def length(example: dict[str, Any]) -> int:
        return len(example["prompt_ids"]) + len(example["chosen_ids"])

    batch = []
    for example in sorted(examples, key=length)[:PAIRS]:
        cut = dict(example)
        for name in ("prompt_ids", "chosen_ids", "rejected_ids"):
            cut[name] = example[name][:LONGEST]
        batch.append(cut)
    return batch
