"""A base is known by what would be loaded from it."""

from pathlib import Path

import pytest

from train.base import files_of, hash_of


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def folder(path: Path, name: str, content: bytes) -> Path:
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text("{}")
    (path / name).write_bytes(content)
    return path


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "modeling_own.py"])
def test_weights_in_any_format_and_code_decide(name: str, tmp_path: Path) -> None:
    one = hash_of(files_of(folder(tmp_path / "a", name, b"one")))
    assert hash_of(files_of(folder(tmp_path / "b", name, b"one"))) == one
    assert hash_of(files_of(folder(tmp_path / "c", name, b"two"))) != one


def test_a_file_is_read_once_and_again_when_it_was_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = folder(tmp_path / "a", "model.safetensors", b"one")
    before = hash_of(files_of(where))
    with monkeypatch.context() as patch:
        patch.setattr("train.base.hashlib.file_digest", None)
        assert hash_of(files_of(where)) == before
    (where / "model.safetensors").write_bytes(b"two")
    assert hash_of(files_of(where)) != before


@pytest.mark.parametrize("content", ["", "[1]", "{"])
def test_a_damaged_cache_is_made_anew(content: str, tmp_path: Path, cache: Path) -> None:
    where = folder(tmp_path / "a", "model.safetensors", b"one")
    before = hash_of(files_of(where))
    (cache / "tatqa-bench" / "hashes.json").write_text(content)
    assert hash_of(files_of(where)) == before


def test_a_folder_without_weights_is_no_base(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(OSError, match="no weights"):
        files_of(tmp_path)
