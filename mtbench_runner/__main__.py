"""MT-Bench, and benches of its shape, through FastChat's judge.

Without a stage: one model from answers to scores.
"""

if __name__ == "__main__":  # a Ctrl-C may come while the rest is imported
    from mtbench_runner.command_line import stop_at_once

    stop_at_once()

import argparse
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtbench_runner import bench as benches
from mtbench_runner import checks, options, store
from mtbench_runner.bench import Bench
from mtbench_runner.checks import LOCAL, judge_names, local_name
from mtbench_runner.command_line import exit_code
from mtbench_runner.options import ANSWERING, JUDGING, SCORING
from mtbench_runner.store import IncompleteError, InputError
from mtbench_runner.terminal import printable

if TYPE_CHECKING:  # these import the openai client
    from mtbench_runner.endpoint import Endpoint
    from mtbench_runner.judge import Judge, Request
    from mtbench_runner.local import Candidate
    from mtbench_runner.spending import Prices, Spending

GO_ON = "what is done is kept, run the same command again for the rest"


def endpoint(
    args: argparse.Namespace, model: str, url: str | None, variable: str = "OPENAI_API_KEY"
) -> "Endpoint":
    """The endpoint of a model, which is not asked yet. Raises InputError without a key."""
    from mtbench_runner.endpoint import Endpoint, key_for

    return Endpoint(
        model=model,
        url=url,
        key=key_for(url, variable),
        parallel=args.parallel,
        timeout=args.timeout,
        deadline=args.deadline,
        requests_per_minute=args.requests_per_minute,
    )


def prices(args: argparse.Namespace) -> "Prices | None":
    """The prices that --prices gives."""
    from mtbench_runner.spending import Prices

    return Prices(*args.prices) if args.prices else None


def spending(args: argparse.Namespace) -> "Spending":
    """The running costs of a stage, with the limit that --max-cost gives."""
    from mtbench_runner.spending import Spending

    return Spending(prices(args), args.max_cost)


# --- stages


def answer_stage(args: argparse.Namespace, bench: Bench, served: "Endpoint | None") -> None:
    """Let the model answer what is not answered yet. Raises IncompleteError."""
    from mtbench_runner.answer import answer

    limits = spending(args) if args.stage == "answer" else None  # else prices are the judge's
    answer(bench, args.model_id, candidate_of(args), served, limits, args.again)


def candidate_of(args: argparse.Namespace) -> "Candidate":
    """The model that answers, as the options say."""
    from mtbench_runner.local import Candidate

    return Candidate(
        model=args.model,
        adapter=args.adapter,
        url=args.answers_from,
        max_new_tokens=args.max_new_tokens,
        batch_size=args.batch_size,
        thinking=args.thinking,
        system=args.system,
    )


def judge_stage(args: argparse.Namespace, bench: Bench, judges: "list[Judge]") -> None:
    """Let every judge do what it can; raise IncompleteError for all of them in the end."""
    from mtbench_runner.judge import judge

    request = request_of(args)
    missing = []
    for by in judges:
        try:
            if args.batch == "submit":
                submit(bench, request, by, args)
            elif args.batch == "collect":
                collect(bench, request, by)
            else:
                judge(bench, request, by)
        except IncompleteError as error:
            missing.append(f"{by.name}: {error}" if len(judges) > 1 else str(error))
    if missing:
        raise IncompleteError("; ".join(missing))


def submit(bench: Bench, request: "Request", by: "Judge", args: argparse.Namespace) -> None:
    """Send one judge's calls as a batch, and say what was done."""
    from mtbench_runner import batch

    print(printable(batch.submit(bench, request, endpoint(args, by.name, args.judge_url))))


def collect(bench: Bench, request: "Request", by: "Judge") -> None:
    """Judge from the output of a batch that was sent. Raises IncompleteError."""
    from mtbench_runner import batch

    if isinstance(by, batch.BatchJudge):
        batch.collect(bench, request, by)


def request_of(args: argparse.Namespace) -> "Request":
    """What is to be judged, as the options say."""
    from mtbench_runner.judge import Request

    return Request(
        model_id=args.model_id,
        baseline=args.baseline,
        votes=args.votes,
        cap=args.judge_max_tokens,
        temperature=args.judge_temperature,
        effort=args.judge_effort,
        again=args.again,
    )


def make_judges(args: argparse.Namespace) -> "list[Judge]":
    """The judges, each of them there. Raises InputError where one is not."""
    from mtbench_runner.endpoint import check

    served_by_name = {}  # what is not there is told before FastChat, and torch with it, is imported
    for name in args.judge_model:
        if not name.startswith(LOCAL):
            served_by_name[name] = endpoint(args, name, args.judge_url)
            if not args.batch:
                check(served_by_name[name])
    from mtbench_runner.judge import EndpointJudge

    limits = spending(args)
    judges: list[Judge] = []
    for name in args.judge_model:
        if name.startswith(LOCAL):
            from mtbench_runner.local_judge import LocalJudge

            judges.append(LocalJudge(name.removeprefix(LOCAL), args.judge_max_tokens))
            continue
        served = served_by_name[name]
        if args.batch:
            from mtbench_runner.batch import BatchJudge

            judges.append(BatchJudge(served))
            continue
        judges.append(EndpointJudge(served, limits))
    return judges


def score_stage(args: argparse.Namespace, bench: Bench) -> None:
    """Print or write the result. Raises IncompleteError if something is missing or all unrated."""
    from mtbench_runner import pairwise, score, show

    result: Any
    if args.baseline:
        result = pairwise.compare_pairs(
            bench, args.model_id, args.baseline, judge_names(args), prices(args)
        )
        text = show.pair_table(result)
    else:
        strict = args.rating == "strict"
        result = score.score(bench, args.model_id, judge_names(args), strict, prices(args))
        text = show.score_table(result)
    write_result(result, args.json, text)
    if result["missing"]:
        raise IncompleteError(f"{result['missing']} judgments are missing; judge for the rest")
    if result["overall"] is None:
        raise IncompleteError(
            f"none of {result['unparsable']} judgments has a rating; "
            "look at one with show --question, then judge --again unrated or --rating-pattern"
        )


def write_result(result: Mapping[str, Any], to: str | None, text: str) -> None:
    """The table on standard output and the result in a file, or (-) the result in its place."""
    content = json.dumps(result, indent=1) + "\n"
    if to == "-":
        sys.stdout.write(content)
        return
    print(printable(text))
    if to:
        store.write_whole(Path(to), content.encode())


def show_stage(args: argparse.Namespace, bench: Bench) -> None:
    """Print a question's turns, draw the figure, or both."""
    from mtbench_runner import score, show

    models = models_of(args)
    if args.question is None and args.figure is None:
        raise InputError("show needs --question ID or --figure FILE")
    judges = judge_names(args)
    if args.question is not None:
        print(printable(show.question(bench, args.question, models, judges)))
    if args.figure:
        results = [score.score(bench, name, judges) for name in models]
        show.radar(results, args.figure)


def models_of(args: argparse.Namespace) -> list[str]:
    """The model, and the baseline if there is one."""
    return [args.model_id, args.baseline] if args.baseline else [args.model_id]


def agreement_stage(args: argparse.Namespace, bench: Bench) -> None:
    """Compare two judges, or a judge with people."""
    from mtbench_runner import agreement

    first, second = map(local_name, args.judges)
    result = agreement.compare(bench, first, second, args.model_id)
    write_result(result, args.json, agreement.table(result))


def dry_run(args: argparse.Namespace, bench: Bench) -> None:
    """Tell what the stage would ask and pay. Nothing is asked or written."""
    from mtbench_runner import estimate, show

    found = []
    if args.stage in ANSWERING and args.answers_from:
        known = prices(args) if args.stage == "answer" else None  # else they are the judge's
        found += estimate.answers(bench, args.model_id, candidate_of(args), known)
    if args.stage in JUDGING:
        found += estimate.judgments(bench, request_of(args), judge_names(args), prices(args))
    print(show.estimates(found))


# --- the whole


def load_bench(args: argparse.Namespace) -> Bench:
    """The bench that the options name. Raises InputError."""
    return benches.load(
        args.data,
        args.out,
        args.references,
        args.judge_file,
        args.questions,
        args.rating_pattern,
    )


def dispatch(args: argparse.Namespace) -> None:
    """Run the stage. Work that is incomplete does not keep later stages from their part."""
    checks.check(args)
    bench = load_bench(args) if args.data else None
    if args.check:
        return None
    checks.check_sources(args)
    bench = bench or load_bench(args)  # MT-Bench may have to be downloaded
    if args.dry_run:
        return dry_run(args, bench)
    if args.stage == "agreement":
        return agreement_stage(args, bench)
    if args.stage == "show":
        return show_stage(args, bench)
    if args.stage in ("judge", "pairwise"):
        bench.require_answers(models_of(args))
    served = candidate_endpoint(args)
    judges = make_judges(args) if args.stage in JUDGING else []
    return work(args, bench, judges, served)


def candidate_endpoint(args: argparse.Namespace) -> "Endpoint | None":
    """Where the model that answers is served. Raises InputError if nothing answers there."""
    if args.stage not in ANSWERING or not args.answers_from:
        return None
    from mtbench_runner.endpoint import check

    served = endpoint(args, args.model, args.answers_from, "ANSWERS_API_KEY")
    check(served)
    return served


def work(
    args: argparse.Namespace, bench: Bench, judges: "list[Judge]", served: "Endpoint | None"
) -> None:
    """Answer, judge and score, as far as the stage goes. What lacks is told in the end."""
    lacking: list[str] = []
    if args.stage in ANSWERING:
        _try(lambda: answer_stage(args, bench, served), lacking)
    if int(os.environ.get("RANK", 0)):
        return  # under `accelerate launch` the first process does the rest
    if judges:
        _try(lambda: judge_stage(args, bench, judges), lacking)
    if args.stage in SCORING and args.batch != "submit":
        _score_what_is_there(args, bench, lacking)
    if lacking:
        raise IncompleteError("; ".join(dict.fromkeys(lacking)))


def _try(stage: Any, lacking: list[str]) -> None:
    """Run a stage; note what it leaves undone."""
    try:
        stage()
    except IncompleteError as error:
        lacking.append(str(error))


def _score_what_is_there(args: argparse.Namespace, bench: Bench, lacking: list[str]) -> None:
    """Print the result although something may lack."""
    try:
        score_stage(args, bench)
    except IncompleteError as error:
        if not lacking:  # else that something is missing is told already, with its cause
            lacking.append(str(error))
    except InputError:
        if not lacking:  # nothing to score because nothing was judged, which is told already
            raise


def main(arguments: list[str]) -> int:
    """Run one stage. Exit code 0 done, 1 failed or incomplete, 2 a wrong call or input."""
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in ("-h", "--help")):
        arguments = ["run", *arguments]
    code = 1
    try:
        dispatch(options.parse(arguments, __doc__))
        return 0
    except InputError as error:
        message, code = str(error), 2
    except IncompleteError as error:
        message = str(error)
    except BrokenPipeError:
        raise  # a reader of standard output that left early
    except OSError as error:  # a full disk, a folder that cannot be written
        message = f"{error}; {GO_ON}"
    except KeyboardInterrupt:
        message = f"interrupted; {GO_ON}"
    sys.stderr.write(printable(f"error: {' '.join(message.split())}") + "\n")
    return code


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.exit(exit_code(lambda: main(sys.argv[1:])))
