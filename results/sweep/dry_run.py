"""The commands of a sweep as a person would paste them."""

import shlex
import sys
from collections.abc import Sequence

from results.sweep import vllm
from results.sweep.commands import Scored
from results.sweep.execute import VLLM, Serving
from results.sweep.plan import Plan
from results.sweep.stages import MODEL, SERVER, Stage

PORT = 8000  # vLLM's own


def lines(plans: Sequence[Plan], serving: Serving) -> list[str]:
    """What is not done yet, in order; with a server, also its start and its adapters."""
    found: list[str] = []
    for plan in plans:
        found += stage_lines(plan.preparing, plan.sampled, serving)
        found += stage_lines(plan.scoring, plan.scored, serving)
    return found


def stage_lines(stages: Sequence[Stage], model: Scored | None, serving: Serving) -> list[str]:
    """The commands of some stages, those of a server before the first that needs it."""
    found: list[str] = []
    loaded = False
    for stage in stages:
        if stage.done():
            continue
        served = SERVER in " ".join(stage.arguments)
        if served and model and not loaded:
            found += server_lines(model, serving)
            loaded = True
        names = {SERVER: url(serving), MODEL: name(model)} if served and model else {}
        found.append(stage.command(sys.executable, names))
    return found


def server_lines(model: Scored, serving: Serving) -> list[str]:
    """How to serve a model by hand."""
    found = []
    if model.adapter is None and serving.where == VLLM:
        words = vllm.serve_words("vllm", model.base, serving.rank, serving.memory, PORT)
        setting = "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"
        found.append(f"{setting} {shlex.join(words)} &  # wait until it answers")
    if model.adapter is not None:
        body = f'{{"lora_name": "{name(model)}", "lora_path": "{model.adapter.resolve()}"}}'
        header = "Content-Type: application/json"
        call = ["curl", f"{url(serving)}/v1/load_lora_adapter", "-H", header, "-d", body]
        found.append(shlex.join(call))
    return found


def url(serving: Serving) -> str:
    """Where the server answers."""
    if serving.where == VLLM:
        return f"http://127.0.0.1:{PORT}"
    return str(serving.where).rstrip("/").removesuffix("/v1")


def name(model: Scored | None) -> str:
    """What the server calls a model; an adapter that is not there yet has its folder's name."""
    if model is None or model.adapter is None:
        return vllm.BASE_NAME
    return model.adapter.name
