"""Reference log-probabilities are computed once, and again only when something they depend on changes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from train.pairs import Pair
from train.reference import attach_reference, cache_file
from train.tokens import TokenPair

PAIR = Pair("u", "c", "span", "kind", "p", "a", "b")
ROWS = [TokenPair(PAIR, [1, 2], [3], [4]), TokenPair(PAIR, [1, 2], [5], [6, 7])]


def test_key_is_base_precision_and_token_ids() -> None:
    same = cache_file("base", "nf4", ROWS)
    relabelled = [replace(row, pair=replace(PAIR, kind="other")) for row in ROWS]
    assert cache_file("base", "nf4", relabelled) == same
    others = [("other", "nf4", ROWS), ("base", "bf16", ROWS), ("base", "nf4", ROWS[::-1])]
    others.append(("base", "nf4", [replace(ROWS[0], chosen_ids=[9]), ROWS[1]]))
    assert len({same, *(cache_file(*other) for other in others)}) == 5


def test_a_second_run_reads_what_the_first_one_computed(
    small_data: Path, recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import json

    from train.__main__ import main

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    found = []
    for name, beta in (("first", "0.1"), ("second", "0.3")):
        assert main([str(recipe_file), "--beta", beta, "--output_dir", str(tmp_path / name)]) in (None, 0)
        found.append(json.loads((tmp_path / name / "train.json").read_text()))
    assert [facts["reference"]["cached"] for facts in found] == [False, True]
    first, second = (facts["history"][0] for facts in found)
    assert first["logps/chosen"] == second["logps/chosen"]


def test_a_cache_of_other_pairs_is_refused(tmp_path: Path) -> None:
    class Trainer:
        train_dataset = [0, 1, 2]

    np.save(tmp_path / "x.npy", np.zeros((2, 2)))
    with pytest.raises(ValueError, match="delete the file"):
        attach_reference(Trainer(), tmp_path / "x.npy")
