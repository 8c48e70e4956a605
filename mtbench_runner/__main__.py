"""MT-Bench, and benches of its shape, through FastChat's judge. Without a stage: one model from answers to scores."""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from mtbench_runner import bench as benches
from mtbench_runner import store
from mtbench_runner.bench import Bench
from mtbench_runner.endpoint import Endpoint, key_for
from mtbench_runner.generate import Candidate
from mtbench_runner.show import printable
from mtbench_runner.store import IncompleteError, InputError

STAGES = {
    "run": "answer, judge and score one model (the default)",
    "answer": "let a model answer the bench's questions",
    "judge": "let a judge rate a model's answers",
    "score": "average the ratings",
    "pairwise": "let the judge compare a model's answers with a baseline's",
    "show": "print the turns and judgments of a question, or draw the scores of models",
}
CANDIDATE = ("run", "answer")
JUDGED = ("run", "judge", "pairwise")


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m mtbench_runner", description=__doc__)
    stages = top.add_subparsers(dest="stage", metavar="STAGE", required=True)
    for stage, text in STAGES.items():
        sub = stages.add_parser(stage, help=text, description=text)
        add = sub.add_argument
        add("--data", metavar="FOLDER", help="a bench, or demo or instruct (default: MT-Bench, into data/mt_bench)")
        add("--out", metavar="FOLDER", help="where answers and judgments are (default: the bench's folder)")
        add("--model-id", metavar="ID", help="the model's name in the files (default: from --adapter or --model)")
        if stage in CANDIDATE:
            _candidate(add)
        if stage != "answer":
            add("--judge-model", metavar="NAME", default="gpt-4", help="(default: gpt-4)")
        if stage in JUDGED:
            _judged(add)
        if stage in ("run", "score", "pairwise"):
            add("--json", metavar="FILE", help="write the result as JSON (-: to standard output, without the table)")
            add("--prices", nargs=2, type=float, metavar=("IN", "OUT"), help="USD for a million judge tokens")
        if stage in ("run", "score"):
            add(
                "--rating",
                choices=("fastchat", "strict"),
                default="fastchat",
                help="strict: also flag doubtful ratings",
            )
        if stage in ("pairwise", "show"):
            add("--baseline", metavar="ID", required=stage == "pairwise", help="the model to compare with")
        if stage == "show":
            add("--question", type=int, metavar="ID", help="the question to print")
            add("--figure", type=Path, metavar="FILE", help="the radar figure to draw")
    return top


def _candidate(add: Any) -> None:
    add("--model", required=True, help="model folder or hub name, or the name that the endpoint serves")
    add("--adapter", metavar="FOLDER", help="PEFT adapter")
    add("--answers-from", metavar="URL", help="OpenAI-compatible endpoint that serves --model (key: ANSWERS_API_KEY)")
    add("--max-new-tokens", type=int, default=1024, metavar="N", help="(default: 1024)")
    add("--batch-size", type=int, default=0, metavar="N", help="conversations at once (default: what memory holds)")
    add("--thinking", action="store_true", help="let the model think; its thoughts are kept but not judged")


def _judged(add: Any) -> None:
    add(
        "--judge-url",
        metavar="URL",
        help="OpenAI-compatible endpoint of the judge (default: OPENAI_BASE_URL, or OpenAI)",
    )
    add("--references", metavar="FILE", help="reference answers in place of the bench's own")
    add("--parallel", type=int, default=16, metavar="N", help="calls under way at once (default: 16)")
    add("--timeout", type=float, default=120, metavar="S", help="seconds for one attempt (default: 120)")
    add("--deadline", type=float, default=600, metavar="S", help="seconds for one call with its retries (default: 600)")
    add("--requests-per-minute", type=float, default=0, metavar="N", help="rate-limit budget (default: none)")


def model_id(args: argparse.Namespace) -> str:
    name = args.model_id or Path(getattr(args, "adapter", None) or getattr(args, "model", None) or "").name
    if not name or "/" in name or name.startswith("."):
        raise InputError("give the model a --model-id without slashes")
    return str(name)


def endpoint(args: argparse.Namespace, model: str, url: str | None, variable: str) -> Endpoint:
    limits = {
        name: getattr(args, name) for name in ("parallel", "timeout", "deadline", "requests_per_minute") if name in args
    }
    return Endpoint(model, url, key_for(url, variable), **limits)


def answer_stage(args: argparse.Namespace, bench: Bench) -> None:
    from mtbench_runner.answer import answer

    url = args.answers_from
    candidate = Candidate(args.model, args.adapter, url, args.max_new_tokens, args.batch_size, args.thinking)
    answer(bench, model_id(args), candidate, endpoint(args, args.model, url, "ANSWERS_API_KEY") if url else None)


def judge_stage(args: argparse.Namespace, bench: Bench) -> None:
    from mtbench_runner.judge import judge

    judged_by = endpoint(args, args.judge_model, args.judge_url, "OPENAI_API_KEY")
    judge(bench, model_id(args), judged_by, getattr(args, "baseline", None))


def score_stage(args: argparse.Namespace, bench: Bench) -> None:
    from mtbench_runner import score, show

    if args.stage == "pairwise":
        result = score.compare_pairs(bench, model_id(args), args.baseline, args.judge_model, args.prices)
    else:
        result = score.score(bench, model_id(args), args.judge_model, args.rating == "strict", args.prices)
    text = json.dumps(result, indent=1) + "\n"
    if args.json == "-":
        sys.stdout.write(text)
        return
    print(printable(show.table(result)))
    if args.json:
        store.write_whole(Path(args.json), text.encode())


def show_stage(args: argparse.Namespace, bench: Bench) -> None:
    from mtbench_runner import score, show

    models = [model_id(args), *([args.baseline] if args.baseline else [])]
    if args.question is None and args.figure is None:
        raise InputError("show needs --question ID or --figure FILE")
    if args.question is not None:
        print(printable(show.question(bench, args.question, models, args.judge_model)))
    if args.figure:
        show.radar([score.score(bench, name, args.judge_model) for name in models], args.figure)


def dispatch(args: argparse.Namespace) -> None:
    if args.stage in JUDGED:
        key_for(args.judge_url)  # before the long work
    bench = benches.load(args.data, args.out, getattr(args, "references", None))
    if args.stage == "show":
        return show_stage(args, bench)
    if args.stage in CANDIDATE:
        answer_stage(args, bench)
    if int(os.environ.get("RANK", 0)):
        return None  # under `accelerate launch` the first process does the rest
    if args.stage in JUDGED:
        judge_stage(args, bench)
    if args.stage in ("run", "score", "pairwise"):
        score_stage(args, bench)


def main(arguments: list[str]) -> int:
    if arguments[:1] not in (["-h"], ["--help"]) and (not arguments or arguments[0].startswith("-")):
        arguments = ["run", *arguments]
    try:
        dispatch(parser().parse_args(arguments))
    except (InputError, IncompleteError) as error:
        sys.stderr.write(printable(f"error: {error}\n"))
        return 2 if isinstance(error, InputError) else 1
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted; what is done is kept, run the same command again for the rest\n")
        return 1
    return 0


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.exit(main(sys.argv[1:]))
