"""A base is known by what would be loaded from it."""

import json
import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from train.base import files_of, fix_date, hash_of, open_base, refuse_missing_weights
from train.recipe import RecipeError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def folder(path: Path, name: str, content: bytes) -> Path:
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text("{}")
    (path / name).write_bytes(content)
    return path


@pytest.mark.parametrize(
    "name",
    [
        "model.safetensors",
        "pytorch_model.bin",
        "model-00001-of-00002.safetensors",
        "pytorch_model-00001-of-00002.bin",
        "modeling_own.py",
    ],
)
def test_weights_in_any_format_and_code_decide(name: str, tmp_path: Path) -> None:
    one = hash_of(files_of(folder(tmp_path / "a", name, b"one")))
    assert hash_of(files_of(folder(tmp_path / "b", name, b"one"))) == one
    assert hash_of(files_of(folder(tmp_path / "c", name, b"two"))) != one


def test_which_shard_holds_what_decides(tmp_path: Path) -> None:
    where = folder(tmp_path / "a", "model-00001-of-00001.safetensors", b"one")
    (where / "model.safetensors.index.json").write_text("{}")
    before = hash_of(files_of(where))
    (where / "model.safetensors.index.json").write_text('{"weight_map": {}}')
    assert hash_of(files_of(where)) != before


@pytest.mark.parametrize(
    ("template", "fixed"),
    [
        ("{{ strftime_now('%d %b %Y') }}.", "{{ '26 Jul 2024' }}."),
        ('{% set d = strftime_now( "%Y-%m-%d" ) %}', "{% set d = '2024-07-26' %}"),
        ("{% if strftime_now is defined %}", "{% if strftime_now is defined %}"),
        (None, None),
        ({"tool_use": "{{ strftime_now('%Y') }}"}, {"tool_use": "{{ strftime_now('%Y') }}"}),
    ],
)
def test_a_template_that_writes_the_date_writes_a_fixed_one(template: Any, fixed: Any) -> None:
    """Llama 3.1's, Mistral's and gpt-oss's calls."""
    tokenizer = SimpleNamespace(chat_template=template)
    assert fix_date(tokenizer, date(2024, 7, 26)) == (template != fixed)
    assert tokenizer.chat_template == fixed


def test_an_adapter_is_no_base(tmp_path: Path) -> None:
    """transformers would load the weights of the folder that it names, whatever lies here."""
    where = folder(tmp_path / "a", "model.safetensors", b"one")
    (where / "adapter_config.json").write_text("{}")
    with pytest.raises(OSError, match="holds an adapter, which `init_adapter` names"):
        files_of(where)


Damage = Callable[[Path], object]
DAMAGED: dict[str, tuple[Damage, str]] = {
    "tokenizer_config.json is a list": (
        lambda base: (base / "tokenizer_config.json").write_text("[]"),
        "cannot load",
    ),
    "config.json with a text for a number": (
        lambda base: rewrite(base / "config.json", hidden_size="32"),
        "expected int, got str",
    ),
    "no tokenizer": (
        lambda base: [path.rename(base / f"no.{path.name}") for path in base.glob("tokenizer*")],
        "its tokenizer has no vocabulary",
    ),
    "code of its own": (
        lambda base: rewrite(
            base / "config.json", model_type="own", auto_map={"AutoConfig": "own.Own"}
        ),
        "brings code of its own, which is not run",
    ),
}


def rewrite(path: Path, **fields: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


@pytest.mark.parametrize("name", DAMAGED)
def test_a_base_that_cannot_be_loaded_is_one_line(name: str, mini: Path, tmp_path: Path) -> None:
    damage, message = DAMAGED[name]
    base = Path(shutil.copytree(mini, tmp_path / "base"))
    damage(base)
    with pytest.raises(RecipeError, match=message) as error:
        open_base(str(base))
    assert "\n" not in str(error.value)


def test_weights_that_are_missing_are_not_drawn_at_random(mini: Path, tmp_path: Path) -> None:
    """transformers trains on such a base with a warning, which nobody sees."""
    base = Path(shutil.copytree(mini, tmp_path / "base"))
    refuse_missing_weights(str(base))
    weights = load_file(base / "model.safetensors")
    del weights["model.layers.1.self_attn.v_proj.weight"]
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(RecipeError, match=r"lack 1 .* such as model.layers.1.self_attn.v_proj"):
        refuse_missing_weights(str(base))


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
