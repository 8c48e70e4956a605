"""The record of a plan whose stages are done, made of the files they left."""

import shutil
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from results import InputError, examples, outputs, record
from results.record import Provenance, Record, Scores, Training
from results.sweep import processes, stages
from results.sweep.commands import Settings
from results.sweep.plan import Plan
from results.sweep.stages import Stage

COURSES = ("history", "logps")  # of train.json: an entry for every step
KEPT_STEPS = 200
DIGITS = 5
OURS = ("run.lock", "record.json", "run.json", "train.json")
# Under results/, by this program; what it wrote makes no code dirty.
WRITTEN = ("README.md", "figures", "report.manifest.json", "report/log/README.md", "runs")


def write_record(plan: Plan, settings: Settings) -> None:
    """Write record.json of a plan that is done. Raises InputError if it is not ours to replace."""
    path = plan.folder / "record.json"
    if path.is_file():
        replaceable(path, plan.folder.name)
    record.save(make_record(plan, settings), path)


def check_folder(folder: Path) -> None:
    """Before any work: raise InputError if somebody else's files are where a run is to be."""
    if not folder.is_dir():
        if folder.exists() or folder.is_symlink():
            raise InputError(f"{folder} is no folder; rename the recipe or give other --runs")
        return
    names = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
    if names and not any(is_of_a_run(name) for name in names):
        raise InputError(
            f"{folder}: holds {min(names)}, which no run wrote; rename the recipe or give other"
            " --runs"
        )
    if "record.json" in names:
        replaceable(folder / "record.json", folder.name)


def is_of_a_run(name: str) -> bool:
    """Is this one of the files that a run, or a training without a sweep, writes first or last?"""
    return name in OURS or name.endswith(".stage.json")


def replaceable(path: Path, name: str) -> None:
    """Raise InputError unless the file is a record of this run."""
    try:
        found = record.load(path)
    except InputError:
        found = None
    if found is None or found.name != name:
        raise InputError(f"{path}: in the way, not a record of {name}; move it away")


def make_record(plan: Plan, settings: Settings) -> Record:
    """The record of a plan whose stages are done."""
    training = None
    if plan.train:
        training = read_training(plan.folder / "train.json")
    model = {**plan.identity, **hub_revision(plan.identity["base"])}
    measured = {stage.name: scores(stage, model) for stage in plan.scoring}
    return Record(
        name=plan.folder.name,
        base=plan.base.name if plan.base else None,
        model=model,
        training=training,
        scores=measured,
        seconds=seconds(plan),
        provenance=provenance(plan, settings, training, measured),
        examples=changed_replies(plan),
    )


def seconds(plan: Plan) -> dict[str, float]:
    """Seconds of every stage, and of starting the server if the run waited for one."""
    found = {stage.name: float(stage.note()["seconds"]) for stage in plan.stages}
    waited = sum(stages.server_seconds(plan.folder).values())
    if waited:
        found["server"] = round(waited, 1)
    return found


def provenance(
    plan: Plan, settings: Settings, training: Training | None, measured: dict[str, Scores]
) -> Provenance:
    """Where the scores come from."""
    training_seed = training.recipe.get("seed") if training else None
    return Provenance(
        commands=[stage.note()["command"] for stage in plan.stages],
        settings=asdict(settings),
        git=git_state(),
        versions=stages.versions(),
        device=device(measured),
        data=data(),
        seeds={"train": training_seed, "lm_eval": lm_eval_seeds(plan)},
    )


def read_training(path: Path) -> Training:
    """What a training left about itself. Raises InputError if it is that no more."""
    facts = outputs.read_json(path)
    try:
        return Training(**shortened(facts))
    except (ValidationError, AttributeError, TypeError):
        raise InputError(
            f"{path}: not what a training leaves; move it away, and the same command trains again"
        ) from None


def shortened(facts: dict[str, Any]) -> dict[str, Any]:
    """Facts of a training, with few of its steps and no path of this machine."""
    courses = {name: facts[name] for name in COURSES if isinstance(facts.get(name), list)}
    kept = facts | {name: some(course) for name, course in courses.items()}
    if isinstance(facts.get("command"), list):
        kept["command"] = [stages.from_here(word) for word in facts["command"]]
    return kept


def some(course: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """At most `KEPT_STEPS` steps at equal distances and the last one, with rounded values."""
    distance = -(-len(course) // KEPT_STEPS)  # rounded up
    kept = course[:: max(distance, 1)]
    if course and kept[-1] is not course[-1]:
        kept.append(course[-1])
    return [{name: rounded(value) for name, value in step.items()} for step in kept]


def rounded(value: Any) -> Any:
    """A number to `DIGITS` significant digits; whole numbers and anything else as they are."""
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def tatqa_folders(plan: Plan) -> dict[str, Path]:
    """The samples of every form of TAT-QA that a plan scored."""
    return {stage.name: stage.output for stage in plan.scoring if stage.name.startswith("tatqa")}


def lm_eval_seeds(plan: Plan) -> dict[str, Any]:
    """The seeds that lm-eval says it used."""
    folders = list(tatqa_folders(plan).values())
    return outputs.seeds(folders[0]) if folders else {}


def changed_replies(plan: Plan) -> list[record.Example]:
    """A few replies that changed against the base."""
    if plan.base is None:
        return []
    return examples.between(plan.base, plan.folder, list(tatqa_folders(plan)))


def device(measured: dict[str, Scores]) -> str:
    """What scored, as lm-eval names it."""
    named = [scores.circumstances.get("device") for scores in measured.values()]
    return str(next((name for name in named if name), "unknown"))


def data() -> dict[str, Any]:
    """Where the questions come from, with a hash of their files."""
    source = stages.data_source()
    name = "folder" if Path(source).is_dir() else source
    return {"source": name, "sha256": stages.content(source)}


def scores(stage: Stage, model: dict[str, Any]) -> Scores:
    """A stage's scores, tied to the base model they belong to."""
    if stage.arguments[0] != "mtbench_runner":
        found = outputs.lm_eval_scores(stage.output)
    else:
        questions = shutil.copy(Path(stage.inputs[-1]) / "question.jsonl", stage.output)
        found = outputs.mtbench_scores(stage.output / "score.json", Path(questions))
    found.identity["base model"] = [model["base_sha256"], model["load_in_4bit"]]
    if "revision" in model:
        found.circumstances["base revision"] = model["revision"]
    return found


def hub_revision(base: str) -> dict[str, str]:
    """The commit at which the Hub's cache on this machine holds a base; {} for a folder."""
    if Path(base).exists():
        return {}
    from huggingface_hub import try_to_load_from_cache  # slow to import

    try:
        config = try_to_load_from_cache(base, "config.json")
    except ValueError:  # no name that the Hub could have
        return {}
    return {"revision": Path(config).parent.name} if isinstance(config, str) else {}


def git_state() -> dict[str, Any]:
    """Commit of the project's checkout, and whether anything but results differs from it.

    None for both where there is no checkout.
    """
    git = ["git", "-C", str(processes.ROOT)]
    but_results = [f":(exclude)results/{path}" for path in WRITTEN]
    try:
        commit = said([*git, "rev-parse", "HEAD"])
        changes = said([*git, "status", "--porcelain", "-uno", "--", ".", *but_results])
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}
    return {"commit": commit, "dirty": bool(changes)}


def said(command: list[str]) -> str:
    """What a command prints. Raises CalledProcessError."""
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.strip()
