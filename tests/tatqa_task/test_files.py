"""Folders of files: a killed run is gone on with, and what somebody else put there stays."""

from pathlib import Path

import pytest

from tatqa_task import data
from tatqa_task.__main__ import main
from tatqa_task.files import DataError, refuse_strangers, write_missing

CONTENTS = {"a.json": b"{}", "b.json": b"[]"}


def state(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("there", [[], ["a.json"], ["b.json"], ["a.json", "b.json"]])
def test_what_a_killed_run_left_is_completed(there: list[str], tmp_path: Path) -> None:
    for name in there:
        (tmp_path / name).write_bytes(CONTENTS[name])
    write_missing(tmp_path, CONTENTS)
    assert state(tmp_path) == CONTENTS


@pytest.mark.parametrize("kind", ["other content", "link", "link to nothing", "folder"])
def test_what_is_in_the_way_stays_and_nothing_is_written(kind: str, tmp_path: Path) -> None:
    place, elsewhere = tmp_path / "made" / "b.json", tmp_path / "elsewhere"
    elsewhere.write_bytes(CONTENTS["b.json"])
    place.parent.mkdir()
    if kind == "other content":
        place.write_bytes(b"mine")
    elif kind == "folder":
        place.mkdir()
    else:
        place.symlink_to(elsewhere if kind == "link" else "nowhere")
    with pytest.raises(DataError, match="b.json is there already"):
        write_missing(place.parent, CONTENTS)
    assert list(place.parent.iterdir()) == [place]


def test_strangers_are_named_but_hidden_files_are_none(tmp_path: Path) -> None:
    refuse_strangers(tmp_path / "new", CONTENTS)
    for name in (*CONTENTS, ".DS_Store", ".a.json.123"):
        (tmp_path / name).touch()
    refuse_strangers(tmp_path, CONTENTS)
    (tmp_path / "notes").touch()
    with pytest.raises(DataError, match="notes is in it; name a new folder"):
        refuse_strangers(tmp_path, CONTENTS)


@pytest.mark.parametrize("call", ["generate made --contexts 2", "upstream made"])
def test_a_command_that_was_killed_is_given_again(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own files were in the way, and half a folder stayed half."""
    monkeypatch.chdir(tmp_path)
    assert main(call.split()) == 0
    whole = state(tmp_path / "made")
    (tmp_path / "made" / max(whole)).unlink()
    assert main(call.split()) == 0
    assert state(tmp_path / "made") == whole


def test_data_of_another_size_are_not_mixed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["generate", "made", "--contexts", "2"]) == 0
    before = state(tmp_path / "made")
    assert main(["generate", "made", "--contexts", "3"]) == 2
    name, _ = data.FILES["train"]
    assert f"made/{name} is there already, with other content" in capsys.readouterr().err
    assert state(tmp_path / "made") == before
