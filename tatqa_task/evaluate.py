"""lm-eval's own `run` with this package's tasks alone: `python -m tatqa_task evaluate OPTIONS`.

lm-eval reads all the task files that it ships, some 14,000, before it looks for a name: 12 s of one
CPU core, more than 1,668 questions take on a server. Here it reads ours alone. Options, output and
numbers are those of `lm_eval run`; `--model hf-short-first` is there as well.
"""

import sys
from collections.abc import Sequence
from typing import Any

import lm_eval.models  # fills the registry, which is left as it is once a model is in it
import lm_eval.tasks
from lm_eval.__main__ import cli_evaluate
from lm_eval.api.registry import model_registry

from tatqa_task import task_files

SHORT_FIRST = "tatqa_task.short_first:ShortFirst"  # read only if asked for: a server needs no torch


class OurTasks(lm_eval.tasks.TaskManager):  # type: ignore[misc]
    """lm-eval's tasks without those that it ships."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named | {"include_defaults": False})


def main(options: Sequence[str]) -> int:
    """Run lm-eval with these options. Its errors and exit codes are its own."""
    model_registry.register("hf-short-first", target=SHORT_FIRST)
    lm_eval.tasks.TaskManager = OurTasks
    ours = ["--include_path", str(task_files.FOLDER)]
    sys.argv = ["lm_eval", "run", *options, *([] if "--include_path" in options else ours)]
    cli_evaluate()
    return 0
