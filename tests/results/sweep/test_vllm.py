"""vLLM is started, told of while it starts, refused with its reason, and ended whatever happens."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent import futures
from pathlib import Path

import pytest

from results import FailedError, InputError
from results.sweep import processes, vllm
from results.sweep.server import Server


def wait_until(true: Callable[[], bool]) -> None:
    while not true():
        time.sleep(0.05)


@pytest.mark.parametrize(("rank", "limit"), [(1, 8), (8, 8), (16, 16), (17, 32), (65, 128)])
def test_ranks_are_rounded_up_to_what_vllm_takes(rank: int, limit: int) -> None:
    assert vllm.served_rank(rank) == limit


@pytest.mark.parametrize(
    ("config", "length"),
    [(None, 8192), ("{", 8192), ("{}", 8192), ('{"max_position_embeddings": 2048}', 2048)],
)
def test_no_more_tokens_than_the_base_was_made_for(
    tmp_path: Path, config: str | None, length: int
) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    assert vllm.longest(str(tmp_path)) == length


def test_a_rank_beyond_vllm_is_refused() -> None:
    with pytest.raises(InputError, match="at most rank 512"):
        vllm.served_rank(513)


def test_no_vllm_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="no `vllm` command"):
        vllm.program()


def test_a_server_that_does_not_start_is_told_with_its_reason(
    program: Path, tmp_path: Path
) -> None:
    program.write_text("#!/bin/sh\necho loading\necho 'RuntimeError: no GPU found' >&2\nexit 1\n")
    log = tmp_path / "server.log"
    with pytest.raises(FailedError, match="did not start .RuntimeError: no GPU found"):
        vllm.start("b", 16, 0.5, log).__enter__()
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
    assert vllm.last_error(vllm.lines_of(tmp_path / "log", 0)) == reason


def test_the_reason_is_not_one_of_an_earlier_start(program: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    for words, said in (("echo 'ValueError: first'", "first"), ("rm $LOG", "it said nothing")):
        program.write_text(f"#!/bin/sh\nLOG={log}\n{words}\nexit 3\n")
        with pytest.raises(FailedError, match=f"did not start .*{said}, exit code 3"):
            vllm.start("b", 16, 0.5, log).__enter__()


def test_while_nothing_answers_the_servers_last_words_are_told(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    enough = tmp_path / "enough"

    def say(line: str) -> None:
        told.append(line)
        if "loading shard 1" in line:
            enough.touch()

    until_told = f"until [ -e {enough} ]; do sleep 0.05; done"
    program.write_text(f"#!/bin/sh\necho 'loading shard 1'\n{until_told}\nexit 1\n")
    monkeypatch.setattr(vllm, "TOLD_SECONDS", 0)
    monkeypatch.setattr(vllm, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(processes, "say", say)
    with pytest.raises(FailedError, match="did not start"):
        vllm.start("b", 16, 0.5, tmp_path / "log").__enter__()
    assert all(line.startswith("vLLM does not answer yet after") for line in told)


def test_a_ctrl_c_ends_a_server_that_has_not_started(
    program: Path, tmp_path: Path, wait_for_end: Callable[[int], None]
) -> None:
    """Not only its start would be waited for: a hanging one for twenty minutes."""
    pid = tmp_path / "pid"
    program.write_text(f"#!/bin/sh\necho $$ > {pid}.new; mv {pid}.new {pid}\nexec sleep 600\n")

    def start() -> None:
        vllm.start("b", 16, 0.5, tmp_path / "log").__enter__()

    with futures.ThreadPoolExecutor() as pool:
        starting = pool.submit(start)
        wait_until(pid.exists)
        processes.stop_all()
        with pytest.raises(FailedError, match="did not start"):
            starting.result()
    wait_for_end(int(pid.read_text()))
    assert not processes.RUNNING


@pytest.mark.skipif(
    sys.platform != "linux", reason="a process learns of its parent's end on Linux only"
)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_command_ends_with_what_watches_it(
    tmp_path: Path, number: signal.Signals, wait_for_end: Callable[[int], None]
) -> None:
    pid = tmp_path / "pid"
    script = f"echo $$ > {pid}.new; mv {pid}.new {pid}; exec sleep 600"
    watching = subprocess.Popen(
        [sys.executable, "-I", str(vllm.WATCHED), "sh", "-c", script], stdin=subprocess.PIPE
    )
    wait_until(pid.exists)
    watching.send_signal(number)
    watching.wait()
    wait_for_end(int(pid.read_text()))


def test_a_port_that_is_taken_is_told(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(vllm, "free_port", lambda: port)
        monkeypatch.setattr(vllm, "HEALTH_SECONDS", 0.2)
        with pytest.raises(FailedError, match="Address already in use"):
            vllm.start("b", 16, 0.5, tmp_path / "log").__enter__()


def test_beside_training_the_cache_has_a_size_that_is_not_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "model.safetensors").open("wb") as weights:
        weights.truncate(3 * 2**30)
    monkeypatch.setattr(vllm, "gpu_bytes", lambda: 80 * 2**30)
    # 40 % of 80 GiB less 3 of weights and 4 of what else it holds: 25 GiB
    assert vllm.cache_words(str(tmp_path), 0.4) == ["--kv-cache-memory-bytes", "26843545600"]
    # of 10 %, 1 GiB is left; of less, not enough to serve from
    assert vllm.cache_words(str(tmp_path), 0.1) == ["--kv-cache-memory-bytes", "1073741824"]
    assert vllm.cache_words(str(tmp_path), 0.09) == []
    assert vllm.cache_words("a/hub-id", 0.4) == []


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
    assert vllm.gpu_bytes() == found


def test_a_key_for_vllm_does_not_lock_us_out(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM reads VLLM_API_KEY and refuses whoever does not send it."""
    monkeypatch.setenv("VLLM_API_KEY", "secret-key")
    program.write_text(program.read_text().replace("SMALL", 'echo "key:$VLLM_API_KEY:"\nSMALL', 1))
    with vllm.start("b", 16, 0.5, tmp_path / "log"):
        assert "key::" in (tmp_path / "log").read_text()


def test_a_base_without_chat_template_is_told_in_the_servers_words(
    program: Path, tmp_path: Path
) -> None:
    text = program.read_text()
    program.write_text(text.replace("exec", "SMALL_SERVER_REFUSES='no chat template' exec"))
    with pytest.raises(FailedError, match="400.*no chat template"):
        vllm.start("b", 16, 0.5, tmp_path / "log").__enter__()


HOLDER = """
import sys, time
from pathlib import Path
from results.sweep import vllm
with vllm.start("b", 16, 0.5, Path(sys.argv[1]) / "log") as found:
    (Path(sys.argv[1]) / "url").write_text(found.url)
    time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_server_ends_with_the_program_that_started_it(
    program: Path, tmp_path: Path, number: signal.Signals
) -> None:
    root = Path(__file__).parents[3]
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
