"""The folder of a 4-bit copy: a new one, made whole, beside nothing of a user's."""

from pathlib import Path

import pytest

from train.quantize import MARKER, begin
from train.recipe import RecipeError


def test_what_a_kill_left_is_begun_anew(tmp_path: Path) -> None:
    partial = tmp_path / "copy.partial"
    begin(partial)
    (partial / "model.safetensors").write_text("half")
    begin(partial)
    assert [path.name for path in partial.iterdir()] == [MARKER]


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_what_somebody_else_put_there_stays(kind: str, tmp_path: Path) -> None:
    partial = tmp_path / "copy.partial"
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "config.json").write_text("mine")
    if kind == "folder":
        mine = mine.rename(partial)
    elif kind == "file":
        partial.write_text("mine")
    else:  # also to a folder that a kill left
        (mine / MARKER).touch()
        partial.symlink_to(mine)
    with pytest.raises(RecipeError, match="in the way"):
        begin(partial)
    assert kind == "file" or (mine / "config.json").read_text() == "mine"
