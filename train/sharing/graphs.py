"""Passes over packed rows recorded as CUDA graphs: the host launches each at one stroke.

For speed alone; nothing here knows of tries. A pass is recorded on parameters of its own over the
trained ones' memory, and `Replay` connects it to the autograd graph of the trained ones.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from train.sharing.layout import SharingError

WARM_UP = 2  # passes before the recording: they compile, and libraries set themselves up


@contextlib.contextmanager
def own_parameters(model: torch.nn.Module) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    """Put a new parameter over the same memory in the place of each trained one.

    Yields the trained and the new ones. Gradients of the trained ones may not be recorded: autograd
    accumulates them on the stream where DistributedDataParallel first met them, which breaks a
    recording on another.
    """
    places = [
        (module, name, parameter)
        for module in model.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if parameter.requires_grad
    ]
    trained = [parameter for _, _, parameter in places]
    new = [torch.nn.Parameter(parameter.detach()) for parameter in trained]
    for (module, name, _), parameter in zip(places, new, strict=True):
        setattr(module, name, parameter)
    try:
        yield trained, new
    finally:
        for module, name, parameter in places:
            setattr(module, name, parameter)


@dataclass
class Pool:
    """GPU memory that passes over all lengths share, and how many were replayed in it."""

    handle: Any
    passes: int = 0


class Recorded:
    """A pass over packed rows of one length, recorded once and replayed for every batch after.

    compute: [N] tokens, depth and last to hidden states [N, H]. The memory of `pool` is shared
    with other lengths, but never between passes with and without gradients: TRL may compute the
    reference between the policy's forward and backward. So of passes with gradients, whatever
    their length, each one's backward comes before the next one's forward.
    """

    def __init__(
        self,
        backbone: torch.nn.Module,
        compute: Callable[..., Tensor],
        row: list[Tensor],
        pool: Pool,
    ) -> None:
        self.pool = pool
        self.row = [part.clone() for part in row]
        self.forward_graph = torch.cuda.CUDAGraph()
        self.backward_graph = torch.cuda.CUDAGraph()
        # other threads, such as the loader's, go on meanwhile
        capture: dict[str, Any] = {"pool": pool.handle, "capture_error_mode": "thread_local"}
        dtype, enabled = torch.get_autocast_dtype("cuda"), torch.is_autocast_enabled("cuda")
        # without the cache, casts of weights are part of the recording
        autocast = torch.autocast("cuda", dtype, enabled, cache_enabled=False)
        with own_parameters(backbone) as (self.trained, new), autocast:
            self._warm_up(compute, new)
            with torch.cuda.graph(self.forward_graph, **capture):
                hidden = compute(*self.row)
            self.hidden = hidden.detach()
            if hidden.requires_grad:
                self.hidden_gradient = torch.zeros_like(hidden)
                with torch.cuda.graph(self.backward_graph, **capture):
                    self.trained_gradients = torch.autograd.grad(hidden, new, self.hidden_gradient)

    def _warm_up(self, compute: Callable[..., Tensor], new: list[Tensor]) -> None:
        torch.cuda.synchronize()
        with torch.cuda.stream(torch.cuda.Stream()):
            for _ in range(WARM_UP):
                hidden = compute(*self.row)
                if hidden.requires_grad:
                    torch.autograd.grad(hidden, new, torch.zeros_like(hidden))

    def __call__(self, row: list[Tensor]) -> Tensor:
        """Hidden states [N, H], overwritten by the next call, as a function of the weights."""
        torch._foreach_copy_(self.row, row)
        return Replay.apply(self, *self.trained)


class Replay(torch.autograd.Function):  # type: ignore[misc]
    """Connects a Recorded to the autograd graph.

    The trained weights are arguments for autograd's sake: they are where the gradients belong.
    """

    @staticmethod
    def forward(ctx: Any, recorded: Recorded, *trained: Tensor) -> Tensor:
        """Hidden states of the row that was copied in."""
        recorded.pool.passes += 1
        ctx.number = recorded.pool.passes
        ctx.recorded = recorded
        recorded.forward_graph.replay()
        return recorded.hidden.detach()

    @staticmethod
    def backward(ctx: Any, hidden_gradient: Tensor) -> Any:
        """Gradients of the trained weights, copied: the next replay writes over them.

        Raises SharingError where another pass has overwritten this one's activations.
        """
        recorded = ctx.recorded
        if ctx.number != recorded.pool.passes:
            raise SharingError(
                "two passes with gradients before the first one's backward: share without graphs"
            )
        recorded.hidden_gradient.copy_(hidden_gradient)
        recorded.backward_graph.replay()
        return None, *(gradient.clone() for gradient in recorded.trained_gradients)
