"""Recipes and bases by name; the room `results` has the same few lines for itself."""

from pathlib import Path
from typing import Any

import pytest

from results.sweep import shipped as of_results
from train import shipped
from train.__main__ import own_folder

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "train" / "recipes" / "demo.yaml"
BASE = ROOT / "train" / "bases" / "tiny-tatqa"


@pytest.mark.parametrize("room", [shipped, of_results])
def test_a_shipped_name_is_found_from_any_folder(
    room: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert room.recipe_file(Path("demo")) == RECIPE
    assert room.base_model("tiny-tatqa") == str(BASE)
    monkeypatch.chdir(ROOT)
    assert room.recipe_file(Path("demo")) == Path("train/recipes/demo.yaml")
    assert room.base_model("tiny-tatqa") == "train/bases/tiny-tatqa"


@pytest.mark.parametrize("room", [shipped, of_results])
def test_the_users_own_comes_first(
    room: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("demo").write_text("beta: 1")
    Path("tiny-tatqa").mkdir()
    assert room.recipe_file(Path("demo")) == Path("demo")
    assert room.base_model("tiny-tatqa") == "tiny-tatqa"


@pytest.mark.parametrize("room", [shipped, of_results])
@pytest.mark.parametrize("name", ["../recipes/demo", "x/../demo", "nothing", "..", ".", "/"])
def test_names_stay_inside(room: Any, name: str) -> None:
    assert room.recipe_file(Path(name)) == Path(name)
    assert room.base_model(name) == name


def test_both_rooms_do_the_same() -> None:
    ours = Path(shipped.__file__).read_text().partition("def recipe_file")[2]
    theirs = Path(of_results.__file__).read_text().partition("def recipe_file")[2]
    assert ours == theirs


def test_a_run_without_a_folder_goes_to_the_checkouts_own_or_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).resolve().parents[2])
    assert own_folder(Path("my/firmer.yaml")) == Path("results/runs/firmer")
    monkeypatch.chdir(tmp_path)
    assert own_folder(Path("my/firmer.yaml")) is None
