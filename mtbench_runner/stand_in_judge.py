"""A judge that is none: it rates by a fixed rule, over real HTTP on 127.0.0.1.

For demos and tests without an account:

    python -m mtbench_runner.stand_in_judge COMMAND [ARG ...]

serves it on a free port, runs COMMAND with OPENAI_BASE_URL and OPENAI_API_KEY set to it, and exits
with COMMAND's code. The rule: one point for every four different words of the answer, from 1 to 10;
of a pair, the one with more words. Its ratings measure nothing; every score that they make is
labelled with the judge's name, stand-in-judge.
"""

if __name__ == "__main__":  # a Ctrl-C may come while the rest is imported
    from mtbench_runner.command_line import stop_at_once

    stop_at_once()

import json
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from mtbench_runner.command_line import exit_code, finish, say_error
from mtbench_runner.score import STAND_IN

# what stands before and after an answer in FastChat's prompts and in those of the benches that
# ship here ({0}: whose)
ANSWER = r".*(?:\[The Start of {0}'s Answer\]|### {0}:|<answer{1}>)\n(.*?)\n(?:\[The End|\n<\||</)"


def judgment(prompt: str) -> str:
    """The stand-in's reply to a judge prompt."""
    if "Assistant B" in prompt or "<answer B>" in prompt:
        a = _words(ANSWER.format("Assistant A", " A"), prompt)
        b = _words(ANSWER.format("Assistant B", " B"), prompt)
        verdict = "C"
        if a != b:
            verdict = "A" if a > b else "B"
        return f"Stand-in verdict by a fixed rule: {a} against {b} different words. [[{verdict}]]"
    words = _words(ANSWER.format("Assistant(?: A)?", ""), prompt)
    rating = max(1, min(10, words // 4))
    return f"Stand-in rating by a fixed rule: {words} different words. Rating: [[{rating}]]"


def _words(pattern: str, prompt: str) -> int:
    """How many different words the answer has that the pattern finds."""
    found = re.match(pattern, prompt, re.DOTALL)
    if found is None:
        return 0
    words = found[1].lower().split()
    return len(set(words))


class Handler(BaseHTTPRequestHandler):
    """Answers chat completions in OpenAI's shape."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        if not self.path.endswith("/chat/completions"):
            return self.send(404, {"error": {"message": "only chat completions here"}})
        prompt = json.loads(content)["messages"][-1]["content"]
        text = judgment(prompt)
        choice = {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": text},
        }
        usage = {"prompt_tokens": len(prompt.split()), "completion_tokens": len(text.split())}
        return self.send(200, {"object": "chat.completion", "choices": [choice], "usage": usage})

    def send(self, status: int, body: dict[str, Any]) -> None:
        """Answer with a JSON body."""
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    """The stand-in judge on a free port of 127.0.0.1, served in the background while open."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, handler: type[Handler] = Handler) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server_port}/v1"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def __exit__(self, *error: object) -> None:
        self.shutdown()
        self.server_close()


def main(command: list[str]) -> int:
    """Serve the judge while a command runs; the exit code is the command's."""
    if not command or command[0] in ("-h", "--help"):
        sys.stderr.write(__doc__ or "")
        return 0 if command else 2
    with Server() as server:
        environment = os.environ | {"OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": STAND_IN}
        try:
            return finish(subprocess.Popen(command, env=environment))
        except OSError as error:
            say_error(f"cannot run {command[0]}: {error.strerror}")
            return 2


if __name__ == "__main__":
    sys.exit(exit_code(lambda: main(sys.argv[1:])))
