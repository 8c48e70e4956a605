"""Writing a report: where it goes, whose files stay, and that what is broken costs only itself."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from results.__main__ import main
from results.report import publish, questions


def users_files(folder: Path) -> dict[Path, str]:
    """A README and a figure of the user's own in a folder."""
    mine = {folder / "README.md": "my page", folder / "figures" / "mine.svg": "my figure"}
    for path, text in mine.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return mine


def test_a_report_beside_a_users_own_files_leaves_them(results_folder: Path) -> None:
    runs = results_folder / "runs"
    mine = users_files(runs) | users_files(runs.parent.parent / "cwd")
    assert main(["report", "--runs", str(runs)]) == 0
    assert {path: path.read_text() for path in mine} == mine
    assert (runs / "tatqa-report" / "README.md").read_text().startswith("# Results")


def test_a_report_onto_a_users_own_files_is_refused(
    results_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "mine"
    mine = users_files(folder)
    assert main(["report", "--runs", str(results_folder / "runs"), "--out", str(folder)]) == 2
    assert f"error: {folder / 'README.md'}: in the way" in capsys.readouterr().err
    assert {path: path.read_text() for path in folder.rglob("*") if path.is_file()} == mine


def test_a_report_into_a_loop_of_links_is_one_line(
    results_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "loop").symlink_to("loop")
    runs = str(results_folder / "runs")
    assert main(["report", "--runs", runs, "--out", str(tmp_path / "loop")]) == 2
    assert "loop: no folder; give another one" in capsys.readouterr().err


def test_a_report_that_is_given_no_folder_has_one_among_the_runs() -> None:
    assert publish.folder_for(Path("results/runs"), None) == Path("results/runs/tatqa-report")
    assert publish.folder_for(Path("myruns"), None) == Path("myruns/tatqa-report")
    assert publish.folder_for(Path("myruns"), Path("there")) == Path("there")


def test_the_logs_figures_stand_in_the_projects_own_report_only(results_folder: Path) -> None:
    mine, _ = publish.render(results_folder / "runs", own=False)
    ours, _ = publish.render(results_folder / "runs", own=True)
    assert "measured another way" not in mine["README.md"] + mine["report.html"]
    assert "measured another way" in ours["README.md"]
    assert "report/log/README.md" in ours
    assert {*ours} - {*mine} == {"report/log/README.md", "figures/beta.svg"}


def test_names_in_a_record_never_lead_out(results_folder: Path, tmp_path: Path) -> None:
    runs = results_folder / "runs"
    odd = runs / "$x^2$ \u202e<b>|" / "record.json"
    shutil.move(runs / "low", odd.parent)
    odd.write_text(json.dumps(json.loads(odd.read_text()) | {"name": "../../x"}))
    out = tmp_path / "report"
    before = {*tmp_path.rglob("*")}
    assert main(["report", "--runs", str(runs), "--out", str(out)]) == 0
    made = {*tmp_path.rglob("*")} - before
    assert all(path.is_relative_to(out) for path in made)
    names = [path.name for path in (out / "figures").iterdir()]
    assert all(name.isascii() and " " not in name for name in names)


def test_a_run_with_a_long_name_has_its_figures(results_folder: Path, tmp_path: Path) -> None:
    runs = results_folder / "runs"
    shutil.move(runs / "low", runs / ("l" * 250))
    files, problems = publish.render(runs, own=False)
    assert problems == []
    assert all(len(Path(name).name) < 110 for name in files)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("tatqa/some__model/samples_tatqa_span_2026-01-01T00-00-00.000000.jsonl", b'{"doc": '),
        ("tatqa/some__model/samples_tatqa_span_2026-01-01T00-00-00.000000.jsonl", b"\xff\xfe"),
        ("tatqa/some__model/samples_tatqa_span_2026-01-01T00-00-00.000000.jsonl", b"{}\n"),
        ("mtbench/question.jsonl", b""),
        ("mtbench/model_answer/m.jsonl", b"[]"),
        ("mtbench/model_judgment/stand-in-judge_single.jsonl", b'{"question_id": 99}'),
    ],
)
def test_broken_raw_files_cost_their_own_rows_only(
    results_folder: Path, file: str, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    (results_folder / "runs/low" / file).write_bytes(content)
    assert main(["report", "--results", str(results_folder)]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert errors[0].startswith("error: ")
    assert str(results_folder / "runs/low") in errors[0]
    assert "| low |" in (results_folder / "README.md").read_text()


def test_a_judge_with_a_slash_in_its_name_has_its_rows(results_folder: Path) -> None:
    runs = results_folder / "runs"
    for run in runs.iterdir():
        folder = run / "mtbench/model_judgment"
        (folder / "org").mkdir()
        (folder / "stand-in-judge_single.jsonl").rename(folder / "org/big_single.jsonl")
    content, problems = questions.of_runs(runs, [("base-tiny", "low")])
    assert problems == []
    judged = [reply[2] for reply in content["replies"]["low"].values() if reply[2]]
    assert len(judged) == 16
    for notes in judged:
        for judge, text in notes:
            assert judge == "org/big"
            assert text.startswith("Rating")


def test_a_broken_record_is_named_on_the_page_and_the_rest_is_made(
    results_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = results_folder / "runs/low/record.json"
    broken.write_text('{"version": 1}')
    assert main(["report", "--results", str(results_folder)]) == 1
    assert f"error: {broken}: not a valid record" in capsys.readouterr().err
    text = (results_folder / "README.md").read_text()
    assert "| middle |" in text
    assert "not a valid record" in text


def edited(runs: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change what the records of a base and its run say."""
    for file in runs.glob("*/record.json"):
        content = json.loads(file.read_text())
        change(content)
        file.write_text(json.dumps(content))


@pytest.mark.parametrize("odd", ["\ud800", "../../x", "\x00\x1b[31m", "a/b", "$\\frac{1}{$", ""])
def test_a_bench_and_a_group_may_be_called_anything(
    results_folder: Path, tmp_path: Path, odd: str
) -> None:
    def rename(content: dict[str, Any]) -> None:
        scores = content["scores"]["tatqa"]
        scores["bench"] = f"tatqa_{odd}"
        scores["groups"]["answer_type"][:2] = [odd, odd]
        content["provenance"]["device"] = odd

    edited(results_folder / "runs", rename)
    out = tmp_path / "report"
    assert main(["report", "--runs", str(results_folder / "runs"), "--out", str(out)]) == 0
    assert main(["report", "--runs", str(results_folder / "runs"), "--out", str(out)]) == 0
    assert not (tmp_path / "x").exists()
    for drawing in (out / "figures").iterdir():
        ElementTree.parse(drawing)


@pytest.mark.parametrize("history", [[], [{}], [{"loss": 1.5}], [{"rewards/accuracies": 0.5}]])
def test_a_training_that_logged_less_has_its_page(
    results_folder: Path, history: list[dict[str, float]]
) -> None:
    def shorten(content: dict[str, Any]) -> None:
        if content["training"]:
            content["training"]["history"] = history

    edited(results_folder / "runs", shorten)
    files, problems = publish.render(results_folder / "runs", own=False)
    assert problems == []
    assert not re.search(r"\bnan\b", files["README.md"])
