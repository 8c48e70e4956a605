"""Compare, run and report: `python -m results --help`."""

if __name__ == "__main__":  # a Ctrl-C may come while the rest is imported
    from results.command_line import stop_at_once

    stop_at_once()

import argparse
import os
import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from results import FailedError, InputError, on_one_line
from results.command_line import exit_code
from results.files import in_checkout
from results.sweep import options
from results.sweep.terminal import VERBOSE


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m results", description=__doc__)
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    compare = commands.add_parser(
        "compare", help="what changed between two lm-eval outputs, score files or records"
    )
    compare.set_defaults(do=compare_command)
    add_compare(compare)
    options.add(commands).set_defaults(do=run_command)
    add_report(commands)
    return top


def add_compare(compare: argparse.ArgumentParser) -> None:
    """The options of `compare`."""
    compare.add_argument("before", type=Path)
    compare.add_argument(
        "after", type=Path, nargs="+", help="several: runs of one recipe with other seeds"
    )
    shown = compare.add_mutually_exclusive_group()
    shown.add_argument("--json", action="store_true", help="print JSON")
    compare.add_argument(
        "--cluster",
        metavar="KEY",
        help="questions whose documents agree in KEY are not independent",
    )
    compare.add_argument(
        "--margin", type=float, help="call a difference none within it, in the unit shown"
    )
    compare.add_argument(
        "--fail-if-worse", action="store_true", help="exit code 1 if a bench got worse"
    )
    shown.add_argument(
        "--flips", action="store_true", help="list the questions that changed, with both replies"
    )


def add_report(commands: Any) -> None:
    """The options of `report`."""
    report = commands.add_parser(
        "report", help="write README.md, figures and report.html from the records"
    )
    report.set_defaults(do=report_command)
    which = report.add_mutually_exclusive_group(required=not in_checkout())
    which.add_argument("--runs", type=options.folder, help="folder of run folders")
    which.add_argument(
        "--results", type=options.folder, help="short for --runs RESULTS/runs --out RESULTS"
    )
    report.add_argument(
        "--out",
        type=options.folder,
        help="folder for the report (default: tatqa-report among the runs)",
    )
    report.add_argument(
        "--check", action="store_true", help="write nothing; fail if it is not up to date"
    )


def compare_command(args: argparse.Namespace) -> int:
    from results import terminal

    return terminal.run(args)


def run_command(args: argparse.Namespace) -> int:
    from results.sweep import dry_run, execute

    if args.verbose:
        os.environ[VERBOSE] = "1"
    plans, settings, serving = options.planned(args)
    execute.check(plans, args.bench if args.judge_model else None)
    from results.report import publish  # draws figures: only for a call that is not refused

    publish.check_place(publish.folder_for(args.runs, args.report))
    if args.dry_run:
        print("\n".join(dry_run.lines(plans, serving)))
        return 0
    if args.judge_model:
        options.check_judge_answers()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: a job is taken away
    return run_plans(args, plans, lambda: execute.execute(plans, settings, serving))


def run_plans(args: argparse.Namespace, plans: list[Any], work: Callable[[], None]) -> int:
    """Do the work, then show and report what is done of it, also where a run has failed."""
    from results import terminal
    from results.sweep import stages

    failure = None
    try:
        work()
    except FailedError as error:
        failure = error
    done = [plan.folder for plan in plans if plan.recorded()]
    pairs = []
    for plan in plans:
        if plan.base in done and plan.folder in done:
            pairs.append((plan.base, plan.folder))
    if pairs:
        print(terminal.headlines(pairs))
    if done:  # somebody else's broken record does not fail a sweep that is done
        asked = argparse.Namespace(runs=args.runs, out=args.report, results=None, check=False)
        with stages.in_turn(args.runs / "report.lock"):
            report_command(asked)
    if failure:
        raise failure
    return 0


def report_command(args: argparse.Namespace) -> int:
    if args.runs is None and args.results is None:
        args.results = Path("results")  # the checkout's own
    runs = args.results / "runs" if args.results else args.runs
    if not runs.is_dir():
        raise InputError(f"{runs}: no such folder of runs")
    from results import record

    record.places(runs)
    from results.report import publish  # draws figures: only for a call that is not refused

    out = args.results or publish.folder_for(runs, args.out)
    if args.check:
        stale = publish.stale(runs, out)
        say([f"{line}; report again without --check" for line in stale])
        return 1 if stale else 0
    problems = publish.write(runs, out)
    say(problems)
    print(f"\nreport: {out / 'README.md'} and {out / publish.PAGE}")
    return 1 if problems else 0


def say(problems: Iterable[str]) -> None:
    """Problems on standard error, a line each."""
    for problem in problems:
        sys.stderr.write(f"error: {on_one_line(problem)}\n")


def main(arguments: list[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    try:
        return int(args.do(args))
    except FailedError as error:
        message, code = str(error), error.exit_code
    except KeyboardInterrupt:
        message, code = "stopped; what is done is kept, the same command goes on from there", 1
    say([message])
    return code


if __name__ == "__main__":
    sys.exit(exit_code(main))
