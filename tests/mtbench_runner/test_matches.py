"""FastChat's matches with the calls taken out, and conversations of more than two turns."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from mtbench_runner import bench as benches
from mtbench_runner import store
from mtbench_runner.__main__ import main
from mtbench_runner.matches import make_matches, play, separators

from .conftest import judgments, write_answers

MULTI = (
    "### User:\n{question_1}\n\n### A:\n{answer_1}\n\n### User:\n{question_2}\n\n### A:\n{answer_2}"
)


def lengthen(bench: Path, turns: int) -> None:
    """Question 1 with more turns; the bench keeps that question alone."""
    path = bench / "question.jsonl"
    row = store.read(path)[0]
    row["turns"] = [f"Ask {turn}?" for turn in range(1, turns + 1)]
    store.write_rows(path, [row])
    write_answers(bench, "m")


def test_a_third_turn_is_judged_in_the_templates_own_layout(judge: Any, bench: Path) -> None:
    lengthen(bench, 3)
    prompts = bench / "judge_prompts.jsonl"
    rows = store.read(prompts)
    for row in rows:
        if row["name"] == "single-v1-multi-turn":
            row["prompt_template"] = MULTI
            row["system_prompt"] = "Judge the answer to the second question."
    store.write_rows(prompts, rows)
    assert main(["judge", "--data", str(bench), "--model-id", "m", "--judge-model", "j"]) == 0
    assert sorted(row["turn"] for row in judgments(bench)) == [1, 2, 3]
    shown = {r["messages"][0]["content"]: r["messages"][1]["content"] for r in judge.requests}
    assert shown["Judge the answer to the third question."] == (
        "### User:\nAsk 1?\n\n### A:\nAn answer. 1.1\n\n"
        "### User:\nAsk 2?\n\n### A:\nAn answer. 1.2\n\n"
        "### User:\nAsk 3?\n\n### A:\nAn answer. 1.3"
    )
    assert main(["score", "--data", str(bench), "--model-id", "m", "--judge-model", "j"]) == 0


def test_five_turns_of_two_models_against_each_other(judge: Any, bench: Path) -> None:
    lengthen(bench, 5)
    write_answers(bench, "base", "Another answer.")
    judge.reply = "[[A]]"
    models = ["--data", str(bench), "--model-id", "m", "--baseline", "base"]
    assert main(["pairwise", *models, "--judge-model", "j"]) == 0
    last = [r["messages"][-1]["content"] for r in judge.requests if "Ask 5?" in str(r)]
    assert len(last) == 2
    for prompt in last:
        for turn in range(1, 6):
            assert prompt.count(f"An answer. 1.{turn}") == 1
            assert prompt.count(f"Another answer. 1.{turn}") == 1


def test_separators_of_a_template() -> None:
    assert separators(MULTI, "answer") == ("\n\n### A:\n", "\n\n### User:\n")
    with pytest.raises(store.InputError, match="more than two turns needs"):
        separators("{question_1} {question_2} {answer_1} {answer_2}", "answer")


@pytest.mark.parametrize(("name", "turns"), [("demo", 2), ("instruct", 1)])
def test_the_templates_that_ship_are_played(name: str, turns: int) -> None:
    bench = benches.load(name)
    answers: Any = {
        q["question_id"]: {
            "question_id": q["question_id"],
            "choices": [{"index": 0, "turns": ["Said."] * turns}],
        }
        for q in bench.questions
    }
    for models in (["m"], ["m", "n"]):
        found = make_matches(bench, models, "j", [answers] * len(models))
        assert len(found) == turns * len(bench.questions)
        row, calls = play(found[0], ["[[7]] [[A]]"] * 2)
        assert len(calls) == len(models)
        assert row.get("score", row.get("g1_winner")) in (7, "model_1")


def test_a_place_in_a_prompt_that_fastchat_does_not_fill(
    judge: Any, bench: Path, capsys: Any
) -> None:
    path = bench / "judge_prompts.jsonl"
    path.write_text(path.read_text().replace("{question}", "{prompt}"))
    assert main(["judge", "--data", str(bench), "--model-id", "m", "--judge-model", "j"]) == 2
    assert "has a place for 'prompt'" in capsys.readouterr().err


def vicuna(folder: Path) -> None:
    """A bench in the shape of FastChat's vicuna_bench: one turn, references for some categories."""
    folder.mkdir()
    asked = [(1, "generic"), (2, "knowledge"), (3, "fermi"), (61, "coding"), (68, "math")]
    questions = [{"question_id": q, "category": c, "turns": [f"Question {q}?"]} for q, c in asked]
    store.write_rows(folder / "question.jsonl", questions)
    reference = {"answer_id": "r", "model_id": "gpt-4", "tstamp": 0}
    rows = [
        {"question_id": q, **reference, "choices": [{"index": 0, "turns": [f"Reference {q}"]}]}
        for q in (61, 68)
    ]
    store.write_rows(folder / "reference_answer" / "gpt-4.jsonl", rows)
    shipped = (benches.SHIPPED / "demo" / "judge_prompts.jsonl").read_bytes()
    (folder.parent / "judge_prompts.jsonl").write_bytes(shipped)
    write_answers(folder, "m")


def japanese(folder: Path) -> None:
    """A bench in the shape of Japanese MT-Bench: its own prompts and text, eight categories."""
    folder.mkdir()
    categories = "writing roleplay reasoning math coding extraction stem humanities".split()
    questions = [
        {"question_id": 1 + i, "category": c, "turns": [f"質問{i}は何ですか。", "続けてください。"]}
        for i, c in enumerate(categories)
    ]
    store.write_rows(folder / "question.jsonl", questions)
    choices = [{"index": 0, "turns": ["答え一", "答え二"]}]
    rows = [{"question_id": q["question_id"], "choices": choices} for q in questions]
    store.write_rows(folder / "reference_answer" / "gpt-4.jsonl", rows)
    text = (benches.SHIPPED / "demo" / "judge_prompts.jsonl").read_text()
    prompts = [json.loads(line) for line in text.splitlines()]
    for prompt in prompts:
        prompt["system_prompt"] = "あなたは審判です。"
    store.write_rows(folder / "judge_prompts.jsonl", prompts)
    store.write_rows(folder / "reference_answer" / "base.jsonl", [])  # first by name, not GPT-4's
    write_answers(folder, "m", "お答えします。")


@pytest.mark.parametrize(("make", "turns"), [(vicuna, 5), (japanese, 16)])
def test_benches_of_other_shapes(make: Any, turns: int, judge: Any, tmp_path: Path) -> None:
    make(tmp_path / "bench")
    named = ["--data", str(tmp_path / "bench"), "--model-id", "m", "--judge-model", "j"]
    assert main(["judge", *named]) == 0
    assert len(judge.requests) == turns
    assert main(["score", *named]) == 0
    assert any("Reference 61" in str(r) or "答え一" in str(r) for r in judge.requests)


def as_text(path: Path) -> None:
    """The question ids of a file as text, as in Stability AI's answers and judgments."""
    rows = [row | {"question_id": str(row["question_id"])} for row in store.read(path)]
    store.write_rows(path, rows)


def test_ids_may_be_text_in_one_file_and_numbers_in_another(judge: Any, bench: Path) -> None:
    named = ["--data", str(bench), "--model-id", "m", "--judge-model", "j"]
    as_text(bench / "model_answer" / "m.jsonl")
    as_text(next((bench / "reference_answer").iterdir()))
    assert main(["judge", *named]) == 0
    assert len(judge.requests) == 16
    as_text(bench / "model_judgment" / "j_single.jsonl")
    assert main(["judge", *named]) == 0
    assert len(judge.requests) == 16
    assert main(["score", *named]) == 0


def test_an_answer_of_too_few_turns_is_judged_as_far_as_it_goes(
    judge: Any, bench: Path, capsys: Any
) -> None:
    path = bench / "model_answer" / "m.jsonl"
    rows = store.read(path)
    rows[0]["choices"][0]["turns"] = ["Only one."]
    rows[1]["choices"][0]["turns"] = []
    store.write_rows(path, rows)
    named = ["--data", str(bench), "--model-id", "m", "--judge-model", "j"]
    assert main(["judge", *named]) == 1
    assert "m has no answer to 2 questions" in capsys.readouterr().err
    assert len(judgments(bench)) == 13
    assert main(["score", *named]) == 1
    assert "missing: 3" in capsys.readouterr().out


def test_japanese_judge_prompts_of_single_turns_and_their_rating(
    judge: Any, tmp_path: Path, capsys: Any
) -> None:
    """Stability AI's judge_ja_prompts.jsonl: two prompts, and [[評価]] for [[rating]]."""
    folder = tmp_path / "bench"
    vicuna(folder)
    prompts = store.read(tmp_path / "judge_prompts.jsonl")
    single = [p for p in prompts if p["name"] in ("single-v1", "single-math-v1")]
    rows = [prompt | {"output_format": "[[評価]]"} for prompt in single]
    store.write_rows(tmp_path / "ja.jsonl", rows)
    named = ["--data", str(folder), "--model-id", "m", "--judge-model", "j"]
    ours = [*named, "--judge-file", str(tmp_path / "ja.jsonl")]
    judge.reply = "良い答えです。評価：[[9]]"
    assert main(["judge", *ours]) == 0
    assert {row["score"] for row in judgments(folder)} == {9}
    lengthen(folder, 2)
    assert main(["judge", *ours]) == 2
    assert "lack 'single-v1-multi-turn'" in capsys.readouterr().err


FOLDERS = os.environ.get("MTBENCH_FOLDERS", "")


@pytest.mark.real
@pytest.mark.skipif(not FOLDERS, reason="MTBENCH_FOLDERS names no bench folders")
@pytest.mark.parametrize("folder", FOLDERS.split(os.pathsep))
def test_a_real_bench_folder_is_read_and_every_turn_is_asked_about(
    folder: str, judge: Any, tmp_path: Path
) -> None:
    """E.g. mt_bench and vicuna_bench of FastChat's repository, japanese_mt_bench of its forks."""
    bench = benches.load(folder)
    out = tmp_path / "out"
    (out / "model_answer").mkdir(parents=True)
    (out / "question.jsonl").write_bytes((Path(folder) / "question.jsonl").read_bytes())
    write_answers(out, "m")
    named = ["--data", folder, "--out", str(out), "--model-id", "m", "--judge-model", "j"]
    assert main(["judge", *named]) == 0
    assert len(judge.requests) == len(bench.places())
    assert main(["score", *named]) == 0
