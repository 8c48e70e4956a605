"""Sweeps that are killed, stopped, shared by workers or served, and end as if nothing had been.

With stand-ins for the three programs (small scripts with their command lines and files, no models)
and, marked slow, with the programs themselves on the small base.
"""

import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from results import record
from results.sweep.vllm import free_port

ROOT = Path(__file__).resolve().parents[3]
BASE = "train/bases/tiny-tatqa"
Command = Callable[..., list[str]]
Wait = Callable[[Path, int], None]


def measured(folder: Path) -> dict[str, Any]:
    """All records without what may differ between two sweeps: seconds and where they lie."""
    found, problems = record.load_all(folder / "runs")
    assert not problems
    assert len(found) == 4
    return {name: (r.base, r.model, r.training, r.scores) for name, r in found.items()}


def test_a_sweep_killed_again_and_again_ends_as_if_it_had_not_been(
    recipes: list[Path],
    stand_ins: dict[str, str],
    sweep_command: Command,
    wait_for_stages: Wait,
    tmp_path: Path,
) -> None:
    whole = subprocess.run(
        sweep_command(recipes, "whole"), env=stand_ins, capture_output=True, text=True
    )
    assert whole.returncode == 0, whole.stderr
    assert "tatqa: begins; what it says is in whole/runs/" in whole.stderr
    assert "tatqa_task evaluate" not in whole.stderr
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
    passing = r"code \w+( with uncommitted changes)?|Seconds by command: .*"  # no two runs have one
    assert len({re.sub(passing, "", text) for text in pages}) == 1
    again = subprocess.run(
        sweep_command(recipes, "whole"), env=stand_ins, capture_output=True, text=True
    )
    assert again.stderr.count("done before") == 2 + 3 * 3
    assert "== beta_0.02: train: python" not in again.stderr


def test_ctrl_c_stops_in_one_line_and_the_next_call_goes_on(
    recipes: list[Path], stand_ins: dict[str, str], sweep_command: Command
) -> None:
    process = subprocess.Popen(
        sweep_command(recipes[:1], "r"),
        env=stand_ins,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not Path("r/runs/beta_0.02").exists() and process.poll() is None:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 1, errors
    last = errors.splitlines()[-1]
    stopped = "error: stopped; what is done is kept, the same command goes on from there"
    assert last == stopped, errors
    assert "results/" not in errors.partition("error:")[2]
    done = subprocess.run(
        sweep_command(recipes[:1], "r"), env=stand_ins, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_every_failed_run_is_named_in_one_line_and_the_others_go_on(
    recipes: list[Path], stand_ins: dict[str, str], sweep_command: Command, tmp_path: Path
) -> None:
    (tmp_path / "stand_ins" / "mtbench_runner" / "__main__.py").write_text(
        "import sys; print('error: judge unreachable'); sys.exit('--check' not in sys.argv)"
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
    tmp_path: Path, tiny_base: Path, wait_for_stages: Wait
) -> None:
    """About ten minutes on two cores: every stage is the real program on the small base."""
    base = shutil.copytree(tiny_base, tmp_path / "tiny")
    demo = (ROOT / "train" / "recipes" / "demo.yaml").read_text().splitlines()
    changed = ("model_name_or_path:", "beta:", "max_pairs:")
    fields = [line for line in demo if not line.startswith(changed)]
    recipes = [tmp_path / f"beta_{beta}.yaml" for beta in (0.05, 0.1, 0.2)]
    for path in recipes:
        own = [f"model_name_or_path: {base}", f"beta: {path.stem[5:]}", "max_pairs: 32"]
        path.write_text("\n".join([*fields, *own]))
    python = [sys.executable, "-m"]
    sweep = [*python, "mtbench_runner.stand_in_judge", *python, "results", "run"]
    sweep += [*map(str, recipes), "--limit", "3", "--judge-model", "stand-in-judge"]
    sweep += ["--bench", "demo", "--max-new-tokens", "8", "--runs"]
    environment = {**os.environ, "TATQA_DATA": "synthetic"}

    def run_to_its_end(runs: Path) -> int:
        return subprocess.run([*sweep, str(runs)], env=environment, cwd=ROOT).returncode

    killed_runs = tmp_path / "killed" / "runs"
    assert run_to_its_end(tmp_path / "whole" / "runs") == 0
    for stages_done in (3, 7):
        command = [*sweep, str(killed_runs)]
        process = subprocess.Popen(command, env=environment, cwd=ROOT, start_new_session=True)
        wait_for_stages(killed_runs, stages_done)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert run_to_its_end(killed_runs) == 0
    whole, killed = (record.load_all(tmp_path / name / "runs")[0] for name in ("whole", "killed"))
    assert len(whole) == 4
    for name, before in whole.items():
        assert before.scores == killed[name].scores


def finish(command: list[str], environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def replies(folder: Path) -> set[str]:
    """Who answered, as the samples of a run say."""
    file = next((folder / "tatqa").rglob("samples_*.jsonl"))
    return {json.loads(line)["resps"][0][0] for line in file.read_text().splitlines()}


def served(one: record.Record) -> bool:
    """Whether a record has seconds of starting a server."""
    return one.seconds.get("server", 0.0) > 0


def test_a_served_sweep_asks_the_base_and_each_adapter(
    recipes: list[Path], stand_ins: dict[str, str], vllm: Path, sweep_command: Command
) -> None:
    done = finish(sweep_command(recipes, "r", "--server", "vllm", judged=False), stand_ins)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("starting vLLM") == 1
    runs = {folder.name: replies(folder) for folder in Path("r/runs").glob("b*") if folder.is_dir()}
    assert len(runs) == 4
    for name, answered in runs.items():
        wanted = "base" if name.startswith("base-") else rf"{re.escape(name)}-[0-9a-f]{{12}}"
        assert re.fullmatch(wanted, next(iter(answered)))
    waited = [name for name, one in record.load_all(Path("r/runs"))[0].items() if served(one)]
    assert len(waited) == 1  # the one for which the server was started
    assert waited[0].startswith("base-")
    again = finish(sweep_command(recipes, "r", "--server", "vllm", judged=False), stand_ins)
    assert record.load_all(Path("r/runs"))[0][waited[0]].seconds["server"] > 0
    assert again.stderr.count("done before") == 1 + 3 * 2
    assert "starting vLLM" not in again.stderr


@pytest.mark.parametrize(
    ("base", "said"), [(None, "does not answer"), ("other/base", "the recipe's base is")]
)
def test_a_server_elsewhere_that_will_not_do_is_told_before_training(
    recipes: list[Path],
    stand_ins: dict[str, str],
    sweep_command: Command,
    vllm: Path,
    base: str | None,
    said: str,
) -> None:
    port = free_port()
    running = None
    if base:
        running = subprocess.Popen([str(vllm), "serve", base, "--port", str(port)])
        while not answers(port):
            assert running.poll() is None
    url = f"http://127.0.0.1:{port}"
    done = finish(sweep_command(recipes, "r", "--server", url, judged=False), stand_ins)
    if running:
        running.kill()
        running.wait()
    assert done.returncode in (1, 2)
    assert said in done.stderr.splitlines()[-1]
    assert not list(Path("r/runs").glob("*/train*"))


def answers(port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


WAITS = """
if "beta_0.1" in sys.argv[1] and "--check" not in sys.argv:
    for _ in range(3000):
        if list(pathlib.Path("r/runs/beta_0.02/tatqa").rglob("results_*.json")): break
        time.sleep(0.1)
    else: sys.exit("error: nothing was scored beside training")
"""


@pytest.mark.parametrize("share", ["0.4", "0.6"])
def test_a_server_scores_beside_training_if_there_is_room_for_both(
    recipes: list[Path],
    stand_ins: dict[str, str],
    vllm: Path,
    sweep_command: Command,
    tmp_path: Path,
    share: str,
) -> None:
    program = tmp_path / "stand_ins" / "train" / "__main__.py"
    if share == "0.4":
        told, check, work = program.read_text().partition('if "--check"')
        program.write_text(f"{told}{WAITS}{check}{work}")
    served = ["--server", "vllm", "--server-memory", share]
    done = finish(sweep_command(recipes, "r", *served, judged=False), stand_ins)
    assert done.returncode == 0, done.stderr
    assert len(record.load_all(Path("r/runs"))[0]) == 4
    events = [line for line in done.stderr.splitlines() if line.startswith("== ")]
    first_scored = next(i for i, line in enumerate(events) if ": tatqa: done in" in line)
    last_trained = events.index(next(e for e in events if e.startswith("== beta_0.1: train: done")))
    assert (first_scored < last_trained) == (share == "0.4")


def test_without_a_server_it_scores_beside_training_if_that_is_asked_for(
    recipes: list[Path], stand_ins: dict[str, str], sweep_command: Command, tmp_path: Path
) -> None:
    program = tmp_path / "stand_ins" / "train" / "__main__.py"
    told, check, work = program.read_text().partition('if "--check"')
    program.write_text(f"{told}{WAITS}{check}{work}")
    done = finish(sweep_command(recipes, "r", "--overlap"), stand_ins)
    assert done.returncode == 0, done.stderr
    found, _ = record.load_all(Path("r/runs"))
    assert len(found) == 4
    assert {name for one in found.values() for name in one.scores} == {"tatqa", "mtbench"}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_stages_side_by_side_stop_together_and_go_on(
    recipes: list[Path],
    stand_ins: dict[str, str],
    sweep_command: Command,
    wait_for_stages: Wait,
    tmp_path: Path,
    number: signal.Signals,
) -> None:
    command = sweep_command(recipes, "r", "--overlap")
    process = subprocess.Popen(command, env=stand_ins, stderr=subprocess.PIPE, text=True)
    wait_for_stages(tmp_path / "r" / "runs", 3)
    process.send_signal(number)
    _, errors = process.communicate()
    assert "Traceback" not in errors
    done = finish(command, stand_ins)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("done before") >= 3
    assert len(record.load_all(Path("r/runs"))[0]) == 4


@pytest.mark.parametrize("stages_done", [1, 3, 5])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_two_lanes_stop_together_and_go_on(
    recipes: list[Path],
    stand_ins: dict[str, str],
    vllm: Path,
    sweep_command: Command,
    wait_for_stages: Wait,
    tmp_path: Path,
    number: signal.Signals,
    stages_done: int,
) -> None:
    command = sweep_command(recipes, "r", "--server", "vllm", judged=False)
    process = subprocess.Popen(command, env=stand_ins, stderr=subprocess.PIPE, text=True)
    wait_for_stages(tmp_path / "r" / "runs", stages_done)
    process.send_signal(number)
    _, errors = process.communicate()
    if number == signal.SIGINT:
        assert process.returncode == 1, errors
        assert errors.splitlines()[-1].startswith("error: stopped; what is done is kept")
        assert "Traceback" not in errors, errors
    done = finish(command, stand_ins)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("done before") >= stages_done
    assert len(record.load_all(Path("r/runs"))[0]) == 4


def test_a_base_that_cannot_be_scored_is_told_while_others_train(
    recipes: list[Path], stand_ins: dict[str, str], vllm: Path, sweep_command: Command
) -> None:
    vllm.write_text("#!/bin/sh\necho 'RuntimeError: no GPU here'; exit 1\n")
    done = finish(sweep_command(recipes, "r", "--server", "vllm", judged=False), stand_ins)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    told = next(i for i, line in enumerate(lines) if "failed, the others go on" in line)
    assert "no GPU here" in lines[told]
    errors = [line for line in lines if line.startswith("error: ")]
    assert len(errors) == 4
    assert len(list(Path("r/runs").glob("*/train.json"))) == 3


def test_a_server_that_leaves_adapters_out_is_an_error_and_no_result(
    recipes: list[Path], stand_ins: dict[str, str], vllm: Path, sweep_command: Command
) -> None:
    whole = vllm.read_text()
    vllm.write_text(whole.replace("exec", "SMALL_SERVER_ALWAYS=base exec"))
    command = sweep_command(recipes[:1], "r", "--server", "vllm")
    done = finish(command, stand_ins)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: beta_0.02: all 40 replies equal the base's")
    assert "are kept as r/runs/beta_0.02/tatqa.old-1, and the same command" in last
    assert not Path("r/runs/beta_0.02/record.json").exists()
    assert not Path("r/runs/beta_0.02/mtbench").exists()  # nor is a judge paid for it
    vllm.write_text(whole)
    assert finish(command, stand_ins).returncode == 0
    assert replies(Path("r/runs/beta_0.02")) != {"base"}


def test_a_server_elsewhere_that_hangs_does_not_hold_up_the_end(
    recipes: list[Path], stand_ins: dict[str, str], vllm: Path, sweep_command: Command
) -> None:
    """A lane waits for its answer about an adapter, for five minutes. SIGTERM is as Ctrl-C."""
    port = free_port()
    hanging = stand_ins | {"SMALL_SERVER_HANGS_AT": "/v1/load_lora_adapter"}
    running = subprocess.Popen(
        [str(vllm), "serve", BASE, "--port", str(port)], env=hanging, stdout=subprocess.PIPE
    )
    while not answers(port):
        assert running.poll() is None
    url = f"http://127.0.0.1:{port}"
    command = sweep_command(recipes[:1], "r", "--server", url, judged=False)
    process = subprocess.Popen(command, env=stand_ins, stderr=subprocess.PIPE, text=True)
    assert running.stdout is not None
    while b"hangs" not in running.stdout.readline():
        assert running.poll() is None
    process.terminate()
    _, errors = process.communicate()
    running.kill()
    running.communicate()
    assert process.returncode == 1
    assert errors.splitlines()[-1].startswith("error: stopped; what is done is kept")


def test_what_cannot_be_written_costs_one_run_and_the_others_go_on(
    recipes: list[Path], stand_ins: dict[str, str], sweep_command: Command
) -> None:
    """A full disk or a folder without permission; here, a folder where a log is to be."""
    Path("r/runs/beta_0.02/tatqa.log").mkdir(parents=True)
    Path("r/runs/beta_0.02/run.lock").touch()
    done = finish(sweep_command(recipes, "r", judged=False), stand_ins)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last == "error: r/runs/beta_0.02/tatqa.log: Is a directory"
    assert len(record.load_all(Path("r/runs"))[0]) == 3


def test_a_server_that_dies_is_one_line_and_the_next_call_goes_on(
    recipes: list[Path], stand_ins: dict[str, str], vllm: Path, sweep_command: Command
) -> None:
    command = sweep_command(recipes, "r", "--server", "vllm", judged=False)
    whole = vllm.read_text()
    vllm.write_text(whole.replace("exec", "SMALL_SERVER_DIES_AFTER=2 exec"))
    died = finish(command, stand_ins)
    assert died.returncode == 1
    assert "Traceback" not in died.stderr
    errors = [line for line in died.stderr.splitlines() if line.startswith("error: ")]
    assert all(re.search("beta_0|base-tiny", line) for line in errors)  # whose failure it is
    assert errors
    vllm.write_text(whole)
    done = finish(command, stand_ins)
    assert done.returncode == 0, done.stderr
    assert len(record.load_all(Path("r/runs"))[0]) == 4


def test_without_vllm_nothing_is_begun(
    recipes: list[Path], stand_ins: dict[str, str], sweep_command: Command, tmp_path: Path
) -> None:
    done = finish(
        sweep_command(recipes, "r", "--server", "vllm", judged=False),
        stand_ins | {"PATH": str(tmp_path)},
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: --server vllm: there is no `vllm` command here")
    assert not Path("r").exists()


@pytest.mark.parametrize("kills", [6, pytest.param(50, marks=pytest.mark.slow)])
def test_three_workers_share_a_folder_and_random_kills_change_nothing(
    recipes: list[Path],
    stand_ins: dict[str, str],
    sweep_command: Command,
    tmp_path: Path,
    kills: int,
) -> None:
    whole = finish(sweep_command(recipes, "whole"), stand_ins)
    assert whole.returncode == 0, whole.stderr
    chance = random.Random(0)
    workers = [start(sweep_command(recipes, "killed"), stand_ins) for _ in range(3)]
    for _ in range(kills):
        time.sleep(chance.uniform(0.2, 1.0))  # wherever that finds it
        victim = chance.randrange(3)
        workers[victim].kill()
        workers[victim].wait()
        workers[victim] = start(sweep_command(recipes, "killed"), stand_ins)
    for worker in workers:
        assert worker.wait() == 0
    assert measured(tmp_path / "killed") == measured(tmp_path / "whole")


def start(command: list[str], environment: dict[str, str]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def test_the_slurm_script_runs_the_sweep(
    recipes: list[Path], stand_ins: dict[str, str], vllm: Path
) -> None:
    sweep = f'shift 2; exec {sys.executable} {Path("stand_ins").resolve()}/sweep.py "$@"'
    for name, code in (("srun", 'exec "$@"'), ("python", sweep)):  # for python -m results
        program = vllm.with_name(name)
        program.write_text(f"#!/bin/sh\n{code}\n")
        program.chmod(0o755)
    script = ["bash", str(ROOT / "docs" / "cluster" / "sweep.slurm"), str(recipes[0])]
    assert finish(script, stand_ins).returncode == 1  # RUNS is not named
    done = finish(script, stand_ins | {"RUNS": "shared/runs"})
    assert done.returncode == 0, done.stderr
    assert len(record.load_all(Path("shared/runs"))[0]) == 2


SFT = """model_name_or_path: tiny-tatqa
form: calc
lora_target_modules: all-linear
learning_rate: 5.0e-3
loss_type: [sft]
max_pairs: 16
effective_batch_size: 8
"""
MINED = """model_name_or_path: tiny-tatqa
form: calc
strategy: mined
init_adapter: {runs}/sft
lora_target_modules: all-linear
learning_rate: 1.0e-3
effective_batch_size: 8
"""


@pytest.mark.slow
def test_served_scores_prompts_and_rounds_of_the_real_programs(
    tmp_path: Path, vllm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real programs against a real model: the prompts are those of lm-eval's hf model.

    About five minutes on two cores: a supervised run, two rounds from it, and the same adapter
    scored without a server, whose prompts and replies must be the same.
    """
    monkeypatch.chdir(tmp_path)
    vllm.write_text(vllm.read_text().replace("SMALL_SERVER_ECHO=1 ", ""))
    runs = tmp_path / "runs"
    Path("sft.yaml").write_text(SFT)
    Path("mined.yaml").write_text(MINED.format(runs=runs))
    path = f"{vllm.parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "TATQA_DATA": "synthetic", "PYTHONPATH": str(ROOT)}
    sweep = [sys.executable, "-m", "results", "run", "sft.yaml", "mined.yaml", "--limit", "2"]
    sweep += ["--server", "vllm", "--rounds", "2", "--replies", "2", "--sample-limit", "4"]
    done = finish([*sweep, "--runs", str(runs)], environment)
    assert done.returncode == 0, done.stderr
    found, problems = record.load_all(runs)
    assert not problems
    assert len(found) == 4
    score = ["lm_eval", "run", "--tasks", "tatqa_calc", "--model", "hf", "--model_args"]
    score += [f"pretrained={ROOT}/train/bases/tiny-tatqa,enable_thinking=False,peft={runs}/sft"]
    score += ["--limit", "2", "--apply_chat_template", "--log_samples", "--output_path", "hf"]
    assert finish([sys.executable, "-m", *score], environment).returncode == 0
    served, plain = samples(runs / "sft" / "tatqa"), samples(Path("hf"))
    assert served.keys() == plain.keys()
    for uid, row in served.items():
        assert token_ids(row) == token_ids(plain[uid])
        assert row["resps"] == plain[uid]["resps"]


def samples(folder: Path) -> dict[str, Any]:
    """The samples of an lm-eval run by question."""
    rows = []
    for file in folder.rglob("samples_*.jsonl"):
        rows += [json.loads(line) for line in file.read_text().splitlines()]
    return {row["doc"]["uid"]: row for row in rows}


def token_ids(row: dict[str, Any]) -> list[int]:
    """A prompt's ids: of the text that hf was given, or of the messages that a server was given."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(ROOT / "train" / "bases" / "tiny-tatqa")
    asked = row["arguments"]["gen_args_0"]["arg_0"]
    if isinstance(asked, list):
        asked = asked[0]
    if asked.startswith("["):
        asked = tokenizer.apply_chat_template(
            json.loads(asked), tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
    return list(tokenizer(asked, add_special_tokens=False)["input_ids"])
