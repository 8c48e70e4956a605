"""What a run leaves beside the adapter: train.json and the curves of loss and rewards."""

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
    """The checkout's commit, and whether tracked files but results differ from it.

    None for an installed copy.
    """
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
