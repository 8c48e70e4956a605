"""Loading the libraries of a training: without the work that no training has a use for."""

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """Import libraries within this: garbage is not collected meanwhile, and SciPy left out.

    The collector takes a quarter of the imports' time. What they make stays until the end, so no
    later collection looks at it.
    """
    gc.disable()
    try:
        with without_scipy():
            yield
    finally:
        gc.freeze()
        gc.enable()


@contextlib.contextmanager
def without_scipy() -> Iterator[None]:
    """Transformers imports it for the losses of object detection, with every language model."""
    import transformers.utils

    own = transformers.utils.is_scipy_available
    transformers.utils.is_scipy_available = lambda: False
    try:
        yield
    finally:
        transformers.utils.is_scipy_available = own
