"""What a sweep must know of a recipe: base, form, rank.

The rest is for `python -m train RECIPE --check`, which execute.check starts before any work.
"""

import difflib
import glob
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from results import InputError
from results.sweep import shipped

SCHEMA = Path(__file__).resolve().parents[2] / "train" / "recipe.schema.json"  # its fields
HUB_ID = r"\w[\w.-]*/[\w.-]+"
TASKS = {"direct": "tatqa", "calc": "tatqa_calc"}  # the lm-eval task for each form of replies
REPORT = "tatqa-report"  # the report's folder, if none is given, among the runs
RUN_NAME = r"\w[\w.+=-]*"  # stays inside the folder of runs, and is one value of lm-eval's options


@dataclass(frozen=True)
class Recipe:
    """One run to be made: a recipe file, and the fields that were changed on the command line.

    fields: all of them, with the defaults of training's schema.
    """

    path: Path
    changes: tuple[str, ...]  # "field=value"
    fields: dict[str, Any]
    found_adapter: str | None = None  # where init_adapter is, if not where the file says

    @property
    def name(self) -> str:
        """The run's name: the file's, with what was changed."""
        changes = [re.sub(r"[^\w.=-]+", "-", change) for change in self.changes]
        return "+".join([self.path.stem, *changes])

    @property
    def base(self) -> str:
        """Folder or Hub id of the base model."""
        return str(self.fields["model_name_or_path"])

    @property
    def four_bit(self) -> bool:
        """Whether the base is used in 4 bits."""
        return bool(self.fields["load_in_4bit"])

    @property
    def task(self) -> str:
        """The lm-eval task that asks for replies in the recipe's form."""
        return TASKS[self.fields["form"]]

    @property
    def rank(self) -> int:
        """The adapter's rank."""
        return int(self.fields["lora_r"])

    @property
    def init_adapter(self) -> str | None:
        """The adapter that it trains on from, if any."""
        return self.found_adapter or self.fields["init_adapter"]

    @property
    def samples_itself(self) -> bool:
        """Whether it learns from sampled replies that are not there: those of its rounds."""
        if self.fields["strategy"] != "mined":
            return False
        return not any(glob.glob(pattern, recursive=True) for pattern in self.samples)

    @property
    def samples(self) -> list[str]:
        """Files of sampled replies that it learns from, as patterns."""
        given = self.fields["samples"] or []
        return [given] if isinstance(given, str) else [str(pattern) for pattern in given]

    def arguments(self) -> list[str]:
        """The recipe for `python -m train`: the file and what was changed."""
        words = [str(self.path)]
        for change in self.changes:
            name, _, value = change.partition("=")
            words += [f"--{name}", value]
        if self.found_adapter:
            words += ["--init_adapter", self.found_adapter]
        return words


def read(path: Path, changes: tuple[str, ...] = ()) -> Recipe:
    """A recipe with `field=value` changes, its base found by name if it ships.

    Raises InputError.
    """
    path = shipped.recipe_file(path)
    known = json.loads(SCHEMA.read_text(encoding="utf-8"))["properties"]
    fields = {name: field["default"] for name, field in known.items() if "default" in field}
    fields |= load(path) | changed(changes)
    check(path, fields, known)
    fields["model_name_or_path"] = shipped.base_model(fields["model_name_or_path"])
    recipe = Recipe(path, changes, fields)
    check_base(recipe)
    if not re.fullmatch(RUN_NAME, recipe.name) or recipe.name == REPORT:
        raise InputError(f"{path}: a run cannot be named {recipe.name!r}; rename the recipe")
    return recipe


def changed(changes: Iterable[str]) -> dict[str, Any]:
    """The fields that `--set` changes. Raises InputError."""
    found: dict[str, Any] = {}
    for change in changes:
        name, equals, value = change.partition("=")
        if not equals or not re.fullmatch(r"\w+", name):
            raise InputError(f"--set {change}: expected FIELD=VALUE")
        if name in found:
            raise InputError(f"--set {change}: {name} is set twice")
        found[name] = read_yaml(value, f"--set {change}: cannot read the value")
    return found


def load(path: Path) -> dict[str, Any]:
    """The fields in a recipe file. Raises InputError."""
    problem = f"{path}: cannot read the recipe"
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{problem} ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{problem} ({error})") from None
    fields = read_yaml(text, problem)
    return fields if isinstance(fields, dict) else {}


def read_yaml(text: str, problem: str) -> Any:
    """What a YAML text holds. Raises InputError, which begins with the problem."""
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{problem} ({reason})") from None


def check(path: Path, fields: dict[str, Any], known: Iterable[str]) -> None:
    """Raise InputError if a field is not known, or one that is used here has no possible value."""
    for key in fields:
        if key not in known:
            raise InputError(f"{path}: unknown key `{key}`; {nearest(str(key), known)}")
    if not isinstance(fields.get("model_name_or_path"), str):
        raise InputError(f"{path}: a recipe needs model_name_or_path; see train/recipes/")
    init = fields["init_adapter"]
    if not isinstance(init, str | None):
        raise InputError(f"{path}: init_adapter: expected a folder, found {init!r}")
    form = fields["form"]
    if form not in list(TASKS):
        raise InputError(f"{path}: form: expected {' or '.join(TASKS)}, found {form!r}")
    rank = fields["lora_r"]
    if not isinstance(rank, int) or rank < 1:
        raise InputError(f"{path}: lora_r: expected a whole number from 1 up, found {rank!r}")
    samples = fields["samples"]
    if not isinstance(samples, str | list):
        raise InputError(f"{path}: samples: expected files in a list, found {samples!r}")


def nearest(key: str, known: Iterable[str]) -> str:
    """A hint at the known word nearest to `key`."""
    close = difflib.get_close_matches(key, list(known), n=1, cutoff=0.5)
    return f"did you mean `{close[0]}`?" if close else "python -m train --help lists the fields"


def check_base(recipe: Recipe) -> None:
    """Raise InputError if the base is neither a folder nor a Hub id."""
    base = recipe.base
    if not Path(base).is_dir() and not re.fullmatch(HUB_ID, base):
        raise InputError(
            f"{recipe.path}: no model folder {base} here, nor is that a hub id (owner/name)"
        )
    if lacks_template(Path(base)):
        raise InputError(
            f"{recipe.path}: model folder {base} has no chat template, without which nothing is"
            " scored; take an instruction-tuned model, or put a chat_template.jinja into it"
        )
    if "," in base:
        raise InputError(f"{recipe.path}: model folder {base}: lm-eval's options hold no comma")


def lacks_template(base: Path) -> bool:
    """Whether a folder has a tokenizer's settings, and no chat template among them or beside."""
    try:
        settings = (base / "tokenizer_config.json").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    return "chat_template" not in settings and not any(base.glob("chat_template*"))
