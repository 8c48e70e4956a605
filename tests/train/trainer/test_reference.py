"""Reference log-probabilities are computed again only when what they depend on changes."""

import hashlib
import shutil
import struct
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from datasets import Dataset

from train.pairs.pair import Pair
from train.pairs.tokens import TokenPair
from train.trainer.reference import attach_reference, cache_file

PAIR = Pair("u", "c", "span", "kind", "p", "a", "b")
ROWS = [TokenPair(PAIR, [1, 2], [3], [4]), TokenPair(PAIR, [1, 2], [5], [6, 7])]


def test_key_is_base_precision_and_token_ids() -> None:
    same = cache_file("base", "nf4", ROWS)
    relabelled = [replace(row, pair=replace(PAIR, kind="other")) for row in ROWS]
    assert cache_file("base", "nf4", relabelled) == same
    others = [("other", "nf4", ROWS), ("base", "bf16", ROWS), ("base", "nf4", ROWS[::-1])]
    others.append(("base", "nf4", [replace(ROWS[0], chosen_ids=[9]), ROWS[1]]))
    assert len({same, *(cache_file(*other) for other in others)}) == 5


def test_key_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SHA-256 of `base precision` and of each list of ids as 64-bit numbers, -1 after each."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = [1, 2, -1, 3, -1, 4, -1]
    second = [1, 2, -1, 5, -1, 6, 7, -1]
    hashed = b"base nf4" + struct.pack("=15q", *first, *second)
    name = f"{hashlib.sha256(hashed).hexdigest()}.npy"
    assert cache_file("base", "nf4", ROWS) == tmp_path / "tatqa-bench" / "reference" / name


def test_a_second_run_reads_what_the_first_one_computed(
    small_data: Path, recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import json

    from train.__main__ import main

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    found = []
    for name, beta in (("first", "0.1"), ("second", "0.3")):
        assert main([str(recipe_file), "--beta", beta, "--output_dir", str(tmp_path / name)]) in (
            None,
            0,
        )
        found.append(json.loads((tmp_path / name / "train.json").read_text()))
    assert [facts["reference"]["cached"] for facts in found] == [False, True]
    first, second = (facts["history"][0] for facts in found)
    assert first["logps/chosen"] == second["logps/chosen"]


@pytest.mark.parametrize("damage", ["other pairs", "no number", "cut short", "empty"])
def test_a_damaged_cache_is_written_anew(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Trainer:
        train_dataset = Dataset.from_dict({"prompt_ids": [[1], [2], [3]]})
        accelerator = SimpleNamespace(is_main_process=True)

    file, fresh = tmp_path / "x.npy", np.arange(6.0).reshape(3, 2)
    np.save(file, {"other pairs": np.zeros((2, 2)), "no number": fresh * np.nan}.get(damage, fresh))
    file.write_bytes(file.read_bytes()[: {"cut short": 150, "empty": 0}.get(damage)])
    monkeypatch.setattr("train.trainer.reference.compute_reference", lambda trainer: fresh)
    assert [attach_reference(Trainer(), file) for _ in range(2)] == [False, True]
    assert np.load(file).tolist() == fresh.tolist()


def test_a_cache_that_cannot_be_written_is_said_before_the_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A file stands where the folder should be; the run goes on without the cache."""

    class Trainer:
        train_dataset = Dataset.from_dict({"prompt_ids": [[1]]})
        accelerator = SimpleNamespace(is_main_process=True)
        precompute_ref_logps = False

    said_before: list[str] = []

    def compute(trainer: object) -> np.ndarray:
        said_before.extend(record.getMessage() for record in caplog.records)
        return np.array([[-1.0, -2.0]])

    monkeypatch.setattr("train.trainer.reference.compute_reference", compute)
    (tmp_path / "cache").write_text("a file")
    trainer = Trainer()
    assert not attach_reference(trainer, tmp_path / "cache" / "x.npy")
    assert "set XDG_CACHE_HOME" in said_before[0]
    assert trainer.train_dataset["ref_chosen_logps"] == [-1.0]
    assert trainer.train_dataset["ref_rejected_logps"] == [-2.0]
    assert trainer.precompute_ref_logps


def test_a_base_that_yields_no_numbers_ends_in_one_line(
    mini: Path,
    small_data: Path,
    recipe_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from transformers import AutoModelForCausalLM

    from train.__main__ import main

    broken = shutil.copytree(mini, tmp_path / "broken")
    model = AutoModelForCausalLM.from_pretrained(broken)
    model.model.norm.weight.data.fill_(float("nan"))
    model.save_pretrained(broken)
    out = tmp_path / "out"
    assert (
        main([str(recipe_file), "--model_name_or_path", str(broken), "--output_dir", str(out)]) == 1
    )
    lines = capsys.readouterr().err.splitlines()
    assert "log-probabilities of 44 of 44 pairs are no numbers" in lines[-1]
    assert not any("Traceback" in line for line in lines)
    assert not (out / "train.json").exists()


def test_the_reference_is_trls_with_the_adapter_off(
    mini: Path, small_data: Path, tmp_path: Path
) -> None:
    import torch
    from transformers import AutoTokenizer

    from train.pairs.build import build
    from train.pairs.pair import Counts
    from train.pairs.tokens import tokenize
    from train.recipe import Recipe
    from train.trainer.assemble import make_trainer
    from train.trainer.config import config
    from train.trainer.reference import compute_reference

    recipe, tokenizer = (
        Recipe(model_name_or_path=str(mini), max_pairs=10),
        AutoTokenizer.from_pretrained(mini),
    )
    rows = tokenize(list(build(recipe, Counts()))[:10], tokenizer, None, None, Counter())
    trainer = make_trainer(recipe, rows, tokenizer, config(recipe, tmp_path, 4, 1))
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            parameter.data = torch.randn_like(parameter)
    values = compute_reference(trainer)
    batch = trainer.data_collator(list(trainer.train_dataset))
    batch.pop("beta")
    expected = torch.stack(trainer.compute_ref_log_probs(trainer.model, batch), 1)
    assert np.allclose(values, expected.numpy(), rtol=1e-5)
    assert trainer.ref_model is None
    assert any(parameter.requires_grad for parameter in trainer.model.parameters())
