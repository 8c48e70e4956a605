"""Runs of a report: seeds of one recipe, and steps from them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Change = Callable[..., None]


def change(file: Path, **recipe: Any) -> None:
    """Change fields of a record's recipe."""
    content = json.loads(file.read_text())
    content["training"]["recipe"] |= recipe
    file.write_text(json.dumps(content))


@pytest.fixture(name="change")
def changing() -> Change:
    """Changes fields of a record's recipe: `change(file, beta=0.2)`."""
    return change


@pytest.fixture
def three_seeds(results_folder: Path) -> Path:
    """The three runs as seeds of one recipe."""
    runs = results_folder / "runs"
    for seed, name in enumerate(("low", "middle", "high")):
        shutil.move(runs / name, runs / f"sft_seed{seed}")
        change(runs / f"sft_seed{seed}" / "record.json", beta=0.1, seed=seed)
    return runs


@pytest.fixture
def two_steps(three_seeds: Path) -> Path:
    """DPO from two of the three SFT seeds, each with replies that it sampled itself."""
    for seed in (0, 1):
        name = f"dpo_seed{seed}-round1"
        shutil.copytree(three_seeds / "sft_seed2", three_seeds / name)
        change(
            three_seeds / name / "record.json",
            seed=seed,
            beta=0.5,
            init_adapter=f"results/runs/sft_seed{seed}",
            samples=[f"results/runs/{name}/samples-1/*.jsonl"],
        )
        content = json.loads((three_seeds / name / "record.json").read_text())
        content["scores"]["tatqa"]["metrics"]["em"][seed] = 0.5  # no copy of another run
        (three_seeds / name / "record.json").write_text(json.dumps(content))
    return three_seeds
