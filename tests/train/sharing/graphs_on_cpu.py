"""`python -m train` with a stand-in for CUDA graphs: `graphs_on_cpu.py RECIPE ...`.

It keeps what a CUDA graph promises: recorded operations run again, in order, on the same memory.
"""

import contextlib
import functools
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Recording(TorchDispatchMode):  # type: ignore[misc]
    """A CUDAGraph that is its own `torch.cuda.graph` block."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.operations.append((func, args, kwargs or {}, out))
        return out

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def replay(self) -> None:
        for func, args, kwargs, out in self.operations:
            for before, now in zip(
                tree_leaves(out), tree_leaves(func(*args, **kwargs)), strict=True
            ):
                if (
                    isinstance(before, torch.Tensor) and before.data_ptr() != now.data_ptr()
                ):  # else a view
                    before.copy_(now)


STAND_INS: dict[str, Any] = {
    "CUDAGraph": Recording,
    "graph": lambda recording, **how: recording,
    "graph_pool_handle": lambda: None,
    "synchronize": lambda: None,
    "Stream": lambda: None,
    "stream": lambda stream: contextlib.nullcontext(),
}


def with_graphs(share: Callable[..., Any], model: Any, **how: Any) -> Any:
    """Share prefixes as asked, but with recorded passes over lengths of whole buckets."""
    return share(model, **{**how, "graphs": True, "bucket": 128})


if __name__ == "__main__":
    from train.__main__ import main
    from train.sharing import share_prefixes
    from train.trainer import assemble

    for name, value in STAND_INS.items():
        setattr(torch.cuda, name, value)
    recorded = functools.partial(with_graphs, share_prefixes)
    vars(assemble)["share_prefixes"] = recorded
    sys.exit(main())
