"""Compare, run and report: `python -m results --help`."""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from results import FailedError, InputError


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m results", description=__doc__)
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    compare = commands.add_parser(
        "compare", help="what changed between two lm-eval outputs, score files or records"
    )
    compare.set_defaults(do=compare_command)
    compare.add_argument("before", type=Path)
    compare.add_argument("after", type=Path)
    compare.add_argument("--json", action="store_true", help="print JSON")
    run = commands.add_parser(
        "run", help="score the base, train and score one adapter per recipe, report"
    )
    run.set_defaults(do=run_command)
    run.add_argument("recipes", type=Path, nargs="+", metavar="RECIPE")
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
        "--limit", type=int, help="only this many TAT-QA questions of each answer type"
    )
    run.add_argument(
        "--backend", choices=("hf", "vllm"), default="hf", help="what generates for lm_eval"
    )
    run.add_argument("--max-new-tokens", type=int, default=1024, help="of an answer that is judged")
    run.add_argument("--batch-size", type=int, default=16, help="of lm_eval")
    run.add_argument(
        "--runs", type=Path, default=Path("results/runs"), help="folder of run folders"
    )
    run.add_argument(
        "--report", type=Path, help="folder for the report (default: tatqa-report among the runs)"
    )
    run.add_argument(
        "--dry-run", action="store_true", help="print the commands that are not done yet"
    )
    add_report(commands)
    return top


def add_report(commands: Any) -> None:
    """The options of `report`."""
    report = commands.add_parser(
        "report", help="write README.md, figures and report.html from the records"
    )
    report.set_defaults(do=report_command)
    report.add_argument(
        "--runs", type=Path, default=Path("results/runs"), help="folder of run folders"
    )
    report.add_argument(
        "--out", type=Path, help="folder for the report (default: tatqa-report among the runs)"
    )
    report.add_argument("--results", type=Path, help="short for --runs RESULTS/runs --out RESULTS")
    report.add_argument(
        "--check", action="store_true", help="write nothing; fail if it is not up to date"
    )


def compare_command(args: argparse.Namespace) -> int:
    from results import compare

    found, warnings = compare.compare(compare.load(args.before), compare.load(args.after))
    rows = [row for bench in found.values() for row in bench]
    sys.stderr.write("".join(f"warning: {warning}\n" for warning in warnings))
    print(json.dumps(compare.as_json(rows), indent=1) if args.json else compare.text(rows))
    return 0


def run_command(args: argparse.Namespace) -> int:
    from results.report import publish
    from results.sweep import plan as run

    if args.judge_model and not os.environ.get("OPENAI_API_KEY"):
        raise InputError("the judge needs OPENAI_API_KEY (any word if its server asks for none)")
    settings = run.Settings(
        **{name: getattr(args, name) for name in run.Settings.__dataclass_fields__}
    )
    plans = run.sweep(args.recipes, settings, args.runs)
    if args.dry_run:
        print(
            "\n".join(
                stage.command(sys.executable)
                for p in plans
                for stage in p.stages
                if not stage.done()
            )
        )
        return 0
    publish.check_place(publish.folder_for(args.runs, args.report))
    run.execute(plans, settings)
    show_comparisons(plans)
    args = argparse.Namespace(runs=args.runs, out=args.report, results=None, check=False)
    report_command(args)  # somebody else's broken record does not fail a sweep that is done
    return 0


def show_comparisons(plans: list[Any]) -> None:
    """The headlines of every run of a sweep, on the terminal."""
    from results import compare
    from results.report import sections

    for before, after in [(plan.base, plan.folder) for plan in plans if plan.base]:
        found, _ = compare.compare(compare.load(before), compare.load(after))
        rows = [
            row
            for bench, rows in found.items()
            for row in rows
            if row.metric == sections.HEADLINES.get(bench)
        ]
        print(f"\n=== {after.name}, before: {before.name} ===\n{compare.text(rows)}")


def report_command(args: argparse.Namespace) -> int:
    from results.report import publish

    runs = args.results / "runs" if args.results else args.runs
    out = args.results or publish.folder_for(runs, args.out)
    if args.check:
        stale = publish.stale(runs, out)
        sys.stderr.write(
            "".join(f"error: {line}; run python -m results report\n" for line in stale)
        )
        return 1 if stale else 0
    problems = publish.write(runs, out)
    sys.stderr.write("".join(f"error: {line}\n" for line in problems))
    print(f"\nreport: {out / 'README.md'} and {out / publish.PAGE}")
    return 1 if problems else 0


def main(arguments: list[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    try:
        return int(args.do(args))
    except FailedError as error:
        message, code = str(error), error.exit_code
    except KeyboardInterrupt:
        message, code = "stopped; what is done is kept, the same command goes on from there", 1
    sys.stderr.write(f"error: {message}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
