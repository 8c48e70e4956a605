"""Stage `answer`: a model's answers to a bench, every turn, with FastChat's temperatures and file.

A local model answers in batches, a batch whole or not at all; of a model behind an endpoint every
question is written when its last turn has come; until then its replies are kept beside the file.
"""

import hashlib
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

from fastchat.llm_judge.common import temperature_config
from tqdm import tqdm

from mtbench_runner import ledger, store
from mtbench_runner.bench import Bench, read_answers
from mtbench_runner.endpoint import Call, Caller, Endpoint, Job, run_jobs
from mtbench_runner.local import SEED, Candidate, LocalModel, default_batch_size
from mtbench_runner.outcome import (
    ANSWERING,
    Failure,
    Outcome,
    first_detail,
    histogram,
    number_ignored,
)
from mtbench_runner.rows import Answer, Choice, Conversation, Question, QuestionId
from mtbench_runner.spending import Spending, add_usage
from mtbench_runner.store import IncompleteError
from mtbench_runner.thinking import strip_thinking

DEFAULT_TEMPERATURE = 0.7  # FastChat's, for a category it does not list
RANK = int(os.environ.get("RANK", 0))  # of this process, under `accelerate launch`
PROCESSES = int(os.environ.get("WORLD_SIZE", 1))
WEIGHT_FILES = ("*.safetensors", "*.bin", "*.jinja", "*config.json", "tokenizer*")
Keys = dict[QuestionId, str]  # question -> a hash of what its answer is made from
Replier = Callable[[list[Conversation], list[float]], Sequence[Outcome]]


def answer(
    bench: Bench,
    model_id: str,
    candidate: Candidate,
    endpoint: Endpoint | None = None,
    spending: Spending | None = None,
    again: Sequence[str] = (),
) -> None:
    """Append the answers that are missing, or were made from something else, to the answer file.

    Under `accelerate launch` each process takes its share of the questions. Raises IncompleteError
    with the number of questions that an endpoint left unanswered, and why.
    """
    path = bench.answers_file(model_id)
    keys = answer_keys(bench, candidate)
    failures: list[Failure] = []
    with _together(path):
        given_up = {} if "failed" in again else _given_up(path, keys)
        missing = {}
        for question, key in missing_answers(path, keys).items():
            if question not in given_up:
                missing[question] = key
        if missing and endpoint:
            failures = _answer_by_calls(bench, model_id, endpoint, candidate, missing, spending)
        elif missing:
            _answer_in_batches(bench, model_id, candidate, missing)
    if RANK == 0:
        _report(path, keys, failures)


def answer_keys(bench: Bench, candidate: Candidate) -> Keys:
    """For each question a hash of all that its answer depends on, apart from the batch size."""
    identity: dict[str, Any] = {
        "model": _content(candidate.model),
        "adapter": _content(candidate.adapter),
        "url": candidate.url,
        "max_new_tokens": candidate.max_new_tokens,
        "batch_size": 0,
        "thinking": candidate.thinking,
    }
    if candidate.system:
        identity["system"] = candidate.system
    keys = {}
    for question in bench.questions:
        content = [question["turns"], question["category"], identity]
        keys[question["question_id"]] = store.digest(content)
    return keys


def _content(name: str | None) -> dict[str, str] | str | None:
    """sha256 of a local checkpoint's files, README and records apart; a hub name as it is."""
    if not name:
        return None
    files: set[Path] = set()
    for pattern in WEIGHT_FILES:
        files.update(Path(name).glob(pattern))
    hashes = {}
    for file in sorted(files):
        hashes[file.name] = hashlib.sha256(file.read_bytes()).hexdigest()
    return hashes or name


def missing_answers(path: Path, keys: Keys) -> Keys:
    """The questions whose newest answer was not made from what its answer depends on now."""
    newest: dict[str, str | None] = {}
    for row in read_answers(path):
        newest[str(row["question_id"])] = row.get("key")
    missing = {}
    for question, key in keys.items():
        if newest.get(str(question)) != key:
            missing[question] = key
    return missing


def _given_up(path: Path, keys: Keys) -> dict[QuestionId, str]:
    """The questions whose answer will not be had by asking again, with the cause."""
    causes = ledger.failures(path)
    given_up = {}
    for question, key in keys.items():
        if key in causes:
            given_up[question] = causes[key]
    return given_up


def _report(path: Path, keys: Keys, failures: list[Failure]) -> None:
    """Raise IncompleteError if a question has no answer."""
    missing = missing_answers(path, keys)
    if not missing:
        return
    lasting = _given_up(path, missing)
    causes = [failure.cause for failure in failures if not failure.permanent]
    causes += lasting.values()
    what = f"{len(missing)} of {len(keys)} questions have no answer ({histogram(causes)})"
    where = store.beside(path, "failures")
    way_on = ledger.way_on(len(missing), len(lasting), first_detail(failures), where)
    raise IncompleteError(what + way_on)


@contextmanager
def _together(path: Path) -> Iterator[None]:
    """The processes of one run enter and leave together; the first one holds the file."""
    with store.locked(path) if RANK == 0 else nullcontext():
        _wait_for_everyone()
        yield
        _wait_for_everyone()


def _wait_for_everyone() -> None:
    """Go on when every process has come here."""
    if PROCESSES > 1:
        from accelerate import PartialState

        PartialState(timeout=timedelta(days=1)).wait_for_everyone()


# --- a local model


def _answer_in_batches(bench: Bench, model_id: str, candidate: Candidate, missing: Keys) -> None:
    """Answer what is missing, batch by batch; this process's share of it."""
    path = bench.answers_file(model_id)
    model = LocalModel(candidate)
    size = candidate.batch_size or default_batch_size(len(bench.questions))
    questions = bench.questions[RANK::PROCESSES]
    described = f"answers of {model_id}"
    with tqdm(total=len(questions), desc=described, unit="question", disable=RANK > 0) as bar:
        for start in range(0, len(questions), size):
            batch = questions[start : start + size]
            if any(question["question_id"] in missing for question in batch):
                for row in answer_batch(model.reply, batch, missing, model_id, candidate.system):
                    store.append(path, row)
            bar.update(len(batch))


def answer_batch(
    reply: Replier, batch: list[Question], missing: Keys, model_id: str, system: str | None
) -> list[Answer]:
    """Answer a batch whole: an interrupted run then samples what an uninterrupted one does."""
    rows = []
    for question, said in zip(batch, converse(reply, batch, system), strict=True):
        key = missing.get(question["question_id"])
        if key is not None:
            rows.append(answer_row(question, model_id, said, key))
    return rows


def converse(
    reply: Replier, questions: list[Question], system: str | None = None
) -> list[list[Outcome]]:
    """What the model said at each turn of each question; turn 2 sees turn 1 without thinking."""
    said: list[list[Outcome]] = [[] for _ in questions]
    turns = max(len(question["turns"]) for question in questions)
    for turn in range(turns):
        at_turn = []  # what was said in the conversations that have this turn
        conversations = []
        temperatures = []
        for question, own in zip(questions, said, strict=True):
            if len(question["turns"]) > turn:
                at_turn.append(own)
                conversations.append(conversation(question, own, system))
                temperatures.append(temperature_of(question))
        outcomes = reply(conversations, temperatures)
        for own, outcome in zip(at_turn, outcomes, strict=True):
            own.append(outcome)
    return said


def conversation(
    question: Question, said: list[Outcome], system: str | None = None
) -> Conversation:
    """The messages of the next turn of a question, of which some turns are answered."""
    messages = [{"role": "system", "content": system}] if system else []
    for asked, outcome in zip(question["turns"], said, strict=False):
        messages.append({"role": "user", "content": asked})
        messages.append({"role": "assistant", "content": strip_thinking(outcome.text)})
    messages.append({"role": "user", "content": question["turns"][len(said)]})
    return messages


def temperature_of(question: Question) -> float:
    """FastChat's temperature for the question's category."""
    return float(temperature_config.get(question["category"], DEFAULT_TEMPERATURE))


def answer_row(question: Question, model_id: str, said: list[Outcome], key: str) -> Answer:
    """The row of FastChat's answer file."""
    full = [outcome.full_text for outcome in said]
    choice = Choice(
        index=0,
        turns=[strip_thinking(outcome.text) for outcome in said],
        finish_reasons=[outcome.finish for outcome in said],
        usage=add_usage([outcome.usage for outcome in said]),
    )
    if choice["turns"] != full:
        choice["turns_with_thinking"] = full
    return Answer(
        question_id=question["question_id"],
        answer_id=key[:22],
        model_id=model_id,
        choices=[choice],
        tstamp=time.time(),
        key=key,
    )


# --- a model behind an endpoint


def _answer_by_calls(
    bench: Bench,
    model_id: str,
    endpoint: Endpoint,
    candidate: Candidate,
    missing: Keys,
    spending: Spending | None,
) -> list[Failure]:
    """Write each question when its last turn has come. Returns the failures."""
    path = bench.answers_file(model_id)
    kept = ledger.Replies(path)
    questions = [one for one in bench.questions if one["question_id"] in missing]
    jobs = [_dialogue(question, candidate, endpoint.model, kept) for question in questions]
    failures: list[Failure] = []
    ignored: Counter[str] = Counter()
    with tqdm(total=len(jobs), desc=f"answers of {model_id}", unit="question") as bar:

        def take(index: int, said: list[Outcome] | Failure) -> None:
            question = questions[index]
            identifier = question["question_id"]
            key = missing[identifier]
            if isinstance(said, Failure):
                failures.append(said)
                ledger.note_failure(path, key, [model_id], identifier, None, said)
            else:
                store.append(path, answer_row(question, model_id, said, key))
                ignored["choices"] += number_ignored(said)
            bar.set_postfix(errors=len(failures), refresh=False)
            bar.update()

        run_jobs(endpoint, jobs, ANSWERING, take, spending)
    if not failures:
        kept.clear()
    if ignored["choices"]:
        sys.stderr.write(f"note: {ignored['choices']} choices beyond the first were ignored\n")
    return failures


def _dialogue(
    question: Question, candidate: Candidate, model: str, kept: ledger.Replies
) -> Job[list[Outcome]]:
    """A job that asks turn after turn; replies that an earlier run paid for are not asked again."""
    thinking = {"chat_template_kwargs": {"enable_thinking": candidate.thinking}}
    settings = {
        "temperature": temperature_of(question),
        "max_tokens": candidate.max_new_tokens,
        "seed": SEED,
        "extra_body": thinking,
    }

    async def ask(caller: Caller) -> list[Outcome]:
        said: list[Outcome] = []
        for _ in question["turns"]:
            messages = conversation(question, said, candidate.system)
            call = Call(messages, settings)
            said.append(await kept.ask(caller, model, call))
        return said

    return ask
