"""Output of the other programs in small, in the shapes they write, and records made from it."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from results import outputs, record
from results.report import publish

TYPES = ("span", "multi-span", "arithmetic", "count")
Output = Callable[..., Path]


@pytest.fixture
def lm_eval_output(tmp_path: Path) -> Output:
    """Writes an lm-eval output folder of 80 questions in 16 contexts.

    `skill` is the chance of a right answer.
    """

    return lambda name, *args, **config: write_lm_eval(tmp_path / name, *args, **config)


def write_lm_eval(
    out: Path, skill: float, seed: int = 0, reply: str | None = None, **config: Any
) -> Path:
    folder = out / "some__model"
    folder.mkdir(parents=True)
    chance, stamp = random.Random(seed), "2026-01-01T00-00-00.000000"
    tasks = [f"tatqa_{kind.replace('-', '_')}" for kind in TYPES]
    for kind, task in zip(TYPES, tasks, strict=True):
        rows = [
            sample(f"{task}-{i}", f"context-{i % 16}", kind, chance.random() < skill, reply)
            for i in range(20)
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"samples_{task}_{stamp}.jsonl").write_text(text)
    results = {
        "config": {
            "model": "hf",
            "model_args": {"pretrained": "base"},
            "batch_size": "16",
            "gen_kwargs": None,
        }
        | config,
        "configs": {task: {"generation_kwargs": {"until": []}} for task in tasks},
        "versions": dict.fromkeys(tasks, 1.0),
        "n-shot": dict.fromkeys(tasks, 0),
        "chat_template_sha": "c0ffee",
        "pretty_env_info": "CPU:\nModel name:       A Processor\n",
        "lm_eval_version": "0.4.13",
    }
    (folder / f"results_{stamp}.json").write_text(json.dumps(results))
    return out


def sample(uid: str, context: str, kind: str, right: bool, reply: str | None) -> dict[str, Any]:
    doc = {
        "uid": uid,
        "context_uid": context,
        "question": f"What is {uid}?",
        "answer": '["gold"]',
        "answer_type": kind,
        "answer_from": "table",
        "scale": "million",
    }
    metrics = {
        "em": float(right),
        "f1": float(right),
        "scale_em": 1.0,
        "parsed": 1.0,
        "lenient_em": float(right),
    }
    hashes = {"doc_hash": f"d{uid}", "prompt_hash": f"p{uid}", "target_hash": f"t{uid}"}
    answer = reply or f'{{"answer": ["{"gold" if right else "fool"}"], "scale": "million"}}'
    return {
        "doc_id": int(uid.rpartition("-")[2]),
        "doc": doc,
        "resps": [[answer]],
        "metrics": list(metrics),
        **metrics,
        **hashes,
    }


@pytest.fixture
def mtbench_output(tmp_path: Path) -> Output:
    """Writes the folder of a judged model.

    In it: question.jsonl, model_answer/, model_judgment/, score.json.
    """

    return lambda name, *args, **changes: write_mtbench(tmp_path / name, *args, **changes)


def write_mtbench(
    folder: Path, ratings: list[int], judge: str = "stand-in-judge", **score: Any
) -> Path:
    questions = [
        {"question_id": i, "category": f"kind {i % 4}", "turns": ["First?", "And then?"]}
        for i in range(8)
    ]
    answers = [
        {"question_id": i, "choices": [{"index": 0, "turns": ["an answer", "another"]}]}
        for i in range(8)
    ]
    judgments = [
        {
            "question_id": i,
            "model": "m",
            "judge": [judge, "single-v1" if turn == 1 else "single-v1-multi-turn"],
            "user_prompt": "First? an answer And then? another",
            "turn": turn,
            "score": ratings[i],
            "judgment": f"Rating: [[{ratings[i]}]]",
        }
        for i in range(8)
        for turn in (1, 2)
    ]
    files: dict[str, list[dict[str, Any]]] = {
        "question.jsonl": questions,
        "model_answer/m.jsonl": answers,
        f"model_judgment/{judge}_single.jsonl": judgments,
    }
    for file, rows in files.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text("".join(json.dumps(row) + "\n" for row in rows))
    per_question = {str(i): {"1": float(ratings[i]), "2": float(ratings[i])} for i in range(8)}
    content = {
        "bench": "demo",
        "judge": judge,
        "stand_in": judge == "stand-in-judge",
        "n_questions": 8,
        "missing": 0,
        "unparsable": 0,
        "per_question": per_question,
    }
    (folder / "score.json").write_text(json.dumps(content | score))
    return folder


@pytest.fixture(scope="session")
def built_results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder of a base and three runs that differ in beta: raw files and the report."""
    root = tmp_path_factory.mktemp("built")
    runs = {
        "base-tiny": (0.3, None),
        "low": (0.8, 0.02),
        "middle": (0.45, 0.05),
        "high": (0.3, 0.1),
    }
    for seed, (name, (skill, beta)) in enumerate(runs.items()):
        reply = "<script>document.title = 'owned'</script></script>|" if name == "low" else None
        folder = root / "results" / "runs" / name
        write_lm_eval(folder / "tatqa", skill, seed, reply)
        write_mtbench(folder / "mtbench", [min(10, 3 + seed + i % 3) for i in range(8)])
        record.save(make_record(folder, beta), folder / "record.json")
    publish.write(root / "results" / "runs", root / "results")
    return root / "results"


@pytest.fixture
def results_folder(tmp_path: Path, built_results: Path) -> Path:
    """A copy of it to change."""
    return Path(shutil.copytree(built_results, tmp_path / "results"))


def make_record(folder: Path, beta: float | None) -> record.Record:
    history = [
        {
            "step": i,
            "loss": 0.7 - i / 20,
            "rewards/accuracies": 0.5 + i / 20,
            "rewards/margins": i / 10,
        }
        for i in range(1, 9)
    ]
    recipe = {
        "beta": beta,
        "lora_r": 16,
        "lora_alpha": 32,
        "learning_rate": 5e-6,
        "num_train_epochs": 1,
        "loss_type": ["sigmoid"],
    }
    training = {
        "recipe": recipe,
        "history": history,
        "pairs": {"kept": 96},
        "seconds": 12.0,
        "device": "cpu",
    }
    mtbench = outputs.mtbench_scores(
        folder / "mtbench" / "score.json", folder / "mtbench" / "question.jsonl"
    )
    return record.Record.model_validate(
        {
            "name": folder.name,
            "base": "base-tiny" if beta else None,
            "model": {"base": "base", "base_sha256": "0"},
            "training": training if beta else None,
            "seconds": {"tatqa": 1.0},
            "scores": {"tatqa": outputs.lm_eval_scores(folder / "tatqa"), "mtbench": mtbench},
            "provenance": {
                "commands": [f"python -m train {folder.name}.yaml"],
                "git": {"commit": "abc", "dirty": True},
                "versions": {"torch": "2"},
                "device": "A Processor",
                "data": {"source": "synthetic"},
                "seeds": {},
                "settings": {"limit": 20},
            },
        }
    )
