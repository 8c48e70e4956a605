"""FastChat's judges, matches and rating rules, with the calls taken out.

FastChat's code runs twice for each match, both times without a network: first to learn what it
would ask the judge, then, with the judge's replies in hand, to make the row that it would have
written. Between the two lies our own call.
"""

import contextlib
import copy
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast
from unittest import mock

from fastchat.conversation import get_conv_template
from fastchat.llm_judge import common, gen_judgment

from mtbench_runner.bench import Bench, turns_of
from mtbench_runner.endpoint import Call
from mtbench_runner.rows import Answer, AnyJudgment, JudgePrompt, Question, QuestionId
from mtbench_runner.store import InputError

Answers = dict[QuestionId, Answer]
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth")
RATING_FORMAT = re.compile(r"\[\[[^\[\],]+\]\]")
JUDGE_TOKENS = 2048  # FastChat's limit for a judge's reply


class Lacking(str):
    """What stands for a judge prompt that the bench does not have: what to say of it."""


class Match:
    """One of FastChat's matches, the turn that it is about (FastChat knows two), and the answers.

    `answers` are those of the answer files, one a model, even where FastChat sees them folded.
    """

    def __init__(self, match: Any, turn: int, answers: list[Answer]) -> None:
        self.match = match
        self.turn = turn
        self.answers = answers

    @property
    def question_id(self) -> QuestionId:
        return cast(QuestionId, self.match.question["question_id"])


def make_matches(
    bench: Bench,
    models: Sequence[str],
    judge: str,
    answers: Sequence[Answers],
) -> list[Match]:
    """FastChat's matches for every turn of every question that all models answered.

    One model: each answer alone; two: the first against the second. Raises InputError where a judge
    prompt or a reference answer lacks.
    """
    questions = answered_by_all(bench.questions, answers, turn=1)
    plain: list[Question] = []
    with_reference: list[Question] = []
    turns = 0
    for question in questions:
        needs_reference = question["category"] in common.NEED_REF_CATS
        (with_reference if needs_reference else plain).append(question)
        turns = max(turns, len(question["turns"]))
    judges = make_judges(bench, judge, paired=len(models) == 2)
    check_references(bench, with_reference)
    matches = []
    for turn in range(1, turns + 1):
        for name, asked in (("default", plain), ("math", with_reference)):
            at_turn = answered_by_all(asked, answers, turn)
            if at_turn:
                one = judge_for(judges, name, turn)
                matches += matches_of_turn(bench, models, one, at_turn, answers, turn)
    return matches


def answered_by_all(
    questions: Iterable[Question], answers: Sequence[Answers], turn: int
) -> list[Question]:
    """The questions to which every model has an answer at this turn."""
    found = []
    for question in questions:
        if all(answered(question, given, turn) for given in answers):
            found.append(question)
    return found


def judge_for(judges: dict[str, Any], kind: str, turn: int) -> Any:
    """One of FastChat's four judges. Raises InputError where the bench lacks its prompt."""
    judge = judges[kind if turn == 1 else f"{kind}-mt"]
    if isinstance(judge.prompt_template, Lacking):
        raise InputError(str(judge.prompt_template))
    return judge


def matches_of_turn(
    bench: Bench,
    models: Sequence[str],
    judge: Any,
    questions: Sequence[Question],
    answers: Sequence[Answers],
    turn: int,
) -> list[Match]:
    """The matches of one turn by one judge, each with the answers of the answer files."""
    made = _make(bench, models, judge, questions, answers, turn)
    matches = []
    for question, match in zip(questions, made, strict=True):
        given = [answer[question["question_id"]] for answer in answers]
        matches.append(Match(match, turn, given))
    return matches


def answered(question: Question, answers: Answers, turn: int) -> bool:
    """Whether the question has such a turn and there is an answer to it."""
    given = answers.get(question["question_id"])
    turns = turns_of(given) if given else []
    return min(len(question["turns"]), len(turns)) >= turn


class Prompts(dict[str, JudgePrompt]):
    """A bench's judge prompts as FastChat takes them.

    One that lacks is told of when it is needed: a bench of single turns needs no multi-turn prompt.
    Ratings in double brackets are one format to FastChat, whatever word stands in them ([[評価]]).
    """

    def __init__(self, bench: Bench) -> None:
        super().__init__()
        self.of = bench.name
        for name, prompt in bench.prompts.items():
            in_brackets = RATING_FORMAT.fullmatch(prompt["output_format"])
            if prompt["type"] == "single" and in_brackets:
                prompt = {**prompt, "output_format": "[[rating]]"}
            self[name] = prompt

    def __missing__(self, name: str) -> JudgePrompt:
        return Lacking(f"the judge prompts of {self.of} lack {name!r}")  # type: ignore[return-value]


def make_judges(bench: Bench, judge: str, paired: bool) -> dict[str, Any]:
    """FastChat's four judges (default and math, first turn and later ones)."""
    make = gen_judgment.make_judge_pairwise if paired else gen_judgment.make_judge_single
    return cast(dict[str, Any], make(judge, Prompts(bench)))


def check_references(bench: Bench, questions: Sequence[Question]) -> None:
    """Raise InputError if a question that needs a reference answer has none, or too short a one."""
    lacking = []
    for question in questions:
        reference = bench.references.get(question["question_id"])
        turns = turns_of(reference) if reference else []
        if len(turns) < len(question["turns"]):
            lacking.append(question["question_id"])
    if lacking:
        raise InputError(
            f"no reference answer to question {lacking[0]} of {bench.name} "
            f"({len(lacking)} lack one)"
        )


def _make(
    bench: Bench,
    models: Sequence[str],
    judge: Any,
    questions: Sequence[Question],
    answers: Sequence[Answers],
    turn: int,
) -> list[Any]:
    """FastChat's own make_match, on conversations of more than two turns folded into two."""
    template = judge.prompt_template["prompt_template"]
    asked = [fold_question(question, turn) for question in questions]
    by_model: dict[str, Answers] = {}
    for model, given in zip(models, answers, strict=True):
        by_model[model] = fold_all(questions, given, turn, template)
    references: Answers = {}
    if judge.ref_based:
        references = fold_all(questions, bench.references, turn, template, "ref_answer")
    make = gen_judgment.make_match if len(models) == 2 else gen_judgment.make_match_single
    made: list[Any] = make(
        asked,
        [models[0]],
        by_model,
        judge_of_turn(judge, turn),
        models[-1],
        {judge.model_name: references} if judge.ref_based else None,
        multi_turn=turn > 1,
    )
    return made


# --- more than two turns


def fold_question(question: Question, turn: int) -> Question:
    """The question as one of at most two turns: its first, and the one that is judged."""
    if turn == 1:
        return question
    first, judged = question["turns"][0], question["turns"][turn - 1]
    return {**question, "turns": [first, judged]}


def fold_all(
    questions: Sequence[Question], answers: Answers, turn: int, template: str, field: str = "answer"
) -> Answers:
    """The answers to the questions, each folded into at most two turns."""
    folded = {}
    for question in questions:
        identifier = question["question_id"]
        folded[identifier] = fold(question, answers[identifier], turn, template, field)
    return folded


def fold(
    question: Question, answer: Answer, turn: int, template: str, field: str = "answer"
) -> Answer:
    """The answer as one of at most two turns: all turns before the judged one become the first.

    Between them stand the later questions, set apart as the template sets its two turns apart, so
    that the judge reads one conversation in the template's own layout.
    """
    if turn <= 2:
        return answer
    to_answer, to_question = separators(template, field)
    given = turns_of(answer)
    text = given[0]
    for later in range(1, turn - 1):  # the turns between the first and the judged one
        text += to_question + question["turns"][later] + to_answer + given[later]
    choice = {**answer["choices"][0], "turns": [text, given[turn - 1]]}
    return cast(Answer, {**answer, "choices": [choice]})


def separators(template: str, field: str) -> tuple[str, str]:
    """What a template puts between a question and its answer, and between that and the next.

    Raises InputError for a template that does not show question_1, answer_1, question_2 in order.
    """
    name = "ref_answer_1" if field == "ref_answer" else "answer_(?:[ab]_)?1"
    found = re.search(
        rf"\{{question_1\}}([^{{}}]*)\{{{name}\}}([^{{}}]*)\{{question_2\}}", template
    )
    if found is None:
        raise InputError(
            "a bench of more than two turns needs a multi-turn judge prompt that shows "
            "{question_1}, the answer to it and {question_2} in this order"
        )
    return found[1], found[2]


def judge_of_turn(judge: Any, turn: int) -> Any:
    """The judge with "second question" in its system prompt said of the turn that is judged."""
    if turn <= 2:
        return judge
    changed = copy.copy(judge)
    prompt: JudgePrompt = dict(judge.prompt_template)  # type: ignore[assignment]
    ordinal = ORDINALS[turn - 1] if turn <= len(ORDINALS) else "last"
    prompt["system_prompt"] = re.sub(r"\bsecond\b", ordinal, prompt["system_prompt"])
    changed.prompt_template = prompt
    return changed


# --- playing


def play(
    match: Match,
    replies: Sequence[str] = (),
    pattern: re.Pattern[str] | None = None,
    cap: int | None = None,
    temperature: float | None = None,
) -> tuple[AnyJudgment, list[Call]]:
    """The row that FastChat would write, had its judge said `replies` ("" where they end).

    And what it asked. A rating that FastChat cannot read scores -1; `pattern` reads it in place of
    FastChat's [[n]], `cap` and `temperature` replace FastChat's settings of the calls. Raises
    InputError for a judge prompt of a kind that FastChat does not know.
    """
    asked: list[Call] = []
    left = iter(replies)

    def chat_completion(
        model: str, conv: Any, temperature: float, max_tokens: int, api_dict: Any = None
    ) -> str:
        settings = {"temperature": temperature, "max_tokens": max_tokens}
        asked.append(Call(conv.to_openai_api_messages(), settings | changed))
        return next(left, "")

    changed: dict[str, Any] = {}
    if cap is not None:
        changed["max_tokens"] = cap
    if temperature is not None:
        changed["temperature"] = temperature
    row = _play(match, chat_completion, list(replies), pattern)
    row["turn"] = match.turn
    return row, asked


def _play(
    match: Match, chat_completion: Any, replies: list[str], pattern: re.Pattern[str] | None
) -> AnyJudgment:
    """FastChat's row, with `chat_completion` in place of its call to a judge."""
    single = isinstance(match.match, common.MatchSingle)
    play_a_match = common.play_a_match_single if single else common.play_a_match_pair
    try:
        with without_network(match.match.judge.model_name, chat_completion, pattern):
            return cast(AnyJudgment, play_a_match(match.match, None))
    except (SyntaxError, ValueError) as error:
        if not replies:
            name = match.match.judge.prompt_template["name"]
            raise InputError(f"judge prompt {name}: {error}") from None
    except KeyError as error:
        name = match.match.judge.prompt_template["name"]
        raise InputError(f"judge prompt {name} has a place for {error}, unknown here") from None
    # FastChat's literal_eval("08") failed: a judgment without a rating
    empty = _play(match, lambda *_, **__: "", [], pattern)
    if "model" in empty:
        empty["judgment"] = replies[0]
    else:
        empty["g1_judgment"], empty["g2_judgment"] = replies[0], replies[-1]
    return empty


@contextlib.contextmanager
def without_network(
    judge: str, chat_completion: Any, pattern: re.Pattern[str] | None
) -> Iterator[None]:
    """FastChat with our call in place of its own, which is dead since openai 1.0; and silent."""
    stand_ins: dict[str, Any] = {
        "chat_completion_openai": chat_completion,
        "OPENAI_MODEL_LIST": [judge],
        # whatever the judge is called
        "get_conversation_template": lambda name: get_conv_template("chatgpt"),
    }
    if pattern is not None:
        stand_ins["one_score_pattern"] = pattern
        stand_ins["one_score_pattern_backup"] = pattern
    with mock.patch.multiple(common, **stand_ins), contextlib.redirect_stdout(io.StringIO()):
        yield
