"""Reading what the other programs wrote: lm-eval's results and samples, and MT-Bench score files."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from results.record import InputError, Scores

TATQA_METRICS = ("em", "f1", "scale_em", "parsed")
SUCCESS = 7  # a judge's score from here up counts as a success


def sha256(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error})") from None


def results_file(path: Path) -> Path:
    """The results file itself, or the newest one in an lm-eval output folder."""
    files = [path] if path.is_file() else sorted(path.rglob("results_*.json"), key=lambda file: file.name)
    if not files:
        raise InputError(f"{path}: no lm-eval results_*.json in it; run lm_eval with --output_path and --log_samples")
    return files[-1]


def samples(results: Path) -> list[dict[str, Any]]:
    """All samples that lm-eval logged along with one results file, in file order, each with its task's name."""
    stamp = results.stem.removeprefix("results_")
    rows = []
    for file in sorted(results.parent.glob(f"samples_*_{stamp}.jsonl")):
        task = file.stem.removeprefix("samples_").removesuffix(f"_{stamp}")
        rows += [{**json.loads(line), "task": task} for line in file.read_text(encoding="utf-8").splitlines()]
    if not rows:
        raise InputError(f"{results}: no samples_*_{stamp}.jsonl beside it; run lm_eval with --log_samples")
    return rows


def lm_eval_scores(path: Path) -> Scores:
    """Scores of an lm-eval run. TAT-QA rows cluster by context; any other task's rows stand alone."""
    file = results_file(path)
    results, rows = read_json(file), samples(file)
    tatqa = "context_uid" in rows[0]["doc"]
    items = [str(row["doc"].get("uid") or f"{row['task']}/{row['doc_id']}") for row in rows]
    names = TATQA_METRICS if tatqa else [m for m in rows[0]["metrics"] if isinstance(rows[0][m], int | float)]
    return Scores(
        bench="tatqa" if tatqa else ",".join(sorted({row["task"] for row in rows})),
        identity=lm_eval_identity(results, rows),
        circumstances=lm_eval_circumstances(results),
        item=items,
        cluster=[str(row["doc"]["context_uid"]) for row in rows] if tatqa else items,
        groups={key: [str(row["doc"][key]) for row in rows] for key in ("answer_type", "answer_from") if tatqa},
        metrics={name: [float(row[name]) for row in rows] for name in names},
    )


def lm_eval_identity(results: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What must be equal for two runs to have answered the same questions in the same way."""
    tasks = sorted({row["task"] for row in rows})
    return {
        "questions": sha256(sorted(row["doc_hash"] for row in rows)),
        "prompts": sha256(sorted(row["prompt_hash"] for row in rows)),
        "task version": {task: results["versions"].get(task) for task in tasks},
        "generation": {task: results["configs"][task].get("generation_kwargs") for task in tasks},
        "overridden generation": results["config"].get("gen_kwargs"),
        "few-shot": {task: results["n-shot"].get(task) for task in tasks},
        "chat template": results.get("chat_template_sha"),
    }


def lm_eval_circumstances(results: dict[str, Any]) -> dict[str, Any]:
    """What may differ between two comparable runs, but is better the same."""
    config = results["config"]
    arguments = config.get("model_args") or {}
    if isinstance(arguments, str):
        arguments = dict(pair.split("=", 1) for pair in arguments.split(",") if "=" in pair)
    return {
        "backend": config.get("model"),
        "base": arguments.get("pretrained"),
        "dtype": config.get("model_dtype"),
        "batch size": str(config.get("batch_size")),
        "lm_eval": results.get("lm_eval_version"),
        "transformers": results.get("transformers_version"),
    }


def mtbench_scores(path: Path, questions: Path | None = None) -> Scores:
    """Scores of one judged model. Both turns of a question are one cluster; `questions` gives the categories."""
    score = read_json(path)
    category = {str(q["question_id"]): q["category"] for q in read_lines(questions)} if questions else {}
    rows = [(qid, turn, rating) for qid, turns in score["per_question"].items() for turn, rating in turns.items()]
    return Scores(
        bench=str(score["bench"]),
        stand_in=bool(score["stand_in"]),
        identity={"bench": score["bench"], "judge": score["judge"], "questions": score["n_questions"]},
        circumstances={"missing": score["missing"], "unparsable": score["unparsable"]},
        item=[f"{qid}/{turn}" for qid, turn, _ in rows],
        cluster=[qid for qid, _, _ in rows],
        groups={
            "turn": [f"turn {turn}" for _, turn, _ in rows],
            **({"category": [category[qid] for qid, _, _ in rows]} if category else {}),
        },
        metrics={
            "score": [rating for _, _, rating in rows],
            "success": [None if rating is None else float(rating >= SUCCESS) for _, _, rating in rows],
        },
    )


def read_lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
