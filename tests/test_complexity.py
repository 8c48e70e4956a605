"""No function takes more than ten decisions, those in comprehensions and conditions counted.

Ruff's C901 holds the same ceiling, but to it a comprehension with three conditions is no decision.
Counted here: every `if` (also as an expression and in a comprehension), loop, `for` of a
comprehension, `except`, `case`, and every `and` and `or`; functions within a function are its own.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("tatqa_task", "mtbench_runner", "train", "results", "tatqa_bench", "benchmarks")
CEILING = 10
ONE_WAY_MORE = (ast.If, ast.IfExp, ast.For, ast.While, ast.ExceptHandler, ast.match_case)
AnyFunction = ast.FunctionDef | ast.AsyncFunctionDef


def complexity(function: AnyFunction) -> int:
    """McCabe's number: the ways through a function that are independent of each other."""
    ways = 1
    for node in ast.walk(function):
        if isinstance(node, ONE_WAY_MORE):
            ways += 1
        elif isinstance(node, ast.comprehension):
            ways += 1 + len(node.ifs)
        elif isinstance(node, ast.BoolOp):
            ways += len(node.values) - 1
    return ways


def functions(source: str) -> Iterator[AnyFunction]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, AnyFunction):
            yield node


def sources() -> list[Path]:
    found = []
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            if ROOT / "results" / "runs" not in path.parents:
                found.append(path)
    return found


@pytest.mark.parametrize(
    ("body", "ways"),
    [
        ("return 1", 1),
        ("if a and b or c:\n  return 1\nelif d:\n  return 2", 5),
        ("return [x for row in rows for x in row if x if x > 1]", 5),
        ("for a in b:\n  while c:\n    d = e if f else g", 4),
        ("try:\n  f()\nexcept OSError:\n  pass\nexcept KeyError:\n  pass", 3),
        ("match a:\n  case 1:\n    pass\n  case _:\n    pass", 3),
        ("def inner():\n  return any(x for x in y)\nreturn inner", 2),
        ("with f() as g:\n  assert g, lambda: g", 1),
    ],
)
def test_the_count(body: str, ways: int) -> None:
    indented = "\n".join("  " + line for line in body.splitlines())
    outer = next(functions(f"def outer():\n{indented}\n"))
    assert complexity(outer) == ways


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_function_is_denser_than_the_ceiling(path: Path) -> None:
    dense = {}
    for function in functions(path.read_text(encoding="utf-8")):
        ways = complexity(function)
        if ways > CEILING:
            dense[f"{function.name}, line {function.lineno}"] = ways
    assert not dense
