"""Records: saved ones are read back, broken ones refused in one line, old ones upgraded."""

import json
import math
import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from results import InputError, record
from results.record import Record


def test_a_record_is_read_back_as_saved(results_folder: Path, tmp_path: Path) -> None:
    found = record.load(results_folder / "runs/low/record.json")
    record.save(found, tmp_path / "again.json")
    assert record.load(tmp_path / "again.json") == found
    assert (tmp_path / "again.json").read_bytes() == (
        results_folder / "runs/low/record.json"
    ).read_bytes()
    assert not list(tmp_path.glob(".again*"))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda r: r.pop("provenance"), "provenance: Field required"),
        (lambda r: r.update(surplus=1), "surplus: Extra inputs are not permitted"),
        (lambda r: r["scores"]["tatqa"]["metrics"]["em"].pop(), "columns of unequal length"),
        (
            lambda r: r["scores"]["tatqa"]["item"].__setitem__(1, r["scores"]["tatqa"]["item"][0]),
            "an item twice",
        ),
        (
            lambda r: r["scores"]["tatqa"]["metrics"]["em"].__setitem__(0, "right"),
            "scores.tatqa.metrics.em.0",
        ),
        *(
            (
                lambda r, x=score: r["scores"]["tatqa"]["metrics"]["em"].__setitem__(0, x),
                f"em: a score of {score}, which is no number or too large a one",
            )
            for score in (math.nan, math.inf, -math.inf, 1e101)
        ),
        *(
            (
                lambda r, x=weight: r["scores"]["tatqa"].update(
                    weights={"em": [x] * len(r["scores"]["tatqa"]["item"])}
                ),
                f"em: a score that counts for {weight}",
            )
            for weight in (0.0, -1.0, math.nan, 1e101)
        ),
        (lambda r: r.update(version=99), "version 99, this program reads [1]"),
        (lambda r: r.pop("version"), "KeyError: 'version'"),
    ],
)
def test_a_broken_record_is_refused_in_one_line(
    results_folder: Path, change: Any, named: str
) -> None:
    file = results_folder / "runs/low/record.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    with pytest.raises(InputError) as caught:
        record.load(file)
    message = str(caught.value)
    assert message.startswith(f"{file}: not a valid record (")
    assert named in message
    assert "\n" not in message


def test_older_versions_are_upgraded_step_by_step(
    results_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = results_folder / "runs/low/record.json"
    content = json.loads(file.read_text())
    seconds = content.pop("seconds")
    content |= {"version": -1, "label": content.pop("name")}
    file.write_text(json.dumps(content))
    named: dict[int, Any] = {
        -1: lambda old: {
            **{k: v for k, v in old.items() if k != "label"},
            "name": old["label"],
            "version": 0,
        },
        0: lambda old: {**old, "seconds": seconds, "version": 1},
    }
    monkeypatch.setattr(record, "UPGRADES", named)
    assert record.load(file).name == "low"


AsNobody = Callable[[], AbstractContextManager[None]]


def test_a_run_folder_that_may_not_be_read_is_named(
    results_folder: Path, tmp_path: Path, as_nobody: AsNobody
) -> None:
    """It was left out without a word."""
    runs = (results_folder / "runs").relative_to(tmp_path)
    (runs / "low").chmod(0)
    (runs / "a-file").touch()
    with as_nobody():
        found, problems = record.load_all(runs)
    assert "low" not in found
    assert problems == [f"{runs}/low/record.json: cannot be read (Permission denied)"]


def test_a_folder_of_runs_that_may_not_be_read_is_refused(
    tmp_path: Path, as_nobody: AsNobody
) -> None:
    (tmp_path / "runs").mkdir(mode=0)
    with as_nobody(), pytest.raises(InputError, match="runs: cannot be read"):
        record.load_all(Path("runs"))


@pytest.mark.parametrize(
    "put",
    [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("nowhere")],
    ids=["folder", "pipe", "broken link"],
)
def test_what_stands_in_a_records_place_is_named(
    results_folder: Path, put: Callable[[Path], None]
) -> None:
    """Of a pipe the reader waited for ever."""
    place = results_folder / "runs/low/record.json"
    place.unlink()
    put(place)
    _, problems = record.load_all(results_folder / "runs")
    assert [line for line in problems if line.startswith(f"{place}: cannot be read (")]


def test_a_run_without_its_base_is_named_and_left_out(results_folder: Path) -> None:
    (results_folder / "runs/base-tiny/record.json").unlink()
    records, problems = record.load_all(results_folder / "runs")
    assert records == {}
    assert len(problems) == 3
    assert all("its base record base-tiny is missing" in line for line in problems)


@pytest.mark.parametrize("base", ["low", "middle"])
def test_a_base_that_is_a_run_is_none(results_folder: Path, base: str) -> None:
    file = results_folder / "runs/low/record.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "base": base}))
    records, problems = record.load_all(results_folder / "runs")
    assert "low" not in records
    (problem,) = problems
    assert f"what it names as its base, {base}, is a run" in problem


def test_broken_records_of_others_do_not_hide_the_rest(results_folder: Path) -> None:
    runs = results_folder / "runs"
    broken = {"torn": b'{"version": 1, ', "latin": b"\xff", "other": b"[1]", "deep": b"[" * 100_000}
    for name, content in broken.items():
        (runs / name).mkdir()
        (runs / name / "record.json").write_bytes(content)
    records, problems = record.load_all(runs)
    assert set(records) == {"base-tiny", "low", "middle", "high"}
    assert len(problems) == 4
    assert all("not a valid record" in line and "\n" not in line for line in problems)


def test_the_folder_names_the_run_and_a_copy_counts_once(results_folder: Path) -> None:
    runs = results_folder / "runs"
    shutil.copytree(runs / "low", runs / "low-copy")
    shutil.move(runs / "high", runs / "renamed")
    records, problems = record.load_all(runs)
    assert set(records) == {"base-tiny", "low", "middle", "renamed"}
    assert records["renamed"].name == "renamed"
    assert problems == [f"{runs / 'low-copy'}: a copy of low, left out"]


def test_another_training_with_the_same_scores_is_no_copy(results_folder: Path) -> None:
    runs = results_folder / "runs"
    shutil.copytree(runs / "low", runs / "low-again")
    file = runs / "low-again" / "record.json"
    content = json.loads(file.read_text())
    content["training"]["recipe"]["seed"] = 7
    file.write_text(json.dumps(content))
    records, problems = record.load_all(runs)
    assert problems == []
    assert "low-again" in records


def test_a_base_that_scores_the_same_with_other_settings_keeps_its_runs(
    results_folder: Path,
) -> None:
    runs = results_folder / "runs"
    shutil.copytree(runs / "base-tiny", runs / "base-tiny-again")
    file = runs / "low" / "record.json"
    file.write_text(file.read_text().replace('"base": "base-tiny"', '"base": "base-tiny-again"'))
    records, problems = record.load_all(runs)
    assert problems == []
    assert set(records) == {"base-tiny", "base-tiny-again", "low", "middle", "high"}


def test_1668_questions_stay_compact(results_folder: Path, tmp_path: Path) -> None:
    found = record.load(results_folder / "runs/low/record.json")
    n, tatqa = 1668, found.scores["tatqa"]
    rows = tatqa.model_copy(
        update={
            "item": [f"{i:036d}" for i in range(n)],
            "cluster": [f"{i // 6:036d}" for i in range(n)],
            "groups": {"answer_type": ["arithmetic"] * n, "answer_from": ["table-text"] * n},
            "metrics": {name: [1.0] * n for name in tatqa.metrics},
        }
    )
    record.save(Record(**{**dict(found), "scores": {"tatqa": rows}}), tmp_path / "big.json")
    assert (tmp_path / "big.json").stat().st_size < 250_000


def test_benches_have_their_titles_and_stand_ins_say_so() -> None:
    empty: dict[str, Any] = {"item": [], "cluster": [], "groups": {}, "metrics": {}}
    empty |= {"identity": {}, "circumstances": {}}
    titles = {
        (bench, stand_in): record.Scores(bench=bench, stand_in=stand_in, **empty).title
        for bench in ("tatqa", "tatqa_calc_test", "mt_bench", "demo")
        for stand_in in (False, True)
    }
    synthetic = "(SYNTHETIC QUESTIONS, no TAT-QA figure)"
    assert titles["tatqa", False] == "TAT-QA"
    assert titles["tatqa", True] == f"TAT-QA {synthetic}"
    assert titles["tatqa_calc_test", False] == "TAT-QA test split, expressions worked out"
    assert titles["tatqa_calc_test", True].endswith(synthetic)
    assert titles["mt_bench", False] == "MT-Bench"
    assert titles["demo", True] == "bench demo (STAND-IN JUDGE, measures nothing)"


def test_a_record_is_text_that_people_can_read(results_folder: Path, tmp_path: Path) -> None:
    found = record.load(results_folder / "runs/low/record.json")
    record.save(found.model_copy(update={"name": "größer"}), tmp_path / "record.json")
    assert '"name": "größer"' in (tmp_path / "record.json").read_text(encoding="utf-8")


def test_scores_go_by_what_was_asked_not_by_the_stages_name(results_folder: Path) -> None:
    file = results_folder / "runs/low/record.json"
    content = json.loads(file.read_text())
    content["scores"]["tatqa"]["bench"] = "tatqa_calc"
    file.write_text(json.dumps(content))
    assert list(record.load(file).by_bench) == ["tatqa_calc", "mtbench"]
