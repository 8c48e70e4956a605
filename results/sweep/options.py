"""`tatqa-bench run`: its options, and the checks that come before the first minute of work."""

import argparse
import contextlib
import importlib.util
import os
import re
import socket
import urllib.parse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from results import InputError
from results.files import in_checkout
from results.sweep import commands, recipes, vllm
from results.sweep.commands import SERVED, Settings
from results.sweep.execute import VLLM, Serving
from results.sweep.plan import Plan, Rounds, sweep

JUDGE_URL = "https://api.openai.com/v1"
REACH_SECONDS = 10
DEFAULT_PORTS = {"http": 80, "https": 443}


def add(subcommands: Any) -> argparse.ArgumentParser:
    """The command and its options."""
    run: argparse.ArgumentParser = subcommands.add_parser(
        "run", help="score the base, train and score one adapter per recipe, report"
    )
    run.add_argument("recipes", type=Path, nargs="+", metavar="RECIPE")
    add_recipe_options(run)
    add_scoring_options(run)
    add_serving_options(run)
    own = Path("results/runs") if in_checkout() else None
    run.add_argument(
        "--runs", type=folder, default=own, required=own is None, help="folder of run folders"
    )
    run.add_argument(
        "--report", type=folder, help="folder for the report (default: tatqa-report among the runs)"
    )
    run.add_argument(
        "--dry-run", action="store_true", help="print the commands that are not done yet"
    )
    run.add_argument(
        "--verbose",
        action="store_true",
        help="show what the scorers print; else it goes to <stage>.log in the run's folder",
    )
    return run


def add_recipe_options(run: argparse.ArgumentParser) -> None:
    """What is trained."""
    run.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="change a field of every recipe; the runs' names say so (repeatable)",
    )
    run.add_argument(
        "--memory", choices=("fast", "small"), help="how training uses memory, for every recipe"
    )
    run.add_argument(
        "--rounds",
        type=positive,
        default=0,
        help="recipes with strategy: mined whose samples are not there: sample replies, train on"
        " from the adapter before, score, this many times (needs --server)",
    )
    run.add_argument(
        "--replies", type=positive, default=4, help="sampled for each training question of a round"
    )
    run.add_argument(
        "--sample-limit", type=positive, help="only this many training questions of each type"
    )


def add_scoring_options(run: argparse.ArgumentParser) -> None:
    """How it is scored."""
    run.add_argument(
        "--judge-model", help="also run MT-Bench with this judge (OPENAI_API_KEY, OPENAI_BASE_URL)"
    )
    run.add_argument("--bench", help="bench folder in place of MT-Bench")
    run.add_argument(
        "--instruct", action="store_true", help="also judge the 25 instruction-following questions"
    )
    run.add_argument(
        "--ifeval", action="store_true", help="also score IFEval (needs lm_eval[ifeval])"
    )
    run.add_argument(
        "--limit", type=positive, help="only this many TAT-QA questions of each answer type"
    )
    run.add_argument(
        "--max-new-tokens", type=positive, default=1024, help="of an answer that is judged"
    )
    run.add_argument(
        "--batch-size",
        type=batch_size,
        default="auto",
        help="of lm_eval without a server: a number, or auto, as many prompts at once as fit",
    )


def add_serving_options(run: argparse.ArgumentParser) -> None:
    """What generates."""
    run.add_argument(
        "--backend", choices=("hf", "vllm"), default="hf", help="what generates inside lm_eval"
    )
    run.add_argument(
        "--overlap",
        action="store_true",
        help="without a server: train and score side by side (on CPUs, or on a GPU that has memory"
        " for a training and two scorings)",
    )
    run.add_argument(
        "--server",
        metavar="vllm|URL",
        help="score base and adapters through one server: vLLM started here for each base, or an"
        " OpenAI-compatible one that runs and can load adapters",
    )
    run.add_argument(
        "--server-memory",
        type=share,
        default=0.4,
        help="share of the GPU's memory for --server vllm; up to 0.5 it scores beside training,"
        " with more training comes first",
    )


def positive(text: str) -> int:
    """A whole number from 1 up."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 up, found {text!r}")
    return int(text)


def batch_size(text: str) -> int | str:
    """A whole number from 1 up, or "auto"."""
    return text if text == "auto" else positive(text)


def share(text: str) -> float:
    """A number above 0, at most 1."""
    with contextlib.suppress(ValueError):
        if 0 < float(text) <= 1:
            return float(text)
    raise argparse.ArgumentTypeError(f"expected a share above 0, at most 1, found {text!r}")


def folder(text: str) -> Path:
    """A folder; an empty text (of a variable that is not set) is not the working folder."""
    if not text:
        raise argparse.ArgumentTypeError("expected a folder, found an empty text")
    return Path(text)


def planned(args: argparse.Namespace) -> tuple[list[Plan], Settings, Serving]:
    """What the options ask for, checked as far as that takes no time. Raises InputError."""
    check_key()
    check_judge(args)
    check_installed(args)
    check_data()
    check_folders(args)
    found = [recipes.read(path, tuple(args.set)) for path in args.recipes]
    settings = settings_of(args)
    rounds = Rounds(args.rounds, args.replies, args.sample_limit)
    if rounds.number:
        check_rounds(found, args.server)
    plans = sweep(found, settings, args.runs, args.memory, rounds)
    from results.sweep import records  # not for --help, which is quick without

    for plan in plans:
        records.check_folder(plan.folder)
        check_report(args.report, plan.folder)
    return plans, settings, serving_of(args, found)


def check_report(report: Path | None, run: Path) -> None:
    """Raise InputError if the report is to be written into a run's own folder."""
    if report is None:
        return
    if Path(os.path.realpath(report)).is_relative_to(os.path.realpath(run)):
        raise InputError(f"--report: {report} is the folder of a run; name one of its own")


def settings_of(args: argparse.Namespace) -> Settings:
    """How everything is scored."""
    return Settings(
        judge_model=args.judge_model,
        bench=args.bench,
        limit=args.limit,
        max_new_tokens=args.max_new_tokens,
        backend=SERVED if args.server else args.backend,
        batch_size=args.batch_size,
        ifeval=args.ifeval,
        instruct=args.instruct,
    )


def serving_of(args: argparse.Namespace, found: Sequence[recipes.Recipe]) -> Serving:
    """The server that the options ask for. Raises InputError if it cannot be had."""
    rank = max(recipe.rank for recipe in found)
    if args.server == VLLM and not args.dry_run:
        vllm.program()
        vllm.served_rank(rank)
    elif args.server not in (None, VLLM):
        check_address(args.server)
    return Serving(args.server, args.server_memory, rank, args.runs, args.overlap)


def check_address(url: str) -> None:
    """Raise InputError if this is no URL of a server, or has in it what records are not to keep."""
    if re.search(r"[@?#]", url):
        raise InputError(
            "--server: expected scheme, host, port and path alone, found @, ? or # in the URL;"
            " records keep it, so give a key in OPENAI_API_KEY"
        )
    if address(url) is None or re.search(r"[\s,]", url):
        raise InputError(f"--server {url}: expected vllm or the URL of a server")


def check_key() -> None:
    """Raise InputError if the key could not be sent."""
    key = os.environ.get("OPENAI_API_KEY", "")
    if not (key.isascii() and key.isprintable()):
        raise InputError("OPENAI_API_KEY has a line break or another character that cannot be sent")


def address(url: str) -> tuple[str, int] | None:
    """Host and port of an http(s) URL; None if it is none."""
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port or DEFAULT_PORTS[parts.scheme]
    except (ValueError, KeyError):
        return None
    return (parts.hostname, port) if parts.hostname else None


def check_rounds(found: Sequence[recipes.Recipe], server: str | None) -> None:
    """Raise InputError if no recipe can learn in rounds, or nothing can sample."""
    if not server:
        raise InputError("--rounds samples replies through a server: give --server vllm or a URL")
    if not any(recipe.samples_itself for recipe in found):
        raise InputError(
            "--rounds: no recipe here has strategy: mined and samples that are not there"
        )


def check_judge(args: argparse.Namespace) -> None:
    """Raise InputError if a judge is asked for that cannot be used."""
    if not args.judge_model:
        for option in ("instruct", "bench"):
            if getattr(args, option):
                raise InputError(f"--{option} needs a judge: give --judge-model")
        return
    if not os.environ.get("OPENAI_API_KEY"):
        raise InputError("the judge needs OPENAI_API_KEY (any word if its server asks for none)")
    judge_address()
    bench = commands.bench_folder(args.bench)
    if not (bench / "question.jsonl").is_file():
        raise InputError(f"--bench: no question.jsonl in {bench}; see python -m mtbench_runner")


def judge_address() -> tuple[str, int]:
    """Host and port of the judge. Raises InputError if its URL is none."""
    url = os.environ.get("OPENAI_BASE_URL") or JUDGE_URL
    place = address(url)
    if place is None or re.search(r"\s", url):
        raise InputError(f"OPENAI_BASE_URL: {url} is no URL of a server; one begins with http://")
    return place


def check_judge_answers() -> None:
    """Raise InputError if nobody listens where the judge should be.

    Behind a proxy nothing can be told from here.
    """
    if os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy"):
        return
    host, port = judge_address()
    try:
        socket.create_connection((host, port), REACH_SECONDS).close()
    except OSError as error:
        raise InputError(f"the judge at {host}:{port} cannot be reached ({error})") from None


def check_installed(args: argparse.Namespace) -> None:
    """Raise InputError for an option whose library is not there, which lm-eval tells late."""
    if args.backend == "vllm" and not args.dry_run:
        refuse_missing("--backend vllm", "vllm", "vllm")
    if args.ifeval and not args.dry_run:
        refuse_missing("--ifeval", "langdetect", "'lm_eval[ifeval]'")


def refuse_missing(option: str, library: str, package: str) -> None:
    """Raise InputError if a library is not installed."""
    if importlib.util.find_spec(library) is None:
        raise InputError(f"{option}: no {library} here; pip install {package}, or leave it out")


def check_folders(args: argparse.Namespace) -> None:
    """Raise InputError if a file, or a link to nothing, lies where a folder is to be.

    Or if nothing may be written there.
    """
    for option, folder in (("--runs", args.runs), ("--report", args.report)):
        for path in [folder, *folder.parents] if folder else []:
            if not path.is_dir() and (path.exists() or path.is_symlink()):
                raise InputError(f"{option}: {path} is no folder; name another")
        if folder:
            refuse_unwritable(option, folder)


def refuse_unwritable(option: str, folder: Path) -> None:
    """Raise InputError if this folder, or the one that it would be made in, takes no files."""
    there = next(path for path in (folder, *folder.parents) if path.is_dir())
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"{option}: {there} may not be written to; name another")


def check_data() -> None:
    """Raise InputError if TATQA_DATA names a folder that is not there."""
    source = os.environ.get("TATQA_DATA", "")
    if source and source != "synthetic" and not Path(source).is_dir():
        raise InputError(f"TATQA_DATA: no folder {source}")
