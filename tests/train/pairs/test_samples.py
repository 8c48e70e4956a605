"""lm-eval's sample files: several replies a question, and files that belong to another run."""

import json
from pathlib import Path
from typing import Any

import pytest

from tatqa_task import prompt
from tatqa_task.types import Context, Form, Question
from train.pairs.samples import Replies, read
from train.recipe import RecipeError

QUESTION = Question("q", "How much? ", ["5"], "span", "table", "", "", 1)
CONTEXT = Context("c", [["5"]], [], [QUESTION])


def line(*replies: str, form: Form | None = None, **more: Any) -> str:
    sample: dict[str, Any] = {"doc": {"uid": "q", "question": "How much? "}, "resps": [replies]}
    if form:
        sample["arguments"] = {
            "gen_args_0": {"arg_0": prompt.user_message(CONTEXT, QUESTION, form)}
        }
    return json.dumps({**sample, **more}) + "\n"


def write(folder: Path, name: str, content: str) -> list[str]:
    (folder / name).write_text(content)
    return [str(folder / "samples_*.jsonl")]


def test_replies_of_all_files_are_counted(tmp_path: Path) -> None:
    write(tmp_path, "samples_a_1.jsonl", line("x", "y", "x"))
    patterns = write(tmp_path, "samples_b_2.jsonl", line("y", "y", "z"))
    replies = read(patterns, "direct", None)
    assert replies["q"].counts == {"x": 2, "y": 3, "z": 1}
    assert replies["q"].most_frequent() == ["y", "x", "z"]


def test_two_stars_find_files_in_any_folder(tmp_path: Path) -> None:
    folder = tmp_path / "model" / "inner"
    folder.mkdir(parents=True)
    write(folder, "samples_a_1.jsonl", line("x"))
    assert "q" in read([str(tmp_path / "**" / "samples_*.jsonl")], "direct", None)


def test_of_equals_the_first_given_comes_first() -> None:
    assert Replies({"b": 1, "a": 1, "c": 2}).most_frequent() == ["c", "b", "a"]


@pytest.mark.parametrize(
    "content",
    ['{"doc": 3}\n', "{", "[]\n", line(3), '{"doc": {"uid": "q"}, "resps": []}\n'],  # type: ignore[arg-type]
)
def test_what_is_no_sample_is_named_by_file_and_line(content: str, tmp_path: Path) -> None:
    patterns = write(tmp_path, "samples_a_1.jsonl", line("x") + content)
    with pytest.raises(RecipeError, match=r"samples_a_1.jsonl:2: not a sample of lm_eval"):
        read(patterns, "direct", None)


@pytest.mark.parametrize("form", ["direct", "calc"])
def test_no_file_names_the_task_to_run(form: Form, tmp_path: Path) -> None:
    task = {"direct": "--tasks tatqa_train ", "calc": "--tasks tatqa_calc_train "}[form]
    with pytest.raises(RecipeError, match=rf"samples: nothing matches .*{task}"):
        read([str(tmp_path / "samples_*.jsonl")], form, None)


def test_samples_of_another_form_are_refused(tmp_path: Path) -> None:
    for asked in ("direct", "cot", "calc"):
        patterns = write(tmp_path, "samples_a_1.jsonl", line("x", form=asked))
        for wanted in ("direct", "calc"):
            if asked == wanted:
                assert "q" in read(patterns, wanted, None)
            else:
                with pytest.raises(RecipeError, match=r"jsonl:1: asked in another form"):
                    read(patterns, wanted, None)


def test_samples_of_another_prompt_version_are_refused(tmp_path: Path) -> None:
    old = prompt.user_message(CONTEXT, QUESTION).replace("one line of JSON", "a line of JSON")
    patterns = write(tmp_path, "samples_a_1.jsonl", line("x", arguments={"a": {"b": old}}))
    with pytest.raises(RecipeError, match="another version's prompt"):
        read(patterns, "direct", None)


def test_chat_messages_are_read(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": prompt.user_message(CONTEXT, QUESTION)}]
    arguments = {"gen_args_0": {"arg_0": [json.dumps(messages)]}}
    patterns = write(tmp_path, "samples_a_1.jsonl", line("x", arguments=arguments))
    assert "q" in read(patterns, "direct", None)
    with pytest.raises(RecipeError, match="asked in another form"):
        read(patterns, "calc", None)


@pytest.mark.parametrize(
    "model_args", ["pretrained=org/base,dtype=float32", {"pretrained": "org/base", "peft": "a"}]
)
def test_samples_of_another_base_are_refused(model_args: object, tmp_path: Path) -> None:
    patterns = write(tmp_path, "samples_tatqa_train_span_2026-11-25T1.jsonl", line("x"))
    results = json.dumps({"config": {"model_args": model_args}})
    (tmp_path / "results_2026-11-25T1.json").write_text(results)
    assert "q" in read(patterns, "direct", "org/base")
    assert "q" in read(patterns, "direct", None)
    with pytest.raises(RecipeError, match=r"replies of org/base, but model_name_or_path is other"):
        read(patterns, "direct", "other")


def test_a_base_is_the_same_under_two_paths(tmp_path: Path) -> None:
    patterns = write(tmp_path, "samples_a_1.jsonl", line("x"))
    (tmp_path / "base").mkdir()
    args = {"pretrained": str(tmp_path / "base")}
    (tmp_path / "results_1.json").write_text(json.dumps({"config": {"model_args": args}}))
    assert "q" in read(patterns, "direct", f"{tmp_path}/base/../base/")


@pytest.mark.parametrize("results", ["{", "[]", '{"config": {"model_args": {"model": "served"}}}'])
def test_results_that_name_no_base_refuse_nothing(results: str, tmp_path: Path) -> None:
    patterns = write(tmp_path, "samples_a_1.jsonl", line("x"))
    (tmp_path / "results_1.json").write_text(results)
    assert "q" in read(patterns, "direct", "other")
