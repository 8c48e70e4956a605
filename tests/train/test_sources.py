"""Where data and base come from, as cards say it."""

from pathlib import Path

import pytest

from tatqa_task.download import FILES
from train.recipe import Recipe
from train.sources import data_source, licence_of, sentence


def source(**fields: object) -> dict[str, str]:
    return data_source(Recipe.model_validate({"model_name_or_path": "x", **fields}))


def test_no_setting_means_the_official_files() -> None:
    assert source() == {"kind": "official"}
    assert "the train split of [TAT-QA]" in sentence(source(), "train")


def test_synthetic_questions_are_never_called_tatqa(
    monkeypatch: pytest.MonkeyPatch, small_data: Path
) -> None:
    assert source() == {"kind": "synthetic"}  # a folder that was generated
    monkeypatch.setenv("TATQA_DATA", "synthetic")
    assert source() == {"kind": "synthetic"}
    assert sentence(source(), "train").startswith("synthetic questions")


def test_files_that_are_not_the_official_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TATQA_DATA", str(tmp_path))
    assert source() == {"kind": "other"}  # none at all
    (tmp_path / FILES["train"].name).write_text("[]")
    assert source() == {"kind": "other"}
    assert sentence(source(), "train").endswith("that is not the official one")


@pytest.mark.real
def test_official_files_in_a_folder_are_known(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TATQA_DATA", str(shared_data / "tatqa"))
    assert source(split="validation") == {"kind": "official"}
    assert source(split="train") == {"kind": "other"}  # a reconstruction


def test_own_pairs_are_named_without_their_folder(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text("")
    assert source(pairs=str(path)) == {"kind": "given", "name": "mine.jsonl"}
    assert source(pairs="org/data") == {"kind": "given", "name": "org/data"}
    assert sentence(source(pairs="org/data"), "train") == "`org/data`"


def test_licence_of_a_base(tmp_path: Path) -> None:
    assert licence_of(str(tmp_path)) is None
    assert licence_of("org/base") is None
    (tmp_path / "README.md").write_text("---\nlicense: apache-2.0\n---\nlicense: mit\n")
    assert licence_of(str(tmp_path)) == "apache-2.0"
