"""How fast 160 turns are judged by a judge that takes a second.

At 16 in parallel the limit is 10 seconds:

    python benchmarks/mtbench_judging.py --json judging.json

80 questions of two turns with made-up answers, judged over real HTTP on 127.0.0.1. Timed twice: the
judging alone, and the whole command with Python's start and FastChat's import (which brings torch
and transformers with it).
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from mtbench_runner import store
from mtbench_runner.bench import SHIPPED
from mtbench_runner.stand_in_judge import Handler, Server

CATEGORIES = "writing roleplay reasoning math coding extraction stem humanities".split()


class OneSecond(Handler):
    """The stand-in judge, which thinks for a second."""

    def do_POST(self) -> None:
        time.sleep(1)
        super().do_POST()


def make_bench(folder: Path, questions: int = 80) -> None:
    """A bench folder with questions, answers of the model `m`, references and judge prompts."""
    said = [{"index": 0, "turns": ["An answer. " * 60, "Another answer. " * 60]}]
    asked: list[dict[str, Any]] = []
    answers: list[dict[str, Any]] = []
    for number in range(1, questions + 1):
        category = CATEGORIES[number % len(CATEGORIES)]
        turns = ["First?", "Second?"]
        asked.append({"question_id": number, "category": category, "turns": turns})
        answers.append({"question_id": number, "model_id": "m", "choices": said})
    store.write_rows(folder / "question.jsonl", asked)
    store.write_rows(folder / "model_answer" / "m.jsonl", answers)
    store.write_rows(folder / "reference_answer" / "reference.jsonl", answers)
    shutil.copy(SHIPPED / "demo" / "judge_prompts.jsonl", folder)


def main() -> None:
    """Time the judging by itself and as a command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parallel", type=int, default=16)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with Server(OneSecond) as server, tempfile.TemporaryDirectory() as folder:
        make_bench(Path(folder))
        command = [sys.executable, "-m", "mtbench_runner", "judge"]
        command += ["--data", folder, "--model-id", "m", "--parallel", str(args.parallel)]
        command += ["--judge-model", "stand-in-judge", "--judge-url", server.url]
        started = time.perf_counter()
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        whole = time.perf_counter() - started
        path = Path(folder) / "model_judgment" / "stand-in-judge_single.jsonl"
        judgments = len(store.read(path))
        path.unlink()
        judging = judge_here(folder, server.url, args.parallel)
    result = {
        "judgments": judgments,
        "parallel": args.parallel,
        "seconds": judging,
        "seconds_of_command": whole,
    }
    print("| judgments | parallel | judging, s | whole command, s |\n|---|---|---|---|")
    print(f"| {judgments} | {args.parallel} | {judging:.1f} | {whole:.1f} |")
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


def judge_here(folder: str, url: str, parallel: int) -> float:
    """Seconds of the stage itself, FastChat imported before."""
    import fastchat.llm_judge.gen_judgment  # noqa: F401

    from mtbench_runner import bench
    from mtbench_runner.endpoint import Endpoint
    from mtbench_runner.judge import EndpointJudge, Request, judge

    by = EndpointJudge(Endpoint("stand-in-judge", url, "none", parallel))
    started = time.perf_counter()
    judge(bench.load(folder), Request("m"), by)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
