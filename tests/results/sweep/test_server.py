"""Serving: servers are started, found, refused and ended; adapters keep names of their own."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from results import FailedError, InputError
from results.sweep import processes, server
from results.sweep.server import Server

HERE = Path(__file__).parent


@pytest.fixture
def vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `vllm` command that is the small server without a model."""
    return put_vllm(tmp_path, monkeypatch)


def put_vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, echo: bool = True) -> Path:
    """Put a `vllm` on the PATH; returns its file."""
    program = tmp_path / "bin" / "vllm"
    program.parent.mkdir()
    setting = "SMALL_SERVER_ECHO=1 " if echo else ""
    small = HERE / "small_server.py"
    program.write_text(f'#!/bin/sh\n{setting}exec {sys.executable} {small} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    return program


def adapter(folder: Path, weights: bytes = b"w", rank: int = 16) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({"r": rank}))
    (folder / "adapter_model.safetensors").write_bytes(weights)
    return folder


@pytest.fixture
def running(vllm: Path, tmp_path: Path) -> Iterator[Server]:
    with server.start_vllm("some/base", 16, 0.5, tmp_path / "log") as found:
        yield found


def wait_until(true: Callable[[], bool]) -> None:
    while not true():
        time.sleep(0.05)


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


@pytest.mark.parametrize(("rank", "limit"), [(1, 8), (8, 8), (16, 16), (17, 32), (65, 128)])
def test_ranks_are_rounded_up_to_what_vllm_takes(rank: int, limit: int) -> None:
    assert server.served_rank(rank) == limit


@pytest.mark.parametrize(
    ("config", "length"),
    [(None, 8192), ("{", 8192), ("{}", 8192), ('{"max_position_embeddings": 2048}', 2048)],
)
def test_no_more_tokens_than_the_base_was_made_for(
    tmp_path: Path, config: str | None, length: int
) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    assert server.longest(str(tmp_path)) == length


def test_a_rank_beyond_vllm_is_refused() -> None:
    with pytest.raises(InputError, match="at most rank 512"):
        server.served_rank(513)


def test_no_vllm_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="no `vllm` command"):
        server.vllm_program()


def test_a_server_that_does_not_start_is_told_with_its_reason(vllm: Path, tmp_path: Path) -> None:
    vllm.write_text("#!/bin/sh\necho loading\necho 'RuntimeError: no GPU found' >&2\nexit 1\n")
    log = tmp_path / "server.log"
    with pytest.raises(FailedError, match="did not start .RuntimeError: no GPU found"):
        server.start_vllm("b", 16, 0.5, log).__enter__()
    assert "loading" in log.read_text()


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        ("", "it said nothing"),
        ("loading\n\n", "loading"),
        ("ValueError: a\nRuntimeError: b\nbye", "RuntimeError: b"),
        (
            "(EngineCore) ValueError: Free memory is less than desired\n"
            "RuntimeError: Engine core initialization failed. See root cause above.",
            "(EngineCore) ValueError: Free memory is less than desired",
        ),
    ],
)
def test_the_reason_in_a_servers_log(tmp_path: Path, log: str, reason: str) -> None:
    (tmp_path / "log").write_text(log)
    assert server.last_error(server.lines_of(tmp_path / "log", 0)) == reason


def test_the_reason_is_not_one_of_an_earlier_start(vllm: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    for words, said in (("echo 'ValueError: first'", "first"), ("rm $LOG", "it said nothing")):
        vllm.write_text(f"#!/bin/sh\nLOG={log}\n{words}\nexit 3\n")
        with pytest.raises(FailedError, match=f"did not start .*{said}, exit code 3"):
            server.start_vllm("b", 16, 0.5, log).__enter__()


def test_while_nothing_answers_the_servers_last_words_are_told(
    vllm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    enough = tmp_path / "enough"

    def say(line: str) -> None:
        told.append(line)
        if "loading shard 1" in line:
            enough.touch()

    until_told = f"until [ -e {enough} ]; do sleep 0.05; done"
    vllm.write_text(f"#!/bin/sh\necho 'loading shard 1'\n{until_told}\nexit 1\n")
    monkeypatch.setattr(server, "TOLD_SECONDS", 0)
    monkeypatch.setattr(server, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(processes, "say", say)
    with pytest.raises(FailedError, match="did not start"):
        server.start_vllm("b", 16, 0.5, tmp_path / "log").__enter__()
    assert all(line.startswith("vLLM does not answer yet after") for line in told)


def test_a_ctrl_c_ends_a_server_that_has_not_started(vllm: Path, tmp_path: Path) -> None:
    """Not only its start would be waited for: a hanging one for twenty minutes."""
    pid = tmp_path / "pid"
    vllm.write_text(f"#!/bin/sh\necho $$ > {pid}.new; mv {pid}.new {pid}\nexec sleep 600\n")

    def start() -> None:
        server.start_vllm("b", 16, 0.5, tmp_path / "log").__enter__()

    with futures.ThreadPoolExecutor() as pool:
        starting = pool.submit(start)
        wait_until(pid.exists)
        processes.stop_all()
        with pytest.raises(FailedError, match="did not start"):
            starting.result()
    wait_until(lambda: not lives(int(pid.read_text())))
    assert not processes.RUNNING


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.skipif(
    sys.platform != "linux", reason="a process learns of its parent's end on Linux only"
)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_command_ends_with_what_watches_it(tmp_path: Path, number: signal.Signals) -> None:
    pid = tmp_path / "pid"
    script = f"echo $$ > {pid}.new; mv {pid}.new {pid}; exec sleep 600"
    watching = subprocess.Popen(
        [sys.executable, "-I", str(server.WATCHED), "sh", "-c", script], stdin=subprocess.PIPE
    )
    wait_until(pid.exists)
    watching.send_signal(number)
    watching.wait()
    wait_until(lambda: not lives(int(pid.read_text())))


def test_a_port_that_is_taken_is_told(
    vllm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(server, "free_port", lambda: port)
        monkeypatch.setattr(server, "HEALTH_SECONDS", 0.2)
        with pytest.raises(FailedError, match="Address already in use"):
            server.start_vllm("b", 16, 0.5, tmp_path / "log").__enter__()


def test_beside_training_the_cache_has_a_size_that_is_not_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "model.safetensors").open("wb") as weights:
        weights.truncate(3 * 2**30)
    monkeypatch.setattr(server, "gpu_bytes", lambda: 80 * 2**30)
    # 40 % of 80 GiB less 3 of weights and 4 of what else it holds: 25 GiB
    assert server.cache_words(str(tmp_path), 0.4) == ["--kv-cache-memory-bytes", "26843545600"]
    # of 10 %, 1 GiB is left; of less, not enough to serve from
    assert server.cache_words(str(tmp_path), 0.1) == ["--kv-cache-memory-bytes", "1073741824"]
    assert server.cache_words(str(tmp_path), 0.09) == []
    assert server.cache_words("a/hub-id", 0.4) == []


@pytest.mark.parametrize(
    ("program", "found"),
    [("echo 81559", 81559 * 2**20), ("echo '[N/A]'", 0), ("exit 9", 0), (None, 0)],
)
def test_the_memory_of_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str | None, found: int
) -> None:
    if program:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{program}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert server.gpu_bytes() == found


@pytest.mark.parametrize("url", ["{url}", "{url}/", "{url}/v1", "{url}/v1/"])
def test_a_running_server_is_found_by_its_url(running: Server, url: str) -> None:
    found = server.connect(url.format(url=running.url), "some/base")
    assert found == running


def test_a_server_of_another_base_is_refused(running: Server) -> None:
    with pytest.raises(InputError, match=r"serves some/base, the recipe's base is other/model"):
        server.connect(running.url, "other/model")


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
        monkeypatch.setenv(name, f"http://127.0.0.1:{server.free_port()}")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    Answers.answers = {"/v1/models": (200, {}, '{"data": []}')}
    assert odd.models() == {}


def test_a_key_for_vllm_does_not_lock_us_out(
    vllm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM reads VLLM_API_KEY and refuses whoever does not send it."""
    monkeypatch.setenv("VLLM_API_KEY", "secret-key")
    vllm.write_text(vllm.read_text().replace("SMALL", 'echo "key:$VLLM_API_KEY:"\nSMALL', 1))
    with server.start_vllm("b", 16, 0.5, tmp_path / "log"):
        assert "key::" in (tmp_path / "log").read_text()


def test_nobody_at_the_url_is_one_line() -> None:
    url = f"http://127.0.0.1:{server.free_port()}"
    with pytest.raises(FailedError, match=f"server {url} does not answer"):
        server.connect(url, "b")


def test_a_base_without_chat_template_is_told_in_the_servers_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = put_vllm(tmp_path, monkeypatch)
    text = program.read_text()
    program.write_text(text.replace("exec", "SMALL_SERVER_REFUSES='no chat template' exec"))
    with pytest.raises(FailedError, match="400.*no chat template"):
        server.start_vllm("b", 16, 0.5, tmp_path / "log").__enter__()


def test_the_key_reaches_the_server_and_no_message(
    monkeypatch: pytest.MonkeyPatch, running: Server
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret-key")
    running.try_reply(running.base)
    with pytest.raises(FailedError) as error:
        running.try_reply("unknown")
    assert "secret-key" not in str(error.value)


HOLDER = """
import sys, time
from pathlib import Path
from results.sweep import server
with server.start_vllm("b", 16, 0.5, Path(sys.argv[1]) / "log") as found:
    (Path(sys.argv[1]) / "url").write_text(found.url)
    time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_server_ends_with_the_program_that_started_it(
    vllm: Path, tmp_path: Path, number: signal.Signals
) -> None:
    root = HERE.parents[2]
    environment = os.environ | {"PYTHONPATH": str(root)}
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], env=environment, stderr=subprocess.DEVNULL
    )
    url = tmp_path / "url"
    wait_until(url.exists)
    found = Server(url.read_text(), "base")
    found.models()
    holder.send_signal(number)
    holder.wait()
    wait_until(lambda: not answers(found))


def answers(found: Server) -> bool:
    try:
        found.models()
    except FailedError:
        return False
    return True
