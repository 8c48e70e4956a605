"""MT-Bench, and benches of its shape, through FastChat's judge. Without a stage: one model from answers to scores."""

import argparse
import json
import os
import sys
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtbench_runner import bench as benches
from mtbench_runner import score, show, store
from mtbench_runner.bench import Bench
from mtbench_runner.store import IncompleteError, InputError

if TYPE_CHECKING:  # it imports the openai client
    from mtbench_runner.endpoint import Endpoint

STAGES = {
    "run": "answer, judge and score one model (the default)",
    "answer": "let a model answer the bench's questions",
    "judge": "let a judge rate a model's answers",
    "score": "average the ratings",
    "pairwise": "let the judge compare a model's answers with a baseline's",
    "show": "print the turns and judgments of a question, or draw the scores of models",
}
ANSWERING, JUDGING, SCORING = (
    ("run", "answer"),
    ("run", "judge", "pairwise"),
    ("run", "score", "pairwise"),
)
CALLING, READING, RATING = ("answer", *JUDGING), ("judge", "show", *SCORING), ("run", "score")
OPTIONS: list[
    tuple[Collection[str], str, dict[str, Any]]
] = [  # stages that take it, name, the rest
    (
        STAGES,
        "--data",
        {"help": "bench folder, or demo or instruct (default: MT-Bench, into data/mt_bench)"},
    ),
    (STAGES, "--out", {"help": "folder of answers and judgments (default: the bench's)"}),
    (
        STAGES,
        "--model-id",
        {"help": "the model's name in the files (default: from --adapter or --model)"},
    ),
    (
        ANSWERING,
        "--model",
        {"required": True, "help": "model folder or hub name, or a name that the endpoint serves"},
    ),
    (ANSWERING, "--adapter", {"help": "folder of a PEFT adapter"}),
    (
        ANSWERING,
        "--answers-from",
        {"help": "URL of an endpoint that serves --model (key: ANSWERS_API_KEY)"},
    ),
    (ANSWERING, "--max-new-tokens", {"type": int, "default": 1024}),
    (
        ANSWERING,
        "--batch-size",
        {"type": int, "default": 0, "help": "conversations at once (0: what fits)"},
    ),
    (
        ANSWERING,
        "--thinking",
        {"action": "store_true", "help": "let the model think; thoughts are kept, not judged"},
    ),
    (READING, "--judge-model", {"default": "gpt-4"}),
    (
        JUDGING,
        "--judge-url",
        {"help": "URL of the judge's endpoint (default: OPENAI_BASE_URL, or OpenAI)"},
    ),
    (JUDGING, "--references", {"help": "file of reference answers in place of the bench's own"}),
    (
        CALLING,
        "--parallel",
        {"type": int, "default": 16, "help": "calls to an endpoint under way at once"},
    ),
    (
        CALLING,
        "--timeout",
        {"type": float, "default": 120.0, "help": "seconds for one attempt at a call"},
    ),
    (
        CALLING,
        "--deadline",
        {"type": float, "default": 600.0, "help": "seconds for one call with its retries"},
    ),
    (
        CALLING,
        "--requests-per-minute",
        {"type": float, "default": 0.0, "help": "rate-limit budget (0: none)"},
    ),
    (
        SCORING,
        "--json",
        {"help": "file for the result (-: standard output, in place of the table)"},
    ),
    (
        SCORING,
        "--prices",
        {"nargs": 2, "type": float, "help": "USD for a million judge tokens in, out"},
    ),
    (
        RATING,
        "--rating",
        {"choices": ["fastchat", "strict"], "default": "fastchat", "help": "strict: + doubts"},
    ),
    (("pairwise",), "--baseline", {"required": True, "help": "id of the model to compare with"}),
    (("show",), "--baseline", {"help": "id of a second model"}),
    (("show",), "--question", {"type": int, "help": "id of the question to print"}),
    (("show",), "--figure", {"type": Path, "help": "file for a radar figure of the categories"}),
]
GO_ON = "what is done is kept, run the same command again for the rest"


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m mtbench_runner", description=__doc__)
    top.set_defaults(model=None, adapter=None, references=None, baseline=None)
    stages = top.add_subparsers(dest="stage", metavar="STAGE", required=True)
    for stage, text in STAGES.items():
        sub = stages.add_parser(stage, help=text, description=text)
        for takers, name, settings in OPTIONS:
            if stage in takers:
                shown = f" (default: {settings['default']})" if settings.get("default") else ""
                sub.add_argument(name, **settings | {"help": settings.get("help", "") + shown})
    return top


def endpoint(
    args: argparse.Namespace, model: str, url: str | None, variable: str = "OPENAI_API_KEY"
) -> "Endpoint":
    from mtbench_runner.endpoint import Endpoint, key_for

    limits = (args.parallel, args.timeout, args.deadline, args.requests_per_minute)
    return Endpoint(model, url, key_for(url, variable), *limits)


def answer_stage(args: argparse.Namespace, bench: Bench) -> None:
    from mtbench_runner.answer import Candidate, answer

    url = args.answers_from
    candidate = Candidate(
        args.model, args.adapter, url, args.max_new_tokens, args.batch_size, args.thinking
    )
    answer(
        bench,
        args.model_id,
        candidate,
        endpoint(args, args.model, url, "ANSWERS_API_KEY") if url else None,
    )


def score_stage(args: argparse.Namespace, bench: Bench) -> None:
    if args.stage == "pairwise":
        result = score.compare_pairs(
            bench, args.model_id, args.baseline, args.judge_model, args.prices
        )
    else:
        result = score.score(
            bench, args.model_id, args.judge_model, args.rating == "strict", args.prices
        )
    text = json.dumps(result, indent=1) + "\n"
    if args.json == "-":
        sys.stdout.write(text)
        return
    print(show.printable(show.table(result)))
    if args.json:
        store.write_whole(Path(args.json), text.encode())


def show_stage(args: argparse.Namespace, bench: Bench) -> None:
    models = [name for name in (args.model_id, args.baseline) if name]
    if args.question is None and args.figure is None:
        raise InputError("show needs --question ID or --figure FILE")
    if args.question is not None:
        print(show.printable(show.question(bench, args.question, models, args.judge_model)))
    if args.figure:
        show.radar([score.score(bench, name, args.judge_model) for name in models], args.figure)


def dispatch(args: argparse.Namespace) -> None:
    args.model_id = args.model_id or Path(args.adapter or args.model or "").name
    if not args.model_id or "/" in args.model_id or args.model_id.startswith("."):
        raise InputError("give the model a --model-id without slashes")
    judged_by = (
        endpoint(args, args.judge_model, args.judge_url) if args.stage in JUDGING else None
    )  # is there a key?
    bench = benches.load(args.data, args.out, args.references)
    if args.stage in ANSWERING:
        answer_stage(args, bench)
    if int(os.environ.get("RANK", 0)):
        return  # under `accelerate launch` the first process does the rest
    if judged_by:
        from mtbench_runner.judge import judge

        judge(bench, args.model_id, judged_by, args.baseline)
    if args.stage in SCORING:
        score_stage(args, bench)
    if args.stage == "show":
        show_stage(args, bench)


def main(arguments: list[str]) -> int:
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in ("-h", "--help")):
        arguments = ["run", *arguments]
    code = 1
    try:
        dispatch(parser().parse_args(arguments))
        return 0
    except InputError as error:
        message, code = str(error), 2
    except IncompleteError as error:
        message = str(error)
    except OSError as error:  # a full disk, a folder that cannot be written
        message = f"{error}; {GO_ON}"
    except KeyboardInterrupt:
        message = f"interrupted; {GO_ON}"
    sys.stderr.write(show.printable(f"error: {message}\n"))
    return code


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.exit(main(sys.argv[1:]))
