"""Stage `answer`: a model's answers to a bench, both turns, with FastChat's temperatures and file format."""

import asyncio
import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from mtbench_runner import store
from mtbench_runner.bench import Bench
from mtbench_runner.endpoint import Call, Caller, CallError, Endpoint, complete_all
from mtbench_runner.generate import Candidate, Conversation, LocalModel, strip_thinking
from mtbench_runner.store import IncompleteError, Row

DEFAULT_TEMPERATURE = 0.7  # FastChat's, for a category it does not list
SEED = 0  # FastChat seeds with the index of the choice, and there is one
RANK = int(os.environ.get("RANK", 0))  # of this process, under `accelerate launch`
PROCESSES = int(os.environ.get("WORLD_SIZE", 1))


class Replier(Protocol):
    @property
    def batch_size(self) -> int: ...  # questions answered together unless the call says otherwise; 0: all
    def reply(
        self, conversations: list[Conversation], temperatures: list[float], seed: int
    ) -> Sequence[str | None]: ...


@dataclass
class RemoteModel:
    """A model behind an OpenAI-compatible endpoint. A reply that never comes is None."""

    candidate: Candidate
    endpoint: Endpoint

    @property
    def batch_size(self) -> int:
        return self.endpoint.parallel

    def reply(self, conversations: list[Conversation], temperatures: list[float], seed: int) -> list[str | None]:
        thinking = {"chat_template_kwargs": {"enable_thinking": self.candidate.thinking}}
        fixed = {"max_tokens": self.candidate.max_new_tokens, "seed": seed, "extra_body": thinking}
        pairs = zip(conversations, temperatures, strict=True)
        return asyncio.run(self._collect([[(messages, {"temperature": t, **fixed})] for messages, t in pairs]))

    async def _collect(self, jobs: list[list[Call]]) -> list[str | None]:
        texts: list[str | None] = [None] * len(jobs)
        async for index, outcome in complete_all(Caller(self.endpoint), jobs):
            if not isinstance(outcome, CallError):
                texts[index] = outcome[0].text
        return texts


def answer(bench: Bench, model_id: str, candidate: Candidate, endpoint: Endpoint | None = None) -> None:
    """Append the answers that are missing, or were made from something else, to the model's answer file.

    Under `accelerate launch` each process takes its share of the questions. Raises IncompleteError with the number of
    questions that an endpoint left unanswered.
    """
    path = bench.answers_file(model_id)
    weights = {name: _content(getattr(candidate, name)) for name in ("model", "adapter")}
    keys = {q["question_id"]: key_of(q, asdict(candidate) | weights | {"batch_size": 0}) for q in bench.questions}
    with _together(path):
        missing = keys.keys() - _answered(path, keys)
        if missing:
            model: Replier = RemoteModel(candidate, endpoint) if endpoint else LocalModel(candidate)
            size = candidate.batch_size or model.batch_size
            share = bench.questions[RANK::PROCESSES]
            with tqdm(total=len(share), desc=f"answers of {model_id}", unit="question", disable=RANK > 0) as bar:
                for batch in batches(share, size):
                    _answer_batch(model, batch, missing, keys, path)
                    bar.update(len(batch))
    lost = len(keys) - len(_answered(path, keys))
    if lost and RANK == 0:
        raise IncompleteError(f"{lost} of {len(keys)} questions have no answer; run the same command again for them")


def _answered(path: Path, keys: dict[int, str]) -> set[int]:
    newest = {row["question_id"]: row.get("key") for row in store.read(path)}
    return {qid for qid, key in keys.items() if newest.get(qid) == key}


@contextlib.contextmanager
def _together(path: Path) -> Iterator[None]:
    """The processes of one run enter and leave together; the first of them holds the file against other runs."""
    with store.locked(path) if RANK == 0 else contextlib.nullcontext():
        _wait_for_everyone()
        yield
        _wait_for_everyone()


def _wait_for_everyone() -> None:
    if PROCESSES > 1:
        from accelerate import PartialState

        PartialState(timeout=timedelta(days=1)).wait_for_everyone()


def batches(questions: list[Row], size: int) -> Iterator[list[Row]]:
    """The questions, `size` at a time (0: all together)."""
    for start in range(0, len(questions), size or len(questions)):
        yield questions[start : start + (size or len(questions))]


def _answer_batch(model: Replier, batch: list[Row], missing: set[int], keys: dict[int, str], path: Path) -> None:
    """Answer a batch whole or not at all: an interrupted run then samples what an uninterrupted one does."""
    if missing.isdisjoint(question["question_id"] for question in batch):
        return
    for question, said in zip(batch, converse(model, batch), strict=True):
        if question["question_id"] in missing and None not in said:
            store.append(path, _row(question, path.stem, said, keys[question["question_id"]]))


def converse(model: Replier, questions: list[Row]) -> list[list[Any]]:
    """What the model said at each turn of each question, thinking included; turn 2 sees turn 1 without its thinking.

    A question ends with None at the turn at which no reply came.
    """
    from fastchat.llm_judge.common import temperature_config

    said: list[list[Any]] = [[] for _ in questions]
    for turn in range(max(len(q["turns"]) for q in questions)):
        open_ = [i for i, q in enumerate(questions) if len(q["turns"]) > turn and None not in said[i]]
        conversations = [_conversation(questions[i]["turns"][: turn + 1], said[i]) for i in open_]
        temperatures = [temperature_config.get(questions[i]["category"], DEFAULT_TEMPERATURE) for i in open_]
        for i, reply in zip(open_, model.reply(conversations, temperatures, SEED), strict=True):
            said[i].append(reply)
    return said


def _conversation(asked: list[str], said: list[str]) -> Conversation:
    messages = [{"role": "user", "content": asked[0]}]
    for reply, question in zip(said, asked[1:], strict=True):
        messages += [{"role": "assistant", "content": strip_thinking(reply)}, {"role": "user", "content": question}]
    return messages


def _row(question: Row, model_id: str, said: list[str], key: str) -> Row:
    choice: dict[str, Any] = {"index": 0, "turns": [strip_thinking(reply) for reply in said]}
    if choice["turns"] != said:
        choice["turns_with_thinking"] = said
    return {
        "question_id": question["question_id"],
        "answer_id": key[:22],
        "model_id": model_id,
        "choices": [choice],
        "tstamp": time.time(),
        "key": key,
    }


def key_of(question: Row, identity: Row) -> str:
    """A hash of all that an answer depends on: the question's turns and category, the model and its settings."""
    return hashlib.sha256(json.dumps([question["turns"], question["category"], identity]).encode()).hexdigest()


def _content(name: str | None) -> dict[str, str] | str | None:
    """sha256 of a local checkpoint's files, README and training records apart; a name on the hub as it is."""
    kinds = ("*.safetensors", "*.bin", "*.jinja", "*config.json", "tokenizer*")
    files = sorted({file for kind in kinds for file in Path(name or "").glob(kind)}) if name else []
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files} or name
