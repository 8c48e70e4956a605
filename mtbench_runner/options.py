"""The command line's options: which stage takes which, and what they mean."""

import argparse
from collections.abc import Collection
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

STAGES = {
    "run": "answer, judge and score one model (the default)",
    "answer": "let a model answer the bench's questions",
    "judge": "let a judge rate a model's answers",
    "score": "average the ratings, or with --baseline count the wins, of what is stored",
    "pairwise": "let the judge compare a model's answers with a baseline's",
    "agreement": "compare two judges, or a judge with people, on the same answers",
    "show": "print the turns and judgments of a question, or draw the scores of models",
}
ANSWERING = ("run", "answer")
JUDGING = ("run", "judge", "pairwise")
SCORING = ("run", "score", "pairwise")
CALLING = ("run", "answer", "judge", "pairwise")
READING = ("run", "judge", "pairwise", "score", "show")
AGAIN = ("failed", "truncated", "unrated")


class Option(NamedTuple):
    """An option, the stages that take it, and argparse's settings for it."""

    stages: Collection[str]
    name: str
    settings: dict[str, Any]


def whole(text: str, lowest: int = 0) -> int:
    """A whole number from `lowest`."""
    number = int(text)
    if number < lowest:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from {lowest}")
    return number


def positive(text: str) -> int:
    """A whole number from 1."""
    return whole(text, lowest=1)


def amount(text: str) -> float:
    """A finite number from 0. Not-a-number would compare as within every limit."""
    number = float(text)
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0")
    return number


def seconds(text: str) -> float:
    """A finite number above 0."""
    number = amount(text)
    if number == 0:
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return number


def option(stages: Collection[str], name: str, text: str, **settings: Any) -> Option:
    """An option whose help is `text` and its default."""
    default = settings.get("default")
    if isinstance(default, list):
        default = " ".join(map(str, default))
    settings["help"] = f"{text} (default: {default})" if default else text
    return Option(stages, name, settings)


OPTIONS = [
    # the bench
    option(STAGES, "--data", "bench folder, or demo or instruct (default: MT-Bench, downloaded)"),
    option(STAGES, "--out", "folder of answers and judgments (default: the bench's)"),
    option(STAGES, "--questions", "only these: ids, ranges, categories (81-90,101,coding)"),
    option(READING, "--judge-file", "file of judge prompts in place of the bench's own"),
    option(JUDGING, "--references", "file of reference answers in place of the bench's own"),
    option(READING, "--rating-pattern", "regular expression with one group, in place of [[n]]"),
    # the candidate
    option(
        STAGES, "--model-id", "the model's name in the files (default: from --adapter or --model)"
    ),
    option(
        ANSWERING,
        "--model",
        "model folder or hub name, or a name that the endpoint serves",
        required=True,
    ),
    option(ANSWERING, "--adapter", "folder of a PEFT adapter"),
    option(
        ANSWERING,
        "--answers-from",
        "URL of an endpoint that serves --model (key: ANSWERS_API_KEY)",
    ),
    option(ANSWERING, "--max-new-tokens", "longest answer", type=positive, default=1024),
    option(
        ANSWERING, "--batch-size", "conversations at once (0: what fits)", type=whole, default=0
    ),
    option(
        ANSWERING,
        "--thinking",
        "let the model think; thoughts are kept, not judged",
        action="store_true",
    ),
    option(ANSWERING, "--system", "system prompt for the model"),
    # the judge
    option(
        READING,
        "--judge-model",
        "a judge or several: names at the endpoint, or local:FOLDER",
        nargs="+",
        default=["gpt-4"],
    ),
    option(
        JUDGING, "--judge-url", "URL of the judge's endpoint (default: OPENAI_BASE_URL, or OpenAI)"
    ),
    option(JUDGING, "--votes", "judgments of each turn by each judge", type=positive, default=1),
    option(JUDGING, "--judge-max-tokens", "longest judgment", type=positive, default=2048),
    option(JUDGING, "--judge-temperature", "FastChat's is 0", type=amount, default=0.0),
    option(JUDGING, "--judge-effort", "reasoning effort of judges that know it (low, medium ...)"),
    option(
        CALLING,
        "--again",
        "what is asked once more although it is done with",
        nargs="+",
        choices=AGAIN,
        default=[],
    ),
    option(
        JUDGING,
        "--batch",
        "the judge's calls as an OpenAI batch, at half the price: write and send, or read back",
        choices=("submit", "collect"),
    ),
    # calls
    option(CALLING, "--parallel", "calls under way at once", type=positive, default=16),
    option(CALLING, "--timeout", "seconds for one attempt at a call", type=seconds, default=120.0),
    option(
        CALLING, "--deadline", "seconds for one call with its retries", type=seconds, default=600.0
    ),
    option(
        CALLING, "--requests-per-minute", "rate-limit budget (0: none)", type=amount, default=0.0
    ),
    option(
        CALLING,
        "--dry-run",
        "count calls and tokens, and with --prices the cost; ask nothing",
        action="store_true",
    ),
    option(CALLING, "--max-cost", "USD after which no call is made; needs --prices", type=amount),
    option(
        SCORING, "--check", "look at the call and read the bench, do no more", action="store_true"
    ),
    # the result
    option(SCORING, "--json", "file for the result (-: standard output, in place of the table)"),
    option(
        {*CALLING, *SCORING},
        "--prices",
        "USD for a million tokens in, out",
        nargs=2,
        type=amount,
        metavar=("IN", "OUT"),
    ),
    option(
        ("run", "score"),
        "--rating",
        "strict: + doubts",
        choices=["fastchat", "strict"],
        default="fastchat",
    ),
    option(("pairwise",), "--baseline", "id of the model to compare with", required=True),
    option(("score", "show"), "--baseline", "id of a second model"),
    option(("show",), "--question", "id of the question to print"),
    option(("show",), "--figure", "file for a radar figure of the categories", type=Path),
    option(("agreement",), "judges", "two judges, or files of judgments", nargs=2),
    option(("agreement",), "--json", "file for the result (-: standard output)"),
]


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; {self.prog} --help tells more\n")


def parse(arguments: list[str], description: str | None) -> argparse.Namespace:
    """The call. A wrong one is an error of one line, exit code 2."""
    top = parser(description)
    unknown = unknown_word(arguments)
    if unknown:
        top.error(unknown)
    return top.parse_args(arguments)


def unknown_word(arguments: list[str]) -> str | None:
    """What is wrong with a stage or an option that there is not, and which may be meant.

    argparse would first tell of the options that lack: of --model, where --modle was given.
    """
    stage, *words = arguments
    if stage in ("-h", "--help"):
        return None
    if stage not in STAGES:
        return f"there is no stage {stage!r}; {_meant(stage, STAGES)}"
    known = ["--help"]
    for takers, name, _ in OPTIONS:
        if stage in takers:
            known.append(name)
    for word in words:
        name = word.partition("=")[0]
        meant = [option for option in known if option.startswith(name)]  # argparse takes beginnings
        if name.startswith("--") and not meant:
            return f"{stage} has no option {name}; {_meant(name, known)}"
    return None


def _meant(word: str, known: Collection[str]) -> str:
    """The known word that is like it, else all of them."""
    close = get_close_matches(word, known, n=1)
    return f"did you mean {close[0]}?" if close else f"it has {', '.join(known)}"


def parser(description: str | None) -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    top = Parser(prog="python -m mtbench_runner", description=description)
    absent = ("model", "adapter", "answers_from", "references", "baseline", "judge_file")
    top.set_defaults(**dict.fromkeys([*absent, "rating_pattern", "batch", "system"]))
    top.set_defaults(check=False, dry_run=False, max_cost=None, prices=None, json=None, again=[])
    stages = top.add_subparsers(dest="stage", metavar="STAGE", required=True)
    for stage, text in STAGES.items():
        sub = stages.add_parser(stage, help=text, description=text)
        for takers, name, settings in OPTIONS:
            if stage in takers:
                sub.add_argument(name, **settings)
    return top
