"""Commands around the TAT-QA task: `python -m tatqa_task include-path | score | export | download | generate`."""

import argparse
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tatqa_task import answer, data, download, metric, synthetic


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Exit code 0 done, 2 unusable call or input (one line on stderr)."""
    arguments = _parser().parse_args(argv)
    try:
        arguments.run(arguments)
        return 0
    except data.DataError as error:
        print(f"error: {error}", file=sys.stderr)
    except OSError as error:
        print(
            f"error: {error.filename2 or error.filename or 'output'}: {error.strerror}",
            file=sys.stderr,
        )
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tatqa_task", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")

    command = commands.add_parser(
        "include-path", help="print the folder of the task YAMLs, for lm_eval --include_path"
    )
    command.set_defaults(run=lambda _: print(Path(__file__).parent / "tasks"))

    command = commands.add_parser(
        "score", help="score predictions in TAT-QA's official format, {uid: [answer, scale]}"
    )
    command.add_argument(
        "--gold", type=Path, required=True, help="gold file in the official format"
    )
    command.add_argument("--pred", type=Path, required=True, help="predictions, as JSON")
    command.add_argument(
        "--json", type=Path, metavar="OUT", help="also write the scores, question by question"
    )
    command.set_defaults(run=_score)

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
        "download", help="fetch and verify the official files, print where they are"
    )
    command.set_defaults(
        run=lambda _: [print(download.official_file(split)) for split in data.FILES]
    )

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
    return parser


def _score(arguments: argparse.Namespace) -> None:
    questions = [
        question for context in data.read_file(arguments.gold) for question in context.questions
    ]
    asked = {question.uid for question in questions}
    predictions, repeated = _read_predictions(arguments.pred)
    pairs = {
        uid: pair for uid, pair in predictions.items() if isinstance(pair, list) and len(pair) == 2
    }
    scores = [
        metric.score(question, *pairs.get(question.uid, (None, None))) for question in questions
    ]
    mean = metric.mean(scores)
    _report_uids(
        "questions without a prediction count as wrong", sorted(asked - predictions.keys())
    )
    _report_uids("predictions for no question are left out", sorted(predictions.keys() - asked))
    _report_uids("uids predicted more than once count with their last prediction", repeated)
    _report_uids(
        "predictions that are not [answer, scale] count as wrong",
        [u for u in predictions if u not in pairs],
    )
    print(f"questions {len(scores)}\nEM {mean.em:.4f}\nF1 {mean.f1:.4f}\nscale {mean.scale:.4f}")
    print(f"\n{_table('EM', questions, [score.em for score in scores])}")
    print(f"\n{_table('F1', questions, [score.f1 for score in scores])}")
    if arguments.json:
        per_question = {
            question.uid: score for question, score in zip(questions, scores, strict=True)
        }
        _write_json(
            arguments.json, mean._asdict() | {"n": len(scores), "per_question": per_question}
        )


def _read_predictions(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Predictions by uid, and the uids that appear more than once."""
    items = data.read_json(path, "write the predictions again", object_pairs_hook=list)
    if not isinstance(items, list) or not all(isinstance(item, tuple) for item in items):
        raise data.DataError(f"{path}: expected an object {{uid: [answer, scale]}}")
    counts = Counter(uid for uid, _ in items)
    return dict(items), [uid for uid, n in counts.items() if n > 1]


def _report_uids(what: str, uids: Sequence[str]) -> None:
    if uids:
        named = ", ".join(uids[:10]) + (f" and {len(uids) - 10} more" if len(uids) > 10 else "")
        print(f"warning: {len(uids)} {what}: {named}", file=sys.stderr)


def _table(title: str, questions: Sequence[data.Question], values: Sequence[float]) -> str:
    """Means by answer type (rows) and by where the answer is from (columns), as the official script shows them."""
    cells = defaultdict(list)
    for question, value in zip(questions, values, strict=True):
        cells[question.answer_type, question.answer_from or "unknown"].append(value)
    rows = sorted({row for row, _ in cells})
    columns = sorted({column for _, column in cells})
    lines = [f"{title:<12}" + "".join(f"{column:>22}" for column in columns)]
    for row in rows:
        found = [cells.get((row, column)) for column in columns]
        shown = [f"{sum(cell) / len(cell):.6f} (n={len(cell)})" if cell else "-" for cell in found]
        lines.append(f"{row:<12}" + "".join(f"{text:>22}" for text in shown))
    return "\n".join(lines)


def _export(arguments: argparse.Namespace) -> None:
    predictions: dict[str, list[Any]] = {}
    folders = [
        sorted(path.rglob("samples_*.jsonl")) if path.is_dir() else [path]
        for path in arguments.samples
    ]
    files = [file for folder in folders for file in folder]
    for file in files:
        for uid, reply in _replies(file):
            if uid in predictions:
                raise data.DataError(
                    f"{file}: question {uid} was already read; give the samples of one run only"
                )
            predictions[uid] = [reply.answer, reply.scale]
    if not predictions:
        raise data.DataError(
            f"no samples in {', '.join(map(str, arguments.samples))}; run lm_eval with --log_samples"
        )
    _write_json(arguments.out, predictions, ensure_ascii=False, indent=1)
    print(f"{len(predictions)} predictions from {len(files)} files in {arguments.out}")


def _replies(file: Path) -> list[tuple[str, answer.Reply]]:
    try:
        samples = [
            json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line
        ]
        return [
            (
                sample["doc"]["uid"],
                answer.parse(sample["filtered_resps"][0], sample["doc"].get("form", "direct")),
            )
            for sample in samples
        ]
    except (ValueError, LookupError, TypeError) as error:
        raise data.DataError(
            f"{file} is no lm-eval samples file of a tatqa task ({error!r})"
        ) from error


def _generate(arguments: argparse.Namespace) -> None:
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for split, (name, _) in data.FILES.items():
        contexts = synthetic.generate(split, arguments.contexts, arguments.seed)
        _write_json(arguments.folder / name, contexts, indent=1)
    print(f"synthetic data in {arguments.folder}; use it with TATQA_DATA={arguments.folder}")


def _write_json(path: Path, content: Any, **options: Any) -> None:
    data.write_whole(path, (json.dumps(content, **options) + "\n").encode())


if __name__ == "__main__":
    sys.exit(main())
