"""A small OpenAI-compatible server for tests: a base, and LoRA adapters loaded by its API.

    python small_server.py serve BASE --port PORT [options of `vllm serve`, some of them heeded]

It has vLLM's command line, calls and refusals as far as `results run` uses them, and generates
with transformers and PEFT on the CPU, so that the same path as on a GPU can be tested. With
SMALL_SERVER_ECHO set there is no model: a reply names the model that was asked.
SMALL_SERVER_DIES_AFTER=N lets it end itself after N replies, SMALL_SERVER_HANGS_AT=PATH never
answer there.
"""

import argparse
import contextlib
import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class RefusedError(Exception):
    """A request that gets an error: HTTP status and words."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


class Echo:
    """A base and its adapters by name, without any model."""

    def __init__(self, base: str, name: str, max_rank: int) -> None:
        self.base = base
        self.name = name
        self.max_rank = max_rank
        self.adapters: dict[str, str] = {}
        self.lock = threading.Lock()

    def listed(self) -> dict[str, Any]:
        found = [{"id": self.name, "root": self.base, "parent": None}]
        found += [
            {"id": name, "root": path, "parent": self.name} for name, path in self.adapters.items()
        ]
        return {"object": "list", "data": found}

    def load(self, name: str, path: str) -> str:
        if name in self.adapters:
            raise RefusedError(400, f"The lora adapter '{name}' has already been loaded.")
        config = json.loads((Path(path) / "adapter_config.json").read_text())
        if config["r"] > self.max_rank:
            raise RefusedError(
                400, f"LoRA rank {config['r']} is greater than max_lora_rank {self.max_rank}."
            )
        self.adapters[name] = path
        return f"Success: LoRA adapter '{name}' added successfully."

    def unload(self, name: str) -> str:
        if name not in self.adapters:
            raise RefusedError(404, f"The lora adapter '{name}' cannot be found.")
        del self.adapters[name]
        return f"Success: LoRA adapter '{name}' removed successfully."

    def reply(self, asked: dict[str, Any]) -> dict[str, Any]:
        name = asked["model"]
        if words := os.environ.get("SMALL_SERVER_REFUSES"):
            raise RefusedError(400, words)
        if name != self.name and name not in self.adapters:
            raise RefusedError(404, f"The model `{name}` does not exist.")
        message = {"role": "assistant", "content": self.text(name, asked)}
        return {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}

    def text(self, name: str, asked: dict[str, Any]) -> str:
        return os.environ.get("SMALL_SERVER_ALWAYS", name)

    def prompt(self, asked: dict[str, Any]) -> list[int]:
        return []


class Models(Echo):
    """The same with a model on the CPU."""

    def __init__(self, base: str, name: str, max_rank: int) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        super().__init__(base, name, max_rank)
        torch.set_num_threads(1)
        self.tokenizer = AutoTokenizer.from_pretrained(base)
        self.model: Any = AutoModelForCausalLM.from_pretrained(base).eval()

    def load(self, name: str, path: str) -> str:
        from peft import PeftModel

        said = super().load(name, path)
        if isinstance(self.model, PeftModel):
            self.model.load_adapter(path, name)
        else:
            self.model = PeftModel.from_pretrained(self.model, path, name).eval()
        return said

    def prompt(self, asked: dict[str, Any]) -> list[int]:
        """Token ids of the messages, by the base's chat template."""
        if not self.tokenizer.chat_template:
            raise RefusedError(400, "default chat template is no longer allowed")
        text = self.tokenizer.apply_chat_template(
            asked["messages"],
            tokenize=False,
            add_generation_prompt=True,
            **asked.get("chat_template_kwargs", {}),
        )
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def text(self, name: str, asked: dict[str, Any]) -> str:
        import torch

        ids = torch.tensor([self.prompt(asked)])
        torch.manual_seed(asked.get("seed") or 0)
        with self.adapted(name), torch.inference_mode():
            out = self.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                do_sample=asked.get("temperature", 1.0) > 0,
                max_new_tokens=asked["max_tokens"],
                pad_token_id=0,
            )
        text = str(self.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True))
        for stop in asked.get("stop") or []:
            text = text.split(stop)[0]
        return text

    def adapted(self, name: str) -> Any:
        """A context in which the model is the base, or has the adapter of that name."""
        if name in self.adapters:
            self.model.set_adapter(name)
            return contextlib.nullcontext()
        if hasattr(self.model, "disable_adapter"):
            return self.model.disable_adapter()
        return contextlib.nullcontext()


class Handler(BaseHTTPRequestHandler):
    """HTTP in front of the models."""

    protocol_version = "HTTP/1.1"
    models: Echo
    replies = 0

    def do_GET(self) -> None:
        if self.path == "/health":
            self.answer(200, "")
        else:
            self.answer(200, self.models.listed())

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        try:
            with self.models.lock:
                self.answer(200, self.done(asked))
        except RefusedError as error:
            self.answer(error.status, {"error": {"message": str(error), "code": error.status}})

    def done(self, asked: dict[str, Any]) -> Any:
        if self.path == os.environ.get("SMALL_SERVER_HANGS_AT"):
            self.log_message("hangs")
            threading.Event().wait()
        if self.path == "/v1/load_lora_adapter":
            return self.models.load(asked["lora_name"], asked["lora_path"])
        if self.path == "/v1/unload_lora_adapter":
            return self.models.unload(asked["lora_name"])
        if self.path == "/tokenize":
            return {"tokens": self.models.prompt(asked)}
        die_after = os.environ.get("SMALL_SERVER_DIES_AFTER")
        Handler.replies += 1
        if die_after and Handler.replies > int(die_after):
            os._exit(1)
        return self.models.reply(asked)

    def answer(self, status: int, content: Any) -> None:
        body = (content if isinstance(content, str) else json.dumps(content)).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        sys.stdout.write(format % args + "\n")
        sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("serve")
    parser.add_argument("base")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--served-model-name", default="base")
    parser.add_argument("--max-lora-rank", type=int, default=16)
    args, _ = parser.parse_known_args()
    kind = Echo if os.environ.get("SMALL_SERVER_ECHO") else Models
    Handler.models = kind(args.base, args.served_model_name, args.max_lora_rank)
    ThreadingHTTPServer((args.host, args.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
