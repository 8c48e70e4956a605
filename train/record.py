"""What a run leaves beside the adapter: train.json, loss and reward curves, the model card."""

import hashlib
import json
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate", "datasets")
CURVES = {"loss": "loss", "reward accuracy": "rewards/accuracies", "reward margin": "rewards/margins", "beta": "beta"}
METHODS = {"sigmoid": "DPO (Rafailov et al., 2023)", "sft": "supervised fine-tuning on the chosen replies"}
STRATEGIES = {
    "corrupt": "gold answers against wrong ones made by rule",
    "log": "gold answers against wrong ones by the experiment log's rule",
    "mined": "gold answers against the base model's own wrong replies",
}


def write_whole(path: Path, text: str) -> None:
    """Write a text file so that it is either the old or the new one, never a part."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON whole."""
    write_whole(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def surroundings() -> dict[str, Any]:
    """Package versions, the checkout's commit (None for an installed copy) and the device."""
    import torch

    cuda = torch.cuda.is_available()
    cpu = f"cpu ({platform.machine()}, {torch.get_num_threads()} threads)"
    return {
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "git": git_state(Path(__file__).resolve().parent),
        "device": torch.cuda.get_device_name() if cuda else cpu,
    }


def git_state(folder: Path) -> dict[str, Any] | None:
    """The commit that is checked out in `folder`, and whether tracked files differ from it."""

    def git(*args: str) -> str:
        done = subprocess.run(["git", "-C", str(folder), *args], capture_output=True, text=True, timeout=30, check=True)
        return done.stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "-uno"))}
    except (OSError, subprocess.SubprocessError):
        return None


def digest(chunks: Iterable[bytes]) -> str:
    """sha256 over the chunks, joined."""
    sha = hashlib.sha256()
    for chunk in chunks:
        sha.update(chunk)
    return sha.hexdigest()


def draw(history: Sequence[Mapping[str, float]], path: Path) -> None:
    """The curves of a run as one SVG: loss, reward accuracy, reward margin, beta over steps."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(CURVES), figsize=(3.2 * len(CURVES), 2.6), layout="constrained")
    for axis, (title, key) in zip(axes, CURVES.items(), strict=True):
        names = [key, *sorted(name for name in history[0] if name.startswith(f"{title}/"))]
        for name in names:
            axis.plot([e["step"] for e in history], [e[name] for e in history], linewidth=1, label=name)
        axis.set(title=title, xlabel="step")
        if len(names) > 1:
            axis.legend(fontsize="x-small")
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def card(facts: Mapping[str, Any], name: str) -> str:
    """A model card that claims what was done, and no score."""
    recipe, last = facts["recipe"], facts["history"][-1]
    shown = ("loss_type", "beta", "learning_rate", "num_train_epochs", "effective_batch_size", "lora_r", "lora_alpha",
             "lora_dropout", "lora_target_modules", "load_in_4bit", "max_prompt_length", "seed")  # fmt: skip
    rows = {key: recipe[key] for key in shown}
    rows["last step"] = f"loss {last['loss']:.4f}, reward accuracy {last['rewards/accuracies']:.2f}"
    rows["trained on"] = f"{facts['device']}, {facts['seconds']:.0f} s"
    template = Path(__file__).with_name("card.md").read_text(encoding="utf-8")
    return template.format(
        name=name,
        base=recipe["model_name_or_path"],
        split=recipe["split"],
        kept=facts["pairs"]["kept"],
        strategy=STRATEGIES[recipe["strategy"]],
        method=" plus ".join(METHODS.get(loss, f"TRL's `{loss}` loss") for loss in recipe["loss_type"]),
        rows="\n".join(f"| {key} | {value} |" for key, value in rows.items()),
    )
