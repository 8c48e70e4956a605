"""`python -m results run RECIPE ...`: score the base once, then train and score one adapter per recipe."""

import re
import shutil
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from results import InputError, outputs, record
from results.record import Provenance, Record, Scores, Training
from results.sweep import shipped, stages
from results.sweep.stages import Stage

WRITTEN = ("README.md", "figures", "runs")  # under results/, by this program


@dataclass(frozen=True)
class Settings:
    """How everything in a sweep is scored; the same for base and adapters."""

    judge_model: str | None = None
    bench: str | None = None
    limit: int | None = None
    max_new_tokens: int = 1024
    backend: str = "hf"
    batch_size: int = 16
    ifeval: bool = False
    instruct: bool = False


@dataclass(frozen=True)
class Plan:
    """One record to be made: of a base model, or of a recipe's adapter on its base (then `base` names that folder)."""

    folder: Path
    base: Path | None
    model: dict[str, Any]
    stages: list[Stage]


def read_recipe(path: Path) -> dict[str, Any]:
    """A recipe; only its base model is looked at here, `python -m train` checks the rest.

    A base that ships with the project is named by its folder. Raises InputError.
    """
    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: cannot read the recipe ({' '.join(str(error).split())})"
        ) from None
    model = recipe.get("model_name_or_path") if isinstance(recipe, dict) else None
    if not isinstance(model, str):
        raise InputError(f"{path}: a recipe needs model_name_or_path; see train/recipes/")
    model = recipe["model_name_or_path"] = shipped.base_model(model)
    if not Path(model).is_dir() and not re.fullmatch(r"\w[\w.-]*/[\w.-]+", model):
        raise InputError(f"{path}: no model folder {model} here, nor is that a hub id (owner/name)")
    return recipe


def sweep(recipes: list[Path], settings: Settings, runs: Path) -> list[Plan]:
    """Plans in the order of work, each base before its first run. Raises InputError before any work."""
    recipes = [shipped.recipe_file(path) for path in recipes]
    if len({path.stem for path in recipes}) < len(recipes):
        raise InputError("two recipes have the same file name; a run is named after its recipe")
    plans: dict[Path, Plan] = {}
    for path in recipes:
        recipe = read_recipe(path)
        name, four_bit = recipe["model_name_or_path"], bool(recipe.get("load_in_4bit"))
        model = {"base": name, "base_sha256": stages.content(name), "load_in_4bit": four_bit}
        told = [*model.values(), *asdict(settings).values(), stages.content(stages.data_source())]
        base, run = (
            runs / f"base-{Path(name).name.lower()}-{stages.digest(map(str, told))[:8]}",
            runs / path.stem,
        )
        used = str(base / "model") if four_bit else name
        quantize = (
            [Stage(base, "quantize", ["train.quantize", name, used], [name], Path(used))]
            if four_bit
            else []
        )
        plans.setdefault(base, Plan(base, None, model, quantize + scoring(base, used, settings)))
        command = ["train", str(path), "--output_dir", str(run)]
        train = Stage(run, "train", command, [str(path), name], run / "train.json")
        rank = int(recipe.get("lora_r", 16))
        plans[run] = Plan(run, base, model, [train, *scoring(run, used, settings, rank)])
    return list(plans.values())


def scoring(folder: Path, model: str, settings: Settings, rank: int | None = None) -> list[Stage]:
    """TAT-QA, and what else the settings ask for; with a rank, of the adapter in `folder` on the model."""
    reads = [model, str(folder / "adapter_model.safetensors")] if rank else [model]
    tasks = ["tatqa", "ifeval"] if settings.ifeval else ["tatqa"]
    found = [
        Stage(folder, task, lm_eval(folder, task, model, settings, rank), reads, folder / task)
        for task in tasks
    ]
    benches = {"mtbench": settings.bench, **({"instruct": "instruct"} if settings.instruct else {})}
    for name, bench in benches.items() if settings.judge_model else ():
        out = folder / name
        arguments = [
            "mtbench_runner",
            "--model",
            model,
            *option("--adapter", folder if rank else None),
        ]
        arguments += [*option("--judge-model", settings.judge_model), *option("--data", bench)]
        arguments += ["--max-new-tokens", str(settings.max_new_tokens), "--model-id", folder.name]
        arguments += ["--out", str(out), "--json", str(out / "score.json")]
        found.append(Stage(folder, name, arguments, [*reads, str(bench_folder(bench))], out))
    return found


def lm_eval(folder: Path, task: str, model: str, settings: Settings, rank: int | None) -> list[str]:
    """Arguments of lm-evaluation-harness for one task."""
    adapter = (
        f",lora_local_path={folder},max_lora_rank={rank}"
        if settings.backend == "vllm"
        else f",peft={folder}"
    )
    return [
        "lm_eval", "run", "--tasks", task, "--model", settings.backend,
        "--model_args", f"pretrained={model},enable_thinking=False{adapter if rank else ''}",
        "--apply_chat_template", "--batch_size", str(settings.batch_size), *option("--limit", settings.limit),
        "--log_samples", "--output_path", str(folder / task),
    ]  # fmt: skip


def option(name: str, value: object) -> list[str]:
    return [name, str(value)] if value else []


def bench_folder(bench: str | None) -> Path:
    """Where mtbench_runner finds the bench: a folder, one it ships, or MT-Bench in its place."""
    shipped = stages.ROOT / "mtbench_runner" / "benches" / (bench or "")
    return (
        shipped
        if bench and not Path(bench).is_dir() and shipped.is_dir()
        else Path(bench or "data/mt_bench")
    )


def execute(plans: list[Plan], settings: Settings) -> None:
    """Do what is not done yet; the same call goes on after a kill and ends with the same scores."""
    for plan in plans:
        if plan.base and not plan.stages[0].done():
            stages.call([*plan.stages[0].arguments, "--dry-run"], f"{plan.folder.name}: check")
    for plan in plans:
        with stages.locked(plan.folder):
            for stage in plan.stages:
                stages.perform(stage)
            record.save(make_record(plan, settings), plan.folder / "record.json")


def make_record(plan: Plan, settings: Settings) -> Record:
    """The record of a plan whose stages are done, from the files they left."""
    training = Training(**outputs.read_json(plan.folder / "train.json")) if plan.base else None
    measured = {
        s.name: scores(s, plan.model) for s in plan.stages if s.name not in ("train", "quantize")
    }
    notes = {stage.name: stage.note() for stage in plan.stages}
    data = stages.data_source()
    return Record(
        name=plan.folder.name,
        base=plan.base.name if plan.base else None,
        model=plan.model,
        training=training,
        scores=measured,
        seconds={name: note["seconds"] for name, note in notes.items()},
        provenance=Provenance(
            commands=[note["command"] for note in notes.values()],
            settings=asdict(settings),
            git=git_state(),
            versions=stages.versions(),
            device=str(measured["tatqa"].circumstances["device"]),
            data={
                "source": "folder" if Path(data).is_dir() else data,
                "sha256": stages.content(data),
            },
            seeds={
                "train": training.recipe.get("seed") if training else None,
                "lm_eval": "0,1234,1234,1234",
            },
        ),
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


def git_state() -> dict[str, Any]:
    """Commit of the project's checkout, and whether anything but results differs from it; None where there is none."""
    git = ["git", "-C", str(stages.ROOT)]
    status = [
        "status",
        "--porcelain",
        "-uno",
        "--",
        ".",
        *(f":(exclude)results/{path}" for path in WRITTEN),
    ]
    try:
        commit, changes = (
            subprocess.run(
                [*git, *words], capture_output=True, text=True, check=True
            ).stdout.strip()
            for words in (["rev-parse", "HEAD"], status)
        )
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}
    return {"commit": commit, "dirty": bool(changes)}
