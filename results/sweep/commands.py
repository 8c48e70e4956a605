"""The command lines of a sweep: what trains, samples and scores, as `python -m` arguments."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from results.sweep import processes
from results.sweep.recipes import Recipe
from results.sweep.server import NO_THINKING
from results.sweep.stages import MODEL, SERVER, Stage

EVALUATE = ["tatqa_task", "evaluate"]  # `lm_eval run` with the tasks of TAT-QA alone
TATQA = "tatqa"  # the stage that asks its questions, in any form
SERVED = "served"  # the backend's name where a server answers
CONCURRENT = 512  # requests in flight; vLLM runs at most 1024 on one H100 at once
TRIES = 6  # of a request, within 16 s: a server that others use may be busy
REQUEST_SECONDS = 600
FIRST_SEED = 1
FIXED_BATCH = 16  # where "auto" of lm-eval's own `hf` would be 1: a batch of the longest prompts
CONFIG = "adapter_config.json"  # beside it
ADAPTER = "adapter_model.safetensors"  # an adapter's weights, in its run's folder


Auto = Literal["auto"]  # as many prompts at once as are of use and fit into memory


@dataclass(frozen=True)
class Settings:
    """How everything in a sweep is scored; the same for base and adapters."""

    judge_model: str | None = None
    bench: str | None = None
    limit: int | None = None
    max_new_tokens: int = 1024
    backend: str = "hf"
    batch_size: int | Auto = "auto"  # of lm-eval without a server
    ifeval: bool = False
    instruct: bool = False


@dataclass(frozen=True)
class Scored:
    """A model to be scored: a base, or with `adapter` (a run folder) that adapter on it."""

    folder: Path
    base: str
    task: str
    adapter: Path | None = None
    rank: int = 0

    @property
    def inputs(self) -> list[str]:
        """What its scores depend on."""
        if self.adapter is None:
            return [self.base]
        return [self.base, str(self.adapter / ADAPTER)]


def scoring(model: Scored, settings: Settings) -> list[Stage]:
    """TAT-QA in the model's form, and what else the settings ask for."""
    found = [lm_eval_stage(TATQA, model.task, model, settings)]
    if settings.ifeval:
        found.append(lm_eval_stage("ifeval", "ifeval", model, settings))
    if settings.judge_model:
        found.append(judged_stage("mtbench", settings.bench, model, settings))
    if settings.judge_model and settings.instruct:
        found.append(judged_stage("instruct", "instruct", model, settings))
    return found


def lm_eval_stage(name: str, task: str, model: Scored, settings: Settings) -> Stage:
    """A task of lm-evaluation-harness, greedy."""
    output = model.folder / name
    program = ["lm_eval", "run"] if task == "ifeval" else EVALUATE
    arguments = [*program, "--tasks", task, *generating(model, settings, program)]
    arguments += ["--apply_chat_template", *option("--limit", settings.limit)]
    arguments += ["--log_samples", "--output_path", str(output)]
    return Stage(model.folder, name, arguments, model.inputs, output)


def generating(model: Scored, settings: Settings, program: list[str]) -> list[str]:
    """lm-eval's options for what generates."""
    if settings.backend == SERVED:
        return served()
    given: dict[str, object] = {"pretrained": model.base, "enable_thinking": False}
    if model.adapter and settings.backend == "vllm":
        given |= {"lora_local_path": str(model.adapter), "max_lora_rank": model.rank}
    elif model.adapter:
        given["peft"] = str(model.adapter)
    short_first = settings.backend == "hf" and program == EVALUATE
    backend = "hf-short-first" if short_first else settings.backend
    size = settings.batch_size
    if size == "auto" and backend == "hf":
        size = FIXED_BATCH
    return ["--model", backend, "--model_args", model_args(given), "--batch_size", str(size)]


def model_args(given: dict[str, object]) -> str:
    """lm-eval's `--model_args`, as JSON if it would not read a value as it stands.

    It splits at commas that are in no quotes or brackets, and takes words like `12` or `true` for
    numbers and the like.
    """
    if all(map(is_plain, given.values())):
        return ",".join(f"{name}={value}" for name, value in given.items())
    return json.dumps(given, ensure_ascii=False)


def is_plain(value: object) -> bool:
    """Whether lm-eval reads a value of `--model_args` as it stands."""
    if not isinstance(value, str):
        return True
    return "/" in value and not re.search(r"[,'\"(){}\[\]]", value)


def served(seed: int | None = None) -> list[str]:
    """lm-eval's options for a server: its own chat-completions client; with a seed, sampling."""
    given = f"model={MODEL},base_url={SERVER}/v1/chat/completions,num_concurrent={CONCURRENT}"
    given += f",max_retries={TRIES},timeout={REQUEST_SECONDS}"
    generation: dict[str, object] = dict(NO_THINKING)
    if seed is not None:
        given += f",seed={seed}"
        generation |= {"do_sample": True, "temperature": 1.0, "top_p": 1.0}
    return [
        "--model", "local-chat-completions", "--model_args", given,
        "--gen_kwargs", json.dumps(generation),
    ]  # fmt: skip


def sampling(folder: Path, model: Scored, replies: int, limit: int | None) -> list[Stage]:
    """`replies` replies to every training question, sampled at temperature 1.

    One command for each reply, with a seed of its own: a server gives requests of one prompt and
    one seed the same reply, and lm-eval sends one seed in all its requests.
    """
    found = []
    for seed in range(FIRST_SEED, FIRST_SEED + replies):
        name = f"samples-{seed}"
        output = folder / name
        arguments = [*EVALUATE, "--tasks", f"{model.task}_train", *served(seed)]
        arguments += ["--apply_chat_template", *option("--limit", limit)]
        arguments += ["--log_samples", "--output_path", str(output)]
        found.append(Stage(folder, name, arguments, model.inputs, output))
    return found


def judged_stage(name: str, bench: str | None, model: Scored, settings: Settings) -> Stage:
    """A bench of mtbench_runner: answers, judged."""
    output = model.folder / name
    arguments = ["mtbench_runner", *answering(model, settings)]
    arguments += [*option("--judge-model", settings.judge_model), *option("--data", bench)]
    arguments += ["--max-new-tokens", str(settings.max_new_tokens)]
    arguments += ["--model-id", model.folder.name]
    arguments += ["--out", str(output), "--json", str(output / "score.json")]
    inputs = [*model.inputs, str(bench_folder(bench))]
    return Stage(model.folder, name, arguments, inputs, output)


def answering(model: Scored, settings: Settings) -> list[str]:
    """mtbench_runner's options for what answers."""
    if settings.backend == SERVED:
        return ["--model", MODEL, "--answers-from", f"{SERVER}/v1"]
    return ["--model", model.base, *option("--adapter", model.adapter)]


def bench_folder(bench: str | None) -> Path:
    """Where mtbench_runner finds the bench: a folder, one it ships, or MT-Bench in its place."""
    shipped = processes.ROOT / "mtbench_runner" / "benches" / (bench or "")
    if bench and not Path(bench).is_dir() and shipped.is_dir():
        return shipped
    return Path(bench or "data/mt_bench")


def bench_check(bench: str) -> list[str]:
    """`python -m mtbench_runner` that reads a bench and does no more."""
    return ["mtbench_runner", "score", "--model-id", "any", "--data", bench, "--check"]


def training(recipe: Recipe, folder: Path, memory: str | None, more: list[str]) -> Stage:
    """`python -m train` for a recipe, with `more` of its options and what else those read."""
    arguments = ["train", *recipe.arguments(), *option("--memory", memory), *more]
    arguments += ["--output_dir", str(folder)]
    inputs = [str(recipe.path), recipe.base]
    if recipe.init_adapter and "--init_adapter" not in more:
        inputs.append(str(Path(recipe.init_adapter) / ADAPTER))
    return Stage(folder, "train", arguments, inputs, folder / "train.json")


def quantizing(folder: Path, base: str) -> Stage:
    """The base in 4 bits, written once for all that score it."""
    output = folder / "model"
    arguments = ["train.quantize", base, str(output)]
    return Stage(folder, "quantize", arguments, [base], output)


def option(name: str, value: object) -> list[str]:
    """A command-line option, if it has a value."""
    return [name, str(value)] if value else []
