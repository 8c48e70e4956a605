"""Loading the libraries of a training: without the work that no training has a use for."""

import contextlib
from collections.abc import Iterator

from tatqa_task.imports import collector_at_rest


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """Import libraries within this: no collection of garbage, no SciPy.

    transformers asks for SciPy as it imports the losses of object detection, with every language
    model.
    """
    with collector_at_rest():
        import transformers.utils

        own = transformers.utils.is_scipy_available
        transformers.utils.is_scipy_available = lambda: False
        try:
            yield
        finally:
            transformers.utils.is_scipy_available = own
