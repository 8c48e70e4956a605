"""Seconds of each stage of a run, for train.json: imports, pairs, tokenize, load, reference, ..."""

import contextlib
import time
from collections.abc import Iterator


class Stages:
    """A stopwatch with named stages, which may be entered again and then add up."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def add(self, name: str, seconds: float) -> None:
        """Count seconds that were measured elsewhere."""
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    def move(self, source: str, target: str, seconds: float) -> None:
        """Count seconds of one stage as another's, such as compiling that happened in training."""
        self.add(source, -seconds)
        self.add(target, seconds)

    def rounded(self) -> dict[str, float]:
        """For train.json: to the millisecond."""
        return {name: round(value, 3) for name, value in self.seconds.items()}

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time the block as the stage `name`, also when it fails."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.add(name, time.monotonic() - started)
