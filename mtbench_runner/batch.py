"""A judge's calls as one OpenAI batch, at half the price: written and sent, later read back.

Beside the judgments file lie `.batch`, the requests, one JSON line each in OpenAI's shape;
`.batch.sent`, the batch's id; and `.batch.out`, the answers. Any tool that reads that shape may
answer the requests in place of the endpoint (`vllm run-batch -i X.batch -o X.batch.out`). Answers
that were collected stay beside as `.batch.out.collected-N` and are looked up there too: what was
paid for is found again whatever it was collected for.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, Final, cast

import openai

from mtbench_runner import outcome as outcomes
from mtbench_runner import store
from mtbench_runner.bench import Bench
from mtbench_runner.endpoint import Call, Endpoint, address, usable_proxies
from mtbench_runner.judge import Request, Result, Take, Task, all_tasks, answers_of, judge, to_do
from mtbench_runner.ledger import Replies
from mtbench_runner.outcome import JUDGING, Failure, Outcome
from mtbench_runner.rows import BatchLine
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
        batch_id = send(endpoint, written, sent)
        if batch_id is None:
            out = store.beside(path, "batch.out")
            return (
                f"{len(lines)} requests written to {written}; the endpoint takes no batches: "
                f"have them answered into {out}, then run --batch collect"
            )
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


def send(endpoint: Endpoint, path: Path, sent: Path) -> str | None:
    """The id of the batch, noted in `sent`, or None where the endpoint has no batches.

    The uploaded file's id is noted before the batch is begun, which `find` finds by it: killed
    between the two, a batch is not paid for twice.
    """
    client = client_of(endpoint)
    try:
        with path.open("rb") as content:
            file = client.files.create(file=(path.name, content), purpose="batch")
        store.write_whole(sent, json.dumps({"file": file.id}).encode())
        batch = client.batches.create(input_file_id=file.id, endpoint=URL, completion_window=WINDOW)
        store.write_whole(sent, json.dumps({"id": batch.id}).encode())
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
    """The client of an endpoint."""
    with usable_proxies():
        return openai.OpenAI(
            api_key=endpoint.key,
            base_url=address(endpoint.url),
            timeout=endpoint.timeout,
            max_retries=4,
        )


def _failed(endpoint: Endpoint, error: Exception) -> str:
    """What is said of a batch that the endpoint did not take or give."""
    said = outcomes.without_key(str(error), endpoint.key)
    words = " ".join(said.split())[:300]
    return f"the batch did not get through: {words}; run the same command again"


def collect(bench: Bench, request: Request, by: "BatchJudge") -> None:
    """Judge from a batch's output, which is then put aside.

    Raises InputError where it holds nothing of what is asked for, IncompleteError while it is under
    way and for what is missing.
    """
    path = bench.judgments_file(by.name, request.mode)
    out, sent = store.beside(path, "batch.out"), store.beside(path, "batch.sent")
    with store.locked(path):
        if not out.exists() and (sent.exists() or not outputs(path)):
            fetch(by.endpoint, sent, out)
        _check_owner(bench, request, by, read(outputs(path), by.endpoint.key))
    try:
        judge(bench, request, by)
    finally:
        interrupted = isinstance(sys.exception(), KeyboardInterrupt | OSError)
        if out.exists() and not interrupted:
            out.replace(collected(out))
            sent.unlink(missing_ok=True)


def _check_owner(
    bench: Bench, request: Request, by: "BatchJudge", answered: dict[str, Outcome]
) -> None:
    """Raise InputError for an output of which nothing is asked for."""
    own = set()
    for task in all_tasks(bench, request, by.name, answers_of(bench, request)):
        for call in task.calls:
            own.add(Replies.key(by.name, call, task.vote))
    if answered and not own & answered.keys():
        raise InputError(
            f"the batch's output holds nothing of {' against '.join(request.models)}; collect it "
            "with the models and options that it was submitted with"
        )


class BatchJudge:
    """A judge whose replies are the output of a batch."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint

    @property
    def name(self) -> str:
        return self.endpoint.model

    def reply(self, tasks: Sequence[Task], kept: Replies, take: Take) -> None:
        """Hand each task's replies or failure to `take`."""
        answered = read(outputs(kept.of), self.endpoint.key)
        for index, task in enumerate(tasks):
            take(index, self._result(task, kept, answered))

    def _result(self, task: Task, kept: Replies, answered: dict[str, Outcome]) -> Result:
        """The replies to all calls of a task, or its first failure."""
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
        """The reply to one call: what an earlier run kept, else what the batch answered."""
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
    client = client_of(endpoint)
    try:
        batch_id = find(client, sent)
        batch = client.batches.retrieve(batch_id)
        if batch.status in ("failed", "expired", "cancelled") and not batch.output_file_id:
            sent.unlink()
            raise IncompleteError(f"batch {batch_id} is {batch.status}; run --batch submit again")
        if batch.status not in ("completed", "expired", "cancelled"):
            counts = batch.request_counts
            done = f" ({counts.completed} of {counts.total})" if counts else ""
            raise IncompleteError(f"batch {batch_id} is {batch.status}{done}; collect it later")
        content = b""
        for file in (batch.output_file_id, batch.error_file_id):
            if file:
                content += client.files.content(file).content.rstrip(b"\n") + b"\n"
    except openai.OpenAIError as error:
        raise IncompleteError(_failed(endpoint, error)) from None
    store.write_whole(out, content)


def find(client: openai.OpenAI, sent: Path) -> str:
    """The id of the batch that was sent. Raises IncompleteError if it was never begun."""
    noted = read_note(sent)
    if "id" in noted:
        return str(noted["id"])
    for batch in client.batches.list():
        if batch.input_file_id == noted["file"]:
            return batch.id
    sent.unlink()
    raise IncompleteError("the batch was uploaded but never begun; run --batch submit again")


def read_note(sent: Path) -> dict[str, str]:
    """What `submit` noted of the batch that was sent. Raises InputError if that is damaged."""
    try:
        noted = json.loads(sent.read_bytes())
        known = isinstance(noted, dict) and bool({"id", "file"} & noted.keys())
    except ValueError:
        known = False
    if not known:
        raise InputError(
            f"{sent}: no note of a batch; move it away, and save the batch's output beside it as "
            f"{sent.name.removesuffix('sent')}out"
        )
    return cast(dict[str, str], noted)


def outputs(path: Path) -> list[Path]:
    """The outputs beside a judgments file: those collected, oldest first, then one that waits."""
    out = store.beside(path, "batch.out")
    found = [file for file in numbered(out) if file.exists()]
    return [*found, out] if out.exists() else found


def read(files: Sequence[Path], key: str) -> dict[str, Outcome]:
    """The outcome of each request in batches' outputs, by its custom_id; the newest counts."""
    found = {}
    for file in files:
        for line in store.read(file, BatchLine):
            found[line["custom_id"]] = outcome_of(line, key)
    return found


def outcome_of(line: dict[str, Any], key: str) -> Outcome:
    """The outcome of one line of a batch's output."""
    response = line.get("response")
    if not isinstance(response, dict):
        error = {"error": line.get("error") or {"message": "no response"}}
        return outcomes.of_error(400, error, [], key)
    status, body = response.get("status_code", 200), response.get("body")
    if status == 200 or not isinstance(status, int):
        return outcomes.of_response(json.dumps(body), key)
    return outcomes.of_error(status, body, [], key)


def collected(out: Path) -> Path:
    """A name for an output that was read: the first that is free."""
    *_, free = numbered(out)
    return free


def numbered(out: Path) -> Iterator[Path]:
    """The names of collected outputs up to the first that is free."""
    for number in count(1):
        path = store.beside(out, f"collected-{number}")
        yield path
        if not path.exists():
            return
