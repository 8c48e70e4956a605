"""Rows of files that come from elsewhere: what is not as FastChat writes it is named, never met."""

import json
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtbench_runner import store
from mtbench_runner.__main__ import main
from mtbench_runner.rows import Answer, JudgePrompt, Judgment, PairJudgment, Question, Usage
from mtbench_runner.shapes import fault

from .conftest import write_answers

NAN = float("nan")
JUDGMENT = {
    "question_id": 1, "model": "m", "judge": ["j", "single-v1"], "user_prompt": "p",
    "judgment": "[[7]]", "score": 7, "turn": 1, "tstamp": 0.5,
}  # fmt: skip
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
anything = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, None),
        ({"ours_or_not": [1]}, None),
        ({"score": 7.5}, None),
        ({"question_id": "x"}, None),
        ({"question_id": True}, ", question_id is not a whole number or text"),
        ({"question_id": [1]}, ", question_id is not a whole number or text"),
        ({"score": None}, ", score is not a number"),
        ({"score": "7"}, ", score is not a number"),
        ({"score": NAN}, ", score is not a number"),
        ({"score": float("inf")}, ", score is not a number"),
        ({"turn": 1.0}, ", turn is not a whole number"),
        ({"judge": "j"}, ", judge is not a list"),
        ({"judge": ["j", {}]}, ", judge[1] is not text"),
        ({"usage": 5}, ", usage is not an object"),
        ({"usage": {"prompt": 3}}, ", usage: no completion"),
        ({"usage": {"prompt": None, "completion": "4"}},
         ", usage, completion is not a whole number or null"),
        ({"finish_reasons": ["stop", None]}, None),
        ({"finish_reasons": 0}, ", finish_reasons is not a list"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_row_is_named(changed: Any, expected: str | None) -> None:
    assert fault(JUDGMENT | changed, Judgment) == expected
    assert fault({**JUDGMENT, "vote": 2, "settings": {"a": []}}, Judgment) is None
    assert fault({"question_id": 1}, Judgment) == ": no model"
    assert fault([1], Judgment) == " is not an object"


@given(anything, st.sampled_from([Answer, Judgment, PairJudgment, Question, JudgePrompt, Usage]))
def test_any_value_has_a_verdict(value: Any, kind: Any) -> None:
    found = fault(value, kind)
    assert found is not None or set(get_type_hints(kind)) & set(value)


FILES = [
    ("model_answer/m.jsonl", ("choices", 0, "finish_reasons"), -1),
    ("model_answer/m.jsonl", ("choices", 0, "finish_reasons"), ["stop"]),  # of two turns
    ("model_answer/m.jsonl", ("choices",), []),
    ("model_answer/m.jsonl", ("tstamp",), "today"),
    ("model_judgment/j_single.jsonl", ("score",), {"a": 1}),
    ("model_judgment/j_single.jsonl", ("judge",), ["j"]),
    ("model_judgment/j_single.jsonl", ("judge", 1), {}),
    ("model_judgment/j_single.jsonl", ("usage",), "many"),
    ("model_judgment/j_single.jsonl.votes", ("vote",), "two"),
    ("model_judgment/j_single.jsonl.votes", ("score",), float("inf")),
    ("judge_prompts.jsonl", ("name",), {}),
    ("judge_prompts.jsonl", ("prompt_template",), {}),
    ("judge_prompts.jsonl", ("type",), "triple"),
    ("reference_answer/reference.jsonl", ("question_id",), {"a": 1}),
]


@pytest.fixture
def judged(judge: Any, bench: Path) -> Path:
    """The demo bench, its model judged twice."""
    named = ["--data", str(bench), "--model-id", "m", "--judge-model", "j"]
    assert main(["judge", *named, "--votes", "2", "--questions", "1"]) == 0
    return bench


@pytest.mark.parametrize(("file", "path", "value"), FILES)
def test_a_row_that_is_none_is_one_line_that_names_it(
    file: str, path: tuple[Any, ...], value: Any, judged: Path, capsys: Any
) -> None:
    rows = store.read(judged / file)
    place: Any = rows[0]
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    (judged / file).write_text("".join(json.dumps(row) + "\n" for row in rows))
    capsys.readouterr()
    named = ["--data", str(judged), "--model-id", "m", "--judge-model", "j"]
    assert main(["score", *named, "--rating", "strict"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {judged / file}")
    assert error.count("\n") == 1


def test_half_a_surrogate_pair_and_a_byte_order_mark_in_a_file(judge: Any, bench: Path) -> None:
    write_answers(bench, "m", "Half \ud800 a pair.")
    question = bench / "question.jsonl"
    question.write_bytes(b"\xef\xbb\xbf" + question.read_bytes())
    named = ["--data", str(bench), "--model-id", "m", "--judge-model", "j"]
    assert main(["judge", *named, "--prices", "1", "1", "--max-cost", "9"]) == 0
    assert main(["score", *named]) == 0
