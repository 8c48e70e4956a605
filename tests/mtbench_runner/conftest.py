"""A bench with hand-written answers, and a judge over real HTTP that misbehaves on demand."""

import contextlib
import json
import shutil
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from mtbench_runner.bench import SHIPPED

KEY = "sk-test-5f0c2a-do-not-leak"


def chat_completion(text: str | None) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": "j",
        "choices": [choice],
        "usage": usage,
    }


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "Judge"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.send(404, {"error": {"message": "no list of models"}})

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.counting:
            self.server.requests.append(request)
            self.server.paths.append(self.path)
            number = len(self.server.requests)
            self.server.under_way += 1
            self.server.most_under_way = max(self.server.most_under_way, self.server.under_way)
        try:
            fault = self.server.fault(number, request)
            if isinstance(fault, tuple):
                self.send(*fault)
            elif fault and fault.startswith("refuse-"):
                name = fault.removeprefix("refuse-")
                self.refuse(
                    400,
                    f"Unsupported parameter: '{name}' is not supported with this model",
                    param=name,
                )
            else:
                getattr(self, "fault_" + fault.replace("-", "_"))() if fault else self.answer(
                    request
                )
        finally:
            with self.server.counting:
                self.server.under_way -= 1

    def answer(self, request: dict[str, Any]) -> None:
        reply = self.server.reply
        self.send(200, chat_completion(reply(request) if callable(reply) else reply))

    def send(
        self, status: int, body: Any, headers: dict[str, str] | None = None, cut: int = 0
    ) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content) + cut))
        self.end_headers()
        self.wfile.write(content)

    def refuse(
        self, status: int, message: str, headers: dict[str, str] | None = None, **more: str
    ) -> None:
        self.send(status, {"error": {"message": message, **more}}, headers)

    def fault_429(self) -> None:
        self.refuse(429, "slow down")

    def fault_429_with_retry_after(self) -> None:
        self.refuse(429, "slow down", {"Retry-After": "1"})

    def fault_500(self) -> None:
        self.refuse(500, "sorry")

    def fault_reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def fault_cut(self) -> None:
        self.send(200, json.dumps(chat_completion("Rating: [[9]]")).encode()[:120], cut=500)
        self.close_connection = True

    def begin(self) -> None:
        """The head of a reply and the first bytes of its body."""
        content = json.dumps(chat_completion("Rating: [[9]]")).encode()
        self.wfile.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(content)}\r\n\r\n".encode())
        self.wfile.write(content[:50])
        self.wfile.flush()
        self.close_connection = True

    def fault_reset_midway(self) -> None:
        """Only once the head is read: a reset discards what was not."""
        self.server.head_read.clear()
        self.begin()
        self.server.head_read.wait(timeout=600)
        self.fault_reset()

    def fault_stall(self) -> None:
        self.begin()
        self.fault_hang()

    def fault_drip(self) -> None:
        self.begin()
        self.connection.settimeout(0.1)
        with contextlib.suppress(OSError):  # the client is gone
            while True:
                self.wfile.write(b" ")
                with contextlib.suppress(TimeoutError):
                    if not self.connection.recv(1):
                        return

    def fault_hang(self) -> None:
        """No more is sent until the client has given up."""
        self.connection.settimeout(600)
        self.connection.recv(1)
        self.close_connection = True

    def fault_empty(self) -> None:
        self.send(200, chat_completion(""))

    def fault_null(self) -> None:
        self.send(200, chat_completion(None))

    def fault_error_body(self) -> None:
        self.send(200, {"error": {"message": "overloaded", "code": 529}})

    def fault_no_choices(self) -> None:
        self.send(200, chat_completion("x") | {"choices": []})

    def fault_not_json(self) -> None:
        self.send(200, b"<html>Rating: [[10]]</html>")

    def fault_wrong_key(self) -> None:
        self.refuse(401, f"Incorrect API key provided: {self.headers['Authorization']}")

    def fault_unknown_model(self) -> None:
        self.refuse(404, "The model does not exist\x1b[31m", code="model_not_found")

    def fault_echo_key(self) -> None:
        self.refuse(400, f"bad request\x1b]0;owned\x07 with {self.headers['Authorization']}")


class Judge(ThreadingHTTPServer):
    """A chat server whose faults are given.

    `fault(number, request)` names what goes wrong with a request, or is the status and body to send
    (None: nothing goes wrong); `reply` is the judgment's text.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.counting = threading.Lock()
        self.requests: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.under_way = self.most_under_way = 0
        self.head_read = threading.Event()
        self.reply: str | Callable[[dict[str, Any]], str] = "Fine. Rating: [[7]]"
        self.fault: Callable[[int, dict[str, Any]], Any] = lambda number, request: None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Iterator[Judge]:
    from mtbench_runner import endpoint

    note_response = endpoint._note_response

    async def note(response: object) -> None:
        await note_response(response)
        server.head_read.set()

    monkeypatch.setattr(endpoint, "_note_response", note)
    with Judge() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        yield server
        server.shutdown()


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries wait next to nothing."""
    from mtbench_runner import endpoint

    monkeypatch.setattr(endpoint, "BACK_OFF", 0.01)
    monkeypatch.setattr(endpoint, "BACK_OFF_MOST", 0.02)


def reply_with(
    text: str | None, finish: str = "stop", usage: Any = None, **message: Any
) -> tuple[int, Any]:
    """Status and body of a chat completion, for `fault`."""
    body = chat_completion(text)
    body["choices"][0]["finish_reason"] = finish
    body["choices"][0]["message"] |= message
    return 200, body | {"usage": usage}


def write_answers(folder: Path, model_id: str, text: str = "An answer.") -> None:
    path = folder / "model_answer" / f"{model_id}.jsonl"
    path.parent.mkdir(exist_ok=True)
    questions = [json.loads(line) for line in (folder / "question.jsonl").read_text().splitlines()]
    with path.open("w") as file:
        for q in questions:
            turns = [f"{text} {q['question_id']}.{turn}" for turn, _ in enumerate(q["turns"], 1)]
            row = {"question_id": q["question_id"], "answer_id": "a", "model_id": model_id}
            file.write(
                json.dumps(row | {"choices": [{"index": 0, "turns": turns}], "tstamp": 0.0}) + "\n"
            )


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    """The demo bench (8 questions, 16 turns) in a folder of its own, answered by a model `m`."""
    folder = tmp_path / "demo"
    shutil.copytree(SHIPPED / "demo", folder)
    write_answers(folder, "m")
    return folder


def judgments(folder: Path, kind: str = "single") -> list[dict[str, Any]]:
    path = folder / "model_judgment" / f"j_{kind}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def rows() -> Callable[..., list[dict[str, Any]]]:
    return judgments


@pytest.fixture
def answers() -> Callable[..., None]:
    return write_answers
