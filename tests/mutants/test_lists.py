"""The lists of mutants fit the code; the script tells killed, surviving and stale ones apart."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
LISTS = sorted(path.stem for path in HERE.glob("*.toml"))
CODE = "def double(x):\n    return 2 * x\n"
TEST = "from code_here import double\n\ndef test_double():\n    assert double(3) == 6\n"


def load() -> Any:
    """The script as a module; tests/ is no package."""
    spec = importlib.util.spec_from_file_location("mutants_run", HERE / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["mutants_run"] = module
    spec.loader.exec_module(module)
    return module


run = load()


@pytest.mark.parametrize("name", LISTS)
def test_every_mutant_has_one_place_and_a_test(name: str) -> None:
    mutants = run.read_list(HERE / f"{name}.toml")
    assert len({(mutant.file, mutant.old, mutant.new) for mutant in mutants}) == len(mutants)
    for mutant in mutants:
        run.check(mutant)


def test_killed_survivor_and_equivalent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "code_here.py").write_text(CODE)
    (tmp_path / "test_here.py").write_text(TEST)
    changes = [
        ("2 * x", "3 * x", None),
        ("2 * x", "x * 2", None),
        ("2 * x", "x + x", "the same"),
        ("2 * x", "4 * x", "is it?"),
    ]
    mutants = [
        run.Mutant("code_here.py", old, new, "test_here.py", why) for old, new, why in changes
    ]
    assert run.run(mutants, tmp_path) == 2
    words = [
        line.partition(" code_here")[0].strip() for line in capsys.readouterr().out.splitlines()
    ]
    expected = ["killed", "SURVIVED", "equivalent", "KILLED, but listed as equivalent"]
    assert words == expected
    assert (tmp_path / "code_here.py").read_text() == CODE


@pytest.mark.parametrize(("old", "new"), [("x", "y"), ("nothing", "y"), ("return", "return")])
def test_a_stale_mutant_is_an_error(tmp_path: Path, old: str, new: str) -> None:
    (tmp_path / "code_here.py").write_text(CODE)
    (tmp_path / "test_here.py").write_text(TEST)
    with pytest.raises(run.ListError):
        run.check(run.Mutant("code_here.py", old, new, "test_here.py"), tmp_path)


def test_tests_that_fail_without_a_mutant_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "code_here.py").write_text(CODE.replace("2", "3"))
    (tmp_path / "test_here.py").write_text(TEST)
    mutant = run.Mutant("code_here.py", "3 * x", "2 * x", "test_here.py")
    with pytest.raises(run.ListError, match="fails without any mutant"):
        run.run([mutant], tmp_path)
