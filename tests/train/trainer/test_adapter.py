"""Training on from an adapter: the same as TRL's, one plain adapter at the end, and refusals."""

import json
import os
import shutil
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file

from train.__main__ import main
from train.init_adapter import InitAdapter, read_init_adapter
from train.recipe import RecipeError, load
from train.trainer.adapter import refuse_other_kind

pytestmark = pytest.mark.usefixtures("small_data")
ALL = ["--lora_target_modules", "all-linear"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def supervised(mini: Path, contexts_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter on all linear layers, trained by supervision alone."""
    folder = tmp_path_factory.mktemp("supervised")
    recipe = folder / "sft.yaml"
    recipe.write_text(
        f"model_name_or_path: {mini}\nloss_type: [sft]\nlearning_rate: 1.0e-2\nlora_r: 4\n"
        "effective_batch_size: 8\nmax_pairs: 24\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TATQA_DATA", str(contexts_folder))
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        assert main([str(recipe), "--output_dir", str(folder / "run"), *ALL]) == 0
        assert not list((folder / "cache").glob("**/*.npy")), "no reference is computed"
    return folder / "run"


@pytest.fixture
def recipe(recipe_file: Path, supervised: Path) -> Path:
    """DPO on from the supervised adapter."""
    text = recipe_file.read_text().replace("max_pairs: 44", "max_pairs: 24")
    recipe_file.write_text(f"{text}lora_target_modules: all-linear\ninit_adapter: {supervised}\n")
    return recipe_file


def facts(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "train.json").read_text())
    return found


def test_a_supervised_run_and_dpo_on_from_it(
    supervised: Path, recipe: Path, mini: Path, tmp_path: Path
) -> None:
    before = facts(supervised)
    assert before["reference"]["needed"] is False
    assert [entry["step"] for entry in before["logps"]] == [1, 2, 3]
    assert before["logps"][-1]["chosen"] > before["logps"][0]["chosen"] + 5
    out = tmp_path / "run"
    assert main([str(recipe), "--output_dir", str(out), "--lora_dropout", "0.3"]) == 0
    after = facts(out)
    assert after["init_adapter_sha256"]
    start, first, *_, last = after["logps"]
    assert start["step"] == 0
    assert start["chosen"] == pytest.approx(before["logps"][-1]["chosen"], abs=25)
    assert first["chosen_start"] == pytest.approx(first["chosen"], abs=5), "dropout is in one alone"
    assert {"chosen", "rejected", "chosen_start", "rejected_start"} <= set(last)
    stages = set(after["stages_seconds"])
    assert {
        "imports",
        "pairs",
        "tokenize",
        "plan",
        "load",
        "reference",
        "compile",
        "train",
        "save",
    } == stages
    assert not [path for path in out.iterdir() if path.is_dir()], "one adapter, no second one"
    config = json.loads((out / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(mini)
    ours, theirs = (load_file(f / "adapter_model.safetensors") for f in (out, supervised))
    assert ours.keys() == theirs.keys()
    moved = max(abs(ours[name] - theirs[name]).max() for name in ours)
    assert 0 < moved < 0.02


def test_stopped_it_goes_on_from_the_same_reference(
    recipe: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cached reference is gone too: it is computed from the adapter, not the checkpoint."""
    from train.callbacks import EpochOrder

    words = [str(recipe), "--num_train_epochs", "2", "--output_dir"]
    assert main([*words, str(tmp_path / "whole")]) == 0
    shutil.rmtree(cache)
    with monkeypatch.context() as patch:

        def stop(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.epoch >= 1:
                os.kill(os.getpid(), signal.SIGTERM)
            self.trainer.order.set_epoch(int(state.epoch or 0))

        patch.setattr(EpochOrder, "on_epoch_begin", stop)
        assert main([*words, str(tmp_path / "stopped")]) == 1
    shutil.rmtree(cache)
    assert main([*words, str(tmp_path / "stopped")]) == 0
    whole, stopped = (
        load_file(tmp_path / name / "adapter_model.safetensors") for name in ("whole", "stopped")
    )
    assert all((whole[name] == stopped[name]).all() for name in whole)
    assert facts(tmp_path / "whole")["logps"] == facts(tmp_path / "stopped")["logps"]


def test_equals_trl_with_the_same_adapter_as_reference(
    supervised: Path, recipe: Path, mini: Path, tmp_path: Path
) -> None:
    from datasets import Dataset
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    from train.pairs.build import build, stratified
    from train.pairs.pair import Counts
    from train.pairs.tokens import tokenize
    from train.trainer.assemble import make_trainer
    from train.trainer.config import config
    from train.trainer.reference import attach_reference

    tokenizer = AutoTokenizer.from_pretrained(mini)
    made = load(recipe, {"max_pairs": 16, "beta": 0.3, "learning_rate": 3e-2, "order": "random"})
    pairs = stratified(list(build(made, Counts())), 16, made.seed)
    rows = tokenize(pairs, tokenizer, None, None, Counter())
    init = read_init_adapter(made, facts(supervised)["base_sha256"])
    ours = make_trainer(made, rows, tokenizer, config(made, tmp_path / "a", 4, 1), init)
    attach_reference(ours, None)

    class InOrder(DPOTrainer):  # type: ignore[misc]
        """Plain TRL, shown the pairs in our order."""

        def _get_train_sampler(self, *args: Any) -> Any:
            return list(ours.order)

    base = AutoModelForCausalLM.from_pretrained(mini)
    theirs = InOrder(
        model=PeftModel.from_pretrained(base, str(supervised), is_trainable=True),
        args=DPOConfig(
            output_dir=str(tmp_path / "b"), beta=0.3, learning_rate=3e-2, seed=42, bf16=False,
            per_device_train_batch_size=8, max_length=None, logging_steps=1, num_train_epochs=1,
            save_strategy="no", report_to="none", use_cpu=True, disable_tqdm=True,
            gradient_checkpointing=False,
        ),
        train_dataset=Dataset.from_list([row.pair.row() for row in rows]),
        processing_class=tokenizer,
    )  # fmt: skip
    for trainer in (ours, theirs):
        trainer.train()
    histories = [
        [entry for entry in trainer.state.log_history if "loss" in entry]
        for trainer in (ours, theirs)
    ]
    assert len(histories[0]) == len(histories[1]) == 2
    for a, b in zip(*histories, strict=True):
        for name in ("loss", "rewards/margins", "rewards/chosen", "grad_norm", "logps/chosen"):
            assert a[name] == pytest.approx(b[name], rel=1e-4, abs=1e-5), name
    assert histories[0][0]["rewards/margins"] == pytest.approx(0, abs=1e-5)
    assert abs(histories[0][1]["rewards/margins"]) > 1e-3


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    capsys.readouterr()
    assert main([str(word) for word in words]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert sum("error" in line for line in lines) == 1
    return lines[-1]


def test_an_adapter_that_does_not_fit_is_one_line(
    supervised: Path, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (recipe, "--output_dir", tmp_path / "out")
    assert "has lora_r 4, the recipe 8" in refused(capsys, *words, "--lora_r", 8)
    assert "has lora_alpha 32, the recipe 16" in refused(capsys, *words, "--lora_alpha", 16)
    assert "has use_rslora False" in refused(capsys, *words, "--use_rslora", "true")
    assert "covers other layers" in refused(
        capsys, *words, "--lora_target_modules", "[q_proj, v_proj]"
    )
    assert "holds no adapter" in refused(capsys, *words, "--init_adapter", tmp_path)
    other = shutil.copytree(supervised, tmp_path / "other")
    record = facts(other)
    (other / "train.json").write_text(json.dumps({**record, "base_sha256": "0" * 64}))
    assert "another base" in refused(capsys, *words, "--init_adapter", other)
    (other / "train.json").unlink()
    config = json.loads((other / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "somebody/else"
    (other / "adapter_config.json").write_text(json.dumps(config))
    assert "another base" in refused(capsys, *words, "--init_adapter", other)
    broken = shutil.copytree(supervised, tmp_path / "broken")
    weights = load_file(broken / "adapter_model.safetensors")
    next(iter(weights.values())).fill(float("nan"))
    save_file(weights, broken / "adapter_model.safetensors")
    assert "no numbers" in refused(capsys, *words, "--init_adapter", broken)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("init_lora_weights", "pissa"),  # which took a part out of the base's weights
        ("layer_replication", [[0, 2], [1, 2]]),
        ("rank_pattern", {"v_proj": 2}),
        ("use_qalora", True),
        ("something_new", 7),
    ],
)
def test_an_adapter_that_a_recipe_cannot_describe_is_refused(
    field: str, value: Any, supervised: Path, recipe: Path
) -> None:
    """What its weights mean is more than rank and scale."""
    made = load(recipe)
    config = json.loads((supervised / "adapter_config.json").read_text())
    plain = {**config, "peft_version": "0.1", "fan_in_fan_out": True}
    refuse_other_kind(made, InitAdapter(supervised, plain, ""))
    with pytest.raises(RecipeError, match=f"has {field} .*, which no recipe can describe"):
        refuse_other_kind(made, InitAdapter(supervised, {**config, field: value}, ""))


def test_a_damaged_adapter_is_named(
    supervised: Path, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not the base, and no traceback."""
    words = (recipe, "--output_dir", tmp_path / "out", "--init_adapter")
    broken = shutil.copytree(supervised, tmp_path / "broken")
    weights = (broken / "adapter_model.safetensors").read_bytes()
    (broken / "adapter_model.safetensors").write_bytes(weights[:-8])
    message = f"init_adapter: {broken / 'adapter_model.safetensors'} is damaged"
    assert message in refused(capsys, *words, broken)
    (broken / "adapter_config.json").write_text("[]")
    assert "holds no adapter in PEFT's layout" in refused(capsys, *words, broken)


def test_another_adapter_is_another_run(
    supervised: Path, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The path stays, the weights change: the run's identity and the reference's key do too."""
    start = shutil.copytree(supervised, tmp_path / "start")
    words = (recipe, "--init_adapter", start, "--output_dir")
    assert main([*map(str, words), str(tmp_path / "one")]) == 0
    weights = load_file(start / "adapter_model.safetensors")
    save_file({name: 0.5 * w for name, w in weights.items()}, start / "adapter_model.safetensors")
    assert "other init_adapter weights" in refused(capsys, *words, tmp_path / "one")
    assert main([*map(str, words), str(tmp_path / "two")]) == 0
    assert facts(tmp_path / "two")["reference"]["cached"] is False
