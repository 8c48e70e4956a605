"""What the YAMLs name: documents, the context budget, few-shot examples, results.

And the YAMLs themselves.
"""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import yaml

import tatqa_task
from tatqa_task import answer, data, harness, task_files
from tatqa_task.prompt import user_message
from tatqa_task.types import FORMS

TASKS = Path(tatqa_task.__file__).parent / "tasks"


@pytest.fixture(autouse=True)
def _synthetic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TATQA_DATA", "synthetic")


def test_documents_keep_the_question_and_its_context() -> None:
    for context in data.load("validation", "synthetic")[:5]:
        docs = [doc for doc in harness.documents("validation") if doc["context_uid"] == context.uid]
        assert [harness.doc_to_text(doc) for doc in docs] == [
            user_message(context, q) for q in context.questions
        ]
        assert [harness._question(doc) for doc in docs] == context.questions


def test_a_dataset_holds_one_answer_type_in_order() -> None:
    made = harness.dataset("validation", "count", version=1, pretrained="x", config_source="y")
    assert list(made) == ["validation"]
    found = made["validation"]
    assert found["uid"] == [
        doc["uid"] for doc in harness.documents("validation") if doc["answer_type"] == "count"
    ]


def test_a_type_without_questions_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    (tmp_path / data.FILES["test"][0]).write_text("[]")
    monkeypatch.setenv("TATQA_DATA", str(tmp_path))
    with pytest.raises(SystemExit) as stopped:
        harness.dataset("test", "count")
    assert stopped.value.code == 2
    assert (
        capsys.readouterr().err
        == "error: the test data has no question of type count; leave this subtask out\n"
    )


def test_context_budget_is_kept_and_logged(
    tiny_base: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_base)

    def lengths(docs: Any) -> list[int]:
        return [len(tokenizer(harness.doc_to_text(doc))["input_ids"]) for doc in docs]

    whole = harness.dataset("validation", "span")["validation"]
    budget = sorted(lengths(whole))[len(whole) // 2]
    with caplog.at_level(logging.WARNING, "lm-eval"):
        fitted = harness.dataset(
            "validation", "span", context_budget=budget, pretrained=str(tiny_base)
        )["validation"]
    assert fitted["uid"] == whole["uid"]
    assert fitted["table"] == whole["table"]
    cut = [len(a) - len(b) for a, b in zip(whole["paragraphs"], fitted["paragraphs"], strict=True)]
    over = sum(length > budget for length in lengths(fitted))
    assert caplog.messages[-1] == (
        f"context budget of {budget} tokens: {sum(cut)} paragraphs dropped from "
        f"{sum(map(bool, cut))} of {len(whole)} "
        f"prompts; {over} are longer even without text"
    )
    assert sum(map(bool, cut)) == sum(length > budget for length in lengths(whole)) > 0
    pairs = zip(fitted["paragraphs"], lengths(fitted), strict=True)
    assert all(kept == [] for kept, length in pairs if length > budget)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"context": 3}, "no setting is called 'context'; did you mean 'contexts'?"),
        ({"context-budget": 300}, "did you mean 'context_budget'?"),
        ({"thinking": "no"}, "thinking must be true or false, found 'no'"),
        ({"allow_cut": "false"}, "allow_cut must be true or false, found 'false'"),
        ({"contexts": 3, "seed": [1]}, "seed must be a whole number, found [1]"),
    ],
)
def test_settings_that_are_none_are_one_line(
    settings: dict[str, Any], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        harness.dataset("validation", "count", **settings)
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert told in line


def test_settings_of_a_model_are_no_misspelt_ones() -> None:
    """What `--model_args` may hold goes the same way."""
    names = ("pretrained", "enable_thinking", "max_length", "think_end_token", "device", "model")
    settings: dict[str, Any] = dict.fromkeys(names)
    harness.dataset("validation", "count", "direct", version=3.0, **settings)


def test_context_budget_needs_a_tokenizer(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        harness.dataset("validation", "span", context_budget=100)
    assert capsys.readouterr().err.startswith("error: context_budget needs a tokenizer: give ")


def test_context_budget_of_another_kind(
    tiny_base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        harness.dataset("validation", "span", context_budget="many", pretrained=str(tiny_base))
    assert (
        capsys.readouterr().err
        == "error: context_budget must be a number of tokens, found 'many'\n"
    )


def test_a_model_of_512_tokens_is_refused(
    tiny_base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """lm-eval would keep the last 256 tokens of a prompt, without the instruction."""
    short: dict[str, Any] = {"pretrained": str(tiny_base), "max_length": "512"}
    with pytest.raises(SystemExit, match="2"):
        harness.dataset("validation", "count", **short)
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "prompts are longer than the 224 tokens that this model has for them, " in line
    allowed = harness.dataset("validation", "count", allow_cut=True, **short)["validation"]
    assert allowed["uid"] == harness.dataset("validation", "count")["validation"]["uid"]


def test_the_budget_that_is_named_lets_the_run_begin(
    tiny_base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """740 tokens less 256 of a reply and 32 of a chat template."""
    short: dict[str, Any] = {"pretrained": str(tiny_base), "max_length": "740"}
    for more in ({}, {"context_budget": 460}):
        with pytest.raises(SystemExit, match="2"):
            harness.dataset("validation", "count", form="calc", **short, **more)
        assert (
            """drop paragraphs with --metadata '{"context_budget": 452}'"""
            in capsys.readouterr().err
        )
    fitted = harness.dataset("validation", "count", form="calc", context_budget=452, **short)
    whole = harness.dataset("validation", "count", form="calc")
    assert fitted["validation"]["table"] == whole["validation"]["table"]
    assert fitted["validation"]["paragraphs"] != whole["validation"]["paragraphs"]


def test_examples_depend_on_seed_and_question_alone() -> None:
    docs = harness.documents("validation")[:20]
    first, again, other = (harness.Examples().set_rnd(seed) for seed in (1234, 1234, 5))
    drawn = [first.sample(3, doc) for doc in docs]
    assert [again.sample(3, doc) for doc in reversed(docs)] == drawn[::-1]
    assert [other.sample(3, doc) for doc in docs] != drawn
    assert len({doc["uid"] for examples in drawn for doc in examples}) > 40
    assert len({doc["answer_type"] for examples in drawn for doc in examples}) == 4


def test_examples_never_come_from_the_context_that_is_asked_about(
    tmp_path: Path, monkeypatch: Any
) -> None:
    from tatqa_task import synthetic

    (tmp_path / data.FILES["train"][0]).write_text(json.dumps(synthetic.generate("train", 6)))
    monkeypatch.setenv("TATQA_DATA", str(tmp_path))
    for doc in harness.documents("train"):
        examples = harness.Examples().set_rnd(1).sample(5, doc)
        assert len(examples) == 5
        assert doc["context_uid"] not in {example["context_uid"] for example in examples}


def test_examples_that_cannot_be_had_are_one_line(
    tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    from tatqa_task import synthetic

    doc = harness.documents("validation")[0]
    monkeypatch.setenv("TATQA_DATA", str(tmp_path))
    with pytest.raises(SystemExit, match="2"):
        harness.Examples().set_rnd(1).sample(2, doc)
    (tmp_path / data.FILES["train"][0]).write_text(json.dumps(synthetic.generate("train", 1)))
    with pytest.raises(SystemExit, match="2"):
        harness.Examples().set_rnd(1).sample(7, doc)
    missing, few = capsys.readouterr().err.splitlines()
    assert missing.startswith(f"error: {tmp_path / data.FILES['train'][0]} is missing")
    reason = "6 questions of other contexts, fewer than the 7 examples asked"
    assert few == f"error: the train data has {reason}"


def test_zero_shot_needs_no_training_file(tmp_path: Path, monkeypatch: Any) -> None:
    from lm_eval.tasks import TaskManager, get_task_dict

    from tatqa_task import synthetic

    (tmp_path / data.FILES["validation"][0]).write_text(
        json.dumps(synthetic.generate("validation", 30))
    )
    monkeypatch.setenv("TATQA_DATA", str(tmp_path))
    tasks = get_task_dict(["tatqa_span"], TaskManager())
    assert len(tasks["tatqa_span"].eval_docs) > 50


@pytest.mark.parametrize("kind", ["span", "multi-span", "arithmetic", "count"])
def test_the_target_scores_full_marks(kind: str) -> None:
    for doc in harness.dataset("validation", kind)["validation"]:
        for form in FORMS:
            asked = doc | {"form": form}
            found = harness.process_results(asked, [harness.doc_to_target(asked)])
            names = ("em", "em_strict", "f1", "scale_em", "parsed")
            assert [found[name] for name in names] == [1, 1, 1, 1, 1]
            assert found.get("calc_used", 0) == (form == "calc" and kind == "arithmetic")


def test_results_of_a_reply() -> None:
    doc = next(
        doc
        for doc in harness.documents("validation")
        if doc["answer_type"] == "arithmetic" and doc["scale"]
    )
    gold = json.loads(doc["answer"])
    assert harness.process_results(doc, [f"Answer: {gold}"]) == {
        "em": 0.0, "em_strict": 0.0, "f1": 0.0, "scale_em": 0.0, "parsed": 0.0, "lenient_em": 1.0,
    }  # fmt: skip
    assert set(harness.process_results(doc, [""]).values()) == {0.0}


def test_a_reply_may_be_as_long_as_any_gold_answer(
    shared_or_synthetic: list[data.Question],
) -> None:
    """max_gen_toks leaves room for the longest gold reply, at three characters a token."""
    longest = max(len(answer.render(q.answer, q.scale)) for q in shared_or_synthetic)
    assert task_files.MAX_GEN_TOKS["direct"] > longest / 3


@pytest.fixture
def shared_or_synthetic() -> list[data.Question]:
    return [
        q
        for split in data.FILES
        for context in data.load(split, "synthetic")
        for q in context.questions
    ]


def test_the_installed_tasks_are_these() -> None:
    """Editable installs hold a copy of the task files.

    After a change of one, run pip install --no-deps -e . again.
    """
    import lm_eval

    installed = Path(lm_eval.__file__).parent / "tasks" / "tatqa"
    assert {file.name: file.read_text() for file in installed.iterdir() if file.is_file()} == {
        file.name: file.read_text() for file in TASKS.iterdir()
    }


class _Loader(yaml.SafeLoader):
    """Reads a task file without importing what it names."""


_Loader.add_constructor("!function", lambda loader, node: str(node.value))


def test_the_task_files_are_those_of_the_table() -> None:
    assert {file.name: file.read_text() for file in TASKS.iterdir()} == task_files.files()


def test_a_group_has_a_task_for_each_type() -> None:
    group = yaml.safe_load((TASKS / "tatqa_calc_test.yaml").read_text())
    assert group["task"] == [
        "tatqa_calc_test_span",
        "tatqa_calc_test_multi_span",
        "tatqa_calc_test_arithmetic",
        "tatqa_calc_test_count",
    ]
    assert [row["metric"] for row in group["aggregate_metric_list"]] == [
        "em", "em_strict", "f1", "scale_em", "parsed", "lenient_em", "calc_used",
    ]  # fmt: skip
    assert yaml.safe_load((TASKS / "tatqa_calc_test_multi_span.yaml").read_text()) == {
        "include": "_tatqa_calc",
        "task": "tatqa_calc_test_multi_span",
        "test_split": "test",
        "fewshot_split": "test",
        "dataset_kwargs": {"split": "test", "answer_type": "multi-span", "form": "calc"},
    }
    common = yaml.load((TASKS / "_tatqa_calc").read_text(), Loader=_Loader)
    assert [row["metric"] for row in common["metric_list"]] == [
        row["metric"] for row in group["aggregate_metric_list"]
    ]


def test_the_readme_tells_what_the_version_changed() -> None:
    """A change of version without its reason would leave two scores that nobody can relate."""
    readme = (Path(tatqa_task.__file__).parent / "README.md").read_text(encoding="utf-8")
    newest = readme.split("\n## Versions\n")[1].split("\n- ")[1]
    assert newest.startswith(f"{task_files.VERSION}: ")
    versions = {
        yaml.load(file.read_text(), Loader=_Loader)["metadata"]["version"]
        for file in TASKS.iterdir()
        if "version:" in file.read_text()
    }
    assert versions == {float(task_files.VERSION)}
