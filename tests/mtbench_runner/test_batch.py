"""Batches against a server with OpenAI's files and batches, over real HTTP."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from mtbench_runner import store
from mtbench_runner.__main__ import main
from mtbench_runner.stand_in_judge import Server

from .conftest import KEY, chat_completion, judgments, write_answers

N = 16


class Handler(BaseHTTPRequestHandler):
    """files.create, files.content, batches.create, batches.retrieve."""

    server: "Batches"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def send(self, status: int, body: Any) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        if not self.server.has_batches:
            return self.send(404, {"detail": "Not Found"})
        if self.path.endswith("/files"):
            lines = [line for line in content.splitlines() if line.startswith(b"{")]
            self.server.requests = [json.loads(line) for line in lines]
            return self.send(200, {"id": "file-1", "object": "file"})
        self.server.sent = json.loads(content)
        return self.send(200, {"id": "batch-1", "status": "validating"})

    def do_GET(self) -> None:
        if self.path.endswith("/batches"):
            batch = {"id": "batch-1", "input_file_id": "file-1", "status": self.server.status}
            return self.send(200, {"data": [batch] if self.server.sent else [], "has_more": False})
        if self.path.endswith("/content"):
            return self.send(200, self.server.output())
        if "/batches/" in self.path:
            counts = {"completed": 3, "failed": 0, "total": N}
            found: dict[str, Any] = {
                "id": "batch-1",
                "status": self.server.status,
                "request_counts": counts,
            }
            return self.send(200, found | {"output_file_id": "file-2", "error_file_id": None})
        return self.send(404, {"detail": "Not Found"})


class Batches(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.has_batches = True
        self.status = "in_progress"
        self.requests: list[dict[str, Any]] = []
        self.sent: dict[str, Any] = {}
        self.failing: set[int] = set()  # requests that fail, by number

    def output(self) -> bytes:
        """Answers in another order than the requests, as a batch gives them."""
        return answers_to(self.requests, self.failing)


def answers_to(requests: list[dict[str, Any]], failing: set[int] = frozenset()) -> bytes:  # type: ignore[assignment]
    lines = []
    for number, request in enumerate(requests):
        response: dict[str, Any] = {"status_code": 200, "body": chat_completion("[[7]] [[A]]")}
        if number in failing:
            response = {"status_code": 500, "body": {"error": {"message": "sorry"}}}
        lines.append({"custom_id": request["custom_id"], "response": response, "error": None})
    return b"".join(json.dumps(line).encode() + b"\n" for line in reversed(lines))


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> Iterator[Batches]:
    with Batches() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{server.server_port}/v1")
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        yield server
        server.shutdown()


def run(bench: Path, what: str, *more: str, stage: str = "judge") -> int:
    named = ["--data", str(bench), "--model-id", "m", "--judge-model", "j"]
    return main([stage, *named, "--batch", what, *more])


def test_a_batch_is_sent_once_and_read_back(batches: Batches, bench: Path, capsys: Any) -> None:
    assert run(bench, "submit") == 0
    assert len(batches.requests) == N
    first = batches.requests[0]
    assert (first["method"], first["url"]) == ("POST", "/v1/chat/completions")
    assert first["body"]["model"] == "j"
    assert first["body"]["max_tokens"] == 2048
    assert batches.sent["completion_window"] == "24h"
    assert run(bench, "submit") == 2
    assert "not collected yet" in capsys.readouterr().err
    assert run(bench, "collect") == 1
    assert "batch batch-1 is in_progress (3 of 16)" in capsys.readouterr().err
    assert judgments(bench) == []
    batches.status = "completed"
    assert run(bench, "collect") == 0
    assert [row["score"] for row in judgments(bench)] == [7] * N
    assert judgments(bench)[0]["usage"] == {"prompt": 100, "completion": 10}
    assert run(bench, "submit") == 0
    assert "nothing is left to judge" in capsys.readouterr().out


def test_what_fails_in_a_batch_is_told_and_sent_with_the_next(
    batches: Batches, bench: Path, capsys: Any
) -> None:
    batches.failing = {2, 3}
    batches.status = "completed"
    assert run(bench, "submit", "--votes", "2") == 0
    assert run(bench, "collect", "--votes", "2") == 1
    assert "2 of 32 judgments are missing (2 server error (500))" in capsys.readouterr().err
    batches.failing = set()
    assert run(bench, "submit", "--votes", "2") == 0
    assert len(batches.requests) == 2
    assert run(bench, "collect", "--votes", "2") == 0
    assert len(judgments(bench)) == N


def test_an_endpoint_without_batches_leaves_a_file_that_any_tool_may_answer(
    batches: Batches, bench: Path, capsys: Any
) -> None:
    batches.has_batches = False
    write_answers(bench, "base", "Another answer.")
    pairs = ("--baseline", "base")
    assert run(bench, "submit", *pairs, stage="pairwise") == 0
    assert "the endpoint takes no batches" in capsys.readouterr().out
    path = bench / "model_judgment" / "j_pair.jsonl"
    requests = store.read(store.beside(path, "batch"))
    assert len(requests) == 2 * N
    assert run(bench, "collect", *pairs, stage="pairwise") == 2
    assert "run --batch submit first" in capsys.readouterr().err
    store.beside(path, "batch.out").write_bytes(answers_to(requests[:-1]))
    assert run(bench, "collect", *pairs, stage="pairwise") == 1
    assert "1 of 16 judgments are missing (1 not in the batch's output)" in capsys.readouterr().err
    assert len(judgments(bench, "pair")) == N - 1


def test_a_batch_of_another_model_is_neither_taken_nor_lost(
    batches: Batches, bench: Path, capsys: Any
) -> None:
    """Both models' judgments lie in one file, and so did their batches."""
    write_answers(bench, "other", "Another answer.")
    batches.status = "completed"
    assert run(bench, "submit") == 0
    assert run(bench, "collect", "--model-id", "other") == 2
    assert "the batch's output holds nothing of other" in capsys.readouterr().err
    assert run(bench, "collect") == 0
    assert len(judgments(bench)) == N


def test_what_a_collected_batch_holds_is_found_for_other_votes_too(
    batches: Batches, bench: Path
) -> None:
    batches.status = "completed"
    assert run(bench, "submit", "--votes", "3") == 0
    assert run(bench, "collect") == 0
    batches.has_batches = False
    assert run(bench, "collect", "--votes", "3") == 0
    votes = store.beside(bench / "model_judgment" / "j_single.jsonl", "votes")
    assert len(store.read(votes)) == 2 * N


def test_killed_between_the_last_row_and_the_end_a_collection_ends_the_next_time(
    batches: Batches, bench: Path, capsys: Any
) -> None:
    batches.status = "completed"
    assert run(bench, "submit") == 0
    assert run(bench, "collect") == 0
    path = bench / "model_judgment" / "j_single.jsonl"
    store.beside(path, "batch.out.collected-1").rename(store.beside(path, "batch.out"))
    store.write_whole(store.beside(path, "batch.sent"), b'{"id": "batch-1"}')
    assert run(bench, "submit") == 2
    assert run(bench, "collect") == 0
    assert run(bench, "submit") == 0
    assert "nothing is left to judge" in capsys.readouterr().out


def test_the_stand_in_takes_no_batches(bench: Path, capsys: Any, monkeypatch: Any) -> None:
    with Server() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("OPENAI_API_KEY", "stand-in")
        assert run(bench, "submit") == 0
    captured = capsys.readouterr()
    assert "the endpoint takes no batches" in captured.out
    assert "Traceback" not in captured.err


@pytest.mark.parametrize("begun", [True, False])
def test_killed_before_its_id_was_noted_a_batch_is_found_by_its_file(
    begun: bool, batches: Batches, bench: Path, capsys: Any
) -> None:
    batches.status = "completed"
    assert run(bench, "submit") == 0
    sent = store.beside(bench / "model_judgment" / "j_single.jsonl", "batch.sent")
    store.write_whole(sent, b'{"file": "file-1"}')
    if not begun:
        batches.sent = {}
        assert run(bench, "collect") == 1
        assert "never begun; run --batch submit again" in capsys.readouterr().err
        assert run(bench, "submit") == 0
    assert run(bench, "collect") == 0
    assert len(judgments(bench)) == N


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--judge-model", "local:x"), "--batch is for judges at an endpoint"),
        (("--max-cost", "1", "--prices", "1", "1"), "--max-cost cannot stop a batch"),
    ],
)
def test_what_a_batch_cannot_do_is_a_wrong_call(
    options: tuple[str, ...], message: str, batches: Batches, bench: Path, capsys: Any
) -> None:
    assert run(bench, "submit", *options) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("note", ['{"id', "{}", "[1]", "my notes", "\udcff"])
def test_a_damaged_note_of_a_batch_is_one_line_and_stays(
    note: str, batches: Batches, bench: Path, capsys: Any
) -> None:
    sent = store.beside(bench / "model_judgment" / "j_single.jsonl", "batch.sent")
    store.write_whole(sent, note.encode("utf-8", "surrogateescape"))
    before = sent.read_bytes()
    assert run(bench, "collect") == 2
    said = capsys.readouterr().err
    assert "batch.sent: no note of a batch" in said
    assert said.count("\n") == 1
    assert sent.read_bytes() == before
