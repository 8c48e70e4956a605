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

TYPICAL_ANSWER = "An answer of common length. " * 45  # about 300 tokens


def answers(
    bench: Bench, model_id: str, candidate: Candidate, prices: Prices | None = None
) -> list[Estimate]:
    """The calls to an endpoint that serves the candidate."""
    missing = missing_answers(bench.answers_file(model_id), answer_keys(bench, candidate))
    asked: list[Conversation] = []
    for question in bench.questions:
        if question["question_id"] in missing:
            said: list[Outcome] = []
            for _ in question["turns"]:
                asked.append(conversation(question, said, candidate.system))
                said.append(Outcome("text", TYPICAL_ANSWER))
    return [estimate(f"answers of {model_id}", asked, candidate.max_new_tokens, prices, 300)]


def judgments(
    bench: Bench, request: Request, judges: Sequence[str], prices: Prices | None
) -> list[Estimate]:
    """The calls to each judge; an answer that is not there yet counts as one of common length."""
    answered = [with_placeholders(bench, model) for model in request.models]
    found = []
    for name in judges:
        asked = []
        for task in judge.pending(bench, request, name, answered):
            asked += [call.messages for call in task.calls]
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
    choice = Choice(index=0, turns=[TYPICAL_ANSWER for _ in question["turns"]])
    return Answer(question_id=question["question_id"], choices=[choice])


def typical_reply(bench: Bench, request: Request, name: str) -> int:
    """Tokens of the judge's replies so far, on the mean; a guess where there are none."""
    path = bench.judgments_file(name, request.mode)
    rows = ledger.read_judgments(path, paired=request.baseline is not None)
    counts = [row["usage"]["completion"] for row in rows if "usage" in row]
    known = [count for count in counts if count is not None]
    calls = len(known) * (2 if request.baseline else 1)
    return sum(known) // calls if calls else TYPICAL_REPLY
