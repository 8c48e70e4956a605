"""Question by question, what base and adapter answered: from the raw files, where these are here."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from results import InputError, outputs

Question = dict[str, Any]


def of_runs(runs: Path, pairs: list[tuple[str, str]]) -> tuple[list[Question], list[str]]:
    """Questions of each (base, run) pair of folders, and a line for each file that cannot be read."""
    found: list[Question] = []
    problems: list[str] = []
    sides: dict[str, dict[str, Question]] = {}
    for name in dict.fromkeys(name for pair in pairs for name in pair):
        sides[name], unread = answered(runs / name)
        problems += unread
    for base, name in pairs:
        for key, one in sides[base].items():
            if other := sides[name].get(key):
                found.append({**one, "run": name, "sides": [one["side"], other["side"]]})
    return found, problems


def answered(folder: Path) -> tuple[dict[str, Question], list[str]]:
    """What a run folder's raw files hold, by question, and a line for each part that is broken."""
    found: dict[str, Question] = {}
    problems = []
    readers: dict[str, Callable[[Path], Iterator[Question]]] = {
        "tatqa": _tatqa,
        "mtbench": _judged,
        "instruct": _judged,
    }
    for part, read in readers.items():
        try:
            found |= {question["id"]: question for question in read(folder / part)}
        except InputError as error:
            problems.append(str(error))
        except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            problems.append(f"{folder / part}: replies cannot be read ({reason})")
    return found, problems


def _tatqa(folder: Path) -> Iterator[Question]:
    for results in sorted(folder.glob("*/results_*.json"))[-1:]:
        for row in outputs.samples(results):
            doc = row["doc"]
            synthetic = doc["uid"].startswith(outputs.SYNTHETIC)
            yield {
                "bench": "synthetic questions" if synthetic else "TAT-QA",
                "id": doc["uid"],
                "kind": doc["answer_type"],
                "question": doc["question"],
                "gold": f"{doc['answer']} {doc['scale']}",
                "side": {"answer": row["resps"][0][0], "score": row["em"], "judge": ""},
            }


def _judged(folder: Path) -> Iterator[Question]:
    if not (folder / "question.jsonl").is_file():  # the questions come last of all
        return
    asked = {q["question_id"]: q for q in outputs.read_lines(folder / "question.jsonl")}
    answers = {}
    for file in sorted(folder.glob("model_answer/**/*.jsonl")):
        for answer in outputs.read_lines(file):
            answers[answer["question_id"]] = answer["choices"][0]["turns"]
    judgments = folder / "model_judgment"
    for file in sorted(judgments.glob("**/*_single.jsonl")):  # a judge's name may have a slash
        judge = str(file.relative_to(judgments)).removesuffix("_single.jsonl")
        for row in outputs.read_lines(file):
            question, turn = asked[row["question_id"]], row["turn"]
            yield {
                "bench": folder.name,
                "id": f"{folder.name} {row['question_id']}, turn {turn}",
                "kind": question["category"],
                "question": question["turns"][turn - 1],
                "gold": "",
                "side": {
                    "answer": answers[row["question_id"]][turn - 1],
                    "score": row["score"] if row["score"] > 0 else None,
                    "judge": f"{judge}: {row['judgment']}",
                },
            }
