"""Reading what the other programs wrote: lm-eval's results and samples, and MT-Bench score files."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from results import InputError
from results.record import Scores

TATQA = ("em", "f1", "scale_em", "parsed", "lenient_em")
SCORE_FIELDS = {
    "bench",
    "judge",
    "stand_in",
    "n_questions",
    "per_question",
    "missing",
    "unparsable",
}
SYNTHETIC = "synthetic-"  # so begin the names of generated questions
SUCCESS = 7  # a rating from here up counts as a success


def read_json(path: Path) -> Any:
    """The content of a JSON file. Raises InputError."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error})") from None


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON-lines file. Raises InputError that names the line."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise InputError(f"{path}, line {number}: not a JSON object; is the file torn?")
        rows.append(row)
    return rows


def results_file(path: Path) -> Path:
    """The file itself, or the newest results file in an lm-eval output folder. Raises InputError."""
    files = (
        [path]
        if path.is_file()
        else sorted(path.rglob("results_*.json"), key=lambda file: file.name)
    )
    if not files:
        raise InputError(
            f"{path}: no lm-eval results_*.json there; run lm_eval with --output_path and --log_samples"
        )
    return files[-1]


def samples(results: Path) -> list[dict[str, Any]]:
    """All samples logged along with a results file, each with its task's name. Raises InputError."""
    stamp = results.stem.removeprefix("results_")
    rows = []
    for file in sorted(results.parent.glob(f"samples_*_{stamp}.jsonl")):
        task = file.stem.removeprefix("samples_").removesuffix(f"_{stamp}")
        rows += [{**row, "task": task} for row in read_lines(file)]
    if not rows:
        raise InputError(
            f"{results}: no samples_*_{stamp}.jsonl beside it; run lm_eval with --log_samples"
        )
    return rows


def lm_eval_scores(path: Path) -> Scores:
    """Scores of an lm-eval run. TAT-QA's rows cluster by context; any other task's rows stand alone."""
    file = results_file(path)
    results, rows = read_json(file), samples(file)
    if not isinstance(results, dict) or not {"config", "configs", "versions"} <= results.keys():
        raise InputError(f"{file}: not an lm-eval results file")
    docs, tatqa = [row["doc"] for row in rows], "context_uid" in rows[0]["doc"]
    items = [str(row["doc"].get("uid") or f"{row['task']}/{row['doc_id']}") for row in rows]
    names = [name for name in rows[0]["metrics"] if isinstance(rows[0][name], int | float)]
    return Scores(
        bench="tatqa" if tatqa else ", ".join(sorted({row["task"] for row in rows})),
        stand_in=tatqa and any(item.startswith(SYNTHETIC) for item in items),
        identity=identity(results, rows),
        circumstances=circumstances(results),
        item=items,
        cluster=[str(doc["context_uid"]) for doc in docs] if tatqa else items,
        groups={
            key: [str(doc[key]) for doc in docs] for key in ("answer_type", "answer_from") if tatqa
        },
        metrics={
            name: [float(row[name]) for row in rows]
            for name in (TATQA if tatqa else names)
            if name in names
        },
    )


def identity(results: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What must be equal for two runs to have answered the same questions in the same way."""
    tasks = sorted({row["task"] for row in rows})
    hashes = {
        name: "".join(sorted(row[f"{name}_hash"] for row in rows))
        for name in ("doc", "prompt", "target")
    }
    return {
        **{f"{name}s": hashlib.sha256(text.encode()).hexdigest() for name, text in hashes.items()},
        "task version": {task: results["versions"].get(task) for task in tasks},
        "generation settings": {
            task: results["configs"][task].get("generation_kwargs") for task in tasks
        },
        "overridden generation settings": results["config"].get("gen_kwargs"),
        "few-shot": {task: results["n-shot"].get(task) for task in tasks},
        "chat template": results.get("chat_template_sha"),
    }


def circumstances(results: dict[str, Any]) -> dict[str, Any]:
    """What may differ between two comparable runs, but is better the same; the device is the GPU, else the CPU."""
    config, given = results["config"], results["config"].get("model_args") or {}
    pairs = (
        given
        if isinstance(given, dict)
        else dict(p.split("=", 1) for p in given.split(",") if "=" in p)
    )
    device = re.search(
        r"(?:GPU 0: |^Model name: +)(.+)$", str(results.get("pretty_env_info")), re.M
    )
    return {
        "backend": config.get("model"),
        "base": pairs.get("pretrained"),
        "dtype": config.get("model_dtype"),
        "batch size": str(config.get("batch_size")),
        "lm_eval": results.get("lm_eval_version"),
        "transformers": results.get("transformers_version"),
        "device": device[1] if device else "unknown",
    }


def mtbench_scores(path: Path, questions: Path | None = None) -> Scores:
    """Scores of a judged model; the turns of a question are one cluster. The questions file gives the categories."""
    score = read_json(path)
    if missing := SCORE_FIELDS - score.keys():
        raise InputError(
            f"{path}: not MT-Bench scores, no {min(missing)}; write them with score --json"
        )
    rows = [
        (qid, turn, rating)
        for qid, turns in score["per_question"].items()
        for turn, rating in turns.items()
    ]
    groups = {"turn": [f"turn {turn}" for _, turn, _ in rows]}
    asked = str(score["n_questions"]).encode()
    if questions:
        asked = questions.read_bytes()
        category = {
            str(question["question_id"]): question["category"] for question in read_lines(questions)
        }
        groups["category"] = [category[qid] for qid, _, _ in rows]
    return Scores(
        bench=score["bench"],
        stand_in=score["stand_in"],
        identity={
            "bench": score["bench"],
            "judge": score["judge"],
            "questions": hashlib.sha256(asked).hexdigest(),
        },
        circumstances={key: score[key] for key in ("missing", "unparsable")},
        item=[f"{qid}/{turn}" for qid, turn, _ in rows],
        cluster=[qid for qid, _, _ in rows],
        groups=groups,
        metrics={
            "score": [r for _, _, r in rows],
            "success": [float(r >= SUCCESS) for _, _, r in rows],
        },
    )
