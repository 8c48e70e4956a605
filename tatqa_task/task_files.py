"""The YAML files of the tasks, made from one table.

    python -m tatqa_task.task_files

writes `tasks/` anew.

Every group has four subtasks, one an answer type. After a change, `pip install --no-deps
--no-build-isolation -e .` places the files beside lm-eval's own tasks.
"""

import json
from pathlib import Path
from typing import NamedTuple

from tatqa_task.types import ANSWER_TYPES, FORMS, Form

FOLDER = Path(__file__).parent / "tasks"
METRICS = ("em", "em_strict", "f1", "scale_em", "parsed", "lenient_em")
MAX_GEN_TOKS: dict[Form, int] = {"direct": 256, "cot": 1024, "calc": 256}
# Where a reply ends: the model goes on with a next question or repeats the prompt. None of these
# can stand inside a reply's JSON, where a line break is written as \\n. A server takes four at
# most, and lm-eval adds the end-of-text token.
UNTIL: dict[Form, tuple[str, ...]] = {
    "direct": ("\n\nQuestion:", "\n\nRead the table and"),
    "cot": ("\n\nRead the table and",),
    "calc": ("\n\nQuestion:", "\n\nRead the table and"),
}
VERSION = "3.0"


class Group(NamedTuple):
    """A group of four tasks: the split its questions come from, and the form of reply asked for."""

    split: str
    form: Form = "direct"
    verified: bool = False  # without the questions whose gold does not stand


SUFFIXES = {"": "validation", "_test": "test", "_train": "train"}
NAMES: dict[Form, str] = {"direct": "tatqa", "cot": "tatqa_cot", "calc": "tatqa_calc"}


def all_groups() -> dict[str, Group]:
    """Every group by its name: a split in a form, and the verified questions of two splits."""
    groups = {}
    for form in FORMS:
        for suffix, split in SUFFIXES.items():
            groups[NAMES[form] + suffix] = Group(split, form)
    groups["tatqa_verified"] = Group("validation", verified=True)
    groups["tatqa_verified_test"] = Group("test", verified=True)
    return groups


GROUPS = all_groups()


def metrics(form: Form) -> tuple[str, ...]:
    """The names of a task's metrics, the headline first."""
    return (*METRICS, "calc_used") if form == "calc" else METRICS


def metric_lines(form: Form, how: str) -> str:
    """The means of a form's metrics, as a list in YAML; `how` is what is said of each."""
    lines = ""
    for name in metrics(form):
        lines += f"  - {{metric: {name}, aggregation: mean, {how}}}\n"
    return lines


def common(form: Form) -> str:
    """What all tasks of a form share; its file has no .yaml ending, so it is no task of its own."""
    return f"""\
# Written by tatqa_task/task_files.py. A file without the .yaml ending is no task of its own.
custom_dataset: !function tatqa_task.harness.dataset
output_type: generate_until
doc_to_text: !function tatqa_task.harness.doc_to_text
doc_to_target: !function tatqa_task.harness.doc_to_target
process_results: !function tatqa_task.harness.process_results
# Examples come from the training split, read only when asked for. lm-eval tells the sampler which
# question is asked only if the few-shot split has the name of the evaluated one.
fewshot_config:
  sampler: !function tatqa_task.harness.Examples
  process_docs: !function tatqa_task.harness.no_documents
generation_kwargs:
  until: {json.dumps(UNTIL[form])}
  do_sample: false
  max_gen_toks: {MAX_GEN_TOKS[form]}
metric_list:
{metric_lines(form, "higher_is_better: true")}metadata:
  version: {VERSION}
"""


def task(name: str, group: Group, answer_type: str) -> str:
    """One subtask."""
    settings = f"split: {group.split}, answer_type: {answer_type}, form: {group.form}"
    if group.verified:
        settings += ", verified: true"
    return f"""\
include: _{NAMES[group.form]}
task: {name}
test_split: {group.split}
fewshot_split: {group.split}
dataset_kwargs: {{{settings}}}
"""


def group_file(name: str, group: Group) -> str:
    """A group, with means weighted by size."""
    subtasks = ""
    for answer_type in ANSWER_TYPES:
        subtasks += f"  - {subtask(name, answer_type)}\n"
    return f"""\
group: {name}
task:
{subtasks}aggregate_metric_list:
{metric_lines(group.form, "weight_by_size: true")}metadata:
  version: {VERSION}
"""


def subtask(group: str, answer_type: str) -> str:
    """The name of a group's task for one answer type."""
    return f"{group}_{answer_type.replace('-', '_')}"


def files() -> dict[str, str]:
    """All task files: name and content."""
    made = {}
    for form, name in NAMES.items():
        made[f"_{name}"] = common(form)
    for name, group in GROUPS.items():
        made[f"{name}.yaml"] = group_file(name, group)
        for answer_type in ANSWER_TYPES:
            task_name = subtask(name, answer_type)
            made[f"{task_name}.yaml"] = task(task_name, group, answer_type)
    return made


def main() -> None:
    """Write the files."""
    for name, content in files().items():
        (FOLDER / name).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
