"""What is current: which judgment of a file counts, which is superseded, and what lies beside it.

FastChat's file holds one row for each thing judged, so that its show_result averages what counts.
Beside it lie, under the same name with an ending of ours:

    .votes       the second and later judgments of the same turn, one row each
    .superseded  rows that no longer apply; one that applies again moves back
    .failures    what will not be had by asking again, and why
    .replies     replies of unfinished jobs of several calls; removed when all is done
"""

import re
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from mtbench_runner import store
from mtbench_runner.bench import ERROR_ANSWER, Bench, turns_of
from mtbench_runner.outcome import Failure, Outcome
from mtbench_runner.rows import (
    Answer,
    AnyJudgment,
    FailureRow,
    Judgment,
    PairJudgment,
    Place,
    QuestionId,
    ReplyRow,
)
from mtbench_runner.store import InputError

if TYPE_CHECKING:  # it imports the openai client
    from mtbench_runner.endpoint import Call, Caller

SWAPPED = {"model_1": "model_2", "model_2": "model_1"}
UNPARSABLE = -1  # FastChat's score for a judgment without a rating


# --- reading


def read_judgments(path: Path, paired: bool) -> list[AnyJudgment]:
    """Rows of a judgments file. Raises InputError for one that is none."""
    kind = PairJudgment if paired else Judgment
    rows = cast(list[AnyJudgment], store.read(path, kind))
    for row in rows:
        if len(row["judge"]) != 2:
            raise InputError(f"{path}: a judge is a name and a prompt, not {row['judge']}")
    return rows


def models_of(row: AnyJudgment) -> list[str]:
    """The model that a judgment is about, or the two that it compares."""
    if "model" in row:
        return [row["model"]]
    return [row["model_1"], row["model_2"]]


def prompts_of(row: AnyJudgment) -> list[str]:
    """What the judge was shown, call by call."""
    if "model" in row:
        return [row["user_prompt"]]
    return [row["g1_user_prompt"], row["g2_user_prompt"]]


def judgments_of(row: AnyJudgment) -> list[str]:
    """What the judge said, call by call."""
    if "model" in row:
        return [row["judgment"]]
    return [row["g1_judgment"], row["g2_judgment"]]


def turned(row: AnyJudgment, models: Sequence[str]) -> AnyJudgment:
    """A comparison stored as (B, A) as one of (A, B); any other row as it is."""
    if "model" in row or models_of(row) != list(reversed(models)):
        return row
    flipped: dict[str, Any] = {
        **row,
        "model_1": row["model_2"],
        "model_2": row["model_1"],
        "g1_winner": SWAPPED.get(row["g2_winner"], row["g2_winner"]),
        "g2_winner": SWAPPED.get(row["g1_winner"], row["g1_winner"]),
        "g1_user_prompt": row["g2_user_prompt"],
        "g2_user_prompt": row["g1_user_prompt"],
        "g1_judgment": row["g2_judgment"],
        "g2_judgment": row["g1_judgment"],
    }
    flipped.pop("answer_sha256", None)  # it names the answers in the other order
    flipped.pop("key", None)
    return cast(PairJudgment, flipped)


def vote_of(row: AnyJudgment) -> int:
    return row.get("vote", 1)


def failed(row: AnyJudgment) -> bool:
    """Whether FastChat stored this for a judgment that it did not get."""
    return ERROR_ANSWER in judgments_of(row)


# --- what counts


def answer_sha256(answers: Sequence[Answer], turn: int) -> str:
    """A hash of the turns that a judgment saw; tells when an answer has changed since."""
    return store.digest([turns_of(answer)[:turn] for answer in answers])


def saw(row: AnyJudgment, answers: Sequence[Answer]) -> bool:
    """Whether a judgment is of these answers.

    By the hash that we store; in a row of FastChat's by the answers that its prompts contain.
    """
    turn = row["turn"]
    if "answer_sha256" in row:
        return row["answer_sha256"] == answer_sha256(answers, turn)
    prompts = list(filter(None, prompts_of(row)))
    for answer in answers:
        for text in turns_of(answer)[:turn]:
            if not all(text in prompt for prompt in prompts):
                return False
    return True


Votes = list[AnyJudgment]  # of one place, by vote


class Current(NamedTuple):
    """The judgments that count, by place, and how many rows of the same models do not."""

    judged: dict[Place, Votes]
    superseded: int


def current(bench: Bench, judge: str, models: Sequence[str]) -> Current:
    """The newest judgment of each turn and vote, of the answers that the models have now.

    The rows may stand in any order. Raises InputError if there is none of these models.
    """
    paired = len(models) == 2
    path = bench.judgments_file(judge, "pair" if paired else "single")
    rows = read_with_votes(path, paired)
    own = rows_of(rows, models, bench)
    if not own:
        raise InputError(f"{path} {_what_it_has(rows, models)}; judge first")
    return choose(own, bench.answers_of(models), bench)


def _what_it_has(rows: Sequence[AnyJudgment], models: Sequence[str]) -> str:
    """Why there is nothing to be read of the models, and of which there is."""
    wanted = " against ".join(models)
    if not rows:
        return f"has no judgments of {wanted}, nor of any other"
    there = [" against ".join(models_of(row)) for row in rows]
    named = ", ".join(dict.fromkeys(there))  # each once
    return f"has no judgments of {wanted} on these questions; it has those of {named}"


def read_with_votes(path: Path, paired: bool) -> list[AnyJudgment]:
    """The rows of a judgments file, later votes included."""
    return read_judgments(path, paired) + read_judgments(store.beside(path, "votes"), paired)


def rows_of(rows: Iterable[AnyJudgment], models: Sequence[str], bench: Bench) -> list[AnyJudgment]:
    """Those of these models, in this order, on the bench's selected questions."""
    places = set(bench.places())
    own = []
    for row in rows:
        row = turned(bench.own(row), models)
        place = (row["question_id"], row["turn"])
        if place in places and models_of(row) == list(models):
            own.append(row)
    return own


def choose(
    rows: Sequence[AnyJudgment],
    answers: Sequence[dict[QuestionId, Answer]],
    bench: Bench,
) -> Current:
    """Of several judgments of the same vote the newest one that saw the present answers."""
    newest: dict[Place, dict[int, AnyJudgment]] = {}
    for row in rows:
        if failed(row) or not _saw_present(row, answers):
            continue
        votes = newest.setdefault((row["question_id"], row["turn"]), {})
        vote = vote_of(row)
        earlier = votes.get(vote)
        if earlier is None or row.get("tstamp", 0.0) >= earlier.get("tstamp", 0.0):
            votes[vote] = row
    judged: dict[Place, Votes] = {}
    counted = 0
    for place in bench.places():
        if place in newest:
            votes = newest[place]
            judged[place] = [votes[number] for number in sorted(votes)]
            counted += len(votes)
    return Current(judged, superseded=len(rows) - counted)


def _saw_present(row: AnyJudgment, answers: Sequence[dict[QuestionId, Answer]]) -> bool:
    """Whether a judgment is of the answers that are there now, or of one that is there no more."""
    given = []
    for answer in answers:
        if row["question_id"] not in answer:
            return True
        given.append(answer[row["question_id"]])
    return saw(row, given)


# --- what is still to be done


class Identity(NamedTuple):
    """What makes a judgment the same."""

    models: tuple[str, ...]  # one, or two that are compared
    question: QuestionId
    turn: int
    vote: int
    judge: str
    prompt: str  # the name of the judge prompt
    content: str  # a hash of all that the judge was shown


def content_key(row: AnyJudgment, bench: Bench) -> str:
    """A hash of everything the judge was shown; also for a row that FastChat itself wrote."""
    if "key" in row:
        return row["key"]
    prompt = bench.prompts.get(row["judge"][1])
    system = prompt["system_prompt"] if prompt else None
    if "model" in row:
        shown = [system, row["user_prompt"], None, None]
    else:
        shown = [system, None, row["g1_user_prompt"], row["g2_user_prompt"]]
    return store.digest(shown)


def identity(row: AnyJudgment, bench: Bench) -> Identity:
    """What makes a judgment the same as another, whoever wrote it."""
    judge, prompt = row["judge"]
    return Identity(
        models=tuple(models_of(row)),
        question=row["question_id"],
        turn=row["turn"],
        vote=vote_of(row),
        judge=judge,
        prompt=prompt,
        content=content_key(row, bench),
    )


def digest_of(wanted: Identity) -> str:
    """A hash of what is wanted, as failures are recorded under."""
    return store.digest(list(wanted))


class Settled:
    """The rows of a judgments file, sorted into what is kept, retired and brought back."""

    def __init__(
        self,
        path: Path,
        wanted: Collection[Identity],
        bench: Bench,
        redo: Callable[[AnyJudgment], bool],
    ) -> None:
        self.path = path
        self.wanted = set(wanted)
        self.bench = bench
        self.models = list(next(iter(self.wanted)).models)
        self.questions = {key.question for key in self.wanted}
        self.votes = {key.vote for key in self.wanted}
        paired = len(self.models) == 2
        self.present = [bench.own(row) for row in read_judgments(path, paired)]
        superseded = store.beside(path, "superseded")
        self.past = [bench.own(row) for row in read_judgments(superseded, paired)]
        self.newest: dict[Identity, AnyJudgment] = {}
        for row in [*self.past, *self.present]:
            key = self.key(row)
            if key in self.wanted and not failed(row) and not redo(row):
                self.newest[key] = row

    def key(self, row: AnyJudgment) -> Identity:
        return identity(turned(row, self.models), self.bench)

    def counts(self, row: AnyJudgment) -> bool:
        return self.newest.get(self.key(row)) is row

    def concerned(self, row: AnyJudgment) -> bool:
        """Whether the row is of the models, questions and votes that are judged now."""
        if sorted(models_of(row)) != sorted(self.models):  # compared in whatever order
            return False
        if vote_of(row) not in self.votes:
            return False
        question = row["question_id"]
        return question in self.questions or question not in self.bench.all_ids

    def write(self) -> None:
        """Retire what no longer counts, then bring back what counts again."""
        kept: list[AnyJudgment] = []
        retired: list[AnyJudgment] = []
        for row in self.present:
            stays = self.counts(row) or not self.concerned(row)
            (kept if stays else retired).append(row)
        back = [row for row in self.past if self.counts(row)]
        for row in retired:
            if row not in self.past:
                store.append(store.beside(self.path, "superseded"), row)
        if retired or back:
            store.write_rows(self.path, [*kept, *back])


def settle(
    path: Path,
    wanted: Collection[Identity],
    bench: Bench,
    redo: Callable[[AnyJudgment], bool] = lambda row: False,
) -> set[Identity]:
    """Make a file hold one row for each wanted judgment that was ever made; return those.

    Rows of the same models and questions that no longer apply (a changed answer, FastChat's
    $ERROR$ rows, duplicates, what is to be judged once more) move to <file>.superseded.
    """
    if not wanted:
        return set()
    settled = Settled(path, wanted, bench, redo)
    settled.write()
    return set(settled.newest)


def redo(again: Collection[str], bench: Bench) -> Callable[[AnyJudgment], bool]:
    """Which judgments are made once more: `truncated` ones, `unrated` ones."""

    def asked_for(row: AnyJudgment) -> bool:
        if "truncated" in again and truncated(row):
            return True
        return "unrated" in again and unrated(row, bench.rating_pattern)

    return asked_for


def truncated(row: AnyJudgment) -> bool:
    """Whether a reply of the judge was cut at its token limit."""
    return "length" in row.get("finish_reasons", [])


def rating_of(row: Judgment, pattern: re.Pattern[str] | None = None) -> float | None:
    """The rating of a judgment as FastChat read it, or as `pattern` reads it; None: it has none."""
    if pattern is None:
        return None if row["score"] == UNPARSABLE else float(row["score"])
    found = pattern.search(row["judgment"])
    try:
        return float(found[1]) if found else None
    except ValueError:
        return None


def unrated(row: AnyJudgment, pattern: re.Pattern[str] | None = None) -> bool:
    """Whether a judgment has no verdict, or no rating as FastChat or `pattern` reads it."""
    if "model" in row:
        return rating_of(row, pattern) is None
    return "error" in (row["g1_winner"], row["g2_winner"])


# --- failures


def note_failure(
    path: Path,
    wanted: str,
    models: list[str],
    question: QuestionId,
    turn: int | None,
    failure: Failure,
) -> None:
    """Record a failure beside FastChat's file, if it is permanent."""
    if not failure.permanent:
        return
    outcome = failure.outcome
    row = FailureRow(
        identity=wanted,
        models=models,
        question_id=question,
        turn=turn,
        kind=outcome.kind,
        cause=outcome.cause,
        detail=outcome.detail,
        raw=outcome.raw,
        tstamp=time.time(),
    )
    store.append(store.beside(path, "failures"), row)


def read_failures(path: Path) -> list[FailureRow]:
    """What will not be had by asking again, of a file of answers or judgments."""
    rows = store.read(store.beside(path, "failures"), FailureRow)
    return cast(list[FailureRow], rows)


def failures(path: Path) -> dict[str, str]:
    """Hash of what was wanted -> cause, of what will not be had by asking again."""
    return {row["identity"]: row["cause"] for row in read_failures(path)}


def way_on(lost: int, lasting: int, detail: str, where: Path) -> str:
    """The end of a line about incomplete work: the server's words, and how to go on."""
    parts = [f": {detail}"] if detail else []
    if lost > lasting:
        parts.append("; what succeeded is kept, run the same command again for the rest")
    if lasting:
        parts.append(f"; {lasting} would fail again and are recorded in {where} (--again failed)")
    return "".join(parts)


# --- replies of unfinished jobs


class Replies:
    """Replies that were paid for, kept until the row is written that they belong to."""

    def __init__(self, path: Path) -> None:
        self.of = path
        self.path = store.beside(path, "replies")
        store.mend(self.path)
        self.found: dict[str, Outcome] = {}
        for row in store.read(self.path, ReplyRow):
            try:
                self.found[row["key"]] = Outcome(**row["outcome"])
            except TypeError:
                raise InputError(f"{self.path} is of another version; finish with that") from None

    def get(self, model: str, call: "Call", vote: int = 1) -> Outcome | None:
        return self.found.get(self.key(model, call, vote))

    def put(self, model: str, call: "Call", outcome: Outcome, vote: int = 1) -> None:
        """Keep a reply, also in the file."""
        key = self.key(model, call, vote)
        self.found[key] = outcome
        store.append(self.path, {"key": key, "outcome": asdict(outcome)})

    async def ask(self, caller: "Caller", model: str, call: "Call", vote: int = 1) -> Outcome:
        """The reply that is kept, or a new one, which is then kept."""
        kept = self.get(model, call, vote)
        if kept is not None:
            return kept
        outcome = await caller.complete(call)
        self.put(model, call, outcome, vote)
        return outcome

    def clear(self) -> None:
        """Remove the file: every reply has become part of a row."""
        self.path.unlink(missing_ok=True)

    @staticmethod
    def key(model: str, call: "Call", vote: int) -> str:
        return store.digest([model, call.messages, call.settings, vote])
