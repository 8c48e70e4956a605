"""Whole runs through the command: what they leave, how they resume, what they refuse."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, BertConfig, GPT2Config

from train import folder
from train.__main__ import main
from train.folder import begin, last_checkpoint

pytestmark = pytest.mark.usefixtures("small_data")
Command = Callable[..., subprocess.Popen[str]]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def start(
    *args: object, launcher: tuple[str, ...] = (sys.executable, "-m", "train"), **kwargs: Any
) -> Any:
    words = [*launcher, *map(str, args)]
    return subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kwargs
    )


def wait_for(path: Path, process: Any) -> None:
    while not path.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def weights(folder: Path) -> dict[str, Any]:
    return load_file(folder / "adapter_model.safetensors")


def same_bits(a: Path, b: Path) -> bool:
    first, second = weights(a), weights(b)
    return first.keys() == second.keys() and all(
        (first[name] == second[name]).all() for name in first
    )


def facts(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "train.json").read_text())
    return found


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {}


@pytest.fixture
def whole(
    uninterrupted: dict[str, Path], recipe_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """One run from start to end with dropout over two epochs, made once."""
    if not uninterrupted:
        out = tmp_path_factory.mktemp("whole") / "run"
        assert main([str(recipe_file), "--output_dir", str(out), *DROPOUT]) == 0
        uninterrupted["out"] = out
    return uninterrupted["out"]


DROPOUT = ["--lora_dropout", "0.3", "--num_train_epochs", "2"]


def test_what_a_run_leaves(whole: Path, mini: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = facts(whole)
    assert {"recipe", "versions", "git", "device", "data_sha256", "base_sha256"} <= set(found)
    assert {"pairs", "history", "seconds", "pairs_per_second", "tokens"} <= set(found)
    assert {"peak_memory_bytes", "command"} <= set(found)
    assert found["recipe"]["model_name_or_path"] == str(mini)
    assert found["pairs"]["kept"] == sum(found["pairs"]["by_type"].values()) == 44
    assert [entry["step"] for entry in found["history"]] == list(range(1, 13))
    assert {"loss", "rewards/accuracies", "rewards/margins", "beta", "seconds"} <= set(
        found["history"][0]
    )
    assert found["tokens"]["computed"] < found["tokens"]["presented"]
    names = {path.name for path in whole.iterdir()}
    assert {
        "adapter_config.json",
        "adapter_model.safetensors",
        "README.md",
        "curves.svg",
        "train.json",
    } <= names
    assert not {
        name
        for name in names
        if name.startswith("checkpoint") or name in ("run.json", "training_args.bin")
    }
    card = (whole / "README.md").read_text()
    assert f"`{mini.name}` (a local folder when it was trained)" in card
    assert "synthetic questions" in card
    assert found["data"] == {"kind": "synthetic"}
    assert "44 preference pairs" in card
    assert "<svg" in (whole / "curves.svg").read_text()
    from peft import AutoPeftModelForCausalLM

    adapter = AutoPeftModelForCausalLM.from_pretrained(whole)
    assert adapter.peft_config["default"].base_model_name_or_path == str(mini)


def test_killed_at_any_step_it_ends_with_the_same_adapter_to_the_bit(
    whole: Path, recipe_file: Path, tmp_path: Path
) -> None:
    """Order, dropout, optimizer and clock go on after kill -9, also past a checkpoint cut short."""
    out = tmp_path / "run"
    process = start(recipe_file, "--output_dir", out, *DROPOUT)
    wait_for(out / "checkpoint-8" / "checksums.json", process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (out / "train.json").exists()
    newest = last_checkpoint(out)
    assert newest is not None
    torn = out / "checkpoint-99"
    begin(torn)
    (torn / "trainer_state.json").write_text('{"epoch": 1.')
    assert last_checkpoint(out) == newest
    done = json.loads((newest / "trainer_state.json").read_text())["log_history"]
    assert main([str(recipe_file), "--output_dir", str(out), *DROPOUT]) == 0
    history = facts(out)["history"]
    assert [entry["seconds"] for entry in history[: len(done)]] == [
        entry["seconds"] for entry in done
    ]  # not run again
    assert len(done) >= 8
    assert same_bits(whole, out)
    for entry, other in zip(facts(whole)["history"], facts(out)["history"], strict=True):
        assert entry["loss"] == other["loss"]
        assert entry["computed"] == other["computed"]


def test_a_second_run_in_the_folder_of_one_at_work_is_refused(
    recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both wrote the same checkpoints. A kill frees the folder."""
    out = tmp_path / "run"
    process = start(recipe_file, "--output_dir", out)
    wait_for(out / "run.json", process)
    process.send_signal(signal.SIGSTOP)
    before = (out / "run.json").stat().st_ino
    assert "another training is at work in" in refused(
        capsys, recipe_file, "--output_dir", out, code=1
    )
    assert (out / "run.json").stat().st_ino == before
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with folder.held(out):
        pass
    assert (out / "run.json").exists()


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_a_signal_saves_a_checkpoint_and_the_run_goes_on(
    number: signal.Signals, whole: Path, recipe_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    process = start(recipe_file, "--output_dir", out, "--save_steps", 1, *DROPOUT)
    wait_for(out / "checkpoint-1" / "checksums.json", process)
    process.send_signal(number)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 1
    assert f"error: stopped by {number.name} at step" in err
    assert "Traceback" not in err
    assert last_checkpoint(out) is not None
    assert main([str(recipe_file), "--output_dir", str(out), "--save_steps", "1", *DROPOUT]) == 0
    assert same_bits(whole, out)


def test_killed_between_the_last_step_and_the_record(
    whole: Path, recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [str(recipe_file), "--output_dir", str(tmp_path / "run"), *DROPOUT]
    with monkeypatch.context() as patch:
        patch.setattr("train.run.finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            main(words)
    assert main(words) == 0
    assert same_bits(whole, tmp_path / "run")
    assert [e["seconds"] for e in facts(tmp_path / "run")["history"]] == sorted(
        e["seconds"] for e in facts(tmp_path / "run")["history"]
    )


GRAPHS = Path(__file__).parent / "sharing" / "graphs_on_cpu.py"


@pytest.mark.parametrize(
    ("program", "losses"),
    [(("-m", "train"), "[sigmoid]"), ((str(GRAPHS),), "[sigmoid, sft]")],
    ids=["plain", "recorded"],
)
def test_two_processes_train_as_one(
    recipe_file: Path, tmp_path: Path, tiny_base: Path, program: tuple[str, ...], losses: str
) -> None:
    """accelerate launch on the CPU: the same effective batch, curve and adapter within rounding.

    Contexts are whole, so the processes have unequal numbers of pairs; the last step has one pair.
    """
    one, two = tmp_path / "one", tmp_path / "two"
    odd = ("--max_pairs", "41", "--loss_type", losses)
    assert main([str(recipe_file), "--output_dir", str(one), *odd]) == 0
    configuration = tiny_base.parents[1] / "accelerate" / "ddp.yaml"
    options = (
        "--config_file",
        str(configuration),
        "--num_processes",
        "2",
        "--main_process_port",
        "0",
    )
    launch = (sys.executable, "-m", "accelerate.commands.launch", *options, *program)
    for _ in "trained", "finished already":
        process = start(recipe_file, "--output_dir", two, *odd, launcher=launch)
        _, err = process.communicate()
        assert process.returncode == 0, err
    assert facts(two)["processes"] == 2
    assert facts(one)["pairs"]["dropped"] == facts(two)["pairs"]["dropped"] == {}
    assert len(facts(one)["history"]) == 6
    for entry, other in zip(facts(one)["history"], facts(two)["history"], strict=True):
        names = ["loss", "grad_norm", "rewards/margins", "rewards/chosen", "logps/rejected"]
        names += ["logps/chosen", "logps/chosen_start", "beta", "learning_rate"]
        if abs(entry["rewards/margins"]) > 1e-5:  # at a margin of 0, rounding decides who is right
            names.append("rewards/accuracies")
        for name in names:
            assert entry[name] == pytest.approx(other[name], abs=1e-5, rel=1e-5), name
    first, second = weights(one), weights(two)
    assert max(abs(first[name] - second[name]).max() for name in first) < 1e-5


def refused(capsys: pytest.CaptureFixture[str], *args: object, code: int = 2) -> str:
    capsys.readouterr()
    assert main([str(arg) for arg in args]) == code
    err = capsys.readouterr().err.strip().splitlines()
    assert err[-1].startswith("error: ")
    assert sum("error" in line for line in err) == 1
    return err[-1]


def test_a_finished_run_is_not_run_again_and_another_one_is_refused(
    whole: Path, recipe_file: Path, mini: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (whole / "train.json").stat().st_mtime_ns
    assert main([str(recipe_file), "--output_dir", str(whole), *DROPOUT]) == 0
    assert "finished" in capsys.readouterr().out
    assert (whole / "train.json").stat().st_mtime_ns == before
    assert "a run with other lora_dropout" in refused(
        capsys, recipe_file, "--output_dir", whole, *DROPOUT[2:]
    )
    record = facts(whole)
    (tmp_path / "other").mkdir()
    for key, name in (("base_sha256", "base model weights"), ("data_sha256", "pairs")):
        (tmp_path / "other" / "train.json").write_text(json.dumps({**record, key: "0" * 64}))
        message = refused(capsys, recipe_file, "--output_dir", tmp_path / "other", *DROPOUT)
        assert f"holds a run with other {name}" in message
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "adapter_config.json").write_text("{}")
    assert "holds an adapter that this program did not train" in refused(
        capsys, recipe_file, "--output_dir", foreign
    )


def test_bad_input_is_one_line_and_leaves_nothing(
    recipe_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = ("--output_dir", tmp_path / "out")
    assert "cannot load /nowhere" in refused(
        capsys, recipe_file, *out, "--model_name_or_path", "/nowhere"
    )
    assert "unknown key `beata`; did you mean `beta`?" in refused(
        capsys, recipe_file, *out, "--beata", 1
    )
    assert "no pair is left" in refused(capsys, recipe_file, *out, "--max_length", 5)
    assert "nope" in refused(capsys, recipe_file, *out, "--lora_target_modules", "[nope]")
    assert "has no layer named nope" in refused(
        capsys, recipe_file, *out, "--lora_target_modules", "[q_proj, nope]"
    )
    assert "nonsense is not supported" in refused(
        capsys, recipe_file, *out, "--report_to", "nonsense"
    )
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert "effective_batch_size 8 does not divide into 3" in refused(capsys, recipe_file, *out)
    monkeypatch.delenv("WORLD_SIZE")
    monkeypatch.setenv("TATQA_DATA", str(tmp_path / "nodata"))
    assert "nodata" in refused(capsys, recipe_file, *out)
    assert not (tmp_path / "out").exists()


def test_a_run_that_fails_at_its_first_step_leaves_its_folder_to_a_mended_recipe(
    recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (recipe_file, "--output_dir", tmp_path / "out", "--max_pairs", 8, "--beta")
    assert "look at beta" in refused(capsys, *words, "1.0e+308", code=1)
    assert not (tmp_path / "out").exists()
    assert main([*map(str, words), "0.3"]) == 0


def of_kind(config: Any, mini: Path, folder: Path) -> Path:
    """A random tiny model with the small model's tokenizer."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(mini)
    config.vocab_size = len(tokenizer)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_models_whose_configuration_names_no_feed_forward_width_are_trained(
    recipe_file: Path, mini: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """GPT-2's does not; its table of positions is learned, and ends."""
    shape = GPT2Config(n_embd=32, n_layer=1, n_head=4, n_positions=400)
    gpt2 = of_kind(shape, mini, tmp_path / "gpt2")
    fields = (recipe_file, "--max_pairs", 8, "--lora_target_modules", "all-linear")
    words = (*fields, "--model_name_or_path", gpt2, "--output_dir", tmp_path / "out")
    assert main([str(word) for word in words]) == 0
    shape.n_positions = 64
    of_kind(shape, mini, gpt2)
    shutil.rmtree(tmp_path / "out")
    assert "the model has 64 positions; set it to 64" in refused(capsys, *words)


def test_an_encoder_is_refused_without_sharing_too(
    recipe_file: Path, mini: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would see the reply that it is to predict."""
    shape = BertConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4
    )
    bert = of_kind(shape, mini, tmp_path / "bert")
    fields = (recipe_file, "--max_pairs", 8, "--lora_target_modules", "query")
    words = (*fields, "--model_name_or_path", bert, "--output_dir", tmp_path / "out")
    assert "its attention is bidirectional" in refused(capsys, *words)
    assert "no causal language model" in refused(capsys, *words, "--share_prefixes", "false")


def test_training_that_changed_nothing_is_no_result(
    recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One step, all of it warm-up: the adapter would be the base, and be scored as a result."""
    words = (recipe_file, "--output_dir", tmp_path / "out", "--max_pairs", 8)
    said = refused(capsys, *words, "--warmup_ratio", 0.1, code=1)
    assert "training changed nothing: the learning_rate was 0 in every step" in said
    assert not (tmp_path / "out" / "train.json").exists()


def test_dry_run_prints_the_plan_and_writes_nothing(
    recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main(
            [str(recipe_file), "--output_dir", str(tmp_path / "out"), "--dry-run", "--beta", "0.07"]
        )
        == 0
    )
    printed = capsys.readouterr().out
    for expected in (
        "beta: 0.07",
        "44  pairs to train on",
        "p50",
        "p99",
        "steps: 6, each 8 pairs x 1",
        "GiB",
    ):
        assert expected in printed
    assert not (tmp_path / "out").exists()


def test_full_disk_is_one_line_and_the_run_goes_on(
    whole: Path, recipe_file: Path, tmp_path: Path
) -> None:
    """Files may not grow past 20 kB, so the first checkpoint cannot be written."""
    out = tmp_path / "run"

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    process = start(recipe_file, "--output_dir", out, *DROPOUT, preexec_fn=limit)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 1, err
    assert f"error: cannot write to {out}" in err, err[-3000:]
    assert "Traceback" not in err
    assert main([str(recipe_file), "--output_dir", str(out), *DROPOUT]) == 0
    assert same_bits(whole, out)


def test_a_disk_that_is_full_inside_torch_save_costs_no_step_that_was_saved(
    recipe_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    no_file_beyond: Callable[[int], AbstractContextManager[None]],
) -> None:
    """The adapter of this rank has 260 kB, the optimizer's file, by torch.save, twice that."""
    wide = ["--lora_r", "64", "--lora_target_modules", "all-linear", "--save_steps", "4"]
    assert main([str(recipe_file), *wide, "--output_dir", str(tmp_path / "whole")]) == 0
    out = tmp_path / "run"
    with no_file_beyond(400_000):
        assert main([str(recipe_file), *wide, "--output_dir", str(out)]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert f"error: cannot write to {out}: a file could not be written whole" in lines[-1]
    assert not any("Traceback" in line for line in lines)
    assert (out / "checkpoint-4" / "adapter_model.safetensors").exists()
    assert last_checkpoint(out) is None  # what was half written is not taken for whole
    assert main([str(recipe_file), *wide, "--output_dir", str(out)]) == 0
    assert same_bits(tmp_path / "whole", out)


def test_quantized_copy_loads_in_lm_eval_with_an_adapter(
    whole: Path, mini: Path, tmp_path: Path
) -> None:
    from lm_eval.models.huggingface import HFLM

    from train import quantize

    out = tmp_path / "nf4"
    assert quantize.main([str(mini), str(out)]) == 0
    assert (
        json.loads((out / "config.json").read_text())["quantization_config"]["bnb_4bit_quant_type"]
        == "nf4"
    )
    lm = HFLM(pretrained=str(out), peft=str(whole), device="cpu")
    assert lm.model.get_base_model().is_loaded_in_4bit
    assert quantize.main([str(mini), str(out)]) == 2
    assert quantize.main(["/nowhere", str(tmp_path / "x")]) == 2
    assert not (tmp_path / "x").exists()


def fail_above(pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU whose memory holds micro-batches of so many pairs."""
    import torch

    from train import run

    inner = run.train

    def train(trainer: Any, task: Any) -> Any:
        if trainer.args.per_device_train_batch_size > pairs:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return inner(trainer, task)

    monkeypatch.setattr(run, "train", train)


def test_out_of_memory_it_goes_on_with_fewer_pairs_at_a_time(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    fail_above(4, monkeypatch)
    assert main([str(recipe_file), "--output_dir", str(out), "--max_pairs", "16"]) == 0
    assert facts(out)["micro_batch"] == 4


def test_out_of_memory_with_one_pair_the_advice_can_be_followed(
    recipe_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`--memory small` in the folder of the failed run: which adapter comes out does not change."""
    out = ("--output_dir", tmp_path / "run", "--max_pairs", "16", "--effective_batch_size", "2")
    with monkeypatch.context() as patch:
        fail_above(0, patch)
        assert "--memory small goes on" in refused(capsys, recipe_file, *out, code=1)
    assert main([*map(str, (recipe_file, *out)), "--memory", "small"]) == 0


def test_the_micro_batch_follows_from_what_prompts_share(
    mini: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prompts cut from the left share no start: the same memory then holds fewer pairs."""
    import torch

    from train.pairs.pair import Pair
    from train.pairs.tokens import TokenPair
    from train.recipe import Recipe
    from train.trainer import plan

    def rows(shared: bool) -> list[TokenPair]:
        made = []
        for i in range(32):
            pair = Pair(str(i), "context", "span", "kind", "p", "a", "b")
            start = [] if shared else [i]
            made.append(TokenPair(pair, [*start, *range(100, 500), i], [1], [2]))
        return made

    recipe = Recipe(model_name_or_path=str(mini), dtype="float32")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    needed = plan.memory(recipe, plan.empty_model(recipe), rows(shared=True), 32)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (needed / plan.USABLE, 0))
    assert plan.micro_batch(recipe, rows(shared=True)) == 32
    assert plan.micro_batch(recipe, rows(shared=False)) < 4


def test_a_damaged_checkpoint_is_passed_over_and_the_adapter_is_the_same(
    whole: Path, recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without optimizer.pt the libraries go on with a fresh optimizer, to another adapter."""
    from train.callbacks import EpochOrder

    def stop(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.order.set_epoch(int(state.epoch or 0))
        if state.epoch >= 1:
            os.kill(os.getpid(), signal.SIGTERM)

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(EpochOrder, "on_epoch_begin", stop)
        assert main([str(recipe_file), "--output_dir", str(out), *DROPOUT]) == 1
    newest = last_checkpoint(out)
    assert newest is not None
    (newest / "optimizer.pt").unlink()
    before = last_checkpoint(out)
    assert before is not None
    assert before != newest
    assert main([str(recipe_file), "--output_dir", str(out), *DROPOUT]) == 0
    assert same_bits(whole, out)


def test_a_slow_run_saves_by_time_too(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that takes minutes a step would else lose hours between two `save_steps`."""
    from train.callbacks import Seal

    saved: list[int] = []

    def on_save(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        saved.append(state.global_step)

    monkeypatch.setattr(Seal, "on_save", on_save)
    words = [str(recipe_file), "--max_pairs", "16", "--save_steps", "1000"]
    assert main([*words, "--output_dir", str(tmp_path / "quick")]) == 0
    seldom = saved.copy()
    saved.clear()
    monkeypatch.setattr("train.callbacks.SAVE_SECONDS", 0.0)
    assert main([*words, "--output_dir", str(tmp_path / "slow")]) == 0
    assert seldom == [2]
    assert saved == [1, 2]


def test_another_chat_template_is_another_run(
    recipe_file: Path, mini: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = shutil.copytree(mini, tmp_path / "base")
    words = (recipe_file, "--model_name_or_path", base, "--max_pairs", 16, "--output_dir")
    assert main([*map(str, words), str(tmp_path / "run")]) == 0
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = "Answer. " + tokenizer.chat_template
    tokenizer.save_pretrained(base)
    assert "holds a run with other pairs" in refused(capsys, *words, tmp_path / "run")


def test_a_template_that_writes_the_date_is_trained_on_that_of_the_runs_first_day(
    recipe_file: Path,
    mini: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Tomorrow the same command still finds its run, and a new run says tomorrow."""
    base = shutil.copytree(mini, tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = "{{ strftime_now('%d %b %Y') }} " + tokenizer.chat_template
    tokenizer.save_pretrained(base)
    words = [str(recipe_file), "--model_name_or_path", str(base), "--max_pairs", "8"]
    for day, out in (("2026-11-26", "a"), ("2026-11-27", "a"), ("2026-11-27", "b")):
        monkeypatch.setattr(folder, "date", at(day))
        assert main([*words, "--output_dir", str(tmp_path / out)]) == 0
    assert "holds this run already, finished" in capsys.readouterr().out
    assert "writes the date into every prompt: this run's say 2026-11-26" in caplog.text
    first, second = facts(tmp_path / "a"), facts(tmp_path / "b")
    assert (first["day_of_prompts"], second["day_of_prompts"]) == ("2026-11-26", "2026-11-27")
    assert first["data_sha256"] != second["data_sha256"]
    assert "26 Nov 2026" in (tmp_path / "a" / "chat_template.jinja").read_text()


def at(day: str) -> type[date]:
    """The class date on another day."""

    class Then(date):
        @classmethod
        def today(cls) -> "Then":
            return cls.fromisoformat(day)

    return Then


def test_a_reference_of_another_model_ends_the_run_at_its_first_step(
    recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever the cache says: policy and reference agree at the first step, or all is wrong."""
    words = (recipe_file, "--max_pairs", 16, "--output_dir")
    assert main([*map(str, words), str(tmp_path / "one")]) == 0
    (kept,) = Path(os.environ["XDG_CACHE_HOME"]).glob("tatqa-bench/reference/*.npy")
    np.save(kept, np.load(kept) + [3.0, -3.0])
    message = refused(capsys, *words, tmp_path / "two", "--beta", 0.3, code=1)
    assert "are of another model" in message
    assert not (tmp_path / "two" / "train.json").exists()
