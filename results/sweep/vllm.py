"""vLLM (https://docs.vllm.ai), started for one base: `tatqa-bench run --server vllm`.

It ends with the program that started it, however that ends (watched.py), and takes no more of the
GPU than it is told to, since training may be at work beside it.
"""

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from results import FailedError, InputError, on_one_line
from results.sweep import processes
from results.sweep.server import LONGEST_REASON, Server

WATCHED = Path(__file__).with_name("watched.py")
BASE_NAME = "base"  # what a server that is started here calls the base
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # vLLM's --max-lora-rank takes these alone
LONGEST = 8192  # tokens of a prompt and its reply; TAT-QA's longest prompts have about 3,500
LOADED_ADAPTERS = 4
AT_ONCE = 512  # requests
CAPTURED = (1, 8, 32, 64, 128, 256, 384, 512)  # batch sizes; vLLM's own 51 cost 25 s more to record
MIB = 2**20
SERVER_BYTES = 4 * 1024 * MIB  # beside weights and cache; 1.6 GiB measured for a 1.5B on an H100
LEAST_CACHE_BYTES = 1024 * MIB
START_SECONDS = 1200  # a first start compiles the model
POLL_SECONDS = 0.5
HEALTH_SECONDS = 5.0  # that a server which starts may take to say whether it has
TOLD_SECONDS = 60.0  # between lines that say what a server does that has not started yet
SILENT = "it said nothing"


@contextlib.contextmanager
def start(base: str, rank: int, memory: float, log: Path, shared: bool = False) -> Iterator[Server]:
    """Start vLLM for a base and adapters of up to `rank`; it ends with the `with` block.

    `memory` is the share of the GPU's memory that it takes, and `shared` says that training takes
    and frees some of the rest meanwhile. Its output goes to `log`.
    Raises InputError if there is no vLLM, FailedError with its last words if it does not start.
    """
    port = free_port()
    server = Server(f"http://127.0.0.1:{port}", BASE_NAME)
    command = serve_command(base, rank, memory, port)
    if shared:
        command += cache_words(base, memory)
    environment = os.environ | {
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
        "VLLM_NO_USAGE_STATS": "1",
    }
    environment.pop("VLLM_API_KEY", None)  # it would refuse us
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        begin = output.tell()
        process = subprocess.Popen(
            [sys.executable, "-I", str(WATCHED), *command],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env=environment,
            start_new_session=True,  # a Ctrl-C in the terminal reaches us alone; we end it
        )
    processes.RUNNING.append(process)  # so that a Ctrl-C ends it while it starts
    try:
        wait_until_ready(server, process, log, begin)
        server.try_reply(server.base)
        yield server
    finally:
        process.communicate()  # closes its standard input, which ends the server
        processes.RUNNING.remove(process)


def serve_command(base: str, rank: int, memory: float, port: int) -> list[str]:
    """The command that serves a base. Raises InputError if vLLM is not installed."""
    return serve_words(program(), base, rank, memory, port)


def serve_words(command: str, base: str, rank: int, memory: float, port: int) -> list[str]:
    """The words of that command."""
    return [
        command, "serve", base, "--served-model-name", BASE_NAME,
        "--host", "127.0.0.1", "--port", str(port),
        "--max-model-len", str(longest(base)), "--gpu-memory-utilization", str(memory),
        "--enable-prefix-caching", "--enable-lora", "--max-lora-rank", str(served_rank(rank)),
        "--max-loras", "2", "--max-cpu-loras", str(LOADED_ADAPTERS),
        "--max-num-seqs", str(AT_ONCE), "--cudagraph-capture-sizes", *map(str, CAPTURED),
    ]  # fmt: skip


def cache_words(base: str, memory: float) -> list[str]:
    """The option that gives vLLM the size of its cache of keys and values.

    Left to itself it measures what is free, and gives up where training frees memory meanwhile
    ("Error in memory profiling"; vLLM 0.26, `gpu_worker.determine_available_memory`). No option
    where the sizes are not known or leave too little.
    """
    weights = sum(file.stat().st_size for file in Path(base).glob("*.safetensors"))
    share = int(memory * gpu_bytes())
    cache = share - weights - SERVER_BYTES
    if not weights or cache < LEAST_CACHE_BYTES:
        return []
    return ["--kv-cache-memory-bytes", str(cache)]


def gpu_bytes() -> int:
    """Memory of the first GPU that this program may use; 0 where nvidia-smi does not say."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    asked = ["nvidia-smi", "-i", first, "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(asked, capture_output=True, text=True, check=True)
        return int(told.stdout) * MIB
    except (OSError, subprocess.CalledProcessError, ValueError):
        return 0


def longest(base: str) -> int:
    """Tokens that a prompt and its reply may have: no more than the base was made for."""
    try:
        config = json.loads((Path(base) / "config.json").read_text(encoding="utf-8"))
        return min(LONGEST, int(config["max_position_embeddings"]))
    except (OSError, ValueError, KeyError, TypeError):
        return LONGEST  # a hub id, or a model that does not say


def program() -> str:
    """The `vllm` command: beside this Python, else on the PATH, where it may be of another."""
    beside = shutil.which("vllm", path=str(Path(sys.executable).parent))
    found = beside or shutil.which("vllm")
    if not found:
        raise InputError(
            "--server vllm: there is no `vllm` command here; pip install vllm (it may be in an"
            " environment of its own, with its folder on the PATH), or leave --server out"
        )
    return found


def served_rank(rank: int) -> int:
    """The smallest rank that vLLM allows as a limit and that is no smaller. Raises InputError."""
    for allowed in RANKS:
        if rank <= allowed:
            return allowed
    raise InputError(f"lora_r {rank}: vLLM serves adapters of at most rank {RANKS[-1]}")


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_ready(
    server: Server, process: "subprocess.Popen[bytes]", log: Path, begin: int
) -> None:
    """Return when the server answers. Raises FailedError if it ends or takes too long.

    What it says is in its log from the byte `begin` on. Once a while its last line is told.
    """
    since = told = time.monotonic()
    while time.monotonic() - since < START_SECONDS:
        answers = is_healthy(server)
        if process.poll() is not None:  # also where somebody else answers at its port
            said = last_error(lines_of(log, begin))
            raise FailedError(
                f"vLLM did not start ({said}, exit code {process.returncode}); all it said is in"
                f" {log}; once that is mended, the same command goes on"
            )
        if answers:
            return
        time.sleep(POLL_SECONDS)
        if time.monotonic() - told >= TOLD_SECONDS:
            told = time.monotonic()
            last = (lines_of(log, begin) or [SILENT])[-1][-LONGEST_REASON:]
            processes.say(f"vLLM does not answer yet after {told - since:.0f} s ({last})")
    raise FailedError(f"vLLM did not answer within {START_SECONDS} s; see {log}")


def is_healthy(server: Server) -> bool:
    """Whether the server has started."""
    try:
        server.call("/health", seconds=HEALTH_SECONDS)
    except FailedError:
        return False
    return True


def lines_of(log: Path, begin: int) -> list[str]:
    """What stands in a log from a byte on, without empty lines; none if the log is gone."""
    try:
        text = log.read_bytes()[begin:].decode(errors="replace")
    except OSError:
        return []
    lines = [on_one_line(line) for line in text.splitlines()]
    return [line for line in lines if line]


def last_error(lines: list[str]) -> str:
    """The last line that names an error and its cause, else the last line.

    vLLM closes with an error that only points at the one above it.
    """
    errors = [line for line in lines if re.search(r"\w*Error\b|error:", line)]
    causes = [line for line in errors if "root cause" not in line]
    found = causes or errors or lines or [SILENT]
    return found[-1][-LONGEST_REASON:]
