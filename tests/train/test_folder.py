"""Checkpoints: a damaged one is noticed, and the one before is taken."""

from pathlib import Path

import pytest

from train.folder import SEAL, damage, last_checkpoint, seal

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


def test_with_none_whole_the_run_starts_anew(out: Path) -> None:
    for step in (8, 10):
        (out / f"checkpoint-{step}" / "optimizer.pt").unlink()
    assert last_checkpoint(out) is None
    assert last_checkpoint(out / "nothing") is None
