"""What a run writes down beside its adapter: train.json, and where it was made."""

import json
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from tatqa_task.files import write_whole

PACKAGES = ("torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate", "datasets")


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
    try:
        commit = said([*git, "rev-parse", "HEAD"])
        changes = said([*git, "status", "--porcelain", "-uno", "--", ".", ":(exclude)results"])
    except (OSError, subprocess.CalledProcessError):
        return None
    return {"commit": commit, "dirty": bool(changes)}


def said(command: list[str]) -> str:
    """What a command prints. Raises CalledProcessError."""
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.strip()
