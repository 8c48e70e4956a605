"""The folder for lm-evaluation-harness: complete, of no need of this package, same numbers."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tatqa_task import answer, data, upstream
from tatqa_task.__main__ import main
from tatqa_task.types import FORMS

CODE = """
import json, sys
sys.modules["tatqa_task"] = None  # any import of it raises
from lm_eval.tasks import TaskManager, get_task_dict
manager = TaskManager(include_path=sys.argv[1], include_defaults=False)
found = {}
for name in ("tatqa_arithmetic", "tatqa_cot_span", "tatqa_calc_arithmetic", "tatqa_verified_count"):
    task = get_task_dict([name], manager)[name]
    docs = list(task.eval_docs)[:5]
    targets = [task.doc_to_target(doc) for doc in docs]
    results = [task.process_results(doc, [target]) for doc, target in zip(docs, targets)]
    found[name] = [[task.doc_to_text(doc) for doc in docs], targets, results]
print(json.dumps(found))
"""


def test_the_same_prompts_targets_and_numbers_without_this_package(tmp_path: Path) -> None:
    folder = tmp_path / "tatqa"
    assert main(["upstream", str(folder)]) == 0
    environment = os.environ | {"TATQA_DATA": "synthetic", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(folder)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    from tatqa_task import prompt

    contexts = data.load("validation", "synthetic")
    asked = [(c, q) for c in contexts for q in c.questions if q.answer_type == "arithmetic"][:5]
    prompts, targets, results = found["tatqa_calc_arithmetic"]
    assert prompts == [prompt.user_message(c, q, "calc") for c, q in asked]
    assert targets == [answer.gold_reply(q, "calc") for _, q in asked]
    assert [row["em"] for row in results] == [1] * 5
    assert [row["calc_used"] for row in results] == [1] * 5
    assert all(len(rows) == 3 for rows in found.values())


def test_every_module_that_is_imported_is_there() -> None:
    files = upstream.contents()
    for name, content in files.items():
        if name.endswith(".py"):
            compile(content, name, "exec")
            imported = re.findall(r"^\s*(?:from|import) (tatqa_\w+)", content, re.MULTILINE)
            missing = {f"{module}.py" for module in imported} - files.keys()
            assert not missing  # tatqa_task.py, this package, is in no such folder
    assert len(FORMS) == sum(name.startswith("_") for name in files)


def test_a_folder_that_is_there_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "README.md"
    mine.write_text("mine")
    assert main(["upstream", str(tmp_path)]) == 2
    said = f"error: {mine} is there already, with other content; name a new folder\n"
    assert capsys.readouterr().err == said
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
    assert mine.read_text() == "mine"
