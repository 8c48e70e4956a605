"""Private names of other libraries: docs/LIBRARIES.md lists each with every file that uses it."""

import ast
import importlib
import inspect
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("tatqa_task", "mtbench_runner", "train", "results", "tatqa_bench")
ROW = re.compile(r"^\| `([\w.]+)` \| ([\w/.]+) \| .* \| ([\w/.:]+) \|$", re.MULTILINE)
TABLE = ROW.findall((ROOT / "docs" / "LIBRARIES.md").read_text(encoding="utf-8"))
OF_PYTHON = {"_replace", "_asdict", "_fields", "_exit"}  # a NamedTuple's and os's, documented


def sources() -> list[Path]:
    return [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def private_names_read(tree: ast.AST) -> set[str]:
    """Private names that are read off some object in a file, by a dot or by getattr."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            found.add(node.attr)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            words = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
            if node.func.id == "getattr":
                found.update(word for word in words if isinstance(word, str))
    return {name for name in found if is_private(name)}


def names_of_our_own(tree: ast.AST) -> set[str]:
    """Functions, classes, methods and attributes that a file defines."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            found.add(node.attr)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return found


def test_the_table_is_read() -> None:
    assert len(TABLE) >= 10


@pytest.mark.parametrize(("name", "file", "test"), TABLE, ids=[row[0] for row in TABLE])
def test_a_listed_name_is_still_there_and_still_used(name: str, file: str, test: str) -> None:
    owner_name, _, attribute = name.rpartition(".")
    module_name, _, class_name = owner_name.rpartition(".")
    if class_name[:1].isupper():
        owner = getattr(importlib.import_module(module_name), class_name)
        assert hasattr(owner, attribute) or attribute in inspect.getsource(owner)
    else:
        owner = importlib.import_module(owner_name)
        importlib.import_module(name) if attribute == "_dynamo" else getattr(owner, attribute)
    assert attribute in (ROOT / file).read_text(encoding="utf-8")
    test_file, _, function = test.partition("::")
    assert f"def {function}" in (ROOT / test_file).read_text(encoding="utf-8")


def test_no_private_name_is_used_that_is_not_listed() -> None:
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sources()}
    ours = set().union(*map(names_of_our_own, trees.values()))
    unlisted = {}
    for path, tree in trees.items():
        file = str(path.relative_to(ROOT))
        listed = {name.rpartition(".")[2] for name, user, _ in TABLE if user == file}
        rest = private_names_read(tree) - ours - listed - OF_PYTHON
        if rest:
            unlisted[file] = rest
    assert not unlisted
