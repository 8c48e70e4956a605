"""A working folder with recipes, and stand-ins for the three programs that a sweep runs."""

import contextlib
import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from results.sweep.server import Server
from results.sweep.vllm import start

ROOT = Path(__file__).resolve().parents[3]
BASE = "train/bases/tiny-tatqa"
Command = Callable[..., list[str]]
Wait = Callable[[Path, int], None]


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `vllm` command on the PATH that is the small server without a model; its file."""
    found = tmp_path / "bin" / "vllm"
    found.parent.mkdir()
    small = Path(__file__).with_name("small_server.py")
    found.write_text(f'#!/bin/sh\nSMALL_SERVER_ECHO=1 exec {sys.executable} {small} "$@"\n')
    found.chmod(0o755)
    monkeypatch.setenv("PATH", f"{found.parent}{os.pathsep}{os.environ['PATH']}")
    return found


@pytest.fixture
def running(program: Path, tmp_path: Path) -> Iterator[Server]:
    """That server, started for `some/base`."""
    with start("some/base", 16, 0.5, tmp_path / "log") as found:
        yield found


@pytest.fixture
def wait_for_end() -> Callable[[int], None]:
    """Waits until a process, of whatever parent, is gone."""

    def wait(pid: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            while True:
                os.kill(pid, 0)
                time.sleep(0.01)

    return wait


@pytest.fixture
def recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Three recipes that differ in beta, in a working directory with a base model's folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / BASE).mkdir(parents=True)
    for name in ("config.json", "tokenizer.json"):
        shutil.copy(ROOT / BASE / name, tmp_path / BASE)
    layers = {"q_proj.weight": np.zeros(1), "v_proj.weight": np.zeros(1)}
    save_file(layers, tmp_path / BASE / "model.safetensors")
    monkeypatch.delenv("TATQA_DATA", raising=False)
    paths = [Path(f"beta_{beta}.yaml") for beta in ("0.02", "0.05", "0.1")]
    for path in paths:
        path.write_text(f"model_name_or_path: {BASE}\nbeta: {path.stem[5:]}\nlora_r: 32\n")
    return paths


# Stand-ins: the command lines and files of the three programs, no models.
# Each sleeps so that a kill finds it at work.
STAND_INS = {
    "tatqa_task": """
import json, pathlib, random, sys, time
a = sys.argv
out = pathlib.Path(a[a.index("--output_path") + 1]) / "m"
given = dict(pair.split("=", 1) for pair in a[a.index("--model_args") + 1].split(","))
reply = given.get("peft", "base")
if "base_url" in given:  # through a server: the reply is the name of the model that answered
    import urllib.request
    messages = [{"role": "user", "content": "?"}]
    asked = {"model": given["model"], "messages": messages, "max_tokens": 9}
    request = urllib.request.Request(given["base_url"], json.dumps(asked).encode(),
                                     {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as response:
        reply = json.load(response)["choices"][0]["message"]["content"]
skill = 0.5 if reply == "base" else 0.8
time.sleep(0.15)
out.mkdir(parents=True, exist_ok=True)
rows = []
for i in range(40):
    right = float(random.Random(f"{i} {skill}").random() < skill)
    kind = ["span", "multi-span", "arithmetic", "count"][i % 4]
    doc = {"uid": f"q{i}", "context_uid": f"c{i // 4}", "question": "?", "answer": "1", "scale": ""}
    doc |= {"answer_type": kind, "answer_from": "table"}
    hashes = {"doc_hash": "d", "prompt_hash": "p", "target_hash": "t"}
    scored = {"metrics": ["em"], "em": right}
    rows.append({"doc_id": i, "doc": doc, "resps": [[reply]], **scored, **hashes})
(out / "samples_tatqa_span_x.jsonl").write_text("".join(json.dumps(r) + "\\n" for r in rows))
results = {"config": {}, "configs": {"tatqa_span": {}}, "versions": {}, "n-shot": {}}
(out / "results_x.json").write_text(json.dumps(results))
""",
    "train": """
import json, pathlib, sys, time
if sys.argv[1:] == ["-"]:  # loaded ahead: the options come later, or never
    sys.argv[1:] = json.loads(sys.stdin.readline() or sys.exit())
if "--check" in sys.argv: sys.exit()
out = pathlib.Path(sys.argv[sys.argv.index("--output_dir") + 1])
for step in range(3):
    if not (out / f"checkpoint-{step}").exists():
        time.sleep(0.1)
        (out / f"checkpoint-{step}").mkdir()
beta = float(pathlib.Path(sys.argv[1]).stem[5:])
(out / "adapter_model.safetensors").write_text(str(beta))
(out / "adapter_config.json").write_text('{"r": 32}')
history = [{"step": 1, "loss": 0.5, "rewards/accuracies": 0.5, "rewards/margins": 0.1}]
recipe = {"beta": beta, "lora_r": 32, "lora_alpha": 32}
facts = {"recipe": recipe, "history": history, "pairs": {"kept": 1}, "seconds": 1, "device": "d"}
(out / "train.json").write_text(json.dumps(facts))
""",
    "mtbench_runner": """
import json, pathlib, sys, time
a = sys.argv
if "--check" in a: sys.exit()
out = pathlib.Path(a[a.index("--out") + 1])
out.mkdir(exist_ok=True)
time.sleep(0.1)
per = {str(i): {"1": 5.0 + i % 3, "2": 5.0 + ("--adapter" in a)} for i in range(6)}
score = {"bench": "demo", "judge": "stand-in-judge", "stand_in": True}
score |= {"n_questions": 6, "per_question": per}
(out / "score.json").write_text(json.dumps(score | {"missing": 0, "unparsable": 0}))
""",
}


# `python -m results`, for which the programs beside it are those in this file's folder.
WITH_STAND_INS = """
import pathlib, sys
from results.sweep import processes
processes.ROOT = pathlib.Path(__file__).resolve().parent
from results.__main__ import main
sys.exit(main())
"""


@pytest.fixture
def stand_ins(tmp_path: Path, recipes: list[Path]) -> Iterator[dict[str, str]]:
    """An environment beside the stand-ins for the three programs, and a judge that listens."""
    folder = tmp_path / "stand_ins"
    for name, code in STAND_INS.items():
        package = folder / name
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "__main__.py").write_text(code)
    (folder / "sweep.py").write_text(WITH_STAND_INS)
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
            "PYTHONPATH": str(ROOT),
            "OPENAI_API_KEY": "x",
            "OPENAI_BASE_URL": judge_url,
        }


@pytest.fixture
def vllm(program: Path, stand_ins: dict[str, str]) -> Path:
    """The same on the PATH of the stand-ins."""
    stand_ins["PATH"] = os.environ["PATH"]
    return program


@pytest.fixture
def sweep_command() -> Command:
    """The command line of a sweep with the stand-ins."""

    def made(recipes: list[Path], runs: str, *options: str, judged: bool = True) -> list[str]:
        command = [sys.executable, "stand_ins/sweep.py", "run", *map(str, recipes)]
        if judged:
            command += ["--judge-model", "stand-in-judge", "--bench", "bench"]
        return [*command, "--runs", f"{runs}/runs", *options]

    return made


@pytest.fixture
def wait_for_stages() -> Wait:
    """Waits until so many stages are done, whenever that is; fails after ten minutes."""

    def wait(runs: Path, number: int) -> None:
        for _ in range(12_000):
            notes = [note.read_text() for note in runs.glob("*/*.stage.json")]
            if sum('"done": true' in note for note in notes) >= number:
                return
            time.sleep(0.05)
        raise AssertionError(f"{number} stages were never done")

    return wait
