"""Stages `judge` and `pairwise`: FastChat's judges, matches and rating rules, over any OpenAI-compatible endpoint.

FastChat's code runs twice for each match, both times without a network: first to learn what it would ask the judge,
then, with the judge's replies in hand, to make the row that it would have written. Between the two lies our own call.
"""

import contextlib
import io
import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from fastchat.conversation import get_conv_template
from fastchat.llm_judge import common, gen_judgment
from tqdm import tqdm

from mtbench_runner import store
from mtbench_runner.bench import Bench
from mtbench_runner.endpoint import Call, CallError, Endpoint, Reply, complete_all
from mtbench_runner.generate import strip_thinking
from mtbench_runner.score import answer_sha256, models_of
from mtbench_runner.store import IncompleteError, InputError, Row

Identity = tuple[Any, ...]
PROMPTS_SHOWN = (
    "user_prompt",
    "g1_user_prompt",
    "g2_user_prompt",
)  # in FastChat's rows, single and pairwise


def judge(bench: Bench, model_id: str, endpoint: Endpoint, baseline: str | None = None) -> None:
    """Judge what is not judged yet: each turn of a model, or each turn of it against a baseline, in both orders.

    Raises InputError, or IncompleteError with the number of failed calls, which leave no row.
    """
    matches = make_matches(bench, model_id, endpoint.model, baseline)
    path = bench.judgments_file(endpoint.model, "pair" if baseline else "single")
    with store.locked(path):
        wanted = {identity(play(match)[0], bench): match for match in matches}
        done = settle(path, wanted.keys(), bench)
        pending = [match for key, match in wanted.items() if key not in done]
        if pending:
            _judge(bench, path, pending, endpoint)


def _judge(bench: Bench, path: Path, matches: list[Any], endpoint: Endpoint) -> None:
    errors: list[CallError] = []
    tokens = 0
    with tqdm(total=len(matches), desc=path.stem, unit="judgment") as bar:
        for index, outcome in complete_all(endpoint, [play(match)[1] for match in matches]):
            if isinstance(outcome, CallError):
                errors.append(outcome)
            else:
                row = _row(matches[index], outcome, bench)
                store.append(path, row)
                tokens += sum(row["usage"].values())
            bar.set_postfix(errors=len(errors), tokens=tokens, refresh=False)
            bar.update()
    if errors:
        raise IncompleteError(
            f"{len(errors)} of {len(matches)} judgments are missing ({errors[0]}); "
            "what succeeded is kept, run the same command again for the rest"
        )


def make_matches(
    bench: Bench, model_id: str, judge_model: str, baseline: str | None = None
) -> list[Any]:
    """FastChat's matches: turn 1 of every question, turn 2 where there is one. Raises InputError if something lacks."""
    answers = {name: bench.answers(name) for name in (model_id, baseline) if name}
    for name, given in answers.items():
        if lacking := [q["question_id"] for q in bench.questions if q["question_id"] not in given]:
            where = f"({lacking[0]} ...) in {bench.answers_file(name)}"
            raise InputError(
                f"{name} has no answer to {len(lacking)} questions {where}; run the answer stage"
            )
    make = gen_judgment.make_match if baseline else gen_judgment.make_match_single
    make_judge = gen_judgment.make_judge_pairwise if baseline else gen_judgment.make_judge_single
    try:
        judges = make_judge(judge_model, bench.prompts)
    except KeyError as error:
        raise InputError(f"the judge prompts of {bench.name} lack {error}") from None
    math = [q for q in bench.questions if q["category"] in common.NEED_REF_CATS]
    if lacking := [q["question_id"] for q in math if q["question_id"] not in bench.references]:
        raise InputError(
            f"no reference answer to question {lacking[0]} of {bench.name} ({len(lacking)} lack one)"
        )
    plain = [q for q in bench.questions if q not in math]
    references = {judge_model: bench.references}
    return [
        *make(plain, [model_id], answers, judges["default"], baseline),
        *make(math, [model_id], answers, judges["math"], baseline, references),
        *make(plain, [model_id], answers, judges["default-mt"], baseline, multi_turn=True),
        *make(math, [model_id], answers, judges["math-mt"], baseline, references, multi_turn=True),
    ]


def play(match: Any, replies: Sequence[str] = ()) -> tuple[Row, list[Call]]:
    """The row that FastChat would write, had its judge said `replies` ("" where they end), and what it asked.

    A rating that FastChat cannot read scores -1. Raises InputError for a judge prompt of a kind that it does not know.
    """
    asked: list[Call] = []
    left = iter(replies)

    def chat_completion(
        model: str, conv: Any, temperature: float, max_tokens: int, api_dict: Any = None
    ) -> str:
        asked.append(
            (conv.to_openai_api_messages(), {"temperature": temperature, "max_tokens": max_tokens})
        )
        return next(left, "")

    stand_ins = mock.patch.multiple(
        common,
        chat_completion_openai=chat_completion,  # FastChat's own is dead since openai 1.0
        OPENAI_MODEL_LIST=[match.judge.model_name],
        get_conversation_template=lambda name: get_conv_template(
            "chatgpt"
        ),  # whatever the judge is called
    )
    play_a_match = (
        common.play_a_match_single
        if isinstance(match, common.MatchSingle)
        else common.play_a_match_pair
    )
    try:
        with stand_ins, contextlib.redirect_stdout(io.StringIO()):
            return play_a_match(match, None), asked
    except (SyntaxError, ValueError) as error:
        if not replies:
            raise InputError(
                f"judge prompt {match.judge.prompt_template['name']}: {error}"
            ) from None
        return play(match)[0] | {"judgment": replies[0]}, asked  # its literal_eval("08") failed


def _row(match: Any, replies: list[Reply], bench: Bench) -> Row:
    row, _ = play(match, [strip_thinking(reply.text) for reply in replies])
    answers = [match.answer] if "model" in row else [match.answer_1, match.answer_2]
    return row | {
        "key": content_key(row, bench),
        "answer_sha256": answer_sha256(answers, row["turn"]),
        "usage": {
            kind: sum(reply.usage.get(kind, 0) for reply in replies)
            for kind in ("prompt", "completion")
        },
        "settings": replies[0].settings,
    }


def content_key(row: Row, bench: Bench) -> str:
    """A hash of everything the judge was shown; also for a row that FastChat itself wrote."""
    shown = [
        bench.prompts.get(row["judge"][1], {}).get("system_prompt"),
        *(row.get(name) for name in PROMPTS_SHOWN),
    ]
    return row.get("key") or store.digest(shown)


def identity(row: Row, bench: Bench) -> Identity:
    """What makes a judgment the same judgment: the models, question, turn, judge, its prompt, and the answers."""
    return (
        tuple(models_of(row)),
        row["question_id"],
        row["turn"],
        *row["judge"],
        content_key(row, bench),
    )


def settle(path: Path, wanted: Collection[Identity], bench: Bench) -> set[Identity]:
    """Make the file hold one row for each wanted judgment that was ever made; return those that it holds.

    Rows of the same models that no longer apply (a changed answer, FastChat's $ERROR$ rows, duplicates) move to
    <file>.superseded, so that FastChat's show_result averages only what counts; one that applies again moves back.
    """
    attic = path.with_name(path.name + ".superseded")
    rows, old = store.read(path), store.read(attic)
    valid = [
        row for row in old + rows if "$ERROR$" not in (row.get("judgment"), row.get("g1_judgment"))
    ]
    made = {identity(row, bench): row for row in valid}
    current = {key: made[key] for key in wanted if key in made}
    models, ids = {key[0] for key in wanted}, {id(row) for row in current.values()}
    kept = [row for row in rows if id(row) in ids or tuple(models_of(row)) not in models]
    back = [row for row in old if id(row) in ids]
    if back or len(kept) < len(rows):
        for row in rows:
            if row not in kept and row not in old:
                store.append(attic, row)
        store.write_whole(path, "".join(json.dumps(row) + "\n" for row in kept + back).encode())
    return set(current)
