"""`python -m results run RECIPE ...`: score the base once, then train and score one adapter per recipe."""

import re
import shutil
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from results import outputs, record, stages
from results.record import InputError, Record, Scores
from results.stages import Stage


@dataclass(frozen=True)
class Settings:
    """How everything in a sweep is scored; the same for base and adapters."""

    judge_model: str | None = None
    bench: str | None = None
    limit: int | None = None
    backend: str = "hf"
    batch_size: int = 16
    ifeval: bool = False
    instruct: bool = False


@dataclass(frozen=True)
class Plan:
    """One record to be made: of a base model, or of a recipe's adapter (then `base` is its base's plan)."""

    folder: Path
    recipe: dict[str, Any]
    model: str
    base: "Plan | None"
    stages: list[Stage]


def read_recipe(path: Path) -> dict[str, Any]:
    """A recipe; only its base model is looked at here, `python -m train` checks the rest. Raises InputError."""
    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot read the recipe ({' '.join(str(error).split())})") from None
    model = recipe.get("model_name_or_path") if isinstance(recipe, dict) else None
    if not isinstance(model, str):
        raise InputError(f"{path}: a recipe needs model_name_or_path; see train/recipes/")
    if not Path(model).is_dir() and not re.fullmatch(r"\w[\w.-]*/[\w.-]+", model):
        raise InputError(f"{path}: no model folder {model} here, nor is that a hub id (owner/name)")
    return recipe


def sweep(recipes: list[Path], settings: Settings, runs: Path) -> list[Plan]:
    """Plans in the order of work, each base before its first run. Raises InputError before any work."""
    if len({path.stem for path in recipes}) < len(recipes):
        raise InputError("two recipes have the same file name; a run is named after its recipe")
    plans: dict[Path, Plan] = {}
    for path in recipes:
        recipe = read_recipe(path)
        base = plan_base(recipe, settings, runs)
        plans.setdefault(base.folder, base)
        run = plan_run(path, recipe, base, settings, runs / path.stem)
        plans[run.folder] = run
    return list(plans.values())


def plan_base(recipe: dict[str, Any], settings: Settings, runs: Path) -> Plan:
    """Score the base model; recipes that agree on base, quantisation and settings share this."""
    base, four_bit = str(recipe["model_name_or_path"]), bool(recipe.get("load_in_4bit"))
    identity = [base, stages.content(base), str(four_bit), *map(str, asdict(settings).values())]
    identity.append(stages.content(stages.data_source()))
    folder = runs / f"base-{Path(base).name.lower()}-{stages.digest(identity)[:8]}"
    model = folder / "model"
    quantize = [Stage(folder, "quantize", ["train.quantize", base, str(model)], [base], model)] if four_bit else []
    used = str(model) if four_bit else base
    return Plan(folder, recipe, used, None, quantize + scoring(folder, used, settings))


def plan_run(path: Path, recipe: dict[str, Any], base: Plan, settings: Settings, folder: Path) -> Plan:
    """Train one recipe's adapter and score it as its base was scored."""
    command, inputs = ["train", str(path), "--output_dir", str(folder)], [str(path), str(recipe["model_name_or_path"])]
    train = Stage(folder, "train", command, inputs, folder / "train.json")
    rank = int(recipe.get("lora_r", 16))
    return Plan(folder, recipe, base.model, base, [train, *scoring(folder, base.model, settings, rank)])


def scoring(folder: Path, model: str, settings: Settings, rank: int | None = None) -> list[Stage]:
    """TAT-QA, and what else the settings ask for; with a rank, of the adapter in `folder` on the model."""
    reads = [model, *([str(folder / "adapter_model.safetensors")] if rank else [])]
    tasks = ["tatqa", *(["ifeval"] if settings.ifeval else [])]
    benches = {"mtbench": settings.bench, **({"instruct": "instruct"} if settings.instruct else {})}
    found = [Stage(folder, t, lm_eval(folder, t, model, settings, rank), reads, folder / t) for t in tasks]
    for name, bench in benches.items() if settings.judge_model else ():
        arguments = ["mtbench_runner", "--model", model, *(["--adapter", str(folder)] if rank else [])]
        arguments += ["--judge-model", str(settings.judge_model), *(["--data", bench] if bench else [])]
        arguments += ["--model-id", folder.name, "--out", str(folder / name)]
        arguments += ["--json", str(folder / name / "score.json")]
        found.append(Stage(folder, name, arguments, [*reads, str(bench_folder(bench))], folder / name))
    return found


def lm_eval(folder: Path, task: str, model: str, settings: Settings, rank: int | None) -> list[str]:
    """Arguments of lm-evaluation-harness for one task."""
    adapter = f",lora_local_path={folder},max_lora_rank={rank}" if settings.backend == "vllm" else f",peft={folder}"
    return [
        "lm_eval", "run", "--tasks", task, "--model", settings.backend,
        "--model_args", f"pretrained={model},enable_thinking=False{adapter if rank else ''}",
        "--apply_chat_template", "--batch_size", str(settings.batch_size),
        *(["--limit", str(settings.limit)] if settings.limit else []),
        "--log_samples", "--output_path", str(folder / task),
    ]  # fmt: skip


def bench_folder(bench: str | None) -> Path:
    """Where mtbench_runner finds the bench: a folder, one it ships, or MT-Bench in its place."""
    shipped = stages.ROOT / "mtbench_runner" / "benches" / (bench or "")
    return shipped if bench and not Path(bench).is_dir() and shipped.is_dir() else Path(bench or "data/mt_bench")


def execute(plans: list[Plan]) -> None:
    """Do what is not done yet; the same call goes on after a kill and ends with the same scores."""
    for plan in plans:
        if plan.base and not plan.stages[0].done():
            stages.call([*plan.stages[0].arguments, "--dry-run"], f"{plan.folder.name}: check")
    for plan in plans:
        with stages.locked(plan.folder):
            for stage in plan.stages:
                stages.perform(stage)
            record.save(make_record(plan), plan.folder / "record.json")


def make_record(plan: Plan) -> Record:
    """The record of a plan whose stages are done, from the files they left."""
    base = str(plan.recipe["model_name_or_path"])
    model: dict[str, Any] = {"base": base, "base_sha256": stages.content(base), "load_in_4bit": plan.model != base}
    training = outputs.read_json(plan.folder / "train.json") if plan.base else None
    measured = {s.name: scores(s, model) for s in plan.stages if s.name not in ("train", "quantize")}
    return Record(
        name=plan.folder.name,
        base=plan.base.folder.name if plan.base else None,
        model=model,
        training=training,
        scores=measured,
        seconds={stage.name: stage.note()["seconds"] for stage in plan.stages},
        provenance=provenance(plan, measured["tatqa"].circumstances["device"]),
    )


def scores(stage: Stage, model: dict[str, Any]) -> Scores:
    """A stage's scores, tied to the base model they belong to."""
    if stage.arguments[0] == "lm_eval":
        found = outputs.lm_eval_scores(stage.output)
    else:
        questions = shutil.copy(Path(stage.inputs[-1]) / "question.jsonl", stage.output)
        found = outputs.mtbench_scores(stage.output / "score.json", Path(questions))
    found.identity["base model"] = [model["base_sha256"], model["load_in_4bit"]]
    return found


def provenance(plan: Plan, device: Any) -> dict[str, Any]:
    """Where the numbers come from: commands, code, packages, data, seeds, device."""
    data = stages.data_source()
    folder = Path(data).is_dir()
    return {
        "commands": [stage.note()["command"] for stage in plan.stages],
        "git": git_state(),
        "versions": stages.versions(),
        "device": device,
        "data": {"source": "folder" if folder else data, "sha256": stages.content(data) if folder else None},
        "seeds": {"train": plan.recipe.get("seed"), "lm_eval": "0,1234,1234,1234"},
    }


def git_state() -> dict[str, Any]:
    """Commit and dirty flag of the project's own checkout; None where there is none."""
    git = ["git", "-C", str(stages.ROOT)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        status = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}
    return {"commit": commit, "dirty": bool(status.stdout.strip())}
