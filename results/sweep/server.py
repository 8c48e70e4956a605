"""A running server that answers for one base model and any number of its LoRA adapters.

`tatqa-bench run --server URL` uses one that is running already, `--server vllm` starts one for each
base (vllm.py). Both speak OpenAI's protocol and vLLM's two calls for adapters,
`/v1/load_lora_adapter` and `/v1/unload_lora_adapter`, which take a folder: a server on another
machine must see the run folders under the same path.
"""

import contextlib
import hashlib
import http.client
import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from results import FailedError, InputError, on_one_line
from results.sweep import stages
from results.sweep.terminal import without_key

CALL_SECONDS = 300.0
UNREADABLE = r"[,'\"(){}\[\]\s]"  # lm-eval splits its options at commas outside quotes and brackets
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
    server = Server(plain, base)
    bases = {name: model for name, model in server.models().items() if not model.get("parent")}
    if not bases:
        raise InputError(f"server {plain} serves no base model")
    found = next((name for name in bases if is_base(name, bases[name], base)), None)
    if found is None:
        served = ", ".join(str(model.get("root") or name) for name, model in bases.items())
        raise InputError(f"server {plain} serves {served}, the recipe's base is {base}")
    if re.search(UNREADABLE, found):
        raise InputError(
            f"server {plain} calls the base {found}, which lm-eval's options cannot hold; serve it"
            " under a plain name (vllm serve ... --served-model-name base)"
        )
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
