"""What a record says of the model behind the scores."""

from collections.abc import Callable
from pathlib import Path

import pytest

from results import InputError
from results.sweep import records
from results.sweep.stages import Stage

COMMIT = "70d244cc86ccca08cf5af4e1e306ecf908b1ad5e"


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the Hub that holds org/model at COMMIT."""
    model = tmp_path / "hub" / "models--org--model"
    snapshot = model / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_a_hub_name_has_the_commit_that_the_cache_holds(hub_cache: Path) -> None:
    assert records.hub_revision("org/model") == {"revision": COMMIT}


@pytest.mark.parametrize("name", ["org/another", "no name: of the Hub", "a/b/c/d", ""])
def test_what_the_cache_does_not_hold_has_none(hub_cache: Path, name: str) -> None:
    assert records.hub_revision(name) == {}


def test_a_folder_of_the_same_name_is_the_folder(
    hub_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "org" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert records.hub_revision("org/model") == {}


def test_scores_know_their_bases_revision(lm_eval_output: Callable[..., Path]) -> None:
    output = lm_eval_output("tatqa", 0.5)
    stage = Stage(output.parent, "tatqa", ["lm_eval"], [], output)
    model = {"base": "org/model", "base_sha256": "org/model", "load_in_4bit": False}
    assert "base revision" not in records.scores(stage, model).circumstances
    known = records.scores(stage, {**model, "revision": COMMIT})
    assert known.circumstances["base revision"] == COMMIT
    assert known.identity["base model"] == ["org/model", False]


def test_a_record_shows_no_path_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["python -m train", f"{tmp_path}/r.yaml", "--output_dir", f"{tmp_path}/runs/r"]
    kept = records.shortened({"command": command})
    assert kept["command"] == ["python -m train", "r.yaml", "--output_dir", "runs/r"]


@pytest.mark.parametrize("facts", ["{}", '{"history": 5}', "[]", '{"history": [1]}', '"x"'])
def test_a_training_of_another_shape_is_one_line(tmp_path: Path, facts: str) -> None:
    (tmp_path / "train.json").write_text(facts)
    with pytest.raises(InputError, match=r"train.json: not what a training leaves; move it away"):
        records.read_training(tmp_path / "train.json")


def test_a_long_training_is_kept_with_few_of_its_steps() -> None:
    steps = [{"step": number, "loss": number / 3} for number in range(1, 1024)]
    kept = records.shortened({"history": steps, "logps": steps[:3], "seconds": 1.5})
    # 1,023 steps over 200: every sixth from the first (171 of them), and the last
    assert [step["step"] for step in kept["history"]] == [*range(1, 1024, 6), 1023]
    assert kept["history"][1] == {"step": 7, "loss": 2.3333}
    assert [step["step"] for step in kept["logps"]] == [1, 2, 3]
    assert kept["seconds"] == 1.5
    assert records.shortened({"history": []}) == {"history": []}
