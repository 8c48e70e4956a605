"""`tatqa_task evaluate`: lm-eval with our tasks alone, and what it makes of a server's faults."""

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import lm_eval.tasks
import pytest
from lm_eval.api.model import LM
from lm_eval.models.openai_completions import LocalChatCompletion

from tatqa_task import evaluate, task_files

REPLY = '{"answer": ["1"], "scale": ""}'


def answer(content: Any, **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "message": {"content": content}} | more]}


def test_an_output_folder_that_cannot_be_is_told_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = tmp_path / "notes"
    theirs.write_text("mine")
    for path in (theirs, theirs / "deeper"):
        assert evaluate.main(["--tasks", "tatqa", "--output_path", str(path)]) == 2
        assert capsys.readouterr().err.startswith(f"error: --output_path {path}: ")
    assert theirs.read_text() == "mine"


def test_output_folders_as_lm_eval_takes_them(tmp_path: Path) -> None:
    folder = tmp_path / "a b"
    for options in (["--output_path", f"{folder}"], ["-o", f"{folder}"]):
        assert evaluate.unwritable(options) is None
        folder.rmdir()
    assert evaluate.unwritable([f"--output_path={folder}/out.json"]) is None
    folder.rmdir()
    assert evaluate.unwritable(["--tasks", "tatqa"]) is None


@pytest.fixture
def lm_eval_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `evaluate.main` changes in this process is put back."""
    monkeypatch.setattr("sys.argv", sys.argv)
    monkeypatch.setattr(lm_eval.tasks, "TaskManager", lm_eval.tasks.TaskManager)
    monkeypatch.setattr(LM, "create_from_arg_obj", vars(LM)["create_from_arg_obj"])
    monkeypatch.setattr(LocalChatCompletion, "parse_generations", evaluate.parse_answers)


@pytest.mark.usefixtures("lm_eval_as_it_was")
@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("--model hff --tasks tatqa", "--model hff: no such kind of model; did you mean hf?"),
        ("--model xyz --tasks tatqa", "--model xyz: no such kind of model; known: "),
        ("--tasks tatqaa", "--tasks: Tasks not found: tatqaa; known: tatqa, tatqa_test, "),
        ("--tasks tatqa,gsm8k", "--tasks: Tasks not found: gsm8k; known: tatqa, "),
        ("--model hf", "--tasks: none given; known: tatqa, "),
        ("--tasks tatqa --log_samples", "Specify --output_path"),
        ("--tasks tatqa --config none.yaml", "FileNotFoundError: Config file not found"),
        ("--tasks tatqa --model_args pretrained=./none", "cannot load the model (./none): "),
        ("--tasks tatqa --model_args pretrianed=x", "cannot load the model (no pretrained= in"),
    ],
)
def test_a_mistake_is_one_line_before_the_work(
    call: str, said: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert evaluate.main(call.split()) == 2
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert errors[0].startswith(f"error: {said}")


@pytest.mark.parametrize(
    "found",
    [answer("a"), answer(""), answer(None, finish_reason="stop"), answer("a", finish_reason="x")],
)
def test_answers_with_a_text(found: Any) -> None:
    assert evaluate.has_text(found)


@pytest.mark.parametrize(
    "found",
    [
        None,
        [],
        "text",
        {},
        {"error": {"message": "overloaded"}},
        {"choices": []},
        {"choices": None},
        {"choices": [{"index": 0}]},
        {"choices": [{"message": {"content": "a"}}]},
        {"choices": 2 * answer("a")["choices"]},
        answer(None),
        answer(None, finish_reason="content_filter"),
        answer(5),
        answer("a", index=1),
    ],
)
def test_answers_without_one(found: Any) -> None:
    """Of these lm-eval's client makes an empty reply, or a fault far from its cause."""
    assert not evaluate.has_text(found)


class Server(ThreadingHTTPServer):
    """Gives `bodies` one after the other, then the last again and again."""

    bodies: list[bytes]
    status = 200


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        bodies = self.server.bodies
        body = bodies.pop(0) if len(bodies) > 1 else bodies[0]
        self.send_response(self.server.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield found
        found.shutdown()


def run(server: Server, out: Path) -> "subprocess.CompletedProcess[str]":
    url = f"http://127.0.0.1:{server.server_address[1]}/v1/chat/completions"
    given = f"model=m,base_url={url},num_concurrent=1,max_retries=2,timeout=600"
    options = ["--tasks", "tatqa_span", "--model", "local-chat-completions", "--model_args", given]
    options += ["--apply_chat_template", "--limit", "2", "--log_samples", "--output_path", str(out)]
    return subprocess.run(
        [sys.executable, "-m", "tatqa_task", "evaluate", *options],
        capture_output=True,
        text=True,
    )


def test_an_answer_without_text_is_asked_for_again(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TATQA_DATA", "synthetic")
    server.bodies = [b"", json.dumps(answer(REPLY)).encode()]
    done = run(server, tmp_path)
    assert done.returncode == 0, done.stderr
    (samples,) = tmp_path.rglob("samples_*.jsonl")
    replies = [json.loads(line)["resps"] for line in samples.read_text().splitlines()]
    assert replies == [[[REPLY]], [[REPLY]]]


@pytest.mark.parametrize("body", [b'{"error": {"message": "overloaded"}}', b"<html>"])
def test_a_server_that_never_gives_a_text_is_one_line_and_no_scores(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    monkeypatch.setenv("TATQA_DATA", "synthetic")
    server.bodies = [body]
    done = run(server, tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "the same command asks again" in errors[0]
    assert not list(tmp_path.rglob("*.json*"))


def test_why_a_server_refuses_is_told_in_its_own_words(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its context may be shorter than a prompt."""
    monkeypatch.setenv("TATQA_DATA", "synthetic")
    server.status = 400
    server.bodies = [b'{"error":\n"maximum context length is 512 tokens"}']
    done = run(server, tmp_path)
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert 'chat/completions {"error": "maximum context length is 512 tokens"})' in line


def test_a_model_without_chat_template_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_base: Path
) -> None:
    monkeypatch.setenv("TATQA_DATA", "synthetic")
    folder = shutil.copytree(tiny_base, tmp_path / "base")
    (folder / "chat_template.jinja").unlink()
    options = ["--tasks", "tatqa_span", "--model", "hf-short-first", "--model_args"]
    options += [f"pretrained={folder}", "--apply_chat_template", "--limit", "1"]
    command = [sys.executable, "-m", "tatqa_task", "evaluate", *options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"error: {folder}: its tokenizer has no chat template; take")


CLIENT = """
import sys
from tatqa_task import evaluate
evaluate.cli_evaluate = lambda: None
evaluate.main([])
from lm_eval.api.registry import get_model
get_model("local-chat-completions")
assert not {"torch", "transformers"} & sys.modules.keys()
assert issubclass(get_model("hf-short-first"), get_model("hf"))
"""


def test_lm_evals_own_models_are_there_and_a_server_needs_no_torch() -> None:
    done = subprocess.run([sys.executable, "-c", CLIENT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


WITHOUT_SERVER = """
import gc, sys
from tatqa_task import evaluate
evaluate.cli_evaluate = lambda: None
collections = []
gc.callbacks.append(lambda phase, info: collections.append(phase))
evaluate.main(["--model", "hf-short-first"])
assert "torch" in sys.modules and gc.isenabled()
print(len(collections) < 10, gc.get_freeze_count() > 100_000)
"""


def test_the_libraries_of_a_model_are_loaded_without_collections() -> None:
    """Of which there were hundreds."""
    done = subprocess.run([sys.executable, "-c", WITHOUT_SERVER], capture_output=True, text=True)
    assert done.stdout.split() == ["True", "True"], done.stderr


def test_only_this_packages_tasks_are_read() -> None:
    tasks = evaluate.OurTasks(include_path=str(task_files.FOLDER)).all_tasks
    assert "tatqa_calc_test" in tasks
    assert all(name.startswith("tatqa") for name in tasks)
