"""Checkpoints: a damaged one is noticed, and the one before is taken."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch

from train import folder
from train.folder import (
    BEGUN,
    LOCK,
    MARKER,
    SEAL,
    BusyError,
    begin,
    check_place,
    checkpoints,
    damage,
    held,
    holds,
    last_checkpoint,
    remove,
    remove_older,
    seal,
    set_readme_aside,
    unwritable,
)
from train.recipe import RecipeError

FILES = ("adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A run folder with sealed checkpoints 8 and 10; 10 comes before 8 by name."""
    for step in (8, 10):
        checkpoint = tmp_path / f"checkpoint-{step}"
        checkpoint.mkdir()
        for name in (*FILES, "trainer_state.json"):
            (checkpoint / name).write_text(f"{name} at step {step}")
        seal(checkpoint)
    return tmp_path


def test_the_newest_is_taken(out: Path) -> None:
    assert last_checkpoint(out) == out / "checkpoint-10"
    assert damage(out / "checkpoint-8") is None


@pytest.mark.parametrize("name", [*FILES, "trainer_state.json", SEAL])
@pytest.mark.parametrize("how", ["cut", "changed", "missing"])
def test_a_damaged_one_is_passed_over(
    out: Path, name: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = out / "checkpoint-10" / name
    content = path.read_bytes()
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes(content[:-3] if how == "cut" else content.replace(b"e", b"f"))
    assert last_checkpoint(out) == out / "checkpoint-8"
    assert "checkpoint-10" in caplog.text
    assert "going on from the one before" in caplog.text


@pytest.mark.parametrize(
    "seal", ["[]", "{}", "[1]", "5", "null", '{"optimizer.pt": 5}', "[" * 5000]
)
def test_a_seal_of_another_form_is_damage(out: Path, seal: str) -> None:
    (out / "checkpoint-10" / SEAL).write_text(seal)
    assert last_checkpoint(out) == out / "checkpoint-8"


@pytest.mark.parametrize("name", ["adapter_model.bin", "other/adapter_model.safetensors"])
def test_a_foreign_file_is_damage(out: Path, name: str) -> None:
    """PEFT would load an adapter in a subfolder beside the run's own."""
    path = out / "checkpoint-10" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("not of this run")
    assert last_checkpoint(out) == out / "checkpoint-8"


def test_other_programs_hidden_files_are_none(out: Path) -> None:
    (out / "checkpoint-10" / ".DS_Store").write_text("x")
    assert last_checkpoint(out) == out / "checkpoint-10"


def test_a_checkpoint_of_another_run_is_passed_over(
    out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is whole, but was copied here."""
    (out / "run.json").write_text(json.dumps({**IDENTITY, "recipe": {"beta": 0.3}}))
    seal(out / "checkpoint-10")
    (out / "run.json").write_text(json.dumps({**IDENTITY, "recipe": {"beta": 0.1}}))
    seal(out / "checkpoint-8")
    assert last_checkpoint(out) == out / "checkpoint-8"
    assert "checkpoint-10 is of another run" in caplog.text
    how = {"memory": "small", "save_steps": 5, "report_to": "wandb"}
    (out / "run.json").write_text(json.dumps({**IDENTITY, "recipe": {"beta": 0.1, **how}}))
    assert last_checkpoint(out) == out / "checkpoint-8"


def test_with_none_whole_the_run_starts_anew(out: Path) -> None:
    for step in (8, 10):
        (out / f"checkpoint-{step}" / "optimizer.pt").unlink()
    assert last_checkpoint(out) is None
    assert last_checkpoint(out / "nothing") is None


@pytest.mark.parametrize("size", [0, 1_000, 65_536, 200_000])
def test_what_torch_save_says_of_a_full_disk_is_one_line(
    size: int,
    tmp_path: Path,
    no_file_beyond: Callable[[int], AbstractContextManager[None]],
) -> None:
    """400 kB of weights; where the disk ends decides which of its errors comes."""
    with no_file_beyond(size), pytest.raises(Exception) as error:  # noqa: PT011
        torch.save({"weight": torch.ones(100_000)}, tmp_path / "optimizer.pt")
    said = unwritable(error.value, tmp_path)
    assert said.startswith(f"cannot write to {tmp_path}: ")
    assert "\n" not in said


def test_any_other_error_is_raised_again(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="shapes"):
        unwritable(RuntimeError("mat1 and mat2 shapes cannot be multiplied"), tmp_path)


def test_a_users_copy_of_a_checkpoint_is_none(out: Path) -> None:
    for name in ("checkpoint-best", "checkpoint-10 (copy)", "checkpoint-12.bak", "checkpoint-"):
        (out / name).mkdir()
    (out / "checkpoint-99").write_text("a file")
    assert checkpoints(out) == [out / "checkpoint-10", out / "checkpoint-8"]
    assert last_checkpoint(out) == out / "checkpoint-10"


IDENTITY = {"recipe": {"beta": 0.1}, "data_sha256": "d", "base_sha256": "b"}


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"{}", b"\xff\xfe", b'{"recipe": 3}', b"[" * 100_000]
)
@pytest.mark.parametrize("name", ["run.json", "train.json"])
def test_a_damaged_marker_is_one_line(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RecipeError, match=f"{name} is damaged"):
        holds(tmp_path, IDENTITY)


def test_a_folder_is_known_by_its_marker(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps(IDENTITY))
    assert not holds(tmp_path, IDENTITY)
    (tmp_path / "train.json").write_text(json.dumps(IDENTITY))
    assert holds(tmp_path, IDENTITY)
    with pytest.raises(RecipeError, match="other pairs"):
        holds(tmp_path, {**IDENTITY, "data_sha256": "other"})


@pytest.mark.parametrize("name", ["README.md", "config.json", "tokenizer.json", "x.safetensors"])
def test_files_of_others_are_not_overwritten(name: str, tmp_path: Path) -> None:
    """The base's own folder as --output_dir lost its README and tokenizer."""
    (tmp_path / name).write_text("a user's")
    with pytest.raises(RecipeError, match=f"holds {name}, which a run would overwrite"):
        holds(tmp_path, IDENTITY)
    (tmp_path / "run.json").write_text(json.dumps(IDENTITY))
    assert not holds(tmp_path, IDENTITY)


@pytest.mark.parametrize(
    "name", ["README.md", "adapter_config.json", "curves.svg", "run.json", "train.json"]
)
def test_links_to_nothing_are_not_written_through(name: str, tmp_path: Path) -> None:
    """The adapter's configuration went to where the link led, out of the folder."""
    out = tmp_path / "out"
    out.mkdir()
    (out / name).symlink_to("../elsewhere")
    with pytest.raises(RecipeError, match="choose another --output_dir"):
        check_place(out, {})
    with pytest.raises(RecipeError, match="choose another --output_dir"):
        holds(out, IDENTITY)


def test_a_sweeps_files_beside_a_run_are_no_hindrance(tmp_path: Path) -> None:
    for name in ("record.json", "train.log", "train.stage.json"):
        (tmp_path / name).write_text("{}")
    assert not holds(tmp_path, IDENTITY)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(RecipeError, match="run is a file; choose another --output_dir"):
        holds(tmp_path / "run", IDENTITY)


def test_a_finished_run_removes_its_checkpoints_and_no_file_of_a_users(
    out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (out / "checkpoint-10" / "notes.txt").write_text("mine")
    for checkpoint in checkpoints(out):
        remove(checkpoint)
    assert checkpoints(out) == [out / "checkpoint-10"]
    assert (out / "checkpoint-10" / "notes.txt").read_text() == "mine"
    assert "holds notes.txt, which is no part of it: it stays" in caplog.text


def cut_short(out: Path, step: int) -> Path:
    """A checkpoint of which only a part was written when the run was killed."""
    checkpoint = out / f"checkpoint-{step}"
    begin(checkpoint)
    (checkpoint / "optimizer.pt").write_text("half of it")
    return checkpoint


def test_a_checkpoint_that_was_cut_short_is_removed(out: Path) -> None:
    (out / "checkpoint-10" / "optimizer.pt").unlink()
    torn = cut_short(out, 12)
    assert damage(torn) == "was cut short"
    (out / "checkpoint-14").mkdir()  # killed before it was noted whose it is
    for checkpoint in checkpoints(out):
        remove(checkpoint)
    assert checkpoints(out) == []


def somebodys(out: Path, step: int) -> Path:
    """A checkpoint that another program wrote, or somebody copied here: without a seal."""
    checkpoint = out / f"checkpoint-{step}"
    checkpoint.mkdir()
    (checkpoint / "optimizer.pt").write_text("a user's")
    return checkpoint


def test_a_checkpoint_that_no_run_began_stays(out: Path, caplog: pytest.LogCaptureFixture) -> None:
    """For want of a seal it was taken for one that was cut short, and removed."""
    theirs = somebodys(out, 12)
    for checkpoint in checkpoints(out):
        remove(checkpoint)
    assert checkpoints(out) == [theirs]
    assert f"{theirs} holds optimizer.pt, and nothing says that a run wrote it" in caplog.text


def test_only_checkpoints_of_the_run_make_room_for_newer_ones(out: Path) -> None:
    """Trainer's own rotation removes the oldest of all folders of such a name."""
    theirs = somebodys(out, 3)
    seal_of(out, 12)
    remove_older(out)
    steps = [path.name for path in checkpoints(out)]
    assert steps == ["checkpoint-12", "checkpoint-10", theirs.name]


def seal_of(out: Path, step: int) -> None:
    checkpoint = out / f"checkpoint-{step}"
    begin(checkpoint)
    (checkpoint / "optimizer.pt").write_text("whole")
    seal(checkpoint)
    assert not (checkpoint / BEGUN).exists()
    assert damage(checkpoint) is None


def test_a_run_does_not_go_on_over_somebodys_checkpoint(out: Path) -> None:
    (out / MARKER).write_text(json.dumps(IDENTITY))
    for step in (8, 10):
        seal(out / f"checkpoint-{step}")
    cut_short(out, 12)
    assert not holds(out, IDENTITY)
    theirs = somebodys(out, 14)
    with pytest.raises(RecipeError, match="checkpoint-14 holds optimizer.pt, and nothing says"):
        holds(out, IDENTITY)
    with pytest.raises(RecipeError, match="move it away"):
        begin(theirs)
    assert (theirs / "optimizer.pt").read_text() == "a user's"
    assert not (theirs / BEGUN).exists()


def test_a_checkpoint_that_is_a_link_is_not_written_into(out: Path, tmp_path: Path) -> None:
    """Its files went where the link led, and the run could not remove it at its end."""
    (out / MARKER).write_text(json.dumps(IDENTITY))
    for step in (8, 10):
        seal(out / f"checkpoint-{step}")
    (tmp_path / "mine").mkdir()
    link = out / "checkpoint-12"
    link.symlink_to(tmp_path / "mine")
    with pytest.raises(RecipeError, match="checkpoint-12 is a link; move it away"):
        holds(out, IDENTITY)
    remove(link)
    assert link.is_symlink()


def test_a_card_is_not_written_over_somebodys_readme(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    for notes in ("my notes", "more notes"):
        readme.write_text(notes)
        set_readme_aside(tmp_path)
    readme.write_text((Path(folder.__file__).parent / "card.md").read_text())
    set_readme_aside(tmp_path)
    assert readme.exists()
    assert (tmp_path / "README.md.old-1").read_text() == "my notes"
    assert (tmp_path / "README.md.old-2").read_text() == "more notes"


@pytest.mark.parametrize("target", ["mine.md", "nowhere"])
def test_a_card_is_not_written_through_a_link(target: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "mine.md").write_text("my notes")
    (out / "README.md.old-1").symlink_to("nowhere")
    (out / "README.md").symlink_to(f"../{target}")
    set_readme_aside(out)
    assert sorted(path.name for path in out.iterdir()) == ["README.md.old-1", "README.md.old-2"]
    assert (out / "README.md.old-2").readlink() == Path(f"../{target}")


def test_a_folder_that_may_not_be_written_to_is_told_before_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_place(tmp_path / "new" / "folder", {})
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path)
    with pytest.raises(RecipeError, match="may not be written to; choose another"):
        check_place(tmp_path / "new" / "folder", {})


def test_a_link_to_nothing_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(RecipeError, match="link is no folder"):
        check_place(tmp_path / "link", {})


def test_a_folder_is_held_by_one_run_and_left_as_it_was(tmp_path: Path) -> None:
    out = tmp_path / "new" / "run"
    with held(out):
        with pytest.raises(BusyError, match="another training is at work"), held(out):
            pass
        assert (out / LOCK).exists()
    assert not (tmp_path / "new").exists()
    out.mkdir(parents=True)
    with held(out):
        pass
    assert list(out.iterdir()) == []


def test_processes_that_train_together_hold_a_folder_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with held(tmp_path):
        monkeypatch.setenv("RANK", "1")
        with held(tmp_path):
            pass
        monkeypatch.setenv("RANK", "0")
        with pytest.raises(BusyError), held(tmp_path):
            pass


def test_a_run_is_taken_where_there_are_no_locks(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / LOCK).mkdir()
    with held(tmp_path):
        (tmp_path / MARKER).touch()
    assert "not locked" in caplog.text
    assert (tmp_path / LOCK).is_dir()
