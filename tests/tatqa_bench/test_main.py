"""The console script: each word reaches its room's main, and nothing heavy is imported."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tatqa_bench import demo
from tatqa_bench.__main__ import COMMANDS, main

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "transformers", "datasets", "lm_eval", "fastchat", "matplotlib", "scipy")


@pytest.mark.parametrize(
    ("command", "usage"),
    [
        ("run", "RECIPE"),
        ("train", "RECIPE.yaml"),
        ("pairs", "--strategy"),
        ("compare", "before"),
        ("report", "--check"),
        ("score", "--gold"),
        ("mtbench", "pairwise"),
        ("push", "--private"),
        ("recipes", "cp"),
        ("demo", "--out"),
    ],
)
def test_a_command_is_its_rooms_own(
    command: str, usage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert usage in capsys.readouterr().out


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for command in COMMANDS:
        assert f"\n  {command} " in shown


def test_nothing_is_a_wrong_call(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage: tatqa-bench" in capsys.readouterr().out


def test_a_typo_is_answered_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trian"]) == 2
    expected = "error: tatqa-bench has no command 'trian'; did you mean train?\n"
    assert capsys.readouterr().err == expected


def test_the_exit_code_is_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "no-such-recipe"]) == 2
    assert capsys.readouterr().err.startswith("error: no-such-recipe: cannot read the recipe")


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A folder of a user's with modules of our names, which leave a trace where they are run."""
    for name in ("train", "results", "tatqa_task", "mtbench_runner"):
        (tmp_path / f"{name}.py").write_text("open('stolen', 'w')")
    script = tmp_path / "bin" / "tatqa-bench"  # as pip writes it
    script.parent.mkdir()
    script.write_text("import sys; from tatqa_bench.__main__ import main; sys.exit(main())")
    return tmp_path


@pytest.mark.parametrize("path", ["", "."])
@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("train no-such-recipe", 2, "cannot read the recipe"),
        ("recipes ls", 0, "direct_sft"),
        ("pairs --out train.py", 2, "train.py is there already"),
        ("score --gold none --pred none", 2, "none: No such file"),
        ("mtbench score --model-id m --data none", 2, "none"),
        ("run demo --runs r --dry-run", 0, "python -m train "),
    ],
)
def test_a_users_own_modules_are_not_run_in_place_of_ours(
    theirs: Path, path: str, words: str, code: int, said: str
) -> None:
    """Neither here nor, with `run`, where a command of ours checks a recipe."""
    environment = os.environ | {"PYTHONPATH": path, "TATQA_DATA": "synthetic"}
    command = [sys.executable, str(theirs / "bin" / "tatqa-bench"), *words.split()]
    done = subprocess.run(
        command, cwd=theirs, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    assert said in done.stdout + done.stderr
    assert not (theirs / "stolen").exists()


def test_answers_come_without_heavy_imports() -> None:
    code = f"""
import sys
from tatqa_bench.__main__ import COMMANDS, main
for command in COMMANDS:
    try:
        main([command, "--help"])
    except SystemExit:
        pass
print(*[name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "\n"


def test_recipes_are_listed_and_copied_and_nothing_is_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["recipes", "ls"]) == 0
    assert "\ndemo " in capsys.readouterr().out
    assert main(["recipes", "cp", "demo"]) == 0
    shipped = ROOT / "train" / "recipes" / "demo.yaml"
    assert Path("demo.yaml").read_text() == shipped.read_text()
    Path("demo.yaml").write_text("mine")
    assert main(["recipes", "cp", "demo"]) == 2
    assert Path("demo.yaml").read_text() == "mine"
    assert main(["recipes", "cp", "demo", "no/such/folder.yaml"]) == 2
    assert main(["recipes", "cp", "../demo"]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 3
    assert all(line.startswith("error: ") for line in errors)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_copy_on_a_full_disk_leaves_no_part_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An empty file stayed, over which nothing could be copied once there was room."""
    file = tmp_path / "demo.yaml"

    really = Path.open

    def opened(self: Path, mode: str = "r", **options: Any) -> Any:
        if mode != "x":
            return really(self, mode, **options)
        self.touch()
        return open("/dev/full", "w", encoding="utf-8")

    monkeypatch.setattr(Path, "open", opened)
    assert main(["recipes", "cp", "demo", str(file)]) == 1
    assert not file.exists()
    assert "No space left on device" in capsys.readouterr().err


def test_the_demo_compares_with_the_committed_record() -> None:
    runs = ROOT / "results" / "runs"
    base = json.loads((runs / "demo" / "record.json").read_text())["base"]
    assert f"{demo.exact_match(runs / 'demo' / 'record.json'):.1f}" == "42.5"
    assert f"{demo.exact_match(runs / base / 'record.json'):.1f}" == "31.8"
    assert demo.COMMITTED == {"before": 31.8, "after": 42.5}


@pytest.mark.parametrize(
    ("before", "after", "code", "words"),
    [
        (31.83, 42.5, 0, "as in the committed record"),
        (31.8, 44.5, 0, "within 2 points"),
        (31.8, 44.6, 1, "does not work"),
        (29.7, 42.5, 1, "does not work"),
    ],
)
def test_the_demos_verdict(before: float, after: float, code: int, words: str) -> None:
    found_code, sentence = demo.verdict({"before": before, "after": after})
    assert found_code == code
    assert words in sentence
