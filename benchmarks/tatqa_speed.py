"""How fast the TAT-QA task is: scoring, building requests, reading hostile replies.

Printed as ratios to their bounds:

    python benchmarks/tatqa_speed.py --data FOLDER [--official CHECKOUT] [--json OUT]

FOLDER holds the official files and `sample_prediction.dev.json`; without it synthetic data of the
same size stands in, and the output says so. CHECKOUT is a clone of the TAT-QA repository, whose
`tatqa_eval.py` is timed on the same files.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tatqa_task import answer, data, synthetic
from tatqa_task.types import questions_of

REPEATS = 5
REQUESTS_BOUND = 10.0  # seconds for the 1,668 requests of the validation split
CONTEXTS = 278
BUILD = """import time
start = time.perf_counter()
from lm_eval.tasks import TaskManager, get_task_dict
manager = TaskManager(include_path={tasks!r}, include_defaults=False)
indexed = time.perf_counter()
tasks = next(iter(get_task_dict(["tatqa"], manager).values()))
for task in tasks.values():
    task.set_config(key="num_fewshot", value=0)
    task.build_all_requests(rank=0, world_size=1)
built = time.perf_counter()
print(sum(len(task.instances) for task in tasks.values()), indexed - start, built - indexed)"""
INDEX = "import sys\nimport {name}\nprint('torch' in sys.modules)"


def best(run: Callable[[], Any]) -> float:
    """The least wall time of some runs, in seconds."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def scoring(folder: Path, official: Path | None) -> dict[str, float]:
    """Whole commands, from start to table, on the same files."""
    gold = str(folder / data.FILES["validation"].name)
    predictions = str(folder / "sample_prediction.dev.json")
    command = [sys.executable, "-m", "tatqa_task", "score", "--gold", gold, "--pred", predictions]
    ours = best(lambda: subprocess.run(command, check=True, capture_output=True))
    if official is None:
        return {"score_seconds": ours}
    script = [sys.executable, "tatqa_eval.py", f"--gold_path={gold}", f"--pred_path={predictions}"]
    theirs = best(lambda: subprocess.run(script, check=True, capture_output=True, cwd=official))
    return {
        "score_seconds": ours,
        "official_seconds": theirs,
        "ratio_to_official": ours / theirs,
    }


def building(folder: Path) -> dict[str, Any]:
    """The validation split's requests, as lm-eval builds them, and if indexing imports torch."""
    import os

    import tatqa_task

    code = BUILD.format(tasks=str(Path(tatqa_task.__file__).parent / "tasks"))
    environment = os.environ | {"TATQA_DATA": str(folder)}
    shown = subprocess.run(
        [sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True
    )
    requests, indexing, seconds = shown.stdout.split()
    harness = INDEX.format(name="tatqa_task.harness")
    torch = subprocess.run(
        [sys.executable, "-c", harness], check=True, capture_output=True, text=True
    ).stdout.strip()
    return {
        "requests": int(requests), "imports_and_index_seconds": float(indexing),
        "build_seconds": float(seconds),
        "ratio_to_bound": float(seconds) / REQUESTS_BOUND, "tasks_import_torch": torch == "True",
    }  # fmt: skip


def parsing() -> dict[str, float]:
    """How much longer ten times the text takes, for the slowest of some hostile replies.

    Linear is 10.
    """
    growth = {}
    for unit in ('{"a":{"a":', '{"answer": [', "{'answer': ['", "answer: ", "\n ", '{"', "9 "):
        short = unit * (100_000 // len(unit))
        long = unit * (1_000_000 // len(unit))
        growth[unit] = best(partial(answer.parse, long)) / best(partial(answer.parse, short))
    unit = max(growth, key=lambda unit: growth[unit])
    return {f"growth_of_10x_{unit!r}": growth[unit]}


def stand_in(folder: Path) -> None:
    """Synthetic files of the official size, with gold answers as predictions."""
    for split, (name, _) in data.FILES.items():
        (folder / name).write_text(json.dumps(synthetic.generate(split, CONTEXTS)))
    predictions = {}
    for question in questions_of(data.load("validation", str(folder))):
        predictions[question.uid] = [question.gold_items, question.scale]
    (folder / "sample_prediction.dev.json").write_text(json.dumps(predictions))


def main() -> None:
    """Measure; print every figure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, help="folder with the official files and the sample prediction"
    )
    parser.add_argument("--official", type=Path, help="clone of the TAT-QA repository")
    parser.add_argument("--json", type=Path, metavar="OUT")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = arguments.data.resolve() if arguments.data else Path(made)
        if not arguments.data:
            stand_in(folder)
        measured: dict[str, Any] = {"data": str(arguments.data or "synthetic stand-in")}
        measured |= scoring(folder, arguments.official) | building(folder) | parsing()
    for name, value in measured.items():
        print(f"{name:32} {value:.3f}" if isinstance(value, float) else f"{name:32} {value}")
    if arguments.json:
        arguments.json.write_text(json.dumps(measured, indent=1))


if __name__ == "__main__":
    main()
