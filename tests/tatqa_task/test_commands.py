"""`python -m tatqa_task`: what its commands do, and what they say of bad input."""

import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from tatqa_task import answer, data, download, synthetic
from tatqa_task.__main__ import main


@pytest.fixture
def gold(tmp_path: Path) -> Path:
    path = tmp_path / "gold.json"
    path.write_text(json.dumps(synthetic.generate("validation", 20)))
    return path


def questions(gold: Path) -> list[data.Question]:
    return [question for context in data.read_file(gold) for question in context.questions]


def write(path: Path, content: Any) -> str:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def perfect(gold: Path) -> dict[str, list[Any]]:
    return {
        q.uid: [q.answer if isinstance(q.answer, list) else [str(q.answer)], q.scale]
        for q in questions(gold)
    }


def test_score(gold: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    predictions = perfect(gold)
    wrong = [q.uid for q in questions(gold) if q.answer_type == "arithmetic"]
    predictions |= {uid: [["-987654"], "billion"] for uid in wrong}
    out = tmp_path / "out.json"
    arguments = [
        "--gold",
        str(gold),
        "--pred",
        write(tmp_path / "pred.json", predictions),
        "--json",
        str(out),
    ]
    assert main(["score", *arguments]) == 0
    shown, scored = capsys.readouterr(), json.loads(out.read_text())
    right = 120 - len(wrong)
    assert scored.keys() == {"em", "f1", "scale", "n", "per_question"}
    assert (scored["em"], scored["f1"], scored["n"]) == (right / 120, right / 120, 120)
    assert scored["per_question"][wrong[0]][:2] == [0, 0]
    assert f"questions 120\nEM {right / 120:.4f}\nF1 {right / 120:.4f}\nscale" in shown.out
    lines = [line for line in shown.out.splitlines() if line.startswith("span ")]
    assert len(lines) == 2  # EM and F1
    assert "1.000000 (n=" in lines[0]
    assert (
        next(line for line in shown.out.splitlines() if line.startswith("arithmetic ")).split()[1]
        == "0.000000"
    )
    assert shown.err == ""


def test_unmatched_duplicate_and_misshapen_uids_are_counted_and_named(
    gold: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predictions = perfect(gold)
    uids = list(predictions)
    del predictions[uids[0]]
    predictions[uids[1]] = "no pair"  # type: ignore[assignment]
    text = json.dumps(predictions | {"stranger": [["1"], ""]})
    text = text[:-1] + f', "{uids[2]}": [["wrong"], ""]}}'
    arguments = ["--gold", str(gold), "--pred", write(tmp_path / "pred.json", text)]
    assert main(["score", *arguments, "--json", str(tmp_path / "out.json")]) == 0
    assert capsys.readouterr().err.splitlines() == [
        f"warning: 1 questions without a prediction count as wrong: {uids[0]}",
        "warning: 1 predictions for no question are left out: stranger",
        f"warning: 1 uids predicted more than once count with their last prediction: {uids[2]}",
        f"warning: 1 predictions that are not [answer, scale] count as wrong: {uids[1]}",
    ]
    scored = json.loads((tmp_path / "out.json").read_text())
    assert [uid for uid, row in scored["per_question"].items() if row[0] == 0] == uids[:3]
    assert scored["n"] == 120


def test_many_unmatched_uids_are_counted_and_ten_are_named(
    gold: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["score", "--gold", str(gold), "--pred", write(tmp_path / "pred.json", {})]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        "warning: 120 questions without a prediction count as wrong: synthetic-validation-0-0-q1, "
    )
    assert line.endswith(" and 110 more")


BAD_CALLS = [
    (
        ["score", "--gold", "{gold}", "--pred", "{tmp}/none.json"],
        "none.json: No such file or directory",
    ),
    (
        ["score", "--gold", "{tmp}/none.json", "--pred", "{gold}"],
        "none.json: No such file or directory",
    ),
    (["score", "--gold", "{gold}", "--pred", "{cut}"], "cut.json is not complete JSON"),
    (["score", "--gold", "{cut}", "--pred", "{gold}"], "cut.json is not complete JSON"),
    (
        ["score", "--gold", "{gold}", "--pred", "{gold}"],
        "expected an object {uid: [answer, scale]}",
    ),
    (
        ["score", "--gold", "{gold}", "--pred", "{empty}", "--json", "{tmp}/no/out.json"],
        "{tmp}/no/out.json: no folder",
    ),
    (
        ["score", "--gold", "{gold}", "--pred", "{empty}", "--json", "{tmp}"],
        "{tmp} is there already",
    ),
    (
        ["export", "{tmp}", "--out", "{tmp}/pred.json"],
        "no samples in {tmp}; run lm_eval with --log_samples",
    ),
    (
        ["export", "{gold}", "--out", "{tmp}/pred.json"],
        "gold.json is no lm-eval samples file of a tatqa task",
    ),
    (
        ["export", "{tmp}/none.jsonl", "--out", "{tmp}/pred.json"],
        "none.jsonl: No such file or directory",
    ),
    (
        ["export", "{twice}", "{twice}", "--out", "{tmp}/pred.json"],
        "question u1 was already read; give",
    ),
    (["export", "{twice}", "--out", "{tmp}/no/pred.json"], "{tmp}/no/pred.json: no folder"),
    (["generate", "{gold}"], "{gold}: File exists"),
    (
        ["generate", "{folder}"],
        "{folder}/tatqa_dataset_dev.json is there already, with other content",
    ),
    (["score", "--gold", "{folder}", "--pred", "{gold}"], "{folder} is a folder; name the file"),
    (["score", "--gold", "{empty}", "--pred", "{gold}"], "found dict (are these predictions?)"),
    (["score", "--gold", "{gold}", "--pred", "{lines}"], "lines.jsonl is JSON Lines, not one JSON"),
    (["score", "--gold", "{gold}", "--pred", "{latin}"], "latin.json is no text in UTF-8 (byte 2)"),
]


@pytest.mark.parametrize(("arguments", "expected"), BAD_CALLS)
def test_bad_input_is_one_line(
    arguments: list[str],
    expected: str,
    gold: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sample = {"doc": {"uid": "u1"}, "filtered_resps": ["5"]}
    names = {
        "tmp": str(tmp_path),
        "gold": str(gold),
        "cut": write(tmp_path / "cut.json", '{"a": ['),
    }
    names |= {
        "empty": write(tmp_path / "empty.json", {}),
        "twice": write(tmp_path / "twice.jsonl", sample),
        "lines": write(tmp_path / "lines.jsonl", "{}\n{}"),
        "latin": str(tmp_path / "latin.json"),
        "folder": str(tmp_path / "folder"),
    }
    (tmp_path / "latin.json").write_bytes(b'["\xe9"]')
    (tmp_path / "folder").mkdir()
    write(tmp_path / "folder" / "tatqa_dataset_dev.json", "mine")
    before = {path.name for path in tmp_path.iterdir()}
    assert main([argument.format(**names) for argument in arguments]) == 2
    (line,) = [
        line for line in capsys.readouterr().err.splitlines() if not line.startswith("warning")
    ]
    assert line.startswith("error: ")
    assert expected.replace("{tmp}", str(tmp_path)).replace("{gold}", str(gold)).replace(
        "{folder}", names["folder"]
    ) in line  # fmt: skip
    assert {path.name for path in tmp_path.iterdir()} == before


def test_export(gold: Path, tmp_path: Path) -> None:
    replies = {q.uid: answer.render(q.answer, q.scale) for q in questions(gold)}
    docs = [
        {"doc": {"uid": uid, "question": "a\u2028b\x85c"}, "filtered_resps": [r]}
        for uid, r in replies.items()
    ]
    lines = [json.dumps(doc, ensure_ascii=False) for doc in docs]  # as lm-eval writes them
    (tmp_path / "run").mkdir()
    write(tmp_path / "run" / "samples_tatqa_span_2026.jsonl", "\n".join(lines[:50]))
    write(tmp_path / "run" / "samples_tatqa_count_2026.jsonl", "\n".join(lines[50:]) + "\n")
    assert main(["export", str(tmp_path / "run"), "--out", str(tmp_path / "pred.json")]) == 0
    assert json.loads((tmp_path / "pred.json").read_text()) == perfect(gold)


@pytest.mark.parametrize("call", ["export run --out pred.json", "rescore run new"])
def test_a_folder_in_an_output_that_may_not_be_read_is_named(
    call: str,
    tmp_path: Path,
    as_nobody: Callable[[], AbstractContextManager[None]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What is in it was left out without a word."""
    importlib.import_module("tatqa_task.rescore")  # nobody may not read every Python
    (tmp_path / "run" / "part").mkdir(parents=True)
    (tmp_path / "run" / "part").chmod(0)
    importlib.import_module("tatqa_task.rescore")  # nobody may not read all of Python's folder
    with as_nobody():
        assert main(call.split()) == 2
    assert capsys.readouterr().err == "error: run/part: Permission denied\n"


def test_export_reads_as_the_task_did(gold: Path, tmp_path: Path) -> None:
    """A draft in a think block that the template opened is no answer."""
    draft = "Maybe " + answer.render(["5"], "")
    docs = [{"uid": "a"}, {"uid": "b", "thinking": True}, {"uid": "c", "form": "calc"}]
    replies = [draft, draft, answer.render(["2 + 3"], "")]
    rows = [
        json.dumps({"doc": doc, "filtered_resps": [reply]})
        for doc, reply in zip(docs, replies, strict=True)
    ]
    samples = write(tmp_path / "samples.jsonl", "\n".join(rows))
    assert main(["export", samples, "--out", str(tmp_path / "pred.json")]) == 0
    predictions = json.loads((tmp_path / "pred.json").read_text())
    assert predictions == {"a": [["5"], ""], "b": [[], ""], "c": [["5"], ""]}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_files_with_a_byte_order_mark(gold: Path, tmp_path: Path, encoding: str) -> None:
    for name, content in (("gold", gold.read_text()), ("pred", json.dumps(perfect(gold)))):
        (tmp_path / f"{name}.json").write_text(content, encoding=encoding)
    call = ["--gold", str(tmp_path / "gold.json"), "--pred", str(tmp_path / "pred.json")]
    assert main(["score", *call, "--json", str(tmp_path / "out.json")]) == 0
    assert json.loads((tmp_path / "out.json").read_text())["em"] == 1


def test_generate_writes_a_folder_that_loads(tmp_path: Path) -> None:
    assert main(["generate", str(tmp_path / "made"), "--contexts", "4", "--seed", "9"]) == 0
    for split in data.FILES:
        assert data.load(split, str(tmp_path / "made")) == data.parse_contexts(
            synthetic.generate(split, 4, 9), ""
        )


def test_include_path_has_the_tasks(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["include-path"]) == 0
    assert (Path(capsys.readouterr().out.strip()) / "tatqa.yaml").is_file()


def test_download_offline_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(download, "URL", "http://127.0.0.1:9/")
    assert main(["download"]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: cannot download http://127.0.0.1:9/tatqa_dataset_train.json")


def test_help_imports_nothing_heavy() -> None:
    heavy = ["torch", "datasets", "lm_eval", "numpy"]
    code = f"import sys, tatqa_task.__main__; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_indexing_the_tasks_imports_no_torch() -> None:
    """lm-eval's own index of all tasks, with ours among them, before any task is built."""
    code = """import sys
from lm_eval.tasks._index import TaskIndex
from pathlib import Path
import tatqa_task.harness, tatqa_task.__main__ as m
index = TaskIndex.build([Path(m.__file__).parent / "tasks"])
print(len([name for name in index if name.startswith("tatqa")]), "torch" in sys.modules)"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "55 False\n"


@pytest.mark.real
def test_official_tables(shared_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The numbers that the official script gives for its sample prediction, by type and source."""
    folder = shared_data / "tatqa"
    arguments = ["--gold", str(folder / data.FILES["validation"][0])]
    assert main(["score", *arguments, "--pred", str(folder / "sample_prediction.dev.json")]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    numbers = [
        [row[0], *(cell for cell in row[1:] if not cell.startswith("("))]
        for row in rows
        if len(row) > 2
    ]
    assert numbers == [
        ["EM", "table", "table-text", "text"],
        ["arithmetic", "0.531187", "0.546341", "0.000000"],
        ["count", "0.500000", "0.450000", "-"],
        ["multi-span", "0.684783", "0.712871", "0.083333"],
        ["span", "0.584795", "0.674033", "0.045845"],
        ["F1", "table", "table-text", "text"],
        ["arithmetic", "0.531187", "0.546341", "0.000000"],
        ["count", "0.500000", "0.450000", "-"],
        ["multi-span", "0.833696", "0.814356", "0.255000"],
        ["span", "0.584795", "0.760110", "0.540000"],
    ]
