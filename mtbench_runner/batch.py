"""A judge's calls as one OpenAI batch, at half the price: written and sent, later read back.

Beside the judgments file lie `.batch`, the requests, one JSON line each in OpenAI's shape;
`.batch.sent`, the batch's id; and `.batch.out`, the answers. Any tool that reads that shape may
answer the requests in place of the endpoint (`vllm run-batch -i X.batch -o X.batch.out`).
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import openai

from mtbench_runner import outcome as outcomes
from mtbench_runner import store
from mtbench_runner.bench import Bench
from mtbench_runner.endpoint import Call, Endpoint, address
from mtbench_runner.judge import Request, Result, Take, Task, to_do
from mtbench_runner.ledger import Replies
from mtbench_runner.outcome import JUDGING, Failure, Outcome
from mtbench_runner.store import IncompleteError, InputError

URL: Final = "/v1/chat/completions"
WINDOW: Final = "24h"


def submit(bench: Bench, request: Request, endpoint: Endpoint) -> str:
    """Write the requests of what is not judged yet and send them. Returns what was done.

    Raises InputError while an earlier batch is not collected: it would be paid twice.
    """
    path = bench.judgments_file(endpoint.model, request.mode)
    with store.locked(path):
        sent = store.beside(path, "batch.sent")
        if sent.exists():
            raise InputError(f"the batch of {sent} is not collected yet; run --batch collect first")
        tasks, _ = to_do(bench, request, endpoint.model)
        lines = request_lines(endpoint.model, tasks, Replies(path))
        if not lines:
            return "nothing is left to judge"
        written = store.beside(path, "batch")
        store.write_rows(written, lines)
        batch_id = send(endpoint, written)
        if batch_id is None:
            out = store.beside(path, "batch.out")
            return (
                f"{len(lines)} requests written to {written}; the endpoint takes no batches: "
                f"have them answered into {out}, then run --batch collect"
            )
        store.write_whole(sent, json.dumps({"id": batch_id}).encode())
    return f"{len(lines)} requests sent as batch {batch_id}; read it back with --batch collect"


def request_lines(model: str, tasks: Sequence[Task], kept: Replies) -> list[dict[str, Any]]:
    """A line for every call whose reply is not there yet."""
    lines = []
    for task in tasks:
        for call in task.calls:
            if kept.get(model, call, task.vote) is None:
                body = {"model": model, "messages": call.messages, **call.settings}
                identifier = Replies.key(model, call, task.vote)
                line = {"custom_id": identifier, "method": "POST", "url": URL, "body": body}
                lines.append(line)
    return lines


def send(endpoint: Endpoint, path: Path) -> str | None:
    """The id of the batch, or None where the endpoint has no batches."""
    client = client_of(endpoint)
    try:
        with path.open("rb") as content:
            file = client.files.create(file=(path.name, content), purpose="batch")
        batch = client.batches.create(input_file_id=file.id, endpoint=URL, completion_window=WINDOW)
    except (openai.NotFoundError, openai.UnprocessableEntityError):
        return None
    except openai.APIStatusError as error:
        if error.status_code in (405, 501):
            return None
        raise IncompleteError(_failed(endpoint, error)) from None
    except openai.OpenAIError as error:
        raise IncompleteError(_failed(endpoint, error)) from None
    return batch.id


def client_of(endpoint: Endpoint) -> openai.OpenAI:
    return openai.OpenAI(
        api_key=endpoint.key,
        base_url=address(endpoint.url),
        timeout=endpoint.timeout,
        max_retries=4,
    )


def _failed(endpoint: Endpoint, error: Exception) -> str:
    words = " ".join(str(error).replace(endpoint.key, "***").split())[:300]
    return f"the batch did not get through: {words}; run the same command again"


class BatchJudge:
    """A judge whose replies are the output of a batch."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint

    @property
    def name(self) -> str:
        return self.endpoint.model

    def reply(self, tasks: Sequence[Task], kept: Replies, take: Take) -> None:
        """Hand each task's replies or failure to `take`; IncompleteError until it is there."""
        out = store.beside(kept.of, "batch.out")
        sent = store.beside(kept.of, "batch.sent")
        if not out.exists():
            fetch(self.endpoint, sent, out)
        answered = read(out, self.endpoint.key)
        for index, task in enumerate(tasks):
            take(index, self._result(task, kept, answered))
        out.replace(collected(out))
        sent.unlink(missing_ok=True)

    def _result(self, task: Task, kept: Replies, answered: dict[str, Outcome]) -> Result:
        replies = []
        for call in task.calls:
            found = self._reply(task, call, kept, answered)
            if isinstance(found, Failure):
                return found
            replies.append(found)
        return replies

    def _reply(
        self, task: Task, call: Call, kept: Replies, answered: dict[str, Outcome]
    ) -> Outcome | Failure:
        vote = task.vote
        earlier = kept.get(self.name, call, vote)
        if earlier is not None:
            return earlier
        found = answered.get(Replies.key(self.name, call, vote))
        if found is None:
            missing = Outcome(kind="not begun", cause="not in the batch's output")
            return Failure(missing)
        found = replace(found, settings=call.settings)
        action = JUDGING[found.kind][-1]
        if action != "accept":
            return Failure(found, permanent=action == "record")
        if len(task.calls) > 1:
            kept.put(self.name, call, found, vote)
        return found


def fetch(endpoint: Endpoint, sent: Path, out: Path) -> None:
    """Download a batch's output. Raises InputError, or IncompleteError while it is under way."""
    if not sent.exists():
        raise InputError(f"no batch was sent and there is no {out}; run --batch submit first")
    batch_id = json.loads(sent.read_text())["id"]
    client = client_of(endpoint)
    try:
        batch = client.batches.retrieve(batch_id)
        if batch.status in ("failed", "expired", "cancelled") and not batch.output_file_id:
            sent.unlink()
            raise IncompleteError(f"batch {batch_id} is {batch.status}; run --batch submit again")
        if batch.status not in ("completed", "expired", "cancelled"):
            counts = batch.request_counts
            done = f" ({counts.completed} of {counts.total})" if counts else ""
            raise IncompleteError(f"batch {batch_id} is {batch.status}{done}; collect it later")
        parts = [
            client.files.content(file).content
            for file in (batch.output_file_id, batch.error_file_id)
            if file
        ]
    except openai.OpenAIError as error:
        raise IncompleteError(_failed(endpoint, error)) from None
    store.write_whole(out, b"".join(part.rstrip(b"\n") + b"\n" for part in parts))


def read(out: Path, key: str) -> dict[str, Outcome]:
    """The outcome of each request in a batch's output, by its custom_id."""
    found = {}
    for line in store.read(out, needs=("custom_id",)):
        found[line["custom_id"]] = outcome_of(line, key)
    return found


def outcome_of(line: dict[str, Any], key: str) -> Outcome:
    response = line.get("response")
    if not isinstance(response, dict):
        error = {"error": line.get("error") or {"message": "no response"}}
        return outcomes.of_error(400, error, [], key)
    status, body = response.get("status_code", 200), response.get("body")
    if status == 200:
        return outcomes.of_response(json.dumps(body))
    return outcomes.of_error(status, body, [], key)


def collected(out: Path) -> Path:
    """A name for an output that was read: the first that is free."""
    number = 1
    while (path := store.beside(out, f"collected-{number}")).exists():
        number += 1
    return path
