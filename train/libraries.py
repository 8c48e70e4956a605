"""Loading the libraries of a training: without the work that no training has a use for."""

import contextlib
from collections.abc import Iterator

from tatqa_task.command_line import collector_at_rest


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """Import libraries within this: garbage is not collected meanwhile, and SciPy left out."""
    with collector_at_rest(), without_scipy():
        yield


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
