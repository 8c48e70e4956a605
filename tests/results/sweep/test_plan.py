"""Sweeps: what is planned, what is refused before work, and that a killed one ends the same.

The sweep itself is run twice: with stand-ins for the three programs (small scripts with their
command lines and files, no models), and, marked slow, with the programs themselves on the small
base.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lm_eval._cli.utils import MergeDictAction

from results import FailedError, InputError
from results.__main__ import main
from results.sweep import execute, options, records
from results.sweep import recipes as recipe_files
from results.sweep.commands import EVALUATE, Scored, Settings, generating
from results.sweep.execute import Half, Serving, Sweep
from results.sweep.plan import Plan, Rounds, sweep, told_settings
from results.sweep.stages import Stage

ROOT = Path(__file__).resolve().parents[3]
BASE = "train/bases/tiny-tatqa"


def planned(recipes: list[Path], runs: str = "results/runs", **settings: Any) -> list[Plan]:
    read = [recipe_files.read(path) for path in recipes]
    return sweep(read, Settings(**settings), Path(runs))


def commands(recipes: list[Path], **settings: Any) -> list[str]:
    plans = planned(recipes, **settings)
    return [stage.command() for plan in plans for stage in plan.stages]


def test_a_sweep_scores_its_base_once(recipes: list[Path]) -> None:
    found = commands(recipes, judge_model="j", bench="demo")
    assert [line.split()[2] for line in found] == [
        "tatqa_task",
        "mtbench_runner",
        *3 * ["train", "tatqa_task", "mtbench_runner"],
    ]
    assert all("peft=results/runs/beta_0.02" in line for line in found[3:4])
    assert "peft" not in found[0]


def test_settings_reach_the_commands(recipes: list[Path]) -> None:
    chosen: dict[str, Any] = {
        "limit": 7,
        "batch_size": 3,
        "judge_model": "gpt-4",
        "max_new_tokens": 9,
    }
    found = "\n".join(commands(recipes[:1], ifeval=True, instruct=True, **chosen))
    assert found.count("--limit 7") == 4
    assert found.count("--batch_size 3") == 4
    assert found.count("--tasks ifeval") == 2
    assert found.count("--data instruct") == 2
    assert found.count("--max-new-tokens 9") == 4
    assert found.count("--judge-model gpt-4") == 4
    assert found.count("enable_thinking=False") == 4


def test_unless_it_is_given_the_batch_size_is_chosen_by_the_model(recipes: list[Path]) -> None:
    """But lm-eval's own `hf` would choose 1: it tries the longest prompt that the model reads."""
    tatqa, ifeval = commands(recipes[:1], ifeval=True)[:2]
    assert "--model hf-short-first" in tatqa
    assert "--batch_size auto" in tatqa
    assert "--model hf " in ifeval
    assert "--batch_size 16" in ifeval


def test_an_unset_batch_size_keeps_the_names_of_base_folders() -> None:
    """They are made of the settings, in which it was 16."""
    assert told_settings(Settings()) == told_settings(Settings(batch_size=16))


def test_vllm_gets_the_adapter_and_its_rank(recipes: list[Path]) -> None:
    adapter = commands(recipes[:1], backend="vllm")[-1]
    assert "--model vllm" in adapter
    assert "lora_local_path=results/runs/beta_0.02,max_lora_rank=32" in adapter


def test_a_4_bit_recipe_is_scored_on_a_4_bit_base(recipes: list[Path]) -> None:
    recipes[0].write_text(recipes[0].read_text() + "load_in_4bit: true\n")
    plans = planned(recipes[:2])
    quantized, _, base, plain = (plan.folder.name for plan in plans)
    assert quantized != base
    assert plans[0].quantize is not None
    assert plans[0].quantize.arguments == [
        "train.quantize",
        BASE,
        f"results/runs/{quantized}/model",
    ]
    assert (
        f"pretrained=results/runs/{quantized}/model,enable_thinking=False,peft"
        in plans[1].scoring[0].command()
    )
    assert plain == "beta_0.05"


def test_a_calc_recipe_and_its_base_are_scored_in_that_form(recipes: list[Path]) -> None:
    recipes[0].write_text(recipes[0].read_text() + "form: calc\n")
    found = planned(recipes[:2])
    tasks = [plan.scoring[0].arguments[3] for plan in found]
    assert tasks == ["tatqa_calc", "tatqa_calc", "tatqa", "tatqa"]
    assert found[0].folder != found[2].folder


def test_changed_fields_reach_training_and_the_runs_name(recipes: list[Path]) -> None:
    read = recipe_files.read(recipes[0], ("lora_r=64", "learning_rate=1e-4"))
    run = sweep([read], Settings(), Path("runs"), memory="small")[1]
    assert run.folder.name == "beta_0.02+lora_r=64+learning_rate=1e-4"
    assert run.scored.rank == 64
    assert run.train is not None
    assert run.train.arguments[2:8] == [
        "--lora_r", "64", "--learning_rate", "1e-4", "--memory", "small",
    ]  # fmt: skip


@pytest.mark.parametrize("change", ["beta", "=1", "be ta=1", "betta=1"])
def test_a_change_of_no_field_is_refused(recipes: list[Path], change: str) -> None:
    with pytest.raises(InputError):
        recipe_files.read(recipes[0], (change,))


@pytest.mark.parametrize("name", ["...yaml", "-x.yaml", " .yaml", "a,b.yaml"])
def test_a_recipe_whose_name_leads_elsewhere_is_refused(recipes: list[Path], name: str) -> None:
    recipes[0].rename(name)
    with pytest.raises(InputError, match="cannot be named"):
        recipe_files.read(Path(name))


def test_served_scoring_asks_as_hf_does(recipes: list[Path]) -> None:
    words = planned(recipes[:1], backend="served")[0].scoring[0].arguments
    given = words[words.index("--model_args") + 1]
    assert words[words.index("--model") + 1] == "local-chat-completions"
    assert given.startswith("model=SERVED_MODEL,base_url=SERVER_URL/v1/chat/completions,")
    generation = json.loads(words[words.index("--gen_kwargs") + 1])
    assert generation == {"chat_template_kwargs": {"enable_thinking": False}}
    assert "--apply_chat_template" in words


def test_rounds_sample_train_on_and_score(recipes: list[Path]) -> None:
    Path("mined.yaml").write_text(
        f"model_name_or_path: {BASE}\nform: calc\nstrategy: mined\ninit_adapter: runs/beta_0.02\n"
    )
    read = [recipe_files.read(path) for path in (recipes[0], Path("mined.yaml"))]
    rounds = Rounds(2, replies=3)
    plans = sweep(read, Settings(backend="served"), Path("runs"), rounds=rounds)
    first, second = plans[-2:]
    assert [plan.folder.name for plan in (first, second)] == ["mined-round1", "mined-round2"]
    assert first.sampled is not None
    assert second.sampled is not None
    assert first.sampled.adapter == Path("runs/beta_0.02")
    assert second.sampled.adapter == first.folder
    assert len(first.samples) == 3
    seeds = [re.findall(r"seed=(\d+)", stage.command()) for stage in first.samples]
    assert seeds == [["1"], ["2"], ["3"]]
    assert "tatqa_calc_train" in first.samples[0].arguments
    assert second.train is not None
    words = second.train.arguments
    assert words[words.index("--init_adapter") + 1] == str(first.folder)
    files = json.loads(words[words.index("--samples") + 1])
    assert files[0] == "runs/mined-round2/samples-1/*/samples_*.jsonl"
    assert first.adapter in second.reads


def test_an_adapter_of_the_projects_folder_is_found_among_these_runs(recipes: list[Path]) -> None:
    """As the shipped recipes name it, with and without rounds, and where samples are not there."""
    named = "init_adapter: results/runs/beta_0.02\nsamples: ['results/samples/**/*.jsonl']\n"
    Path("mined.yaml").write_text(f"model_name_or_path: {BASE}\nstrategy: mined\n{named}")
    there = Path("results/runs/beta_0.02")  # a committed record, without weights
    there.mkdir(parents=True)
    (there / "record.json").write_text("{}")
    read = [recipe_files.read(path) for path in (recipes[0], Path("mined.yaml"))]
    assert read[1].samples_itself
    samples = Path("results/samples/some.jsonl")
    for rounds, name in ((Rounds(1), "mined-round1"), (Rounds(0), "mined")):
        if not rounds.number:
            samples.parent.mkdir()
            samples.write_text("")
        plan = sweep(read, Settings(backend="served"), Path("r"), rounds=rounds)[-1]
        assert plan.folder == Path("r") / name
        assert plan.train is not None
        words = plan.train.arguments
        assert words.count("--init_adapter") == 1
        assert words[words.index("--init_adapter") + 1] == "r/beta_0.02"
        assert plan.reads >= {"r/beta_0.02/adapter_model.safetensors"}
    (there / "adapter_model.safetensors").write_bytes(b"w")
    (there / "adapter_config.json").write_text("{}")
    plan = sweep(read, Settings(backend="served"), Path("r"))[-1]
    assert plan.train is not None
    assert "--init_adapter" not in plan.train.arguments
    assert not read[1].samples_itself


def test_a_record_of_the_recipe_before_it_was_edited_is_not_its_record(
    recipes: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old adapter's verdict was printed under the name of the one that could not be trained."""
    done = {"tatqa", "train"}
    monkeypatch.setattr(Stage, "done", lambda stage: stage.name in done)
    _, run = sweep([recipe_files.read(recipes[0])], Settings(), Path("runs"))
    assert not run.recorded()
    run.folder.mkdir(parents=True)
    (run.folder / "record.json").touch()
    assert run.recorded()
    done.remove("train")
    assert not run.recorded()


def test_what_is_used_is_made_first(recipes: list[Path]) -> None:
    """Whoever makes it: a half that another worker holds stays on the list."""
    recipes[0].write_text(recipes[0].read_text() + "load_in_4bit: true\n")
    Path("mined.yaml").write_text(
        recipes[0].read_text() + "strategy: mined\ninit_adapter: runs/beta_0.02\n"
    )
    read = [recipe_files.read(path) for path in (recipes[0], Path("mined.yaml"))]
    settings = Settings(backend="served")
    base, sft, mined = sweep(read, settings, Path("runs"), rounds=Rounds(1))
    state = Sweep([base, sft, mined], settings, Serving())
    assert state.waits_for(Half(base, "prepare")) is None
    assert state.waits_for(Half(sft, "prepare")) is None  # it trains on the base as it was
    assert state.waits_for(Half(sft, "score")) == base.folder
    assert state.waits_for(Half(mined, "prepare")) == base.folder
    state.left.remove(Half(base, "prepare"))
    assert state.waits_for(Half(mined, "prepare")) == sft.folder
    assert state.waits_for(Half(sft, "score")) == sft.folder
    state.left.remove(Half(sft, "prepare"))
    assert state.waits_for(Half(mined, "prepare")) is None
    assert state.waits_for(Half(sft, "score")) == base.folder  # replies are compared with its own
    state.left.remove(Half(base, "score"))
    assert state.waits_for(Half(sft, "score")) is None
    state.failed[base.folder] = FailedError("no")
    assert state.settle(Half(sft, "score"))
    assert "it needs base-" in str(state.failed[sft.folder])


def test_rounds_need_a_server_and_a_recipe_for_them(
    recipes: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(recipes[0]), "--rounds", "2", "--runs", "r"]) == 2
    assert "give --server" in capsys.readouterr().err
    url = "http://127.0.0.1:1"
    assert main(["run", str(recipes[0]), "--rounds", "2", "--server", url, "--runs", "r"]) == 2
    assert "strategy: mined" in capsys.readouterr().err


def test_another_base_or_other_settings_get_another_base_folder(
    recipes: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def folder(**settings: Any) -> str:
        return planned(recipes[:1], "r", **settings)[0].folder.name

    names = [folder(), folder(limit=5), folder(judge_model="j")]
    monkeypatch.setenv("TATQA_DATA", "synthetic")
    names.append(folder())
    Path(BASE, "model.safetensors").write_bytes(b"other weights")
    names.append(folder())
    assert len(set(names)) == 5
    assert all(name.startswith("base-tiny-tatqa-") for name in names)
    assert folder() == names[-1]


@pytest.mark.parametrize("present", [None, "adapter_config.json", "adapter_model.safetensors"])
def test_an_adapter_that_is_not_whole_is_told_with_what_makes_it(
    recipes: list[Path], capsys: pytest.CaptureFixture[str], present: str | None
) -> None:
    """A checkout has records of its runs, and no weights."""
    there = Path("results/runs/calc_sft")
    there.mkdir(parents=True)
    for name in filter(None, ("record.json", present)):
        (there / name).write_text("{}")
    recipes[0].write_text(recipes[0].read_text() + f"init_adapter: {there}\n")
    assert main(["run", str(recipes[0]), "--runs", "r"]) == 2
    said = capsys.readouterr().err
    assert "in results/runs/calc_sft, and no run here makes it; run the recipe that" in said
    assert "(tatqa-bench run calc_sft ...)" in said
    assert said.count("\n") == 1


def test_samples_that_are_nowhere_are_told_before_any_work(
    recipes: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mined.yaml").write_text(
        f"model_name_or_path: {BASE}\nform: calc\nstrategy: mined\nsamples: 'gone/*.jsonl'\n"
    )
    assert main(["run", str(recipes[0]), "mined.yaml", "--runs", "r"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: mined.yaml: samples: nothing matches gone/*.jsonl; --rounds 1")
    assert "--tasks tatqa_calc_train" in said
    assert not Path("r").exists()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (None, "cannot read the recipe"),
        ("a: [", "cannot read the recipe"),
        ("- a", "needs model_name_or_path"),
        ("beta: 1", "needs model_name_or_path"),
        ("model_name_or_path: no/such/folder", "no model folder no/such/folder here"),
        ("model_name_or_path: ./missing", "no model folder ./missing here"),
        ("model_name_or_path: a/b\nbetta: 1", "unknown key `betta`; did you mean `beta`?"),
        ("model_name_or_path: a/b\nform: prose", "form: expected direct or calc"),
        ("model_name_or_path: a/b\nlora_r: many", "lora_r: expected a whole number"),
        (
            "model_name_or_path: a/b\ninit_adapter: gone",
            "init_adapter: no adapter_model.safetensors in gone",
        ),
        ("model_name_or_path: a/b\nstrategy: mined", "samples: none are named; --rounds 1 with"),
    ],
)
def test_bad_recipes_are_refused_before_any_work(
    recipes: list[Path], text: str | None, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = Path("bad.yaml")
    if text is not None:
        bad.write_text(text)
    assert main(["run", str(recipes[0]), str(bad), "--runs", "r"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: bad.yaml: ")
    assert error.count("\n") == 1
    assert named in error
    assert not Path("results").exists()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "vlm",
        "ftp://host/v1",
        "http://",
        "http://[::1",
        "http://host:port",
        "host:8000",
    ],
)
def test_what_is_no_url_of_a_server_is_refused(
    recipes: list[Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    url: str,
) -> None:
    assert main(["run", str(recipes[0]), "--server", url, "--runs", "r"]) == 2
    said = f"error: --server {url}: expected vllm or the URL of a server\n"
    assert capsys.readouterr().err == said
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    monkeypatch.setenv("OPENAI_BASE_URL", url or "http://")
    with pytest.raises(InputError, match="OPENAI_BASE_URL: .* is no URL of a server"):
        options.check_judge_answers()


@pytest.mark.parametrize("url", ["http://a,b", "http://a b"])
def test_what_options_of_lm_eval_cannot_hold_is_refused(
    recipes: list[Path], capsys: pytest.CaptureFixture[str], url: str
) -> None:
    assert main(["run", str(recipes[0]), "--server", url, "--runs", "r"]) == 2
    assert "expected vllm or the URL of a server" in capsys.readouterr().err


def test_a_base_that_a_servers_options_would_split_is_refused(
    recipes: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    base = Path("a,b")
    base.mkdir()
    recipes[0].write_text(f"model_name_or_path: {base}\n")
    assert main(["run", str(recipes[0]), "--runs", "r"]) == 2
    assert "model folder a,b: lm-eval's options hold no comma" in capsys.readouterr().err


def test_replies_that_a_kill_left_unseen_are_still_compared_with_the_bases(
    recipes: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, run = planned(recipes[:1], backend="served")
    done = replace(run, scoring=[])
    (run.folder / "tatqa").mkdir(parents=True)
    monkeypatch.setattr(execute, "replies", lambda folder: ["the same"])
    state = Sweep([done], Settings(backend="served"), Serving())
    with pytest.raises(FailedError, match="all 1 replies equal the base's"):
        state.score(done)
    assert not (run.folder / "tatqa").exists()


@pytest.mark.parametrize("host", ["me:hunter2@host:8000", "host/v1?key=hunter2", "host/#hunter2"])
def test_a_secret_in_the_url_is_refused_and_not_repeated(
    recipes: list[Path], capsys: pytest.CaptureFixture[str], host: str
) -> None:
    """The record of a run has the commands that scored it."""
    assert main(["run", str(recipes[0]), "--server", f"http://{host}", "--runs", "r"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: --server: expected scheme, host, port and path alone")
    assert "hunter2" not in said
    assert not Path("r").exists()


@pytest.mark.parametrize("key", ["hunter2\n", "hunter2\r", "hunt\x00er2", "hünter2"])
def test_a_key_that_cannot_be_sent_is_refused_and_not_repeated(
    recipes: list[Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    key: str,
) -> None:
    monkeypatch.setattr(os, "environ", os.environ | {"OPENAI_API_KEY": key})
    assert main(["run", str(recipes[0]), "--server", "http://host", "--runs", "r"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: OPENAI_API_KEY has a line break")
    assert "nter2" not in said


def test_a_judge_without_a_key_is_refused(
    recipes: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(recipes[0]), "--judge-model", "gpt-4", "--runs", "r"]) == 2
    assert (
        capsys.readouterr().err
        == "error: the judge needs OPENAI_API_KEY (any word if its server asks for none)\n"
    )


@pytest.mark.parametrize("template", [None, "chat_template.jinja", "chat_template.json", "inside"])
def test_a_base_without_chat_template_is_told_before_any_work(
    recipes: list[Path], capsys: pytest.CaptureFixture[str], template: str | None
) -> None:
    inside = '{"chat_template": "x"}' if template == "inside" else "{}"
    Path(BASE, "tokenizer_config.json").write_text(inside)
    if template and template != "inside":
        Path(BASE, template).write_text("x")
    code = main(["run", str(recipes[0]), "--runs", "r", "--dry-run"])
    assert code == (0 if template else 2)
    assert ("has no chat template" in capsys.readouterr().err) == (template is None)


def test_two_recipes_of_one_name_are_refused(
    recipes: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("other").mkdir()
    twin = Path("other", recipes[0].name)
    twin.write_text(recipes[0].read_text())
    assert main(["run", str(recipes[0]), str(twin), "--runs", "r"]) == 2
    assert "same file name" in capsys.readouterr().err


def test_a_path_that_lm_eval_cannot_name_a_folder_after_is_refused(
    recipes: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Training and scoring were done, and then no score was saved."""
    left = 255 - len(f"{'a' * 100}____{recipes[0].stem}")  # "a/b" becomes "a__b"
    for length, code in ((left, 0), (left + 1, 2)):
        runs = f"{'a' * 100}/{'b' * length}"
        assert main(["run", str(recipes[0]), "--runs", runs, "--dry-run"]) == code
    assert f"{runs}/{recipes[0].stem}: lm-eval names a folder" in capsys.readouterr().err
    assert planned(recipes[:1], runs, backend="served")


def test_a_dry_run_tells_what_is_in_the_reports_way(
    recipes: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mine").mkdir()
    Path("mine", "README.md").write_text("mine")
    call = ["run", str(recipes[0]), "--runs", "r", "--report", "mine"]
    assert main([*call, "--dry-run"]) == 2
    assert "mine/README.md: in the way" in capsys.readouterr().err


def test_dry_run_prints_what_can_be_pasted_and_does_nothing(
    recipes: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", *map(str, recipes), "--dry-run", "--runs", "r"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 3 * 2
    assert all(line.startswith(sys.executable) for line in lines)
    assert not Path("results").exists()


def test_own_records_do_not_make_the_code_dirty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*words: str) -> None:
        subprocess.run(
            ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@t", *words],
            check=True,
        )

    files = [
        tmp_path / name
        for name in (
            "results/runs/base/record.json",
            "results/README.md",
            "results/report.manifest.json",
            "results/report/log/README.md",
            "results/report/log/runs.json",
        )
    ]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("before")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "x")
    monkeypatch.setattr("results.sweep.processes.ROOT", tmp_path)
    states = []
    for file in files:
        file.write_text("after")
        states.append(records.git_state()["dirty"])
    assert states == [False, False, False, False, True]


def test_a_folder_that_takes_no_files_is_told_before_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options.refuse_unwritable("--runs", tmp_path / "new" / "runs")
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path)
    with pytest.raises(InputError, match=f"--runs: {tmp_path} may not be written to"):
        options.refuse_unwritable("--runs", tmp_path / "new" / "runs")


@pytest.mark.parametrize("backend", ["hf", "vllm"])
@pytest.mark.parametrize(
    "name",
    ["a/b-c+d=0.1", "a,b=c", "o'brien", '"', "[x]", "{", "12", "1e5", "nan", "True", "\u00fc x"],
)
def test_lm_eval_reads_the_folders_of_a_model_as_they_are(name: str, backend: str) -> None:
    """A comma in --runs, or an apostrophe in any name, failed once the adapter was trained."""
    model = Scored(Path("r"), name, "tatqa", adapter=Path(name), rank=8)
    words = generating(model, Settings(backend=backend), EVALUATE)
    given = words[words.index("--model_args") + 1]
    read = argparse.Namespace()
    MergeDictAction([], "args")(argparse.ArgumentParser(), read, [given])
    adapter = "lora_local_path" if backend == "vllm" else "peft"
    assert read.args["pretrained"] == read.args[adapter] == name
    assert read.args["enable_thinking"] is False
