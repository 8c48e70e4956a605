"""The READMEs tell the truth.

Their commands are read by the programs' own parsers, their links lead somewhere, and the first real
command of README.md is run, on the base that ships here.
"""

import argparse
import importlib
import inspect
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import yaml

from tatqa_bench.__main__ import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
INTERVAL = re.compile(r"[+-]\d+\.\d \([+-]\d+\.\d to [+-]\d+\.\d\)")
FROM_TO = re.compile(r"(?<![\d.+-])(\d+\.\d) to (\d+\.\d)(?![\d.])")
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "tatqa_task/README.md",
    "mtbench_runner/README.md",
    "train/README.md",
    "results/USAGE.md",
    *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))),
]
FENCED = re.compile(r"^```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+)")
TASKS = {path.stem for path in (ROOT / "tatqa_task" / "tasks").glob("*.yaml")}


class Parsed(Exception):
    """The command line was understood."""


def commands(page: str) -> list[str]:
    """The command lines in a page's fenced blocks: continued lines joined, comments gone."""
    found = []
    for block in FENCED.findall((ROOT / page).read_text(encoding="utf-8")):
        for line in block.replace("\\\n", " ").splitlines():
            found.append(re.sub(r"\s+#.*", "", line).strip())
    return found


def starting_with(*programs: str) -> list[Any]:
    """Command lines of some programs, each named after its page."""
    return [
        pytest.param(line, id=f"{page}: {line[:50]}")
        for page in PAGES
        for line in commands(page)
        if line.startswith(programs)
    ]


def room_and_words(line: str) -> tuple[str, list[str]]:
    """The module whose `main` a command line calls, and the rest of the line."""
    words = shlex.split(line)
    if words[0] == "tatqa-bench":
        command = COMMANDS[words[1]]
        return command.module, [*command.first, *words[2:]]
    name = words[2]
    is_package = (ROOT / name.replace(".", "/") / "__main__.py").is_file()
    return f"{name}.__main__" if is_package else name, words[3:]


@pytest.mark.parametrize("line", starting_with("tatqa-bench", "python -m "))
def test_a_command_is_understood(line: str) -> None:
    module, words = room_and_words(line)
    original = argparse.ArgumentParser.parse_args

    def parse_args(parser: Any, *rest: Any, **options: Any) -> None:
        original(parser, *rest, **options)
        raise Parsed

    main = importlib.import_module(module).main
    if module == "train.__main__":
        words = [word.replace("RECIPE.yaml", "demo") for word in words]
        assert main([*words, "--check"]) == 0
    elif module != "tatqa_bench.demo":
        with mock.patch("argparse.ArgumentParser.parse_args", parse_args), pytest.raises(Parsed):
            main(words)


@pytest.mark.parametrize("line", starting_with("lm_eval", "lm-eval"))
def test_a_command_of_lm_eval_names_tasks_and_options_that_there_are(line: str) -> None:
    from lm_eval._cli import run

    words = shlex.split(line)
    known = inspect.getsource(run)
    for word in words:
        assert not word.startswith("--") or f'"{word}"' in known
    tasks = words[words.index("--tasks") + 1].split(",")
    assert set(tasks) <= TASKS


@pytest.mark.parametrize("line", starting_with("make "))
def test_a_target_of_make_is_there(line: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^(?:\w+ )*{line.split()[1]}:", makefile, re.MULTILINE)


@pytest.mark.parametrize("line", starting_with("accelerate launch"))
def test_a_configuration_of_accelerate_is_there(line: str) -> None:
    words = shlex.split(line)
    file = ROOT / words[words.index("--config_file") + 1]
    assert yaml.safe_load(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in LINK.findall(text):
        if not target.startswith("http"):
            assert ((ROOT / page).parent / target).exists(), target


def test_the_first_table_of_results_comes_within_sixty_lines() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert any(INTERVAL.search(line) for line in lines[:60])


def test_the_readmes_first_real_command_runs_on_the_shipped_base(tmp_path: Path) -> None:
    line = next(line for line in commands("README.md") if line.startswith("tatqa-bench run"))
    module, words = room_and_words(line)
    small = ["model_name_or_path=tiny-tatqa", "max_pairs=8", "effective_batch_size=4"]
    words += ["--limit", "1", "--batch-size", "4"]
    for change in small:
        words += ["--set", change]
    python = [sys.executable, "-P", "-m", module.removesuffix(".__main__")]
    done = subprocess.run(
        [*python, *words],
        cwd=tmp_path,
        env=os.environ | {"TATQA_DATA": "synthetic"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "tatqa-report" / "README.md").is_file()


def test_every_result_of_the_readme_is_the_reports() -> None:
    """Differences with their intervals, and scores before and after; bold in one of the two."""
    report = (ROOT / "results" / "README.md").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8").replace("**", "")
    rows = [line for line in readme.splitlines() if line.startswith("| ") and "](train/" in line]
    assert len(rows) >= 3
    differences = INTERVAL.findall(readme)
    assert len(differences) >= len(rows)
    assert [found for found in differences if found not in report] == []
    for row in rows:
        cells = row.split("|")
        for before, after in FROM_TO.findall(" ".join(cells[2:3] + cells[4:5])):
            assert f"{before} to {after}" in report or f"| {before} | {after} |" in report
