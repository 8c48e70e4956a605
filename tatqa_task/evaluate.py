"""lm-eval's own `run` with this package's tasks alone: `python -m tatqa_task evaluate OPTIONS`.

lm-eval reads all the task files that it ships, some 14,000, before it looks for a name: 12 s of one
CPU core, more than 1,668 questions take on a server. Here it reads ours alone. Options, output and
numbers are those of `lm_eval run`; `--model hf-short-first` is there as well.

Two things differ. lm-eval takes a server's answer without any text (an error with status 200, an
empty body) for an empty reply, with a warning, and scores it. Here it is a failed request like any
other: tried again and, if that fails too, the end of the run. And what is wrong with the call is
one line before the work: a task or model that is not known, options that do not fit each other, an
output folder that cannot be made (lm-eval warns after the work, and the results are gone), and a
model that cannot be loaded.
"""

import argparse
import json
import logging
import os
import re
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import lm_eval.models  # fills the registry, which is left as it is once a model is in it
import lm_eval.tasks
from aiohttp import ClientError
from lm_eval.__main__ import cli_evaluate
from lm_eval._cli import HarnessCLI
from lm_eval.api.model import LM
from lm_eval.api.registry import model_registry
from lm_eval.config.evaluate_config import EvaluatorConfig
from lm_eval.models.openai_completions import LocalChatCompletion
from requests import RequestException

from tatqa_task import task_files
from tatqa_task.command_line import say_error
from tatqa_task.imports import collector_at_rest

SHORT_FIRST = "hf-short-first"
ENDED = ("stop", "length")  # why a model ends a reply, which then may be empty
LONGEST = 300  # characters of an answer in a message
# A server's own words, in a warning of lm-eval's client.
SAID = re.compile(r"API request failed.*?(?:text|message): (.*?)\.? Retrying", re.DOTALL)
SERVER_FAULTS = (
    ClientError,
    RequestException,  # of requests, with which lm-eval asks if it asks one at a time
    ConnectionError,
    TimeoutError,
    json.JSONDecodeError,
)
parse_answers = LocalChatCompletion.parse_generations
make_model = LM.create_from_arg_obj.__func__
KNOWN_TASKS = f"known: {', '.join(task_files.GROUPS)}"
LOG = logging.getLogger("lm-eval")


class OurTasks(lm_eval.tasks.TaskManager):  # type: ignore[misc]
    """lm-eval's tasks without those that it ships."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named | {"include_defaults": False})


class NoTextError(ClientError):
    """A server's answer in which there is no text."""


def parse_text(self: LocalChatCompletion, outputs: Any, **named: Any) -> list[str]:
    """What lm-eval's chat client reads in a server's answers, each of which must have one text.

    Raises NoTextError, which the client treats as it treats a request that failed.
    """
    for answer in outputs if isinstance(outputs, list) and outputs else [outputs]:
        if not has_text(answer):
            raise NoTextError(f"no text in {json.dumps(answer)[:LONGEST]}")
    replies: list[str] = parse_answers(self, outputs, **named)
    return replies


def has_text(answer: Any) -> bool:
    """Whether an answer has one text, or says that the model has ended without one."""
    try:
        (choice,) = answer["choices"]
        text = choice["message"]["content"]
        first = choice["index"] == 0
    except (LookupError, TypeError, ValueError):
        return False
    ended = text is None and choice.get("finish_reason") in ENDED
    return first and (isinstance(text, str) or ended)


class LastWords(logging.Handler):
    """Keeps what a server said when it last refused a request, which lm-eval's error leaves out."""

    words = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Look at a line of the log."""
        if found := SAID.search(record.getMessage()):
            self.words = " ".join(found[1].split())[:LONGEST]


def unwritable(options: Sequence[str]) -> str | None:
    """Why lm-eval could not write into its output folder, which is made here if it can be."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--output_path", "-o", type=Path)
    path = parser.parse_known_args(options)[0].output_path
    if path is None:
        return None
    folder = path.parent if path.suffix == ".json" else path  # as lm-eval does
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return f"--output_path {path}: {error.strerror or error}; name a folder"
    if not os.access(folder, os.W_OK):
        return f"--output_path {path}: no permission to write there; name another folder"
    return None


class ModelError(Exception):
    """A model that cannot be loaded; the message is the one line a user needs."""


def load_model(model: type[LM], given: dict[str, Any], more: dict[str, Any] | None = None) -> Any:
    """lm-eval's way to make a model from `--model_args`. Raises ModelError."""
    name = given.get("pretrained") or given.get("model") or "no pretrained= in --model_args"
    try:
        made = make_model(model, given, more)
    except Exception as error:  # of transformers, PEFT, vLLM, the Hub's client
        LOG.debug("the model cannot be loaded", exc_info=True)
        raise ModelError(f"cannot load the model ({name}): {in_words(error)}") from error
    if "--apply_chat_template" in sys.argv and not has_template(made):
        raise ModelError(
            f"{name}: its tokenizer has no chat template; take an instruction-tuned model, or put a"
            " chat_template.jinja into its folder"
        )
    return made


def has_template(model: LM) -> bool:
    """Whether a model can be asked in turns: a server sees to that itself, and has no tokenizer."""
    tokenizer = getattr(model, "tokenizer", None)
    return bool(getattr(tokenizer, "chat_template", "its own way"))


def in_words(error: BaseException) -> str:
    """An error on one line, not longer than a few."""
    text = " ".join(str(error.args[0] if isinstance(error, KeyError) else error).split())
    return f"{type(error).__name__}: {text}"[:LONGEST]


def unknown_model(name: str) -> str:
    """One line for a `--model` that lm-eval does not have."""
    close = get_close_matches(name, model_registry.keys(), n=1)
    hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(model_registry.keys())}"
    return f"--model {name}: no such kind of model; {hint}"


def misfit() -> str | None:
    """Why lm-eval cannot begin with the options in sys.argv, before it loads a model.

    An option that it does not know ends the program, with its usage.
    """
    arguments = HarnessCLI().parse_args()
    logging.disable(logging.WARNING)  # what it has to say it says again when it begins
    try:
        config = EvaluatorConfig.from_cli(arguments)
        config.process_tasks(config.metadata)
        if not config.tasks:
            return f"--tasks: none given; {KNOWN_TASKS}"
        if config.model not in model_registry:
            return unknown_model(config.model)
    except (ValueError, TypeError, LookupError, OSError) as error:
        words = in_words(error).removeprefix("ValueError: ")
        return f"--tasks: {words}; {KNOWN_TASKS}" if words.startswith("Tasks not") else words
    finally:
        logging.disable(logging.NOTSET)
    return None


def main(options: Sequence[str]) -> int:
    """Run lm-eval with these options.

    Its errors and exit codes are its own, but for a call that it cannot begin with and a model that
    it cannot load (exit code 2) and a server's faults (1), which are one line on stderr.
    """
    if reason := unwritable(options):
        return fail(reason, 2)
    model_registry.register(SHORT_FIRST, target="tatqa_task.short_first:ShortFirst")
    if SHORT_FIRST in options:  # a server needs no torch
        with collector_at_rest():
            from tatqa_task import short_first  # noqa: F401
    lm_eval.tasks.TaskManager = OurTasks
    LocalChatCompletion.parse_generations = parse_text
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # the other requests, after one failed
    ours = ["--include_path", str(task_files.FOLDER)]
    LM.create_from_arg_obj = classmethod(load_model)
    sys.argv = ["lm_eval", "run", *options, *([] if "--include_path" in options else ours)]
    if reason := misfit():
        return fail(reason, 2)
    logging.getLogger("lm_eval").addHandler(refusals := LastWords())
    try:
        cli_evaluate()
    except ModelError as error:
        return fail(error, 2)
    except SERVER_FAULTS as error:
        reason = " ".join(f"{type(error).__name__}: {error} {refusals.words}".split())
        said = f"no answer as it should be from the server ({reason}); the same command asks again"
        return fail(said, 1)
    return 0


def fail(reason: object, code: int) -> int:
    """Report an expected failure."""
    say_error(reason)
    return code
