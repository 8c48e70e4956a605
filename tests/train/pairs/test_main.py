"""The command: a file of pairs written whole, or one line that says why there is none."""

import json
from pathlib import Path

import pytest

from train.pairs.__main__ import main


def test_command_writes_pairs_and_a_table(
    small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "pairs.jsonl"
    assert main(["--split", "validation", "--form", "calc", "--out", str(out)]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert f"{len(rows):,}  pairs kept" in capsys.readouterr().out
    assert {"prompt", "chosen", "rejected", "chat_template_kwargs"} <= set(rows[0])
    assert rows[0]["prompt"][0]["role"] == "user"
    assert "write the calculation" in rows[0]["prompt"][0]["content"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--strategy", "mined", "--samples", "none*"], "samples: nothing matches none*"),
        (["--form", "calc", "--strategy", "log"], "strategy: log has no form: calc"),
        (["--max_pairs_per_question", "0"], "max_pairs_per_question: Input should be greater"),
    ],
)
def test_a_wrong_call_is_one_line_and_no_file(
    arguments: list[str],
    message: str,
    small_data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([*arguments, "--out", str(tmp_path / "pairs.jsonl")]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_is_there_already_is_left_alone(
    kind: str, small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "pairs.jsonl"
    mine = tmp_path / "mine.txt"
    mine.write_text("mine")
    if kind == "file":
        out.write_text("mine")
    elif kind == "folder":
        out.mkdir()
    else:
        out.symlink_to(mine)
    assert main(["--out", str(out)]) == 2
    assert "pairs.jsonl is there already" in capsys.readouterr().err
    assert mine.read_text() == "mine"
    assert sorted(tmp_path.iterdir()) == [mine, out]


def test_unusable_data_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TATQA_DATA", str(tmp_path / "nowhere"))
    out = tmp_path / "pairs.jsonl"
    assert main(["--out", str(out)]) == 2
    assert "is no folder" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there_is_named(
    small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "none" / "pairs.jsonl"
    assert main(["--out", str(out)]) == 2
    assert capsys.readouterr().err == f"error: {out}: no folder {out.parent}\n"
