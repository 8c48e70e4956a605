"""`python -m results run RECIPE ...`: score the base once, then train and score one adapter per recipe, then report."""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from results import outputs, record, stages
from results.record import InputError, Provenance, Record, Scores
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
    runs: Path = Path("results/runs")


@dataclass(frozen=True)
class Plan:
    """One record to be made: the model, where it is kept, and the stages that score (and first train) it."""

    name: str
    folder: Path
    base: "Plan | None"
    recipe: dict[str, Any]
    model: str
    stages: list[Stage]


def read_recipe(path: Path) -> dict[str, Any]:
    """The two fields needed here; `python -m train` checks the rest. Raises InputError."""
    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot read the recipe ({' '.join(str(error).split())})") from None
    model = recipe.get("model_name_or_path") if isinstance(recipe, dict) else None
    if not isinstance(model, str):
        raise InputError(f"{path}: a recipe needs model_name_or_path; see train/recipes/")
    if not Path(model).is_dir() and (model.count("/") != 1 or model[0] in "./~"):
        raise InputError(f"{path}: no model folder {model} here, nor is that a hub id (owner/name)")
    return dict(recipe)


def plan_base(recipe: dict[str, Any], settings: Settings) -> Plan:
    """The base model of a recipe, scored with these settings; recipes that agree on both share it."""
    base, four_bit = recipe["model_name_or_path"], bool(recipe.get("load_in_4bit"))
    scored = {k: str(v) for k, v in vars(settings).items() if k not in ("runs", "ifeval", "instruct")}
    told = json.dumps([stages.content(base), four_bit, scored, stages.content(os.environ.get("TATQA_DATA", ""))])
    name = f"base-{Path(base).name.lower()}-{hashlib.sha256(told.encode()).hexdigest()[:8]}"
    folder = settings.runs / name
    model = str(folder / "model") if four_bit else base
    quantize = Stage(folder, "quantize", ["train.quantize", base, model], [base], Path(model))
    scoring = score_stages(folder, name, model, None, settings)
    return Plan(name, folder, None, recipe, model, [quantize, *scoring] if four_bit else scoring)


def plan_run(path: Path, settings: Settings) -> Plan:
    """One recipe: train, then score the adapter as its base was scored."""
    recipe = read_recipe(path)
    base, folder = plan_base(recipe, settings), settings.runs / path.stem
    weights = folder / "adapter_model.safetensors"
    train = Stage(folder, "train", ["train", str(path), "--output_dir", str(folder)],
                  [str(path), recipe["model_name_or_path"]], weights)  # fmt: skip
    rank = int(recipe.get("lora_r", 16))
    scoring = score_stages(folder, path.stem, base.model, folder, settings, rank)
    return Plan(path.stem, folder, base, recipe, base.model, [train, *scoring])


def score_stages(
    folder: Path, name: str, model: str, adapter: Path | None, settings: Settings, rank: int = 16
) -> list[Stage]:
    """TAT-QA, and what else the settings ask for, on one model."""
    reads = [model, *([str(adapter / "adapter_model.safetensors")] if adapter else [])]
    tasks = ["tatqa", *(["ifeval"] if settings.ifeval else [])]
    found = [lm_eval_stage(folder, task, model, adapter, settings, rank, reads) for task in tasks]
    benches = {"mtbench": settings.bench, **({"instruct": "instruct"} if settings.instruct else {})}
    for stage, bench in benches.items() if settings.judge_model else ():
        found.append(judged_stage(folder, stage, bench, name, model, adapter, str(settings.judge_model), reads))
    return found


def lm_eval_stage(
    folder: Path, task: str, model: str, adapter: Path | None, settings: Settings, rank: int, reads: list[str]
) -> Stage:
    arguments = [f"pretrained={model}", "enable_thinking=False"]
    if adapter and settings.backend == "vllm":
        arguments += [f"lora_local_path={adapter}", f"max_lora_rank={rank}"]
    elif adapter:
        arguments.append(f"peft={adapter}")
    command = ["lm_eval", "run", "--model", settings.backend, "--model_args", ",".join(arguments), "--tasks", task]
    command += ["--apply_chat_template", "--batch_size", str(settings.batch_size)]
    command += ["--limit", str(settings.limit)] if settings.limit else []
    command += ["--log_samples", "--output_path", str(folder / task)]
    return Stage(folder, task, command, [*reads, str(stages.ROOT / "tatqa_task")], folder / task)


def judged_stage(
    folder: Path,
    stage: str,
    bench: str | None,
    name: str,
    model: str,
    adapter: Path | None,
    judge: str,
    reads: list[str],
) -> Stage:
    out = folder / stage
    command = ["mtbench_runner", "--model", model, *(["--adapter", str(adapter)] if adapter else [])]
    command += ["--data", bench] if bench else []
    command += ["--out", str(out), "--model-id", name, "--judge-model", judge, "--json", str(out / "score.json")]
    return Stage(folder, stage, command, [*reads, str(bench_folder(bench))], out / "score.json")


def bench_folder(bench: str | None) -> Path:
    """Where mtbench_runner finds the bench: a folder, one it ships, or MT-Bench in its place."""
    shipped = stages.ROOT / "mtbench_runner" / "benches" / (bench or "")
    return shipped if bench and not Path(bench).is_dir() and shipped.is_dir() else Path(bench or "data/mt_bench")


def sweep(recipes: list[Path], settings: Settings) -> list[Plan]:
    """Plans in the order of work, each base before its first run. Raises InputError on any recipe, before any work."""
    if len({path.stem for path in recipes}) < len(recipes):
        raise InputError("two recipes have the same file name; a run is named after its recipe")
    plans: dict[str, Plan] = {}
    for path in recipes:
        run = plan_run(path, settings)
        assert run.base
        plans.setdefault(run.base.name, run.base)
        plans[run.name] = run
    return list(plans.values())


def execute(plans: list[Plan]) -> None:
    """Do what is not done yet; the same call goes on after a kill and ends with the same records."""
    for plan in plans:
        with stages.locked(plan.folder):
            for stage in plan.stages:
                stages.perform(stage, say)
            record.save(make_record(plan), plan.folder / "record.json")


def say(text: str) -> None:
    sys.stderr.write(text + "\n")


def make_record(plan: Plan) -> Record:
    """The record of a plan whose stages are done, from the files they left."""
    train = plan.folder / "train.json"
    training = outputs.read_json(train) if plan.base else None
    return Record(
        name=plan.name,
        base=plan.base.name if plan.base else None,
        model={
            "base": plan.recipe["model_name_or_path"],
            "base_sha256": stages.content(plan.recipe["model_name_or_path"]),
            "load_in_4bit": bool(plan.recipe.get("load_in_4bit")),
            "adapter_sha256": stages.content(str(plan.folder / "adapter_model.safetensors")) if plan.base else None,
        },
        training=training,
        scores={stage.name: scores(stage) for stage in plan.stages if stage.name not in ("train", "quantize")},
        seconds={stage.name: stages.state(stage)["seconds"] for stage in plan.stages},
        provenance=provenance(plan, training or {}),
    )


def scores(stage: Stage) -> Scores:
    if stage.arguments[0] == "lm_eval":
        return outputs.lm_eval_scores(stage.output)
    questions = Path(stage.inputs[-1]) / "question.jsonl"
    return outputs.mtbench_scores(stage.output, questions)


def provenance(plan: Plan, training: dict[str, Any]) -> Provenance:
    data = os.environ.get("TATQA_DATA")
    named = "folder" if data and Path(data).is_dir() else data or "official"
    return Provenance(
        commands=[stages.state(stage)["command"] for stage in plan.stages],
        git=git_state(),
        versions=stages.versions(),
        device=str(training.get("device", "")),
        data={"source": named, "sha256": stages.content(data) if named == "folder" and data else None},
        seeds={"train": plan.recipe.get("seed", 42), "lm_eval": "0,1234,1234,1234"},
    )


def git_state() -> dict[str, Any]:
    """Commit and dirty flag of the project's own checkout; None where there is none."""
    try:
        git = ["git", "-C", str(stages.ROOT)]
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        status = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}
    return {"commit": commit, "dirty": bool(status.stdout.strip())}
