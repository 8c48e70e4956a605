"""A server that answers for one base model and any number of its LoRA adapters.

`results run --server vllm` starts vLLM (https://docs.vllm.ai) for each base; `--server URL` uses
one that is running already. Both speak OpenAI's protocol and vLLM's two calls for adapters,
`/v1/load_lora_adapter` and `/v1/unload_lora_adapter`, which take a folder: a server on another
machine must see the run folders under the same path.
"""

import contextlib
import hashlib
import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from results import FailedError, InputError, on_one_line
from results.sweep import processes, stages
from results.sweep.terminal import without_key

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
CALL_SECONDS = 300.0
HEALTH_SECONDS = 5.0  # that a server which starts may take to say whether it has
TOLD_SECONDS = 60.0  # between lines that say what a server does that has not started yet
SILENT = "it said nothing"
LONGEST_REASON = 300  # characters of another program's words in a message of ours
NO_THINKING = {"chat_template_kwargs": {"enable_thinking": False}}
# A request is refused by one of these; anything else is taken for a server that is gone.
REFUSED = range(400, 500)
WANTS_KEY = (401, 403)


class NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirection is an answer: followed, it would take the key to another host."""

    def redirect_request(self, *told: Any) -> None:
        """Follow nothing."""


# No proxies either: lm-eval asks directly, whatever the environment says.
DIRECTLY = urllib.request.build_opener(NoRedirects, urllib.request.ProxyHandler({}))


class RefusedError(FailedError):
    """The server understood a request and will not do it."""


@dataclass(frozen=True)
class Server:
    """A running server: `url` without /v1, and the name under which it serves the base."""

    url: str
    base: str

    def call(
        self, path: str, body: dict[str, Any] | None = None, seconds: float = CALL_SECONDS
    ) -> Any:
        """The server's answer, JSON if it is any; GET without a body.

        Raises RefusedError with the server's own words, FailedError where there is no server.
        """
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get("OPENAI_API_KEY"):
            headers["Authorization"] = f"Bearer {key}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers)
        try:
            with DIRECTLY.open(request, timeout=seconds) as response:
                text = response.read().decode()
        except urllib.error.HTTPError as error:
            kind = RefusedError if error.code in REFUSED else FailedError
            raise kind(f"server {self.url}{path}: {error.code} {reason(error)}") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise FailedError(
                f"server {self.url} does not answer ({error}); once it does, the same command goes"
                " on"
            ) from None
        try:
            return json.loads(text)
        except ValueError:
            return text

    def models(self) -> dict[str, dict[str, Any]]:
        """What it serves now, base and adapters, by name."""
        listed = self.call("/v1/models")
        try:
            return {model["id"]: model for model in listed["data"]}
        except (KeyError, TypeError):
            raise FailedError(f"server {self.url}: no list of models at /v1/models") from None

    def try_reply(self, model: str) -> None:
        """Ask the model for one token. Raises FailedError or RefusedError, with its reason."""
        message = {"role": "user", "content": "1"}
        asked = {"model": model, "messages": [message], "max_tokens": 1, "temperature": 0}
        answer = self.call("/v1/chat/completions", asked | NO_THINKING)
        try:
            answer["choices"][0]["message"]
        except (LookupError, TypeError):
            said = shortened(json.dumps(answer))
            raise FailedError(
                f"server {self.url}/v1/chat/completions: no reply of a model, but {said}"
            ) from None

    @contextlib.contextmanager
    def adapter(self, folder: Path) -> Iterator[str]:
        """Hold the adapter in a folder; yields the name to ask for. Raises FailedError.

        One that was there before stays: somebody else may be asking it.
        """
        name = adapter_name(folder)
        loaded = name not in self.models() and self.load(name, folder)
        try:
            self.try_reply(name)
            yield name
        finally:
            if loaded:
                with contextlib.suppress(FailedError):
                    self.call("/v1/unload_lora_adapter", {"lora_name": name})

    def load(self, name: str, folder: Path) -> bool:
        """Load an adapter under a name; False if another worker has just done so.

        Raises FailedError that says what to do about it.
        """
        asked = {"lora_name": name, "lora_path": str(folder.resolve())}
        try:
            self.call("/v1/load_lora_adapter", asked)
        except RefusedError as error:
            if name in self.models():
                return False
            raise FailedError(
                f"{folder}: the server does not take this adapter ({error}); it must see the folder"
                " and allow its rank (vllm serve --enable-lora --max-lora-rank R, with"
                " VLLM_ALLOW_RUNTIME_LORA_UPDATING=True)"
            ) from None
        return True


def reason(error: urllib.error.HTTPError) -> str:
    """Why a server refused, in its own words, and what to do if they can be foreseen."""
    if place := error.headers.get("Location"):
        return f"leads to {shortened(place)}; give the address that answers itself"
    said = shortened(error.read().decode(errors="replace"))
    if error.code in WANTS_KEY:
        return f"{said}; give its key in OPENAI_API_KEY"
    return said


def shortened(text: str) -> str:
    """Another program's words in a message of ours: one line, not long, without our key."""
    return on_one_line(without_key(text.encode()).decode())[:LONGEST_REASON]


def adapter_name(folder: Path) -> str:
    """A name for the adapter in a folder that no other adapter ever has.

    vLLM keeps attention states by adapter name: a name used again for other weights would bring
    back states of the old ones. So the name is the folder's with a hash of weights and config.
    """
    hashed = hashlib.sha256()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        file = folder / name
        if not file.is_file():
            raise FailedError(f"{folder}: no {name} there; train the adapter first")
        hashed.update(file.read_bytes())
    plain = re.sub(r"[^\w.-]", "-", folder.name)
    return f"{plain}-{hashed.hexdigest()[:12]}"


def connect(url: str, base: str) -> Server:
    """A running server that serves this base. Raises InputError or FailedError."""
    plain = url.rstrip("/").removesuffix("/v1")
    server = Server(plain, BASE_NAME)
    bases = {name: model for name, model in server.models().items() if not model.get("parent")}
    if not bases:
        raise InputError(f"server {plain} serves no base model")
    found = next((name for name in bases if is_base(name, bases[name], base)), None)
    if found is None:
        served = ", ".join(str(model.get("root") or name) for name, model in bases.items())
        raise InputError(f"server {plain} serves {served}, the recipe's base is {base}")
    server = Server(plain, found)
    server.try_reply(found)
    return server


def is_base(name: str, model: dict[str, Any], base: str) -> bool:
    """Whether a served model is this base: by its id, its folder, or the folder's last name.

    Two folders that are both here are compared by content: many are called `model` or `hf`.
    """
    root = str(model.get("root") or name)
    if base in (name, root):
        return True
    if Path(base).is_dir() and Path(root).is_dir():
        return stages.content(root) == stages.content(base)
    return Path(base).name in {Path(name).name, Path(root).name}


@contextlib.contextmanager
def start_vllm(
    base: str, rank: int, memory: float, log: Path, shared: bool = False
) -> Iterator[Server]:
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
    return serve_words(vllm_program(), base, rank, memory, port)


def serve_words(program: str, base: str, rank: int, memory: float, port: int) -> list[str]:
    """The words of that command."""
    return [
        program, "serve", base, "--served-model-name", BASE_NAME,
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


def vllm_program() -> str:
    """The `vllm` command: beside this Python, else on the PATH, where it may be of another."""
    beside = shutil.which("vllm", path=str(Path(sys.executable).parent))
    program = beside or shutil.which("vllm")
    if not program:
        raise InputError(
            "--server vllm: there is no `vllm` command here; pip install vllm (it may be in an"
            " environment of its own, with its folder on the PATH), or leave --server out"
        )
    return program


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
