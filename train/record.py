"""What a run leaves beside the adapter: train.json, loss and reward curves, the model card."""

import json
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from tatqa_task.data import write_whole

PACKAGES = ("torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate", "datasets")
CURVES = {
    "loss": "loss",
    "reward accuracy": "rewards/accuracies",
    "reward margin": "rewards/margins",
    "beta": "beta",
}
CARD = Path(__file__).with_name("card.md")
SHOWN = (
    "loss_type", "beta", "learning_rate", "num_train_epochs", "effective_batch_size", "lora_r", "lora_alpha",
    "lora_dropout", "lora_target_modules", "load_in_4bit", "max_prompt_length", "seed",
)  # fmt: skip
METHODS = {
    "sigmoid": "DPO (Rafailov et al., 2023)",
    "sft": "supervised fine-tuning on the chosen replies",
}
STRATEGIES = {
    "corrupt": "gold answers against wrong ones made by rule",
    "log": "gold answers against wrong ones by the experiment log's rule",
    "mined": "gold answers against the base model's own wrong replies",
}


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON whole."""
    write_whole(path, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())


def surroundings() -> dict[str, Any]:
    """Package versions, the checkout's commit and the device."""
    cpu = f"cpu ({platform.machine()}, {torch.get_num_threads()} threads)"
    return {
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in PACKAGES},
        },
        "git": git_state(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else cpu,
    }


def git_state() -> dict[str, Any] | None:
    """The checkout's commit, and whether tracked files but results differ from it; None for an installed copy."""
    git = ["git", "-C", str(Path(__file__).parents[1])]
    status = ["status", "--porcelain", "-uno", "--", ".", ":(exclude)results"]
    try:
        commit, changes = (
            subprocess.run(
                [*git, *words], capture_output=True, text=True, check=True
            ).stdout.strip()
            for words in (["rev-parse", "HEAD"], status)
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "dirty": bool(changes)}


def draw(history: Sequence[Mapping[str, float]], path: Path) -> None:
    """The curves of a run as one SVG: loss, reward accuracy, reward margin, beta over steps."""
    figure = Figure(figsize=(3.2 * len(CURVES), 2.6), layout="constrained")
    for axis, (title, key) in zip(figure.subplots(1, len(CURVES)), CURVES.items(), strict=True):
        names = [key, *sorted(name for name in history[0] if name.startswith(f"{title}/"))]
        names = [name for name in names if name in history[0]]  # supervised: no rewards
        for name in names:
            axis.plot(
                [e["step"] for e in history], [e[name] for e in history], linewidth=1, label=name
            )
        axis.set(title=title, xlabel="step")
        if len(names) > 1:
            axis.legend(fontsize="x-small")
    figure.savefig(path, metadata={"Date": None})


def card(facts: Mapping[str, Any], name: str) -> str:
    """A model card that claims what was done, and no score."""
    recipe, last = facts["recipe"], facts["history"][-1]
    rows = {key: recipe[key] for key in SHOWN}
    rows["last step"] = f"loss {last['loss']:.4f}"
    if "rewards/accuracies" in last:
        rows["last step"] += f", reward accuracy {last['rewards/accuracies']:.2f}"
    rows["trained on"] = f"{facts['device']}, {facts['seconds']:.0f} s"
    return CARD.read_text(encoding="utf-8").format(
        **facts,
        name=name,
        strategy=STRATEGIES[recipe["strategy"]],
        method=" plus ".join(
            METHODS.get(loss, f"TRL's `{loss}` loss") for loss in recipe["loss_type"]
        ),
        rows="\n".join(f"| {key} | {value} |" for key, value in rows.items()),
    )
