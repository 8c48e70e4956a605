"""Records: what was measured on one model, as JSON that this schema validates.

A record holds the scores of a base model, or of an adapter together with its training, one row per
question in columns, so that any later comparison can pair them. `python -m results run` writes
them; nobody edits them.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, JsonValue, ValidationError, model_validator

from results import InputError
from results.files import write_whole

VERSION = 1
LARGEST = 1e100  # of a score: its square, summed, is a number still
Upgrade = Callable[[dict[str, Any]], dict[str, Any]]
UPGRADES: dict[int, Upgrade] = {}  # by version: makes the same record of the version after it
TITLES = {
    "tatqa": "TAT-QA",
    "tatqa_calc": "TAT-QA, expressions worked out",
    "tatqa_cot": "TAT-QA, reasoning first",
    "tatqa_test": "TAT-QA test split",
    "tatqa_calc_test": "TAT-QA test split, expressions worked out",
    "tatqa_cot_test": "TAT-QA test split, reasoning first",
    "tatqa_verified": "TAT-QA, verified questions",
    "mt_bench": "MT-Bench",
}


class Scores(BaseModel, extra="forbid"):
    """One model's scores on one bench, in columns of equal length with a row for each scored item.

    Tables of equal `identity` can be compared; a difference in `circumstances` is worth a warning.
    Items of one `cluster` are not independent. `groups` holds the columns to break down by. In
    `metrics` None means no score; `weights` says what a score counts for where that is not 1, and
    `higher_is_better` the direction of each metric, as far as it is known.
    """

    bench: str
    stand_in: bool = False
    identity: dict[str, JsonValue]
    circumstances: dict[str, JsonValue]
    item: list[str]
    cluster: list[str]
    groups: dict[str, list[str]]
    metrics: dict[str, list[float | None]]
    weights: dict[str, list[float]] = {}
    higher_is_better: dict[str, bool] = {}

    @property
    def title(self) -> str:
        """What the bench is called in tables; stand-ins say so everywhere."""
        name = TITLES.get(self.bench, f"bench {self.bench}")
        what = "STAND-IN JUDGE, measures nothing"
        if self.bench.startswith("tatqa"):
            what = "SYNTHETIC QUESTIONS, no TAT-QA figure"
        return f"{name} ({what})" if self.stand_in else name

    def scored(self, metric: str) -> dict[str, float]:
        """A metric's scores by item, of those items that have one."""
        found = {}
        for item, score in zip(self.item, self.metrics[metric], strict=True):
            if score is not None:
                found[item] = score
        return found

    @model_validator(mode="after")
    def _columns(self) -> "Scores":
        lengths = {
            len(self.cluster),
            *map(len, self.groups.values()),
            *map(len, self.metrics.values()),
            *map(len, self.weights.values()),
        }
        if lengths != {len(self.item)} or len(set(self.item)) != len(self.item):
            raise ValueError(f"{self.bench}: columns of unequal length, or an item twice")
        for metric, scores in self.metrics.items():
            refuse_no_number(metric, scores, self.weights.get(metric) or [1.0] * len(scores))
        return self


def refuse_no_number(metric: str, scores: Sequence[float | None], weights: Sequence[float]) -> None:
    """Raise ValueError for a score that statistics cannot use, or that counts for nothing."""
    for score, weight in zip(scores, weights, strict=True):
        if score is None:
            continue
        if not -LARGEST <= score <= LARGEST:
            raise ValueError(f"{metric}: a score of {score}, which is no number or too large a one")
        if not 0 < weight <= LARGEST:
            raise ValueError(f"{metric}: a score that counts for {weight}")


class Training(BaseModel, extra="allow"):
    """What `python -m train` left in train.json; the fields named here are needed by reports."""

    recipe: dict[str, JsonValue]
    history: list[dict[str, float]]
    pairs: dict[str, JsonValue]
    seconds: float
    device: str

    @property
    def more(self) -> dict[str, Any]:
        """Whatever else stands in train.json, as it stands there."""
        return self.model_extra or {}


class Example(BaseModel, extra="forbid"):
    """One question and both replies, kept so that a page shows some without the raw samples.

    `bench`: the stage that asked it, such as `tatqa` for any form. `kind`: "gained" and "lost" by
    exact match; "format" where only following the format changed.
    """

    bench: str
    kind: Literal["gained", "lost", "format"]
    group: str
    question: str
    gold: str
    before: str
    after: str


class Provenance(BaseModel, extra="forbid"):
    """Where the scores come from."""

    commands: list[str]
    settings: dict[str, JsonValue]
    git: dict[str, JsonValue]
    versions: dict[str, str]
    device: str
    data: dict[str, JsonValue]
    seeds: dict[str, JsonValue]


class Record(BaseModel, extra="forbid"):
    """Scores of one model; `base` names the record it is compared with, None for a base itself."""

    version: Literal[1] = 1
    name: str
    base: str | None
    model: dict[str, JsonValue]
    training: Training | None
    scores: dict[str, Scores]
    seconds: dict[str, float]
    provenance: Provenance
    examples: list[Example] = []

    @property
    def stage_of_bench(self) -> dict[str, str]:
        """By what was asked (TAT-QA by form and split): the stage, whose name its folder has."""
        found = {}
        for stage, scores in self.scores.items():
            bench = scores.bench if scores.bench.startswith("tatqa") else stage
            found[bench] = stage
        return found

    @property
    def by_bench(self) -> dict[str, Scores]:
        """Scores by what was asked, whatever the stage was called."""
        return {bench: self.scores[stage] for bench, stage in self.stage_of_bench.items()}


def load(path: Path) -> Record:
    """Read a record, upgraded to the present version. Raises InputError with one line."""
    try:
        if path.exists() and not path.is_file():  # a pipe's reader would wait for ever
            raise InputError(f"{path}: cannot be read (no file)")
        return Record.model_validate(upgrade(json.loads(path.read_text(encoding="utf-8"))))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        reason = f"{place}: {first['msg']}"
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
    raise InputError(f"{path}: not a valid record ({reason}); run its recipe again")


def upgrade(content: dict[str, Any]) -> dict[str, Any]:
    """Take a record of an older version to the present one, step by step.

    Raises ValueError for an unknown version.
    """
    while content["version"] != VERSION:
        if content["version"] not in UPGRADES:
            raise ValueError(
                f"version {content['version']}, this program reads {[*UPGRADES, VERSION]}"
            )
        content = UPGRADES[content["version"]](content)
    return content


def load_all(runs: Path) -> tuple[dict[str, Record], list[str]]:
    """Every record under `runs` by its folder's name, and a line for each that cannot be used.

    The folder names the run, not what the record says: a copied or renamed run folder keeps its
    place. A copy of another run says nothing new and is left out, as is a run without its base.

    Raises InputError if the folder cannot be read.
    """
    records: dict[str, Record] = {}
    problems: list[str] = []
    for path in places(runs):
        try:
            found = load(path)
        except InputError as error:
            problems.append(str(error))
            continue
        records[path.parent.name] = found.model_copy(update={"name": path.parent.name})
    for name, found in list(records.items()):
        if reason := unusable(found, records):
            problems.append(f"{runs / name}: {reason}")
            del records[name]
    return records, problems


def places(runs: Path) -> list[Path]:
    """Where a record is, or may be: there are run folders that nobody may look into."""
    try:
        folders = sorted(runs.iterdir())
    except OSError as error:
        raise InputError(f"{runs}: cannot be read ({error.strerror})") from None
    found = []
    for folder in folders:
        path = folder / "record.json"
        try:
            path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            pass  # who reads it is told why not
        found.append(path)
    others = [folder.name for folder in folders if not folder.name.startswith(".")]
    if others and not found:
        raise InputError(
            f"{runs}: holds {others[0]}, and no run is recorded there; name the folder of run"
            " folders (each with a record.json)"
        )
    return found


def unusable(found: Record, records: dict[str, Record]) -> str:
    """Why a record cannot stand among the others; "" if it can.

    A base always can: scored with two settings it may well score the same, and has runs of each.
    """
    if found.base is None:
        return ""
    for other in records.values():
        if other.name < found.name and same_run(other, found):
            return f"a copy of {other.name}, left out"
    if found.base not in records:
        return f"its base record {found.base} is missing; run its recipe again"
    if records[found.base].base is not None:
        return f"what it names as its base, {found.base}, is a run; run its recipe again"
    return "" if found.training else "a run without training; run its recipe again"


def same_run(one: Record, other: Record) -> bool:
    """Whether two records hold the same training and scores."""
    return (one.scores, one.training) == (other.scores, other.training)


def save(record: Record, path: Path) -> None:
    """Write a record whole, one top-level field to a line."""
    lines = []
    for field, value in record.model_dump(mode="json").items():
        lines.append(f'"{field}": {json.dumps(value, ensure_ascii=False)}')
    write_whole(path, "{\n" + ",\n".join(lines) + "\n}\n")
