"""Stage `answer`: a model's answers to a bench, both turns, with FastChat's temperatures and file format."""

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from mtbench_runner import store
from mtbench_runner.bench import Bench, Row
from mtbench_runner.generate import Candidate, Conversation, strip_thinking

DEFAULT_TEMPERATURE = 0.7  # FastChat's, for a category it does not list
SEED = 0  # FastChat seeds with the index of the choice, and there is one


class Replier(Protocol):
    def reply(self, conversations: list[Conversation], temperatures: list[float], seed: int) -> list[str]: ...


def answer(bench: Bench, model_id: str, candidate: Candidate) -> None:
    """Append the answers that are missing or were made from something else to the model's answer file."""
    path = bench.answers_file(model_id)
    with store.locked(path):
        done = {row["question_id"]: row.get("key") for row in store.read(path)}
        identity = fingerprint(candidate)
        keys = {q["question_id"]: key_of(q, identity) for q in bench.questions}
        missing = {qid for qid, key in keys.items() if done.get(qid) != key}
        if not missing:
            return
        model = _load(candidate)
        turns = sum(len(q["turns"]) for q in bench.questions if q["question_id"] in missing)
        with tqdm(total=turns, desc=f"answers of {model_id}", unit="turn") as bar:
            for batch in batches(bench.questions, candidate.batch_size):
                if missing.isdisjoint(q["question_id"] for q in batch):
                    continue
                # a batch is answered whole or not at all: an interrupted run samples what an uninterrupted one does
                for question, turns_ in zip(batch, converse(model, batch), strict=True):
                    if question["question_id"] in missing:
                        store.append(path, _row(question, model_id, turns_, keys[question["question_id"]]))
                        bar.update(len(turns_))


def batches(questions: list[Row], size: int) -> Iterator[list[Row]]:
    """The questions, `size` at a time (0: all together)."""
    for start in range(0, len(questions), size or len(questions)):
        yield questions[start : start + (size or len(questions))]


def converse(model: Replier, questions: list[Row]) -> list[list[str]]:
    """What the model said at each turn of each question, thinking included; turn 2 sees turn 1 without its thinking."""
    from fastchat.llm_judge.common import temperature_config

    said: list[list[str]] = [[] for _ in questions]
    for turn in range(max(len(q["turns"]) for q in questions)):
        open_ = [i for i, q in enumerate(questions) if len(q["turns"]) > turn]
        conversations = [_conversation(questions[i]["turns"][: turn + 1], said[i]) for i in open_]
        temperatures = [temperature_config.get(questions[i]["category"], DEFAULT_TEMPERATURE) for i in open_]
        for i, reply in zip(open_, model.reply(conversations, temperatures, SEED), strict=True):
            said[i].append(reply)
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
    return _sha256(json.dumps([question["turns"], question["category"], identity], sort_keys=True).encode())


def fingerprint(candidate: Candidate) -> Row:
    """The candidate's settings, and the content of its files where they are local."""
    return asdict(candidate) | {"files": {p: _files(Path(p)) for p in (candidate.model, candidate.adapter) if p}}


def _files(folder: Path) -> dict[str, str]:
    """sha256 of a local checkpoint's files, README and training records apart; {} for a name on the hub."""
    kinds = ("*.safetensors", "*.bin", "*.jinja", "*config.json", "tokenizer*")
    return {f.name: _sha256(f.read_bytes()) for kind in kinds for f in sorted(folder.glob(kind)) if f.is_file()}


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _load(candidate: Candidate) -> Replier:
    from mtbench_runner.generate import LocalModel

    return LocalModel(candidate)
