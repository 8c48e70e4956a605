"""The run that a report opens with: not the first by a tenth of a point, if that is chance."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from results.compare import Row, as_family
from results.report.between import against
from results.report.collect import Run


@dataclass(frozen=True)
class Choice:
    """The run that a report opens with, among those that end as high as can be told.

    Attributes:
        run: The one with the most seeds of them, and the highest of those.
        highest: The run that ends highest in the same bench.
        rivals: Every other run of its base with that bench, and the highest against it, as one
            family; the next highest first.
    """

    run: Run
    highest: Run
    rivals: list[tuple[Run, Row]]

    @property
    def as_high(self) -> list[Run]:
        """Runs of which the highest cannot be told apart, itself first."""
        found = [self.highest]
        for run, row in self.rivals:
            if row.difference.low <= 0:
                found.append(run)
        return found


def chosen(found: Sequence[Run]) -> Choice:
    """What to open with, of these runs."""
    highest = max(found, key=height)
    choice = Choice(highest, highest, rivals_of(highest, found))
    return replace(choice, run=max(choice.as_high, key=seeds_and_height))


def rivals_of(highest: Run, found: Sequence[Run]) -> list[tuple[Run, Row]]:
    """The other runs of its base in its best bench, and what the highest is against each."""
    bench = highest.best_bench
    rivals, rows = [], []
    for run in sorted(found, key=height, reverse=True):
        if run is highest or run.base is not highest.base or bench not in run.rows:
            continue
        row = against(highest, run, bench)
        if row is not None:
            rivals.append(run)
            rows.append(row)
    return list(zip(rivals, as_family(rows), strict=True))


def height(run: Run) -> float:
    """Where a run ends in the bench that it answers best."""
    return run.headline(run.best_bench).difference.after


def seeds_and_height(run: Run) -> tuple[int, float]:
    """Sorts runs by their training seeds, then by where they end."""
    return len(run.records), height(run)
