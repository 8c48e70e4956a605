"""Records: what one program run measured on one model, as JSON that this schema validates.

A record holds the scores of a base model, or of an adapter together with the training that made it, one row per
question in columns, so that any later comparison can pair them. `python -m results run` writes them; nobody edits them.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError, model_validator

VERSION = 1
UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}  # version -> the same record one version later


class InputError(Exception):
    """The call or its input is wrong: one line, exit code 2."""


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class Scores(Strict):
    """One model's scores on one bench, one row per scored item, in columns of equal length.

    Two tables can be compared if `identity` is equal; a difference in `circumstances` is worth a warning. Missing
    scores are None. `cluster` says which items are not independent.
    """

    bench: str
    stand_in: bool = False
    identity: dict[str, JsonValue]
    circumstances: dict[str, JsonValue]
    item: list[str]
    cluster: list[str]
    groups: dict[str, list[str]]
    metrics: dict[str, list[float | None]]

    @property
    def title(self) -> str:
        """What the bench is called in tables; ratings of the stand-in judge say so everywhere."""
        name = {"tatqa": "TAT-QA", "mt_bench": "MT-Bench"}.get(self.bench, f"bench {self.bench}")
        return name + (" (STAND-IN JUDGE: a fixed rule that measures nothing)" if self.stand_in else "")

    @model_validator(mode="after")
    def _columns(self) -> "Scores":
        lengths = {len(self.cluster), *map(len, self.groups.values()), *map(len, self.metrics.values())}
        if lengths != {len(self.item)} or len(set(self.item)) != len(self.item):
            raise ValueError(f"{self.bench}: columns of unequal length, or an item twice")
        return self


class Provenance(Strict):
    """Where the numbers come from."""

    commands: list[str]
    git: dict[str, JsonValue]
    versions: dict[str, str]
    device: str
    data: dict[str, JsonValue]
    seeds: dict[str, JsonValue]


class Record(Strict):
    """Scores of one model; `base` names the record it is compared with, None for a base itself."""

    version: Literal[1] = 1
    name: str
    base: str | None
    model: dict[str, JsonValue]
    training: dict[str, JsonValue] | None
    scores: dict[str, Scores]
    seconds: dict[str, float]
    provenance: Provenance


def load(path: Path) -> Record:
    """Read a record, upgraded to the present version. Raises InputError with one line."""
    try:
        return Record.model_validate(upgrade(json.loads(path.read_text(encoding="utf-8"))))
    except OSError as error:
        raise InputError(f"{path}: cannot read the record ({error.strerror})") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{path}: not a valid record: {where}: {first['msg']}; run the recipe again") from None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a valid record: {error}; run the recipe again") from None


def upgrade(content: dict[str, Any]) -> dict[str, Any]:
    """Take a record of an older version to the present one, one step at a time. Raises ValueError."""
    while content["version"] != VERSION:
        if content["version"] not in UPGRADES:
            raise ValueError(f"version {content['version']} is unknown here (this program writes {VERSION})")
        content = UPGRADES[content["version"]](content)
    return content


def save(record: Record, path: Path) -> None:
    """Write a record whole, one top-level field per line."""
    fields = record.model_dump(mode="json").items()
    lines = [f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in fields]
    write_whole(path, "{\n" + ",\n".join(lines) + "\n}\n")


def load_all(runs: Path) -> dict[str, Record]:
    """Every record under `runs`, by name."""
    records = [load(path) for path in sorted(runs.glob("*/record.json"))]
    known = {record.name: record for record in records}
    for record in records:
        if record.base is not None and record.base not in known:
            raise InputError(f"{runs / record.name}: its base record {record.base} is missing; run the recipe again")
    return known


def write_whole(path: Path, text: str) -> None:
    """Write a file so that a reader sees all of it or none: temporary file beside it, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
