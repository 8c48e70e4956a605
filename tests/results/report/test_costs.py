"""What a recipe cost, in the words of the report."""

import json
from pathlib import Path
from typing import Any

import pytest

from results.report import collect, costs
from results.report.collect import Run


def low(results_folder: Path) -> Run:
    return next(run for run in collect.collect(results_folder / "runs")[0] if run.name == "low")


def change(file: Path, seconds: dict[str, float], **training: Any) -> None:
    content = json.loads(file.read_text())
    content["seconds"] = seconds
    if training:
        content["training"] |= training
    file.write_text(json.dumps(content))


def test_where_a_recipes_minutes_went(results_folder: Path) -> None:
    runs = results_folder / "runs"
    change(runs / "base-tiny/record.json", {"tatqa": 17.3, "server": 34.5})
    parts = {"imports": 20.4, "load": 6.2, "train": 117, "save": 0.1}
    change(runs / "low/record.json", {"train": 180.2, "tatqa": 17.0}, stages_seconds=parts)
    assert costs.stage_seconds(low(results_folder)) == (
        "Seconds by command: training 180 (loop 117, imports 20, load 6), tatqa 17; for its base,"
        " once: tatqa 17, starting the server 34."
    )


@pytest.mark.parametrize("parts", [None, [], {"load": "long"}])
def test_a_training_that_notes_no_parts_has_its_seconds(results_folder: Path, parts: Any) -> None:
    change(results_folder / "runs/low/record.json", {"train": 180.2}, stages_seconds=parts)
    assert costs.stage_seconds(low(results_folder)).startswith("Seconds by command: training 180;")


def test_a_record_without_seconds_says_nothing(results_folder: Path) -> None:
    change(results_folder / "runs/low/record.json", {})
    assert costs.stage_seconds(low(results_folder)) == ""


def test_the_page_of_a_run_says_it(results_folder: Path) -> None:
    page = (results_folder / "README.md").read_text().split("### low\n")[1]
    assert "Seconds by command: tatqa 1; for its base, once: tatqa 1." in page
