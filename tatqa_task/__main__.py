"""Commands around the TAT-QA task.

    python -m tatqa_task COMMAND

include-path | evaluate | score | rescore | export | errata | download | generate | upstream
"""

if __name__ == "__main__":  # a Ctrl-C may come while the rest is imported
    from tatqa_task.command_line import stop_at_once

    stop_at_once()

import argparse
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeGuard

from tatqa_task import (
    answer,
    data,
    download,
    errata,
    files,
    metric,
    synthetic,
    task_files,
    upstream,
)
from tatqa_task.command_line import exit_code, say_error
from tatqa_task.imports import collector_at_rest
from tatqa_task.types import Question, questions_of


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Exit code 0 done, 2 unusable call or input (one line on stderr)."""
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
    except BrokenPipeError:
        raise  # a reader of standard output that left early
    except OSError as error:
        say_error(f"{error.filename2 or error.filename or 'output'}: {error.strerror}")
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tatqa_task", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")

    command = commands.add_parser(
        "include-path", help="print the folder of the task YAMLs, for lm_eval --include_path"
    )
    command.set_defaults(run=lambda _: print(task_files.FOLDER))

    commands.add_parser(
        "evaluate", help="lm_eval run with the tasks of this package alone, which starts faster"
    )

    command = commands.add_parser(
        "score", help="score predictions in TAT-QA's official format, {uid: [answer, scale]}"
    )
    command.add_argument("--gold", type=Path, required=True, help="gold file, official format")
    command.add_argument("--pred", type=Path, required=True, help="predictions, as JSON")
    command.add_argument(
        "--json", type=Path, metavar="OUT", help="also write the scores, question by question"
    )
    command.set_defaults(run=_score)

    command = commands.add_parser(
        "rescore", help="score the replies of an lm-eval output again with this version's reader"
    )
    command.add_argument("output", type=Path, help="lm-eval's output folder, with --log_samples")
    command.add_argument("folder", type=Path, help="where the new output goes")
    command.set_defaults(run=_rescore)

    command = commands.add_parser(
        "export", help="turn lm-eval's --log_samples files into the official format"
    )
    command.add_argument(
        "samples", type=Path, nargs="+", help="samples_*.jsonl files of one run, or its folder"
    )
    command.add_argument(
        "--out", type=Path, required=True, metavar="PRED", help="predictions to write"
    )
    command.set_defaults(run=_export)

    command = commands.add_parser(
        "errata", help="list the gold answers of a file that the rules doubt, or that do not stand"
    )
    command.add_argument("--gold", type=Path, required=True, help="gold file, official format")
    command.set_defaults(run=_errata)

    command = commands.add_parser(
        "download", help="fetch and verify the official files, print where they are"
    )
    command.set_defaults(run=_download)

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

    command = commands.add_parser(
        "upstream", help="write a task folder for lm-evaluation-harness itself"
    )
    command.add_argument("folder", type=Path)
    command.set_defaults(run=_upstream)
    return parser


def _score(arguments: argparse.Namespace) -> None:
    """Print the scores of a file of predictions, and write them if asked to."""
    if arguments.json:
        files.refuse_existing(arguments.json)
    questions = questions_of(data.read_file(arguments.gold))
    predictions, repeated = _read_predictions(arguments.pred)
    misshapen = [uid for uid, prediction in predictions.items() if not _is_pair(prediction)]
    scores = {}
    for question in questions:
        prediction = predictions.get(question.uid)
        answered, scale = prediction if _is_pair(prediction) else (None, None)
        scores[question.uid] = metric.score(question, answered, scale)
    without = sorted(scores.keys() - predictions.keys())
    _report_uids("questions without a prediction count as wrong", without)
    unasked = sorted(predictions.keys() - scores.keys())
    _report_uids("predictions for no question are left out", unasked)
    _report_uids("uids predicted more than once count with their last prediction", repeated)
    _report_uids("predictions that are not [answer, scale] count as wrong", misshapen)
    mean = _print_scores(questions, scores)
    if arguments.json:
        content = mean._asdict() | {"n": len(scores), "per_question": scores}
        _write_json(arguments.json, content)


def _is_pair(prediction: Any) -> TypeGuard[list[Any]]:
    """Whether a prediction is `[answer, scale]`."""
    return isinstance(prediction, list) and len(prediction) == 2


def _print_scores(questions: Sequence[Question], scores: dict[str, metric.Score]) -> metric.Score:
    """Print means, also those without the errata, and tables. Returns the mean over all."""
    mean = metric.mean(list(scores.values()))
    print(f"questions {len(scores)}\nEM {mean.em:.4f}\nF1 {mean.f1:.4f}\nscale {mean.scale:.4f}")
    verified = [score for uid, score in scores.items() if uid not in errata.listed()]
    if len(verified) < len(scores):
        stands = metric.mean(verified)
        print(f"questions_verified {len(verified)}\nEM_verified {stands.em:.4f}")
        print(f"F1_verified {stands.f1:.4f}\nscale_verified {stands.scale:.4f}")
    for title, field in (("EM", "em"), ("F1", "f1")):
        values = [getattr(scores[question.uid], field) for question in questions]
        print(f"\n{_table(title, questions, values)}")
    return mean


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


def _download(arguments: argparse.Namespace) -> None:
    """Fetch the official files, and print where they are."""
    for split in data.FILES:
        print(download.official_file(split))


def _upstream(arguments: argparse.Namespace) -> None:
    """Write the task folder for lm-evaluation-harness."""
    names = upstream.write(arguments.folder)
    print(
        f"{len(names)} files in {arguments.folder}; with lm-eval: --include_path {arguments.folder}"
    )


def _read_predictions(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Predictions by uid, and the uids that appear more than once."""
    items = data.read_json(path, "write the predictions again", object_pairs_hook=list)
    if not isinstance(items, list) or not all(isinstance(item, tuple) for item in items):
        raise data.DataError(
            f"{path}: expected an object {{uid: [answer, scale]}}, as `export` writes it; "
            "gold data go to --gold"
        )
    counts = Counter(uid for uid, _ in items)
    return dict(items), [uid for uid, n in counts.items() if n > 1]


def _report_uids(what: str, uids: Sequence[str]) -> None:
    """Warn of these questions, if there are any, with the names of the first ten."""
    if not uids:
        return
    named = ", ".join(uids[:10])
    if len(uids) > 10:
        named += f" and {len(uids) - 10} more"
    print(f"warning: {len(uids)} {what}: {named}", file=sys.stderr)


def _table(title: str, questions: Sequence[Question], values: Sequence[float]) -> str:
    """Means by answer type (rows) and source of the answer (columns), as in the official script."""
    rows: set[str] = set()
    columns: set[str] = set()
    cells: dict[tuple[str, str], list[float]] = defaultdict(list)
    for question, value in zip(questions, values, strict=True):
        source = question.answer_from or "unknown"
        rows.add(question.answer_type)
        columns.add(source)
        cells[question.answer_type, source].append(value)
    lines = [_table_line(title, sorted(columns))]
    for row in sorted(rows):
        shown = [_mean_and_n(cells[row, column]) for column in sorted(columns)]
        lines.append(_table_line(row, shown))
    return "\n".join(lines)


def _table_line(name: str, texts: Sequence[str]) -> str:
    """A name and columns behind it."""
    line = f"{name:<12}"
    for text in texts:
        line += f"{text:>22}"
    return line


def _mean_and_n(values: Sequence[float]) -> str:
    """A cell: the mean of the values and how many they are; a dash without any."""
    return f"{sum(values) / len(values):.6f} (n={len(values)})" if values else "-"


def _rescore(arguments: argparse.Namespace) -> None:
    """Score an lm-eval output again."""
    from tatqa_task import rescore  # reads lm-eval, which takes seconds

    number = rescore.rescore(arguments.output, arguments.folder)
    print(f"{number} questions scored again in {arguments.folder}")


def _export(arguments: argparse.Namespace) -> None:
    """Write the replies of samples files as predictions."""
    files.refuse_existing(arguments.out)
    predictions: dict[str, list[Any]] = {}
    found: list[Path] = []
    for path in arguments.samples:
        found += files.below(path, "samples_*.jsonl") if path.is_dir() else [path]
    for file in found:
        for uid, reply in _replies(file):
            if uid in predictions:
                raise data.DataError(
                    f"{file}: question {uid} was already read; give the samples of one run only"
                )
            predictions[uid] = [reply.answer, reply.scale]
    if not predictions:
        raise data.DataError(
            f"no samples in {', '.join(map(str, arguments.samples))}; "
            "run lm_eval with --log_samples"
        )
    _write_json(arguments.out, predictions, ensure_ascii=False, indent=1)
    print(f"{len(predictions)} predictions from {len(found)} files in {arguments.out}")


def _replies(file: Path) -> list[tuple[str, answer.Reply]]:
    """The reply to each question of a samples file. Raises DataError."""
    replies = []
    try:
        for line in file.read_text(encoding="utf-8-sig").split("\n"):
            if line:
                sample = json.loads(line)
                replies.append((sample["doc"]["uid"], _reply(sample)))
    except (ValueError, LookupError, TypeError) as error:
        raise data.DataError(
            f"{file} is no lm-eval samples file of a tatqa task ({error!r})"
        ) from error
    return replies


def _reply(sample: dict[str, Any]) -> answer.Reply:
    """What a sample says, read as the task that it is of reads it."""
    doc = sample["doc"]
    thinking = bool(doc.get("thinking"))
    return answer.parse(sample["filtered_resps"][0], doc.get("form", "direct"), thinking)


def _generate(arguments: argparse.Namespace) -> None:
    """Write synthetic files under the official names."""
    folder = arguments.folder
    if arguments.contexts < 1:
        raise data.DataError(f"--contexts {arguments.contexts}: one or more are needed")
    folder.mkdir(parents=True, exist_ok=True)
    for name, _ in data.FILES.values():
        files.refuse_existing(folder / name)
    for split, (name, _) in data.FILES.items():
        contexts = synthetic.generate(split, arguments.contexts, arguments.seed)
        _write_json(folder / name, contexts, indent=1)
    print(f"synthetic data in {arguments.folder}; use it with TATQA_DATA={arguments.folder}")


def _write_json(path: Path, content: Any, **options: Any) -> None:
    data.write_whole(path, (json.dumps(content, **options) + "\n").encode())


if __name__ == "__main__":
    sys.exit(exit_code(main))
