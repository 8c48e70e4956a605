"""Stages `judge` and `pairwise`: every turn judged, by one judge or several, once or several times.

A judge is whatever turns calls into replies: an OpenAI-compatible endpoint, a model on this machine
(`local:PATH`), or the output of a batch. What FastChat would write for a reply is written for it.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from tqdm import tqdm

from mtbench_runner import ledger, matches, store
from mtbench_runner.bench import Bench
from mtbench_runner.endpoint import Call, Caller, Endpoint, Job, run_jobs
from mtbench_runner.ledger import Identity
from mtbench_runner.matches import Answers, Match
from mtbench_runner.outcome import (
    JUDGING,
    Failure,
    Outcome,
    first_detail,
    histogram,
    number_ignored,
)
from mtbench_runner.rows import AnyJudgment
from mtbench_runner.spending import Spending, add_usage, total
from mtbench_runner.store import IncompleteError
from mtbench_runner.thinking import strip_thinking


@dataclass(frozen=True)
class Request:
    """What is to be judged, and how."""

    model_id: str
    baseline: str | None = None
    votes: int = 1
    cap: int = matches.JUDGE_TOKENS  # of the judge's reply
    temperature: float = 0.0
    effort: str | None = None  # reasoning effort, for judges that know it
    again: Sequence[str] = ()  # failed, truncated, unrated

    @property
    def models(self) -> list[str]:
        return [self.model_id, self.baseline] if self.baseline else [self.model_id]

    @property
    def mode(self) -> str:
        return "pair" if self.baseline else "single"


@dataclass(frozen=True)
class Task:
    """One judgment that is wanted: a match, which vote on it, and the calls that it takes."""

    match: Match
    vote: int
    identity: Identity
    calls: list[Call]


Result = list[Outcome] | Failure
Take = Callable[[int, Result], None]  # what is done with the replies to a task, by its index


class Judge(Protocol):
    """Something that replies to the calls of tasks."""

    @property
    def name(self) -> str: ...

    def reply(self, tasks: Sequence[Task], kept: ledger.Replies, take: Take) -> None: ...


@dataclass(frozen=True)
class EndpointJudge:
    """A judge behind an OpenAI-compatible endpoint."""

    endpoint: Endpoint
    spending: Spending | None = None

    @property
    def name(self) -> str:
        return self.endpoint.model

    def reply(self, tasks: Sequence[Task], kept: ledger.Replies, take: Take) -> None:
        """Hand the replies or failure of each task to `take` as it ends."""
        jobs = [self._job(task, kept) for task in tasks]
        run_jobs(self.endpoint, jobs, JUDGING, take, self.spending)

    def _job(self, task: Task, kept: ledger.Replies) -> Job[list[Outcome]]:
        """A job that makes all calls of a task, one after the other."""

        async def ask(caller: Caller) -> list[Outcome]:
            if len(task.calls) == 1:
                return [await caller.complete(task.calls[0])]
            replies = []
            for call in task.calls:
                reply = await kept.ask(caller, self.name, call, task.vote)
                replies.append(reply)
            return replies

        return ask


def judge(bench: Bench, request: Request, by: Judge) -> None:
    """Judge what is not judged yet: each turn of a model, or of it against a baseline.

    Raises InputError, or IncompleteError with what is missing and why; that leaves no row.
    """
    path = bench.judgments_file(by.name, request.mode)
    with store.locked(path):
        tasks, lasting = to_do(bench, request, by.name)
        failures = _judge(bench, path, tasks, by) if tasks else []
        unanswered = places_without_answer(bench, request)
    _report(path, failures, lasting, unanswered, len(tasks))


def to_do(bench: Bench, request: Request, judge: str) -> tuple[list[Task], list[str]]:
    """The tasks that are neither done nor known to fail, and the causes of the latter.

    Call it under the lock of the judgments file. Raises InputError.
    """
    path = bench.judgments_file(judge, request.mode)
    answers = answers_of(bench, request)
    wanted: dict[Identity, Task] = {}
    for task in all_tasks(bench, request, judge, answers):
        wanted[task.identity] = task
    redo = ledger.redo(request.again, bench)
    done: set[Identity] = set()
    for file, identities in by_file(path, wanted.values()).items():
        done |= ledger.settle(file, identities, bench, redo)
    causes = {} if "failed" in request.again else ledger.failures(path)
    tasks, lasting = [], []
    for key, task in wanted.items():
        if key in done:
            continue
        cause = causes.get(ledger.digest_of(key))
        if cause is None:
            tasks.append(task)
        else:
            lasting.append(cause)
    return tasks, lasting


def votes_file(path: Path, vote: int) -> Path:
    """Where the rows of a vote lie: FastChat's file, or one of ours beside it."""
    return path if vote == 1 else store.beside(path, "votes")


def by_file(path: Path, tasks: Iterable[Task]) -> dict[Path, list[Identity]]:
    """The tasks' identities by the file that their rows lie in."""
    found: dict[Path, list[Identity]] = {}
    for task in tasks:
        file = votes_file(path, task.vote)
        found.setdefault(file, []).append(task.identity)
    return found


def pending(bench: Bench, request: Request, judge: str, answers: Sequence[Answers]) -> list[Task]:
    """The tasks that are not done, without a look at what is known to fail. Writes nothing."""
    path = bench.judgments_file(judge, request.mode)
    redo = ledger.redo(request.again, bench)
    tasks = all_tasks(bench, request, judge, answers)
    done: set[Identity] = set()
    for file, identities in by_file(path, tasks).items():
        done |= set(ledger.Settled(file, identities, bench, redo).newest)
    return [task for task in tasks if task.identity not in done]


def answers_of(bench: Bench, request: Request) -> list[Answers]:
    """The models' answers. Raises InputError where a model has none to any question here."""
    bench.require_answers(request.models)
    return bench.answers_of(request.models)


def all_tasks(bench: Bench, request: Request, judge: str, answers: Sequence[Answers]) -> list[Task]:
    """Every judgment that is wanted, done or not."""
    tasks = []
    for match in matches.make_matches(bench, request.models, judge, answers):
        empty, calls = matches.play(
            match, pattern=bench.rating_pattern, cap=request.cap, temperature=request.temperature
        )
        if request.effort:
            calls = [_with_effort(call, request.effort) for call in calls]
        for vote in range(1, request.votes + 1):
            row: AnyJudgment = {**empty, "vote": vote}  # type: ignore[assignment]
            identity = ledger.identity(row, bench)
            tasks.append(Task(match, vote, identity, calls))
    return tasks


def _with_effort(call: Call, effort: str) -> Call:
    """The call with a reasoning effort among its settings."""
    return replace(call, settings=call.settings | {"reasoning_effort": effort})


def places_without_answer(bench: Bench, request: Request) -> dict[str, int]:
    """Model -> how many questions it has not answered, or not all turns of."""
    lacking: Counter[str] = Counter()
    for model in request.models:
        given = bench.answers(model)
        for question in bench.questions:
            if not matches.answered(question, given, turn=len(question["turns"])):
                lacking[model] += 1
    return dict(lacking)


def _judge(bench: Bench, path: Path, tasks: list[Task], by: Judge) -> list[Failure]:
    """Write a row for every task that succeeds. Returns the failures."""
    kept = ledger.Replies(path)
    failures: list[Failure] = []
    counted: Counter[str] = Counter()
    with tqdm(total=len(tasks), desc=f"judgments by {by.name}", unit="judgment") as bar:

        def take(index: int, result: Result) -> None:
            task = tasks[index]
            if isinstance(result, Failure):
                failures.append(result)
                note_failure(path, task, result)
            else:
                row = make_row(task, result, bench)
                store.append(votes_file(path, task.vote), row)
                counted["unrated"] += ledger.unrated(row, bench.rating_pattern)
                counted["tokens"] += _tokens(result)
                counted["ignored"] += number_ignored(result)
            bar.set_postfix(errors=len(failures), tokens=counted["tokens"], refresh=False)
            bar.update()

        by.reply(tasks, kept, take)
    if not failures:
        kept.clear()
    if counted["unrated"]:
        written = len(tasks) - len(failures)
        sys.stderr.write(f"note: {counted['unrated']} of {written} judgments have no rating\n")
    if counted["ignored"]:
        sys.stderr.write(f"note: {counted['ignored']} choices beyond the first were ignored\n")
    return failures


def note_failure(path: Path, task: Task, failure: Failure) -> None:
    """Record a failure that asking again would not mend."""
    wanted = ledger.digest_of(task.identity)
    models = list(task.identity.models)
    match = task.match
    ledger.note_failure(path, wanted, models, match.question_id, match.turn, failure)


def _tokens(replies: Sequence[Outcome]) -> int:
    """Tokens in and out, as far as the server counted them."""
    tokens, _ = total([reply.usage for reply in replies])
    return tokens["prompt"] + tokens["completion"]


def make_row(task: Task, replies: Sequence[Outcome], bench: Bench) -> AnyJudgment:
    """FastChat's row for the judge's replies, with what we add to it."""
    said = [strip_thinking(reply.text) for reply in replies]
    row, _ = matches.play(task.match, said, bench.rating_pattern)
    full = [reply.full_text for reply in replies]
    row["key"] = ledger.content_key(row, bench)
    row["answer_sha256"] = ledger.answer_sha256(task.match.answers, row["turn"])
    row["usage"] = add_usage([reply.usage for reply in replies])
    row["settings"] = replies[0].settings
    row["finish_reasons"] = [reply.finish for reply in replies]
    if full != said:
        row["raw"] = full
    ignored = number_ignored(replies)
    if ignored:
        row["choices_ignored"] = ignored
    if task.vote > 1:
        row["vote"] = task.vote
    return row


def _report(
    path: Path,
    failures: list[Failure],
    lasting: list[str],
    unanswered: dict[str, int],
    tried: int,
) -> None:
    """Raise IncompleteError if something that was wanted is missing."""
    missing = len(failures) + len(lasting)
    lines = []
    if missing:
        causes = [failure.cause for failure in failures] + lasting
        permanent = len(lasting) + sum(failure.permanent for failure in failures)
        wanted = tried + len(lasting)
        what = f"{missing} of {wanted} judgments are missing ({histogram(causes)})"
        where = store.beside(path, "failures")
        way_on = ledger.way_on(missing, permanent, first_detail(failures), where)
        lines.append(what + _hint(failures) + way_on)
    for model, number in unanswered.items():
        lines.append(
            f"{model} has no answer to {number} questions, or not to all of their turns; "
            "run the answer stage"
        )
    if lines:
        raise IncompleteError("; ".join(lines))


def _hint(failures: list[Failure]) -> str:
    """What to change where a reasoning judge never came to speak."""
    for failure in failures:
        if failure.outcome.kind == "thinking":
            return (
                "; give the judge room with --judge-max-tokens, "
                "or less to think with --judge-effort low"
            )
    return ""
