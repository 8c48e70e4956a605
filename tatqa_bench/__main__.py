"""One command in front of all others: `tatqa-bench COMMAND ...`, in any folder.

It does nothing itself: it finds the room that a command belongs to and calls that room's own
main. `tatqa-bench run` is `python -m results run`, `tatqa-bench mtbench` is `python -m
mtbench_runner`, and so on; but a user's own `train.py` or `results/` is never run in place of ours,
neither from the working folder nor from one that PYTHONPATH names.
"""

if __name__ == "__main__":  # a Ctrl-C may come while the rest is imported
    from tatqa_bench.command_line import stop_at_once

    stop_at_once()

import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tatqa_bench.command_line import exit_code


class Command(NamedTuple):
    """What stands behind a word: a module's `main`, and the words that come first."""

    module: str
    first: tuple[str, ...]
    summary: str


COMMANDS = {
    "run": Command("results.__main__", ("run",), "score, train, score again, report, by recipe"),
    "train": Command("train.__main__", (), "train one adapter by a recipe"),
    "pairs": Command("train.pairs.__main__", (), "build or inspect preference pairs"),
    "compare": Command("results.__main__", ("compare",), "what changed between two outputs"),
    "report": Command("results.__main__", ("report",), "write the report from the records"),
    "score": Command("tatqa_task.__main__", ("score",), "score predictions as TAT-QA does"),
    "mtbench": Command("mtbench_runner.__main__", (), "answer, judge and score MT-Bench"),
    "recipes": Command("tatqa_bench.recipes", (), "list or copy the recipes that ship with this"),
    "push": Command("train.push", (), "publish an adapter and its card on the Hub"),
    "demo": Command("tatqa_bench.demo", (), "the whole loop on the small base, in minutes"),
}


ROOMS = ("tatqa_task", "mtbench_runner", "train", "results")


def import_rooms() -> None:
    """Import the packages that lie beside this one, before all others of these names.

    What is in them is then found through them, wherever else on Python's path such a name is.
    """
    path = list(sys.path)
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    try:
        for room in ROOMS:
            importlib.import_module(room)
    finally:
        sys.path[:] = path


def usage() -> str:
    """The help text."""
    lines = ["usage: tatqa-bench COMMAND ...   (tatqa-bench COMMAND --help says more)", ""]
    for name, command in COMMANDS.items():
        lines.append(f"  {name:10} {command.summary}")
    lines.append(f"  {'--version':10} the version of this package")
    return "\n".join(lines)


def unknown(word: str) -> str:
    """One line for a word that is no command."""
    from difflib import get_close_matches

    close = get_close_matches(word, COMMANDS, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(COMMANDS)}"
    return f"error: tatqa-bench has no command {word!r}; {hint}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Call the main of the room that the command belongs to; its exit code is ours."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    return exit_code(lambda: dispatch(words))


def dispatch(words: list[str]) -> int:
    """Do what the words say."""
    if not words or words[0] in ("-h", "--help"):
        print(usage())
        return 0 if words else 2
    if words[0] == "--version":
        from importlib.metadata import version

        print(f"tatqa-bench {version('tatqa-bench')}")
        return 0
    command = COMMANDS.get(words[0])
    if command is None:
        print(unknown(words[0]), file=sys.stderr)
        return 2
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import_rooms()
    module = importlib.import_module(command.module)
    code: int = module.main([*command.first, *words[1:]])
    return code


if __name__ == "__main__":
    sys.exit(main())
