"""Reference scores of the TAT-QA tasks: models by task and number of examples, as one table.

    python benchmarks/tatqa_reference.py OUT --model NAME --base-url http://127.0.0.1:8000
    python benchmarks/tatqa_reference.py OUT              (the table of what is there)

Asks an OpenAI-compatible server, such as vLLM, through the real lm_eval: `tatqa`, `tatqa_cot` and
`tatqa_calc` on whole dev, with 0 and 3 examples. Each row has a folder OUT/NAME-TASK-Nshot with
lm-eval's results and replies; a row that is there is not asked again. Three examples need 16,384
tokens of context. OUT/table.md is written anew each time.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TASKS = ("tatqa", "tatqa_cot", "tatqa_calc")
COLUMNS = ("em", "em_strict", "f1", "scale_em", "parsed", "calc_used")
TYPES = ("span", "multi_span", "arithmetic", "count")
HEAD = (
    "| model | task | examples | EM | `em_strict` | F1 | scale | `parsed` | `calc_used` "
    "| EM span | multi-span | arithmetic | count | seconds |"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Ask what is missing, then write and print the table. Exit code 1 if a row failed."""
    arguments = parser().parse_args(argv)
    failed = False
    if arguments.model:
        for shots in arguments.shots:
            for task in arguments.tasks:
                failed |= not asked(arguments, task, shots)
    text = table(arguments.out)
    (arguments.out / "table.md").write_text(text, encoding="utf-8")
    print(text)
    return int(failed)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("out", type=Path, help="folder for rows and table")
    made.add_argument("--model", help="the served model's name (default: ask nothing)")
    made.add_argument("--base-url", default="http://127.0.0.1:8000", help="of the server")
    made.add_argument("--tasks", nargs="+", default=list(TASKS))
    made.add_argument("--shots", nargs="+", type=int, default=[0, 3])
    made.add_argument("--at-once", type=int, default=256, help="requests in flight (default 256)")
    return made


def asked(arguments: argparse.Namespace, task: str, shots: int) -> bool:
    """Whether a row is there, after asking for it if need be."""
    folder = arguments.out / f"{arguments.model}-{task}-{shots}shot"
    if results_file(folder) is not None:
        return True
    server = f"base_url={arguments.base_url}/v1/chat/completions"
    model = f"model={arguments.model},{server},num_concurrent={arguments.at_once},timeout=600"
    command = [
        sys.executable, "-m", "tatqa_task", "evaluate", "--tasks", task,
        "--model", "local-chat-completions", "--model_args", model, "--apply_chat_template",
        "--num_fewshot", str(shots), "--log_samples", "--output_path", str(folder),
    ]  # fmt: skip
    start = time.monotonic()
    if subprocess.run(command).returncode:
        return False
    with (arguments.out / "seconds.tsv").open("a", encoding="utf-8") as file:
        file.write(f"{folder.name}\t{time.monotonic() - start:.1f}\n")
    return True


def results_file(folder: Path) -> Path | None:
    """The newest results file of a row."""
    return max(folder.rglob("results*.json"), default=None)


def table(out: Path) -> str:
    """The rows that are there, in Markdown, scores in percent."""
    seconds = read_seconds(out / "seconds.tsv")
    lines = [HEAD, "|" + "---|" * (HEAD.count("|") - 1)]
    for folder in sorted(out.glob("*shot")):
        found = results_file(folder)
        if found is not None:
            results = json.loads(found.read_text(encoding="utf-8"))["results"]
            lines.append(row(folder.name, results, seconds.get(folder.name, "")))
    return "\n".join(lines) + "\n"


def row(name: str, results: dict[str, dict[str, Any]], seconds: str) -> str:
    """One row of the table; `name` is MODEL-TASK-Nshot."""
    model, task, shots = name.rsplit("-", 2)
    cells = [percent(results[task], column) for column in COLUMNS]
    cells += [percent(results[f"{task}_{kind}"], "em") for kind in TYPES]
    return (
        f"| {model} | `{task}` | {shots.removesuffix('shot')} | {' | '.join(cells)} | {seconds} |"
    )


def percent(scores: dict[str, Any], metric: str) -> str:
    """A score of one task in percent; nothing where the task has no such metric."""
    value = scores.get(f"{metric},none")
    return "" if value is None else f"{100 * value:.1f}"


def read_seconds(path: Path) -> dict[str, str]:
    """Seconds of each row, by its name: the last of a line's fields."""
    if not path.is_file():
        return {}
    seconds = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        name, *_, last = line.split("\t")
        seconds[name] = last
    return seconds


if __name__ == "__main__":
    sys.exit(main())
