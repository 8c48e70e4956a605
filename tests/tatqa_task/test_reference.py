"""benchmarks/tatqa_reference.py: its table, from lm-eval outputs that are there."""

import importlib.util
import json
from pathlib import Path

import pytest

PATH = Path(__file__).parents[2] / "benchmarks" / "tatqa_reference.py"
spec = importlib.util.spec_from_file_location("tatqa_reference", PATH)
assert spec is not None
assert spec.loader is not None
reference = importlib.util.module_from_spec(spec)
spec.loader.exec_module(reference)


def write_row(out: Path, name: str, task: str, em: float, **more: float) -> None:
    scores = {f"{key},none": value for key, value in {"em": em, **more}.items()}
    results = {task: scores} | {f"{task}_{kind}": {"em,none": em} for kind in reference.TYPES}
    (out / name / "model").mkdir(parents=True)
    file = out / name / "model" / "results_2026-11-26T02-00-00.000000.json"
    file.write_text(json.dumps({"results": results}))


def test_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_row(tmp_path, "my-model-tatqa_calc-0shot", "tatqa_calc", 0.385, calc_used=0.5)
    write_row(tmp_path, "my-model-tatqa-3shot", "tatqa", 0.25, f1=0.3)
    (tmp_path / "seconds.tsv").write_text("my-model-tatqa-3shot\t31.5\n")
    assert reference.main([str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2:4] == [
        "| my-model | `tatqa` | 3 | 25.0 |  | 30.0 |  |  |  | 25.0 | 25.0 | 25.0 | 25.0 | 31.5 |",
        "| my-model | `tatqa_calc` | 0 | 38.5 |  |  |  |  | 50.0 | 38.5 | 38.5 | 38.5 | 38.5 |  |",
    ]
    assert {line.count("|") for line in lines[:4]} == {15}
    assert (tmp_path / "table.md").read_text().splitlines() == lines[:4]


def test_a_row_that_is_there_is_not_asked_again(tmp_path: Path) -> None:
    """No server listens: asking would fail."""
    write_row(tmp_path, "m-tatqa-0shot", "tatqa", 0.25)
    options = [
        "--model",
        "m",
        "--tasks",
        "tatqa",
        "--shots",
        "0",
        "--base-url",
        "http://127.0.0.1:9",
    ]
    assert reference.main([str(tmp_path), *options]) == 0
