"""A running server is found or refused; what it says is told; adapters keep names of their own."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from results import FailedError, InputError
from results.sweep import server, vllm
from results.sweep.server import Server


def adapter(folder: Path, weights: bytes = b"w", rank: int = 16) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({"r": rank}))
    (folder / "adapter_model.safetensors").write_bytes(weights)
    return folder


def test_a_base_and_its_adapters_by_name(running: Server, tmp_path: Path) -> None:
    folder = adapter(tmp_path / "run one")
    with running.adapter(folder) as name:
        assert name.startswith("run-one-")
        assert running.models()[name]["root"] == str(folder)
        running.try_reply(name)
    assert list(running.models()) == [running.base]


def test_other_weights_get_another_name(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "run")
    before = server.adapter_name(folder)
    assert server.adapter_name(adapter(folder)) == before
    assert server.adapter_name(adapter(folder, b"v")) != before
    assert server.adapter_name(adapter(folder, b"w", 32)) != before


def test_an_adapter_that_is_there_already_is_used_and_stays(
    running: Server, tmp_path: Path
) -> None:
    folder = adapter(tmp_path / "run")
    assert running.load(server.adapter_name(folder), folder)
    with running.adapter(folder) as name:
        running.try_reply(name)
    assert name in running.models()


def test_an_adapter_that_another_worker_loads_at_the_same_moment_is_used(
    running: Server, tmp_path: Path
) -> None:
    folder = adapter(tmp_path / "run")
    name = server.adapter_name(folder)
    running.load(name, folder)  # between the look at the list and the request
    assert not running.load(name, folder)


def test_an_adapter_above_the_servers_rank_is_refused(running: Server, tmp_path: Path) -> None:
    folder = adapter(tmp_path / "run", rank=64)
    with pytest.raises(FailedError, match=r"rank 64 is greater.*--max-lora-rank"):
        running.adapter(folder).__enter__()


def test_a_folder_without_an_adapter_is_named(running: Server, tmp_path: Path) -> None:
    with pytest.raises(FailedError, match="no adapter_config.json there"):
        running.adapter(tmp_path).__enter__()


@pytest.mark.parametrize("url", ["{url}", "{url}/", "{url}/v1", "{url}/v1/"])
def test_a_running_server_is_found_by_its_url(running: Server, url: str) -> None:
    found = server.connect(url.format(url=running.url), "some/base")
    assert found == running


def test_a_server_of_another_base_is_refused(running: Server) -> None:
    with pytest.raises(InputError, match=r"serves some/base, the recipe's base is other/model"):
        server.connect(running.url, "other/model")


def test_a_base_under_a_name_that_lm_eval_cannot_read_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An apostrophe opens a quote in lm-eval's options, and what follows it is no option."""
    name = "/models/smith's"
    monkeypatch.setattr(Server, "models", lambda _: {name: {"root": name}})
    with pytest.raises(InputError, match=r"smith's, which .* --served-model-name base"):
        server.connect("http://127.0.0.1:9", name)


def test_a_folder_that_both_see_is_compared_by_content(tmp_path: Path) -> None:
    """Bases in 4 bits are all in folders called `model`."""
    ours, theirs = tmp_path / "a" / "model", tmp_path / "b" / "model"
    for folder in (ours, theirs):
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"w")
    assert server.is_base("base", {"root": str(theirs)}, str(ours))
    (theirs / "model.safetensors").write_bytes(b"v")
    assert not server.is_base("base", {"root": str(theirs)}, str(ours))
    assert server.is_base("base", {"root": "/elsewhere/model"}, str(ours))  # only by its name


class Answers(BaseHTTPRequestHandler):
    """Gives `answers[path]` (status, headers, body), and notes what it was asked."""

    answers: ClassVar[dict[str, tuple[int, dict[str, str], str]]] = {}
    asked: ClassVar[list[tuple[str, str | None]]] = []

    def do_GET(self) -> None:
        self.asked.append((self.path, self.headers["Authorization"]))
        status, headers, body = self.answers.get(self.path, (404, {}, "no such page"))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def odd() -> Iterator[Server]:
    """A server whose answers a test chooses."""
    Answers.answers, Answers.asked = {}, []
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield Server(f"http://127.0.0.1:{found.server_address[1]}", "base")
        found.shutdown()


REPLY = "/v1/chat/completions"


@pytest.mark.parametrize(
    "body", ["<html>log in</html>", "null", "", "[]", '{"choices": []}', '{"choices": [{}]}']
)
def test_what_is_no_reply_of_a_model_is_told_before_any_work(odd: Server, body: str) -> None:
    """An error with status 200: scoring would ask six times for each question."""
    Answers.answers = {REPLY: (200, {}, body)}
    with pytest.raises(FailedError, match="no reply of a model, but"):
        odd.try_reply("base")


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirection_is_told_and_not_followed(
    odd: Server, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may lead to another host, which is not to have the key."""
    monkeypatch.setenv("OPENAI_API_KEY", "secret-key")
    elsewhere = {"Location": f"{odd.url}/elsewhere"}
    Answers.answers = {"/v1/models": (status, elsewhere, ""), REPLY: (status, elsewhere, "")}
    for ask in (odd.models, lambda: odd.try_reply("base")):
        with pytest.raises(FailedError, match=rf"{status} leads to {odd.url}/elsewhere; give"):
            ask()
    assert [path for path, _ in Answers.asked] == ["/v1/models", REPLY]


@pytest.mark.parametrize("status", [401, 403])
def test_a_server_that_wants_a_key_is_told_so_without_the_one_it_was_given(
    odd: Server, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret-key")
    Answers.answers = {"/v1/models": (status, {}, "wrong: Bearer secret-key")}
    with pytest.raises(FailedError, match=r"wrong: Bearer \(key\); give its key in OPENAI_API_KEY"):
        odd.models()
    assert Answers.asked == [("/v1/models", "Bearer secret-key")]


def test_what_a_server_says_cannot_write_to_the_terminal(odd: Server) -> None:
    Answers.answers = {"/v1/models": (500, {}, "\x1b]0;title\x07 two\nlines")}
    with pytest.raises(FailedError) as error:
        odd.models()
    assert str(error.value).endswith("500 \ufffd]0;title\ufffd two lines")


def test_a_proxy_of_the_environment_is_not_asked(
    odd: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """lm-eval does not either, and a server on this machine could not be reached."""
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{vllm.free_port()}")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    Answers.answers = {"/v1/models": (200, {}, '{"data": []}')}
    assert odd.models() == {}


def test_nobody_at_the_url_is_one_line() -> None:
    url = f"http://127.0.0.1:{vllm.free_port()}"
    with pytest.raises(FailedError, match=f"server {url} does not answer"):
        server.connect(url, "b")


def test_the_key_reaches_the_server_and_no_message(
    monkeypatch: pytest.MonkeyPatch, running: Server
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret-key")
    running.try_reply(running.base)
    with pytest.raises(FailedError) as error:
        running.try_reply("unknown")
    assert "secret-key" not in str(error.value)
