"""Sweeps: what is planned, what is refused before any work, and that a killed sweep goes on and ends the same.

The sweep itself is run twice: with stand-ins for the three programs (small scripts with their command lines and files,
no models), and, marked slow, with the programs themselves on the small base.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from results.__main__ import main
from results.sweep import recipes as recipe_files
from results.sweep import records
from results.sweep.commands import Settings
from results.sweep.plan import Plan, sweep

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
        "lm_eval",
        "mtbench_runner",
        *3 * ["train", "lm_eval", "mtbench_runner"],
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


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (None, "cannot read the recipe"),
        ("a: [", "cannot read the recipe"),
        ("- a", "needs model_name_or_path"),
        ("beta: 1", "needs model_name_or_path"),
        ("model_name_or_path: no/such/folder", "no model folder no/such/folder here"),
        ("model_name_or_path: ./missing", "no model folder ./missing here"),
    ],
)
def test_bad_recipes_are_refused_before_any_work(
    recipes: list[Path], text: str | None, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = Path("bad.yaml")
    if text is not None:
        bad.write_text(text)
    assert main(["run", str(recipes[0]), str(bad)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: bad.yaml: ")
    assert error.count("\n") == 1
    assert named in error
    assert not Path("results").exists()


def test_a_judge_without_a_key_is_refused(
    recipes: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(recipes[0]), "--judge-model", "gpt-4"]) == 2
    assert (
        capsys.readouterr().err
        == "error: the judge needs OPENAI_API_KEY (any word if its server asks for none)\n"
    )


def test_two_recipes_of_one_name_are_refused(
    recipes: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("other").mkdir()
    twin = Path("other", recipes[0].name)
    twin.write_text(recipes[0].read_text())
    assert main(["run", str(recipes[0]), str(twin)]) == 2
    assert "same file name" in capsys.readouterr().err


def test_dry_run_prints_what_can_be_pasted_and_does_nothing(
    recipes: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", *map(str, recipes), "--dry-run"]) == 0
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
        for name in ("results/runs/base/record.json", "results/README.md", "results/run.py")
    ]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("before")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "x")
    monkeypatch.setattr("results.sweep.stages.ROOT", tmp_path)
    states = []
    for file in files:
        file.write_text("after")
        states.append(records.git_state()["dirty"])
    assert states == [False, False, True]
