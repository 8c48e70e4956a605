"""Loading the libraries of a training: without the work that no training has a use for."""

import contextlib
import functools
import importlib.metadata
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError
from typing import Any

from tatqa_task.command_line import collector_at_rest

scan = importlib.metadata.packages_distributions


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """Import libraries within this: no collection of garbage, no list of all files, no SciPy."""
    with collector_at_rest():
        import transformers.utils as of_transformers

        with (
            # asked as the losses of object detection are imported, with every language model
            replaced(of_transformers, "is_scipy_available", lambda: False),
            replaced(importlib.metadata, "packages_distributions", Distributions),
        ):
            yield


class Distributions(Mapping[str, list[str]]):
    """What importlib.metadata.packages_distributions finds, looked for when it is asked for.

    TRL calls that as it is imported, to know the versions of two packages. From Python 3.12 on it
    asks the file system for every file of every installed distribution.
    """

    def __getitem__(self, package: str) -> list[str]:
        try:  # most are installed by the name by which they are imported
            importlib.metadata.version(package)
        except PackageNotFoundError:
            return self._scanned[package]
        return [package]

    def __iter__(self) -> Iterator[str]:
        return iter(self._scanned)

    def __len__(self) -> int:
        return len(self._scanned)

    @functools.cached_property
    def _scanned(self) -> Mapping[str, list[str]]:
        return scan()


@contextlib.contextmanager
def replaced(module: Any, name: str, value: Any) -> Iterator[None]:
    """Have another value in the place of a module's own meanwhile."""
    own = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, own)
