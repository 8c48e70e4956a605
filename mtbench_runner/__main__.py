"""MT-Bench, and other benches of its shape, through FastChat's judge: `python -m mtbench_runner --help`."""

import argparse
import json
import os
import sys
from pathlib import Path

from mtbench_runner import bench as benches
from mtbench_runner import store
from mtbench_runner.bench import Bench
from mtbench_runner.endpoint import Endpoint, endpoint_key
from mtbench_runner.generate import Candidate
from mtbench_runner.score import score, table
from mtbench_runner.store import IncompleteError, InputError

STAGES = {
    "run": "answer, judge and score one model (the default)",
    "answer": "let a model answer the bench's questions",
    "judge": "let a judge rate a model's answers",
    "score": "average the ratings",
}


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m mtbench_runner", description=__doc__)
    stages = top.add_subparsers(dest="stage", metavar="STAGE", required=True)
    for stage, text in STAGES.items():
        sub = stages.add_parser(stage, help=text, description=text)
        sub.add_argument("--data", help="bench folder, or demo or instruct; MT-Bench in ./data/mt_bench by default")
        sub.add_argument("--out", help="folder for answers and judgments (the bench folder)")
        sub.add_argument("--model-id", help="the model's name in the files (from --adapter or --model)")
        if stage in ("run", "answer"):
            _candidate(sub)
        if stage != "answer":
            sub.add_argument("--judge-model", default="gpt-4")
        if stage in ("run", "judge"):
            _endpoint(sub)
        if stage in ("run", "score"):
            sub.add_argument("--json", metavar="FILE", help="write the scores as JSON (-: standard output)")
    return top


def _candidate(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--model", required=True, help="model folder or hub name")
    sub.add_argument("--adapter", help="PEFT adapter folder")
    sub.add_argument("--max-new-tokens", type=int, default=1024)
    sub.add_argument("--batch-size", type=int, default=0, help="conversations at once (0: what memory holds)")
    sub.add_argument("--thinking", action="store_true", help="let the model think; what it thinks is not judged")


def _endpoint(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--judge-url", help="base URL of the judge (OPENAI_BASE_URL, else OpenAI)")
    sub.add_argument("--references", metavar="FILE", help="reference answers in place of the bench's own")
    sub.add_argument("--parallel", type=int, default=16, help="judgments under way at once")
    sub.add_argument("--timeout", type=float, default=120, help="seconds for one attempt")
    sub.add_argument("--deadline", type=float, default=600, help="seconds for one judgment with all its retries")
    sub.add_argument("--requests-per-minute", type=float, default=0, help="rate-limit budget (0: none)")


def model_id(args: argparse.Namespace) -> str:
    name = args.model_id or Path(getattr(args, "adapter", None) or getattr(args, "model", "") or "").name
    if not name or "/" in name or name.startswith("."):
        raise InputError("give the model a --model-id without slashes")
    return str(name)


def answer_stage(args: argparse.Namespace, bench: Bench) -> None:
    from mtbench_runner.answer import answer

    candidate = Candidate(args.model, args.adapter, args.max_new_tokens, args.batch_size, args.thinking)
    answer(bench, model_id(args), candidate)


def judge_stage(args: argparse.Namespace, bench: Bench) -> None:
    key = endpoint_key(args.judge_url)
    from mtbench_runner.judge import judge

    endpoint = Endpoint(
        args.judge_model, args.judge_url, key, args.parallel, args.timeout, args.deadline, args.requests_per_minute
    )
    judge(bench, model_id(args), endpoint)


def score_stage(args: argparse.Namespace, bench: Bench) -> None:
    result = score(bench, model_id(args), args.judge_model)
    text = json.dumps(result, indent=1) + "\n"
    if args.json == "-":
        sys.stdout.write(text)
        return
    print(table(result))
    if args.json:
        store.write_whole(Path(args.json), text.encode())


def main(arguments: list[str]) -> int:
    if arguments[:1] not in (["-h"], ["--help"]) and (not arguments or arguments[0].startswith("-")):
        arguments = ["run", *arguments]
    args = parser().parse_args(arguments)
    try:
        if args.stage in ("run", "judge"):
            endpoint_key(args.judge_url)  # before the long work
        bench = benches.load(args.data, args.out, getattr(args, "references", None))
        for stage, do in (("answer", answer_stage), ("judge", judge_stage), ("score", score_stage)):
            if args.stage in ("run", stage):
                do(args, bench)
    except (InputError, IncompleteError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2 if isinstance(error, InputError) else 1
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted; what is done is kept, run the same command again for the rest\n")
        return 1
    return 0


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.exit(main(sys.argv[1:]))
