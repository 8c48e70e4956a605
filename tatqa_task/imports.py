"""Importing large libraries: without looking for garbage, and ended by a Ctrl-C at once."""

import contextlib
import gc
from collections.abc import Iterator

from tatqa_task.command_line import interrupt_again, stop_at_once


@contextlib.contextmanager
def collector_at_rest() -> Iterator[None]:
    """Import libraries within this: looking for garbage takes a quarter of the time.

    What they make stays until the end, so that no later collection looks at it. Ctrl-C ends the
    program: libraries catch its exception, or report it as ignored and go on.
    """
    gc.disable()
    stop_at_once()
    try:
        yield
    finally:
        interrupt_again()
        gc.freeze()
        gc.enable()
