"""Sweeps: what is planned, what is refused before any work, and that a killed sweep goes on and ends the same.

The sweep itself is run twice: with stand-ins for the three programs (small scripts with their command lines and files,
no models), and, marked slow, with the programs themselves on the small base.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from results import record
from results.__main__ import main
from results.sweep import recipes as recipe_files
from results.sweep import records
from results.sweep.commands import Settings
from results.sweep.plan import Plan, sweep

ROOT = Path(__file__).resolve().parents[3]
BASE = "train/bases/tiny-tatqa"


@pytest.fixture
def recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Three recipes that differ in beta, in a working directory with a base model's folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / BASE).mkdir(parents=True)
    (tmp_path / BASE / "model.safetensors").write_bytes(b"weights")
    monkeypatch.delenv("TATQA_DATA", raising=False)
    paths = [Path(f"beta_{beta}.yaml") for beta in ("0.02", "0.05", "0.1")]
    for path in paths:
        path.write_text(f"model_name_or_path: {BASE}\nbeta: {path.stem[5:]}\nlora_r: 32\n")
    return paths


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


# Stand-ins: the command lines and files of the three programs, no models. Each sleeps so that a kill finds it at work.
STAND_INS = {
    "lm_eval.py": """
import json, pathlib, random, sys, time
a = sys.argv
out = pathlib.Path(a[a.index("--output_path") + 1]) / "m"
skill = 0.5 if "peft=" not in " ".join(a) else 0.8
time.sleep(0.15)
out.mkdir(parents=True, exist_ok=True)
rows = []
for i in range(40):
    right = float(random.Random(f"{i} {skill}").random() < skill)
    kind = ["span", "multi-span", "arithmetic", "count"][i % 4]
    doc = {"uid": f"q{i}", "context_uid": f"c{i // 4}", "question": "?", "answer": "1", "scale": ""}
    doc |= {"answer_type": kind, "answer_from": "table"}
    hashes = {"doc_hash": "d", "prompt_hash": "p", "target_hash": "t"}
    rows.append({"doc_id": i, "doc": doc, "resps": [["r"]], "metrics": ["em"], "em": right, **hashes})
(out / "samples_tatqa_span_x.jsonl").write_text("".join(json.dumps(r) + "\\n" for r in rows))
results = {"config": {}, "configs": {"tatqa_span": {}}, "versions": {}, "n-shot": {}}
(out / "results_x.json").write_text(json.dumps(results))
""",
    "train.py": """
import json, pathlib, sys, time
if "--check" in sys.argv: sys.exit()
out = pathlib.Path(sys.argv[sys.argv.index("--output_dir") + 1])
for step in range(3):
    if not (out / f"checkpoint-{step}").exists():
        time.sleep(0.1)
        (out / f"checkpoint-{step}").mkdir()
beta = float(pathlib.Path(sys.argv[1]).stem[5:])
(out / "adapter_model.safetensors").write_text(str(beta))
history = [{"step": 1, "loss": 0.5, "rewards/accuracies": 0.5, "rewards/margins": 0.1}]
recipe = {"beta": beta, "lora_r": 32, "lora_alpha": 32}
facts = {"recipe": recipe, "history": history, "pairs": {"kept": 1}, "seconds": 1, "device": "d"}
(out / "train.json").write_text(json.dumps(facts))
""",
    "mtbench_runner.py": """
import json, pathlib, sys, time
a = sys.argv
out = pathlib.Path(a[a.index("--out") + 1])
out.mkdir(exist_ok=True)
time.sleep(0.1)
per = {str(i): {"1": 5.0 + i % 3, "2": 5.0 + ("--adapter" in a)} for i in range(6)}
score = {"bench": "demo", "judge": "stand-in-judge", "stand_in": True, "n_questions": 6, "per_question": per}
(out / "score.json").write_text(json.dumps(score | {"missing": 0, "unparsable": 0}))
""",
}


@pytest.fixture
def stand_ins(tmp_path: Path, recipes: list[Path]) -> Iterator[dict[str, str]]:
    """An environment in which the three programs are the stand-ins, and a judge that listens."""
    folder = tmp_path / "stand_ins"
    folder.mkdir()
    for name, code in STAND_INS.items():
        (folder / name).write_text(code)
    bench = tmp_path / "bench"
    bench.mkdir()
    questions = [
        {"question_id": i, "category": f"kind {i % 3}", "turns": ["?", "?"]} for i in range(6)
    ]
    (bench / "question.jsonl").write_text("".join(json.dumps(q) + "\n" for q in questions))
    with socket.create_server(("127.0.0.1", 0)) as judge:
        judge_url = f"http://127.0.0.1:{judge.getsockname()[1]}/v1"
        yield {
            **os.environ,
            "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}",
            "OPENAI_API_KEY": "x",
            "OPENAI_BASE_URL": judge_url,
        }


def sweep_command(recipes: list[Path], runs: str) -> list[str]:
    command = [
        sys.executable,
        "-c",
        "import sys; from results.__main__ import main; sys.exit(main())",
        "run",
    ]
    return [
        *command,
        *map(str, recipes),
        "--judge-model",
        "stand-in-judge",
        "--bench",
        "bench",
        "--runs",
        f"{runs}/runs",
    ]


def measured(folder: Path) -> dict[str, Any]:
    """All records without what may differ between two sweeps: seconds and where they lie."""
    found, problems = record.load_all(folder / "runs")
    assert not problems
    assert len(found) == 4
    return {name: (r.base, r.model, r.training, r.scores) for name, r in found.items()}


def wait_for_stages(runs: Path, number: int) -> None:
    """Return when so many stages are done, whenever that is; fail after two minutes."""
    for _ in range(2400):
        notes = [note.read_text() for note in runs.glob("*/*.stage.json")]
        if sum('"done": true' in note for note in notes) >= number:
            return
        time.sleep(0.05)
    raise AssertionError(f"{number} stages were never done")


def test_a_sweep_killed_again_and_again_ends_as_if_it_had_not_been(
    recipes: list[Path], stand_ins: dict[str, str], tmp_path: Path
) -> None:
    whole = subprocess.run(
        sweep_command(recipes, "whole"), env=stand_ins, capture_output=True, text=True
    )
    assert whole.returncode == 0, whole.stderr
    for stages_done in (2, 6):
        killed = subprocess.Popen(
            sweep_command(recipes, "killed"), env=stand_ins, stderr=subprocess.DEVNULL
        )
        wait_for_stages(tmp_path / "killed" / "runs", stages_done)
        killed.kill()
        killed.wait()
    ended = subprocess.run(
        sweep_command(recipes, "killed"), env=stand_ins, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    assert "done before" in ended.stderr
    assert measured(tmp_path / "killed") == measured(tmp_path / "whole")
    pages = [
        (tmp_path / name / "runs/tatqa-report/README.md").read_text().replace(f"{name}/runs", "")
        for name in ("whole", "killed")
    ]
    assert len({re.sub(r"code \w+( with uncommitted changes)?", "", text) for text in pages}) == 1
    again = subprocess.run(
        sweep_command(recipes, "whole"), env=stand_ins, capture_output=True, text=True
    )
    assert again.stderr.count("done before") == 2 + 3 * 3
    assert "== beta_0.02: train: python" not in again.stderr


def test_ctrl_c_stops_in_one_line_and_the_next_call_goes_on(
    recipes: list[Path], stand_ins: dict[str, str]
) -> None:
    process = subprocess.Popen(
        sweep_command(recipes[:1], "r"),
        env=stand_ins,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 30
    while not Path("r/runs/beta_0.02").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1, errors
    assert (
        errors.splitlines()[-1]
        == "error: stopped; what is done is kept, the same command goes on from there"
    )
    assert "results/" not in errors.partition("error:")[2]
    done = subprocess.run(
        sweep_command(recipes[:1], "r"), env=stand_ins, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_every_failed_run_is_named_in_one_line_and_the_others_go_on(
    recipes: list[Path], stand_ins: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "stand_ins" / "mtbench_runner.py").write_text(
        "import sys; print('error: judge unreachable'); sys.exit(1)"
    )
    done = subprocess.run(
        sweep_command(recipes, "r"), env=stand_ins, capture_output=True, text=True
    )
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: stage")]
    assert len(errors) == 4
    assert errors[0].startswith("error: stage base-tiny-tatqa-")
    assert "Traceback" not in done.stderr
    assert not list(Path("r/runs").glob("*/record.json"))


@pytest.mark.slow
def test_a_real_sweep_of_three_recipes_killed_twice_ends_the_same(
    tmp_path: Path, tiny_base: Path
) -> None:
    """About ten minutes on two cores: every stage is the real program on the small base."""
    base = shutil.copytree(tiny_base, tmp_path / "tiny")
    fields = [
        line
        for line in (ROOT / "train/recipes/demo.yaml").read_text().splitlines()
        if not line.startswith(("model_name_or_path:", "beta:", "max_pairs:"))
    ]
    recipes = [tmp_path / f"beta_{beta}.yaml" for beta in (0.05, 0.1, 0.2)]
    for path in recipes:
        path.write_text(
            "\n".join(
                [*fields, f"model_name_or_path: {base}", f"beta: {path.stem[5:]}", "max_pairs: 32"]
            )
        )
    python = [sys.executable, "-m"]
    sweep = [
        *python,
        "mtbench_runner.stand_in_judge",
        *python,
        "results",
        "run",
        *map(str, recipes),
        "--limit",
        "3",
    ]
    sweep += [
        "--judge-model",
        "stand-in-judge",
        "--bench",
        "demo",
        "--max-new-tokens",
        "8",
        "--runs",
    ]
    environment = {**os.environ, "TATQA_DATA": "synthetic"}
    started = time.monotonic()
    assert (
        subprocess.run([*sweep, str(tmp_path / "whole/runs")], env=environment, cwd=ROOT).returncode
        == 0
    )
    seconds = time.monotonic() - started
    for share in (0.4, 0.4):
        killed = [*sweep, str(tmp_path / "killed/runs")]
        process = subprocess.Popen(killed, env=environment, cwd=ROOT, start_new_session=True)
        time.sleep(share * seconds)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert (
        subprocess.run(
            [*sweep, str(tmp_path / "killed/runs")], env=environment, cwd=ROOT
        ).returncode
        == 0
    )
    whole, killed_ = (record.load_all(tmp_path / name / "runs")[0] for name in ("whole", "killed"))
    assert len(whole) == 4
    for name, before in whole.items():
        assert before.scores == killed_[name].scores


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
