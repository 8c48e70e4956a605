"""Pairs and tokens are made once, and again when anything that decides them changes."""

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, ByT5Tokenizer

from train import prepared
from train.pairs.pair import Counts
from train.prepared import cache_file, prepare
from train.recipe import Recipe
from train.stages import Stages

pytestmark = pytest.mark.usefixtures("small_data")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def tokenizer(mini: Path) -> Any:
    return AutoTokenizer.from_pretrained(mini)


def recipe(mini: Path, **fields: Any) -> Recipe:
    return Recipe(model_name_or_path=str(mini), max_pairs=12, **fields)


def never(*args: Any) -> Any:
    raise AssertionError("made again")


def test_a_second_run_reads_what_the_first_one_made(
    mini: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, held_out, counts = prepare(recipe(mini, eval_share=0.3), tokenizer, Stages())
    assert held_out
    assert len(rows) + len(held_out) == 12
    monkeypatch.setattr(prepared, "build", never)
    other = recipe(mini, eval_share=0.3, learning_rate=1e-3, lora_r=4)
    again = prepare(other, tokenizer, Stages())
    assert again == (rows, held_out, counts)
    assert isinstance(again.counts, Counts)
    with pytest.raises(AssertionError, match="made again"):
        prepare(recipe(mini, split="validation"), tokenizer, Stages())


def test_what_decides_pairs_and_tokens_is_in_the_name(
    mini: Path, tokenizer: Any, small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = cache_file(recipe(mini), tokenizer)
    assert cache_file(recipe(mini, beta=0.3), tokenizer) == first
    names = {first, cache_file(recipe(mini, seed=1), tokenizer)}
    names.add(cache_file(recipe(mini, max_prompt_length=9), tokenizer))
    other = tmp_path / "data"
    other.mkdir()
    for file in small_data.iterdir():
        (other / file.name).write_text(file.read_text().replace("a", "e"))
    with monkeypatch.context() as patch:
        patch.setenv("TATQA_DATA", str(other))
        names.add(cache_file(recipe(mini), tokenizer))
        next(other.iterdir()).unlink()
        assert cache_file(recipe(mini), tokenizer) is None, "a file is missing: an error to come"
    tokenizer.chat_template += " "
    names.add(cache_file(recipe(mini), tokenizer))
    tokenizer.bos_token = "<|im_start|>"  # which a template may write
    names.add(cache_file(recipe(mini), tokenizer))
    assert len(names) == 6


def test_samples_in_any_depth_that_the_pattern_reaches_decide(
    mini: Path, tokenizer: Any, tmp_path: Path
) -> None:
    """`**` reaches files beside it and two folders below, as it does where they are read."""
    pattern = str(tmp_path / "samples" / "**" / "samples_*.jsonl")
    mined = recipe(mini, strategy="mined", samples=[pattern])
    names = {cache_file(mined, tokenizer)}
    for place in ("", "one/two"):
        folder = tmp_path / "samples" / place
        folder.mkdir(parents=True, exist_ok=True)
        for content in ("{}", "{} "):
            (folder / "samples_a.jsonl").write_text(content)
            names.add(cache_file(mined, tokenizer))
    assert len(names) == 5


@pytest.mark.parametrize("damage", ["cut short", "empty", "text"])
def test_a_damaged_file_is_made_anew(mini: Path, tokenizer: Any, damage: str) -> None:
    rows, *_ = prepare(recipe(mini), tokenizer, Stages())
    path = cache_file(recipe(mini), tokenizer)
    assert path is not None
    content = path.read_bytes()
    path.write_bytes({"cut short": content[:-200], "empty": b"", "text": b"no"}[damage])
    assert prepare(recipe(mini), tokenizer, Stages())[0] == rows
    assert prepared.read(path) is not None


def test_pairs_of_a_tokenizer_written_in_python_are_not_kept(mini: Path) -> None:
    """Nothing says what it does but its code."""
    tokenizer = ByT5Tokenizer()
    assert cache_file(recipe(mini), tokenizer) is None
    tokenizer.chat_template = None
    assert prepare(recipe(mini), tokenizer, Stages()).rows


def test_a_cache_that_cannot_be_written_costs_time_alone(
    mini: Path, tokenizer: Any, cache: Path
) -> None:
    cache.write_text("a file where the folder would be")
    assert len(prepare(recipe(mini), tokenizer, Stages())[0]) == 12


def test_every_field_is_of_pairs_or_not() -> None:
    """A field that is added is part of the key until somebody says that it decides nothing."""
    assert set(Recipe.model_fields) >= prepared.NOT_OF_PAIRS
