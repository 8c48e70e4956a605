"""Stage `answer`: a model's answers to a bench, both turns, with FastChat's temperatures and file format."""

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import PartialState
from fastchat.llm_judge.common import temperature_config
from tqdm import tqdm

from mtbench_runner import store
from mtbench_runner.bench import Bench
from mtbench_runner.endpoint import CallError, Endpoint, complete_all
from mtbench_runner.generate import (
    SEED,
    Candidate,
    Conversation,
    LocalModel,
    default_batch_size,
    strip_thinking,
)
from mtbench_runner.store import IncompleteError, Row

DEFAULT_TEMPERATURE = 0.7  # FastChat's, for a category it does not list
RANK = int(os.environ.get("RANK", 0))  # of this process, under `accelerate launch`
PROCESSES = int(os.environ.get("WORLD_SIZE", 1))
Replier = Callable[[list[Conversation], list[float]], Sequence[str | None]]  # None: no reply came


def answer(
    bench: Bench, model_id: str, candidate: Candidate, endpoint: Endpoint | None = None
) -> None:
    """Append the answers that are missing, or were made from something else, to the model's answer file.

    Under `accelerate launch` each process takes its share of the questions. Raises IncompleteError with the number of
    questions that an endpoint left unanswered.
    """
    path = bench.answers_file(model_id)
    weights = {name: _content(getattr(candidate, name)) for name in ("model", "adapter")}
    identity = asdict(candidate) | weights | {"batch_size": 0}
    keys = {
        q["question_id"]: store.digest([q["turns"], q["category"], identity])
        for q in bench.questions
    }
    with _together(path):
        if missing := _missing(path, keys):
            reply: Replier = (
                partial(ask, endpoint, candidate) if endpoint else LocalModel(candidate).reply
            )
            size = candidate.batch_size or (
                endpoint.parallel if endpoint else default_batch_size(len(keys))
            )
            _answer_in_batches(reply, bench.questions[RANK::PROCESSES], size, missing, path)
    lost = len(_missing(path, keys))
    if lost and RANK == 0:
        raise IncompleteError(
            f"{lost} of {len(keys)} questions have no answer; run the same command again for them"
        )


def _content(name: str | None) -> dict[str, str] | str | None:
    """sha256 of a local checkpoint's files, README and training records apart; a name on the hub as it is."""
    kinds = ("*.safetensors", "*.bin", "*.jinja", "*config.json", "tokenizer*")
    files = sorted({file for kind in kinds for file in Path(name or "").glob(kind)}) if name else []
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files} or name


def _missing(path: Path, keys: dict[int, str]) -> dict[int, str]:
    newest = {row["question_id"]: row.get("key") for row in store.read(path)}
    return {qid: key for qid, key in keys.items() if newest.get(qid) != key}


@contextmanager
def _together(path: Path) -> Iterator[None]:
    """The processes of one run enter and leave together; the first of them holds the file against other runs."""
    with store.locked(path) if RANK == 0 else nullcontext():
        _wait_for_everyone()
        yield
        _wait_for_everyone()


def _wait_for_everyone() -> None:
    if PROCESSES > 1:
        PartialState(timeout=timedelta(days=1)).wait_for_everyone()


def _answer_in_batches(
    reply: Replier, questions: list[Row], size: int, missing: dict[int, str], path: Path
) -> None:
    with tqdm(
        total=len(questions), desc=f"answers of {path.stem}", unit="question", disable=RANK > 0
    ) as bar:
        for start in range(0, len(questions), size):
            batch = questions[start : start + size]
            if any(question["question_id"] in missing for question in batch):
                _answer_batch(reply, batch, missing, path)
            bar.update(len(batch))


def _answer_batch(reply: Replier, batch: list[Row], missing: dict[int, str], path: Path) -> None:
    """Answer a batch whole or not at all: an interrupted run then samples what an uninterrupted one does."""
    for question, said in zip(batch, converse(reply, batch), strict=True):
        if (qid := question["question_id"]) in missing and None not in said:
            store.append(path, _row(question, path.stem, said, missing[qid]))


def converse(reply: Replier, questions: list[Row]) -> list[list[Any]]:
    """What the model said at each turn of each question, thinking included; turn 2 sees turn 1 without its thinking.

    A question ends with None at the turn at which no reply came.
    """
    said: list[list[Any]] = [[] for _ in questions]
    for turn in range(max(len(q["turns"]) for q in questions)):
        open_ = [
            i for i, q in enumerate(questions) if len(q["turns"]) > turn and None not in said[i]
        ]
        conversations = [_conversation(questions[i]["turns"][: turn + 1], said[i]) for i in open_]
        temperatures = [
            temperature_config.get(questions[i]["category"], DEFAULT_TEMPERATURE) for i in open_
        ]
        for i, text in zip(open_, reply(conversations, temperatures), strict=True):
            said[i].append(text)
    return said


def _conversation(asked: list[str], said: list[str]) -> Conversation:
    messages = [{"role": "user", "content": asked[0]}]
    for reply, question in zip(said, asked[1:], strict=True):
        messages += [
            {"role": "assistant", "content": strip_thinking(reply)},
            {"role": "user", "content": question},
        ]
    return messages


def _row(question: Row, model_id: str, said: list[str], key: str) -> Row:
    choice: dict[str, Any] = {"index": 0, "turns": [strip_thinking(reply) for reply in said]}
    if choice["turns"] != said:
        choice["turns_with_thinking"] = said
    row = {"question_id": question["question_id"], "answer_id": key[:22], "model_id": model_id}
    return row | {"choices": [choice], "tstamp": time.time(), "key": key}


def ask(
    endpoint: Endpoint,
    candidate: Candidate,
    conversations: list[Conversation],
    temperatures: list[float],
) -> list[str | None]:
    """Replies of a model behind an OpenAI-compatible endpoint; None for one that never comes."""
    thinking = {"chat_template_kwargs": {"enable_thinking": candidate.thinking}}
    fixed = {"max_tokens": candidate.max_new_tokens, "seed": SEED, "extra_body": thinking}
    pairs = zip(conversations, temperatures, strict=True)
    texts: list[str | None] = [None] * len(conversations)
    for index, outcome in complete_all(
        endpoint, [[(messages, {"temperature": t, **fixed})] for messages, t in pairs]
    ):
        if not isinstance(outcome, CallError):
            texts[index] = outcome[0].text
    return texts
