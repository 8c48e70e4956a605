"""Who may know whom: the import graph of docs/DESIGN.md."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS: dict[str, set[str]] = {
    "tatqa_task": set(),
    "mtbench_runner": set(),
    "train": {"tatqa_task"},
    "results": set(),
    "tatqa_bench": set(),  # finds the mains by their names
}
AT_THE_EDGE = {
    "lm_eval": {
        "tatqa_task/harness.py",
        "tatqa_task/evaluate.py",
        "tatqa_task/rescore.py",
        "tatqa_task/short_first.py",
    },
    "fastchat": {"mtbench_runner/answer.py", "mtbench_runner/matches.py"},
}
DISTRIBUTIONS = {"fastchat": "fschat", "lm_eval": "lm-eval", "yaml": "pyyaml"}  # named otherwise
ONLY_IN_ROOMS = {"trl": ("train",), "peft": ("train", "mtbench_runner")}
CORES = [
    "tatqa_task/prompt.py", "tatqa_task/answer.py", "tatqa_task/metric.py", "tatqa_task/data.py",
    "tatqa_task/types.py", "tatqa_task/calculator.py", "tatqa_task/amounts.py",
    "tatqa_task/objects.py",
    "tatqa_task/plain_text.py", "tatqa_task/errata.py", "tatqa_task/sampling.py",
    "results/statistics.py", "results/measures.py", "results/compare.py", "results/record.py",
    "results/outputs/tables.py",
]  # fmt: skip


def sources() -> list[Path]:
    return [
        path
        for room in ROOMS
        for path in sorted((ROOT / room).rglob("*.py"))
        if "runs" not in path.parts
    ]


def imported(path: Path, everywhere: bool = True) -> set[str]:
    """Top-level packages that a file imports, anywhere in it or only when it is itself imported."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = ast.walk(tree) if everywhere else iter(tree.body)
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(
                path.relative_to(ROOT).parts[0] if node.level else str(node.module).split(".")[0]
            )
    return found


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_imports_only_the_rooms_it_may(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0]
    others = imported(path) & ROOMS.keys() - {room}
    assert others <= ROOMS[room]


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_third_parties_stay_at_the_edge(path: Path) -> None:
    name, found = str(path.relative_to(ROOT)), imported(path)
    for package, files in AT_THE_EDGE.items():
        assert package not in found or name in files
    for package, rooms in ONLY_IN_ROOMS.items():
        assert package not in found or name.startswith(rooms)
    assert "matplotlib" not in found or any(
        word in path.read_text(encoding="utf-8") for word in ("svg", "savefig")
    )


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_what_is_imported_is_declared(path: Path) -> None:
    """NumPy and four more came along with other packages alone."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {re.split(r"[^\w.-]", line)[0] for line in project["dependencies"]}
    others = imported(path) - ROOMS.keys() - sys.stdlib_module_names
    assert {DISTRIBUTIONS.get(name, name) for name in others} <= declared


@pytest.mark.parametrize("name", CORES)
def test_cores_need_no_torch_and_no_network(name: str) -> None:
    assert not imported(ROOT / name) & {
        "torch",
        "transformers",
        "requests",
        "openai",
        "lm_eval",
        "fastchat",
        "datasets",
    }


@pytest.mark.parametrize("room", ROOMS)
def test_commands_import_nothing_heavy_before_they_know_what_to_do(room: str) -> None:
    heavy = {
        "torch",
        "transformers",
        "trl",
        "peft",
        "datasets",
        "lm_eval",
        "fastchat",
        "matplotlib",
        "scipy",
        "pandas",
    }
    assert not imported(ROOT / room / "__main__.py", everywhere=False) & heavy
