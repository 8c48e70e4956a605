"""Stage option `--dry-run`: what a stage would ask and pay, told before anything is."""

from collections.abc import Sequence

from mtbench_runner import judge, ledger
from mtbench_runner.answer import answer_keys, conversation, missing_answers
from mtbench_runner.bench import Bench
from mtbench_runner.judge import Request
from mtbench_runner.local import Candidate
from mtbench_runner.outcome import Outcome
from mtbench_runner.rows import Answer, Choice, Conversation, Question, QuestionId
from mtbench_runner.spending import TYPICAL_REPLY, Estimate, Prices, estimate

TYPICAL_ANSWER = "An answer of common length. " * 45
TYPICAL_ANSWER_TOKENS = 300  # about as many as it has


def answers(
    bench: Bench, model_id: str, candidate: Candidate, prices: Prices | None = None
) -> list[Estimate]:
    """The calls to an endpoint that serves the candidate."""
    missing = missing_answers(bench.answers_file(model_id), answer_keys(bench, candidate))
    asked: list[Conversation] = []
    for question in bench.questions:
        if question["question_id"] in missing:
            asked += conversations(question, candidate.system)
    cap = candidate.max_new_tokens
    return [estimate(f"answers of {model_id}", asked, cap, prices, TYPICAL_ANSWER_TOKENS)]


def conversations(question: Question, system: str | None) -> list[Conversation]:
    """What is sent for each turn of a question, were every answer one of common length."""
    sent = []
    said: list[Outcome] = []
    for _ in question["turns"]:
        sent.append(conversation(question, said, system))
        said.append(Outcome("text", TYPICAL_ANSWER))
    return sent


def judgments(
    bench: Bench, request: Request, judges: Sequence[str], prices: Prices | None
) -> list[Estimate]:
    """The calls to each judge; an answer that is not there yet counts as one of common length."""
    answered = [with_placeholders(bench, model) for model in request.models]
    found = []
    for name in judges:
        asked = []
        for task in judge.pending(bench, request, name, answered):
            for call in task.calls:
                asked.append(call.messages)
        typical = typical_reply(bench, request, name)
        found.append(estimate(f"judgments by {name}", asked, request.cap, prices, typical))
    return found


def with_placeholders(bench: Bench, model_id: str) -> dict[QuestionId, Answer]:
    """The model's answers, one of common length in place of each that lacks."""
    answered = bench.answers(model_id)
    for question in bench.questions:
        answered.setdefault(question["question_id"], placeholder(question))
    return answered


def placeholder(question: Question) -> Answer:
    """An answer of common length to every turn."""
    choice = Choice(index=0, turns=[TYPICAL_ANSWER] * len(question["turns"]))
    return Answer(question_id=question["question_id"], choices=[choice])


def typical_reply(bench: Bench, request: Request, name: str) -> int:
    """Tokens of the judge's replies so far, on the mean; a guess where there are none."""
    path = bench.judgments_file(name, request.mode)
    rows = ledger.read_judgments(path, paired=request.baseline is not None)
    calls_a_row = 2 if request.baseline else 1
    calls = tokens = 0
    for row in rows:
        count = row["usage"]["completion"] if "usage" in row else None
        if count is not None:
            calls += calls_a_row
            tokens += count
    return tokens // calls if calls else TYPICAL_REPLY
