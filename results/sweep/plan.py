"""What a sweep will do: one plan for each base and for each run, in the order of work."""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from results import InputError
from results.sweep import commands, shipped, stages
from results.sweep.commands import ADAPTER, CONFIG, SERVED, Scored, Settings
from results.sweep.recipes import Recipe
from results.sweep.stages import Stage

REPLACED = r'["<>:/|\\?*\[\]]+'  # by "__", where lm-eval names a folder after a model's path
LONGEST_NAME = 255  # bytes, on common file systems


@dataclass(frozen=True)
class Plan:
    """One record to be made: of a base model, or of a recipe's adapter on its base.

    `base` names the folder of the base's record, None for a base itself. `scored` is the model.
    """

    folder: Path
    base: Path | None
    scored: Scored
    identity: dict[str, Any]  # of the base model: name, hash, 4 bits
    quantize: Stage | None = None
    sampled: Scored | None = None  # whose replies the run learns from, if it does
    samples: list[Stage] = field(default_factory=list)
    train: Stage | None = None
    scoring: list[Stage] = field(default_factory=list)

    @property
    def preparing(self) -> list[Stage]:
        """All before scoring."""
        first = [self.quantize] if self.quantize else []
        last = [self.train] if self.train else []
        return [*first, *self.samples, *last]

    @property
    def stages(self) -> list[Stage]:
        """All stages in the order of work."""
        return [*self.preparing, *self.scoring]

    def recorded(self) -> bool:
        """Whether its record is there, and of these stages: an edited recipe's is of others."""
        if not (self.folder / "record.json").is_file():
            return False
        try:
            return all(stage.done() for stage in self.stages)
        except InputError:  # a note that is none any more: said when the stage was to be done
            return False

    @property
    def reads(self) -> set[str]:
        """Files that must be there before it can begin."""
        return {name for stage in self.preparing for name in stage.inputs}

    @property
    def adapter(self) -> str:
        """The file of its adapter."""
        return str(self.folder / ADAPTER)


@dataclass(frozen=True)
class Rounds:
    """On-policy training: how often, and how many replies to each training question."""

    number: int = 0
    replies: int = 4
    limit: int | None = None  # training questions of each answer type


def sweep(
    recipes: Sequence[Recipe],
    settings: Settings,
    runs: Path,
    memory: str | None = None,
    rounds: Rounds | None = None,
) -> list[Plan]:
    """Plans in the order of work, each base before its first run. Raises InputError."""
    recipes = [beside(recipe, recipes, runs) for recipe in recipes]
    rounds = rounds or Rounds()
    check_samples(recipes, rounds)
    plans: dict[Path, Plan] = {}
    for recipe in recipes:
        base = base_plan(recipe, settings, runs)
        plans.setdefault(base.folder, base)
        for run in run_plans(recipe, base, settings, runs, memory, rounds):
            if run.folder in plans:
                raise InputError(
                    f"two recipes have the same file name, {run.folder.name}; a run is named after"
                    " its recipe"
                )
            plans[run.folder] = run
    if settings.backend != SERVED:
        for plan in plans.values():
            check_length(plan.scored)
    check_adapters(recipes, [plan.adapter for plan in plans.values() if plan.train])
    return list(plans.values())


def beside(recipe: Recipe, recipes: Sequence[Recipe], runs: Path) -> Recipe:
    """The recipe, training on from the run of that name in `runs` if its init_adapter is nowhere.

    The shipped recipes name a run of the project's own folder, which another sweep has elsewhere.
    """
    if recipe.init_adapter is None or (Path(recipe.init_adapter) / ADAPTER).is_file():
        return recipe
    here = runs / Path(recipe.init_adapter).name
    if here == Path(recipe.init_adapter):
        return recipe
    made = any(runs / other.name == here for other in recipes)
    if not made and not (here / ADAPTER).is_file():
        return recipe
    return replace(recipe, found_adapter=str(here))


def check_samples(recipes: Sequence[Recipe], rounds: Rounds) -> None:
    """Raise InputError if a recipe learns from replies that are nowhere nor will be made."""
    for recipe in recipes:
        if recipe.samples_itself and not rounds.number:
            patterns = ", ".join(recipe.samples)
            missing = f"nothing matches {patterns}" if patterns else "none are named"
            raise InputError(
                f"{recipe.path}: samples: {missing}; --rounds 1 with --server samples them, or"
                f" python -m tatqa_task evaluate --tasks {recipe.task}_train --log_samples"
            )


def check_length(model: Scored) -> None:
    """Raise InputError for a path that is too long to be a folder's name.

    lm-eval makes one of it, and saves no score where it cannot.
    """
    path = str(model.adapter or model.base)
    name = re.sub(REPLACED, "__", path)
    if len(os.fsencode(name)) > LONGEST_NAME:
        raise InputError(
            f"{path}: lm-eval names a folder after this path, which is too long for that; change to"
            " a folder nearer to it and name it from there"
        )


def check_adapters(recipes: Sequence[Recipe], made: Sequence[str]) -> None:
    """Raise InputError if a recipe trains on from an adapter that is not there nor will be made."""
    for recipe in recipes:
        if recipe.init_adapter is None:
            continue
        folder = Path(recipe.init_adapter)
        missing = [name for name in (ADAPTER, CONFIG) if not (folder / name).is_file()]
        if missing and str(folder / ADAPTER) not in made:
            raise InputError(
                f"{recipe.path}: init_adapter: no {missing[0]} in {folder}, and no run here makes"
                f" it; run the recipe that makes it in the same command, before this one"
                f"{shipped_words(folder.name)}, or name another folder"
            )


def shipped_words(name: str) -> str:
    """How to say that the recipe of a run is among those that ship; "" if it is not."""
    ships = shipped.recipe_file(Path(name)).is_file()
    return f" (tatqa-bench run {name} ...)" if ships else ""


def base_plan(recipe: Recipe, settings: Settings, runs: Path) -> Plan:
    """The base of a recipe, in a folder named after all that its scores depend on."""
    name = recipe.base
    identity = {
        "base": name,
        "base_sha256": stages.content(name),
        "load_in_4bit": recipe.four_bit,
    }
    told = [*identity.values(), *told_settings(settings), stages.content(stages.data_source())]
    if recipe.task != "tatqa":
        told.append(recipe.task)
    folder = runs / f"base-{Path(name).name.lower()}-{stages.digest(map(str, told))[:8]}"
    quantize = commands.quantizing(folder, name) if recipe.four_bit else None
    used = str(quantize.output) if quantize else name
    scored = Scored(folder, used, recipe.task)
    scoring = commands.scoring(scored, settings)
    return Plan(folder, None, scored, identity, quantize=quantize, scoring=scoring)


def told_settings(settings: Settings) -> list[object]:
    """The settings in an order that never changes: names of base folders are made of them.

    A batch size that is not set stands as the 16 that it was when the first were named.
    """
    batch_size = 16 if settings.batch_size == "auto" else settings.batch_size
    return [
        settings.judge_model, settings.bench, settings.limit, settings.max_new_tokens,
        settings.backend, batch_size, settings.ifeval, settings.instruct,
    ]  # fmt: skip


def run_plans(
    recipe: Recipe, base: Plan, settings: Settings, runs: Path, memory: str | None, rounds: Rounds
) -> list[Plan]:
    """The runs of a recipe: one, or one for each round if it learns from its own replies."""
    if not rounds.number or not recipe.samples_itself:
        return [run_plan(runs / recipe.name, recipe, base, settings, memory)]
    found: list[Plan] = []
    init = Path(recipe.init_adapter) if recipe.init_adapter else None
    for number in range(1, rounds.number + 1):
        folder = runs / f"{recipe.name}-round{number}"
        found.append(round_plan(folder, recipe, base, settings, memory, init, rounds))
        init = folder
    return found


def run_plan(
    folder: Path, recipe: Recipe, base: Plan, settings: Settings, memory: str | None
) -> Plan:
    """A run that trains once."""
    scored = replace(base.scored, folder=folder, adapter=folder, rank=recipe.rank)
    return Plan(
        folder,
        base.folder,
        scored,
        base.identity,
        train=commands.training(recipe, folder, memory, []),
        scoring=commands.scoring(scored, settings),
    )


def round_plan(
    folder: Path,
    recipe: Recipe,
    base: Plan,
    settings: Settings,
    memory: str | None,
    init: Path | None,
    rounds: Rounds,
) -> Plan:
    """A run that samples replies of the adapter before it (or the base) and trains on from it."""
    sampled = replace(base.scored, folder=folder, adapter=init, rank=recipe.rank)
    samples = commands.sampling(folder, sampled, rounds.replies, rounds.limit)
    files = [str(stage.output / "*" / "samples_*.jsonl") for stage in samples]
    more = ["--samples", json.dumps(files)]
    if init:
        more += ["--init_adapter", str(init)]
    train = commands.training(replace(recipe, found_adapter=None), folder, memory, more)
    reads = [*train.inputs, *(str(stage.output) for stage in samples)]
    if init and str(init / ADAPTER) not in reads:
        reads.append(str(init / ADAPTER))
    plan = run_plan(folder, recipe, base, settings, memory)
    return replace(plan, sampled=sampled, samples=samples, train=replace(train, inputs=reads))
