"""Commands around the TAT-QA task.

    python -m tatqa_task COMMAND

include-path | evaluate | score | rescore | export | errata | download | generate | upstream
"""

if __name__ == "__main__":  # a Ctrl-C may come while the rest is imported
    from tatqa_task.command_line import stop_at_once

    stop_at_once()

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tatqa_task import (
    data,
    download,
    errata,
    files,
    predictions,
    synthetic,
    task_files,
    upstream,
)
from tatqa_task.command_line import code_of, exit_code, say_error
from tatqa_task.imports import collector_at_rest
from tatqa_task.types import questions_of

GOLD = "gold file, official format"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Exit code 0 done, 1 failed, 2 unusable call or input, with one line."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["evaluate"]:
        with collector_at_rest():
            from tatqa_task import evaluate
        return evaluate.main(words[1:])
    arguments = _parser().parse_args(words)
    try:
        arguments.run(arguments)
        return 0
    except data.DataError as error:
        say_error(error)
        return 2
    except BrokenPipeError:
        raise  # a reader of standard output that left early
    except OSError as error:
        say_error(f"{error.filename2 or error.filename or 'output'}: {error.strerror}")
        return code_of(error)


def _parser() -> argparse.ArgumentParser:
    """All commands; those that do more than print have their options beside what they do."""
    parser = argparse.ArgumentParser(prog="python -m tatqa_task", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    commands.add_parser(
        "include-path", help="print the folder of the task YAMLs, for lm_eval --include_path"
    ).set_defaults(run=lambda _: print(task_files.FOLDER))
    commands.add_parser(
        "evaluate", help="lm_eval run with the tasks of this package alone, which starts faster"
    )
    _add_score(commands)
    _add_rescore(commands)
    _add_export(commands)
    _add_errata(commands)
    commands.add_parser(
        "download", help="fetch and verify the official files, print where they are"
    ).set_defaults(run=_download)
    _add_generate(commands)
    _add_upstream(commands)
    return parser


def _download(arguments: argparse.Namespace) -> None:
    """Fetch the official files, and print where they are."""
    for split in data.FILES:
        print(download.official_file(split))


def _add_score(commands: Any) -> None:
    command = commands.add_parser(
        "score", help="score predictions in TAT-QA's official format, {uid: [answer, scale]}"
    )
    command.add_argument("--gold", type=Path, required=True, help=GOLD)
    command.add_argument("--pred", type=Path, required=True, help="predictions, as JSON")
    command.add_argument(
        "--json", type=Path, metavar="OUT", help="also write the scores, question by question"
    )
    command.set_defaults(run=_score)


def _score(arguments: argparse.Namespace) -> None:
    """Print the scores of a file of predictions, and write them if asked to."""
    if arguments.json:
        files.refuse_existing(arguments.json)
    scored = predictions.score(arguments.gold, arguments.pred)
    for warning in scored.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(scored.text())
    if arguments.json:
        files.write_json(arguments.json, scored.content())


def _add_rescore(commands: Any) -> None:
    command = commands.add_parser(
        "rescore", help="score the replies of an lm-eval output again with this version's reader"
    )
    command.add_argument("output", type=Path, help="lm-eval's output folder, with --log_samples")
    command.add_argument("folder", type=Path, help="where the new output goes")
    command.set_defaults(run=_rescore)


def _rescore(arguments: argparse.Namespace) -> None:
    """Score an lm-eval output again."""
    from tatqa_task import rescore  # reads lm-eval, which takes seconds

    number = rescore.rescore(arguments.output, arguments.folder)
    print(f"{number} questions scored again in {arguments.folder}")


def _add_export(commands: Any) -> None:
    command = commands.add_parser(
        "export", help="turn lm-eval's --log_samples files into the official format"
    )
    command.add_argument(
        "samples", type=Path, nargs="+", help="samples_*.jsonl files of one run, or its folder"
    )
    command.add_argument(
        "--out", type=Path, required=True, metavar="PRED", help="predictions to write"
    )
    command.set_defaults(run=lambda given: print(predictions.export(given.samples, given.out)))


def _add_errata(commands: Any) -> None:
    command = commands.add_parser(
        "errata", help="list the gold answers of a file that the rules doubt, or that do not stand"
    )
    command.add_argument("--gold", type=Path, required=True, help=GOLD)
    command.set_defaults(run=_errata)


def _errata(arguments: argparse.Namespace) -> None:
    """Print what the rules doubt in a file, then what only a reader found."""
    contexts = data.read_file(arguments.gold)
    listed = errata.listed()
    for found in errata.findings(contexts):
        verdict = listed[found.uid].verdict if found.uid in listed else "not listed"
        print(f"{found.uid}\t{verdict}\t{found.rule}\t{found.evidence}")
    for question in questions_of(contexts):
        entry = listed.get(question.uid)
        if entry and entry.rule == "by_eye":
            print(f"{entry.uid}\t{entry.verdict}\t{entry.rule}\t{entry.evidence}")


def _add_generate(commands: Any) -> None:
    command = commands.add_parser(
        "generate", help="write a folder of synthetic data that TATQA_DATA can name"
    )
    command.add_argument("folder", type=Path)
    command.add_argument(
        "--contexts",
        type=int,
        default=100,
        help="contexts per split, 6 questions each (default 100)",
    )
    command.add_argument("--seed", type=int, default=0)
    command.set_defaults(run=_generate)


def _generate(arguments: argparse.Namespace) -> None:
    """Write synthetic files under the official names."""
    folder = arguments.folder
    if arguments.contexts < 1:
        raise data.DataError(f"--contexts {arguments.contexts}: one or more are needed")
    contents = {}
    for split, (name, _) in data.FILES.items():
        contexts = synthetic.generate(split, arguments.contexts, arguments.seed)
        contents[name] = files.json_bytes(contexts, indent=1)
    files.write_missing(folder, contents)
    print(f"synthetic data in {folder}; use it with TATQA_DATA={folder}")


def _add_upstream(commands: Any) -> None:
    command = commands.add_parser(
        "upstream", help="write a task folder for lm-evaluation-harness itself"
    )
    command.add_argument("folder", type=Path)
    command.set_defaults(run=_upstream)


def _upstream(arguments: argparse.Namespace) -> None:
    """Write the task folder for lm-evaluation-harness."""
    names = upstream.write(arguments.folder)
    print(
        f"{len(names)} files in {arguments.folder}; with lm-eval: --include_path {arguments.folder}"
    )


if __name__ == "__main__":
    sys.exit(exit_code(main))
