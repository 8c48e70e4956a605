"""Stage `judge`: FastChat's own judges, matches and rating rule, over any OpenAI-compatible endpoint.

FastChat's code runs twice for each match, both times without a network: first to learn what it would ask the judge,
then, with the judge's reply in hand, to make the row that it would have written. Between the two lies our own call.
"""

import asyncio
import contextlib
import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mtbench_runner import store
from mtbench_runner.bench import Bench, Row
from mtbench_runner.endpoint import Caller, CallError, Endpoint, Messages, Reply, complete_all
from mtbench_runner.generate import strip_thinking
from mtbench_runner.score import answer_sha256
from mtbench_runner.store import IncompleteError, InputError

SETTINGS = {"temperature": 0, "max_tokens": 2048}  # FastChat's, for OpenAI judges


def judge(bench: Bench, model_id: str, endpoint: Endpoint) -> None:
    """Judge every turn of a model that is not judged yet. Raises IncompleteError with the count of failed calls."""
    matches = single_matches(bench, model_id, endpoint.model)
    path = bench.judgments_file(endpoint.model)
    with store.locked(path):
        wanted = {identity(play(match, []), bench): match for match in matches}
        done = settle(path, {model_id}, set(wanted), bench)
        pending = [match for key, match in wanted.items() if key not in done]
        if pending:
            asyncio.run(_judge(bench, path, pending, endpoint, f"judging {model_id}"))


async def _judge(bench: Bench, path: Path, matches: list[Any], endpoint: Endpoint, title: str) -> None:
    caller = Caller(endpoint, SETTINGS)
    errors: list[str] = []
    tokens = judged = 0
    with tqdm(total=len(matches), desc=title, unit="judgment") as bar:
        async for index, outcome in complete_all(caller, (requests(match) for match in matches)):
            if isinstance(outcome, CallError):
                errors.append(str(outcome))
            else:
                store.append(path, _row(matches[index], outcome, bench))
                tokens += sum(sum(reply.usage.values()) for reply in outcome)
                judged += 1
            bar.update()
            bar.set_postfix(errors=len(errors), tokens=tokens)
    if judged < len(matches):
        raise IncompleteError(
            f"{len(matches) - judged} of {len(matches)} judgments are missing ({errors[0]}); "
            "what succeeded is kept, run the same command again for the rest"
        )


def single_matches(bench: Bench, model_id: str, judge_model: str) -> list[Any]:
    """FastChat's matches of one model: turn 1 of every question, turn 2 where there is one. Raises InputError."""
    from fastchat.llm_judge.common import NEED_REF_CATS
    from fastchat.llm_judge.gen_judgment import make_judge_single, make_match_single

    answers = bench.answers(model_id)
    unanswered = [q["question_id"] for q in bench.questions if q["question_id"] not in answers]
    if unanswered:
        raise InputError(
            f"{model_id} has no answer to {len(unanswered)} questions (first: {unanswered[0]}); run the answer stage"
        )
    try:
        judges = make_judge_single(judge_model, bench.prompts)
    except KeyError as error:
        raise InputError(f"the judge prompts of {bench.name} lack {error}") from None
    groups = {
        name: [q for q in bench.questions if (q["category"] in NEED_REF_CATS) == (name == "math")]
        for name in ("default", "math")
    }
    lacking = [q["question_id"] for q in groups["math"] if q["question_id"] not in bench.references]
    if lacking:
        raise InputError(f"no reference answer to question {lacking[0]} of {bench.name} ({len(lacking)} lack one)")
    matches = []
    for multi_turn in (False, True):
        for name, questions in groups.items():
            matches += make_match_single(
                questions,
                [model_id],
                {model_id: answers},
                judges[name + "-mt" * multi_turn],
                ref_answers={judge_model: bench.references} if name == "math" else None,
                multi_turn=multi_turn,
            )
    return matches


def requests(match: Any) -> list[Messages]:
    """What FastChat would send to the judge for this match."""
    with _fastchat(match, []) as (play_a_match, asked):
        play_a_match(match, None)
    return asked


def play(match: Any, replies: list[str]) -> Row:
    """The row that FastChat would write, had its judge said `replies`. A rating it cannot read scores -1."""
    with _fastchat(match, replies) as (play_a_match, _):
        try:
            return dict(play_a_match(match, None))
        except (SyntaxError, ValueError):  # its literal_eval("08")
            pass
    return play(match, []) | {"judgment": replies[0]}


@contextlib.contextmanager
def _fastchat(match: Any, replies: list[str]) -> Iterator[tuple[Any, list[Messages]]]:
    """FastChat's play_a_match for this match, with its dead OpenAI call replaced by `replies` ("" where they end)."""
    from fastchat.conversation import get_conv_template
    from fastchat.llm_judge import common

    asked: list[Messages] = []

    def chat_completion(model: str, conv: Any, temperature: float, max_tokens: int, api_dict: Any = None) -> str:
        asked.append(conv.to_openai_api_messages())
        return replies[len(asked) - 1] if len(asked) <= len(replies) else ""

    patches = {
        "chat_completion_openai": chat_completion,
        "OPENAI_MODEL_LIST": [match.judge.model_name],
        "get_conversation_template": lambda name: get_conv_template("chatgpt"),  # whatever the judge is called
    }
    originals = {name: getattr(common, name) for name in patches}
    try:
        for name, value in patches.items():
            setattr(common, name, value)
        with contextlib.redirect_stdout(io.StringIO()):
            yield common.play_a_match_single, asked
    finally:
        for name, value in originals.items():
            setattr(common, name, value)


def _row(match: Any, replies: list[Reply], bench: Bench) -> Row:
    row = play(match, [strip_thinking(reply.text) for reply in replies])
    usage = {kind: sum(reply.usage.get(kind, 0) for reply in replies) for kind in ("prompt", "completion")}
    return row | {
        "key": content_key(row, bench),
        "answer_sha256": answer_sha256(match.answer, row["turn"]),
        "usage": usage,
        "settings": replies[0].settings,
    }


def content_key(row: Row, bench: Bench) -> str:
    """A hash of everything the judge was shown; also for a row that FastChat itself wrote."""
    system = bench.prompts.get(row["judge"][1], {}).get("system_prompt", "")
    return row.get("key") or hashlib.sha256((system + "\0" + row["user_prompt"]).encode()).hexdigest()


def identity(row: Row, bench: Bench) -> tuple[Any, ...]:
    return (row["question_id"], row["turn"], row["model"], *row["judge"], content_key(row, bench))


def settle(path: Path, models: set[str], wanted: set[tuple[Any, ...]], bench: Bench) -> set[tuple[Any, ...]]:
    """Make the file hold, of these models, one row for each wanted judgment that was ever made; return what it holds.

    Rows that no longer apply (a changed answer, FastChat's $ERROR$ rows, duplicates) move to <file>.superseded, so
    that FastChat's show_result averages only what counts; one that applies again moves back, unasked.
    """
    attic = path.with_name(path.name + ".superseded")
    rows, old = store.read(path), store.read(attic)
    known = {identity(row, bench): row for row in old + rows if row["judgment"] != "$ERROR$"}
    current = {key: row for key, row in known.items() if key in wanted}
    others = [row for row in rows if row["model"] not in models]
    kept = [row for row in rows if row in others or current.get(identity(row, bench)) == row]
    back = [row for row in current.values() if row not in kept]
    if len(kept) < len(rows) or back:
        for row in rows:
            if row not in kept and row not in old:
                store.append(attic, row)
        store.write_whole(path, "".join(json.dumps(row) + "\n" for row in kept + back).encode())
    return set(current)
