"""How commands end: Ctrl-C, a reader that left early, a full disk, a terminal that is not UTF-8."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from results.command_line import finish

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("tatqa_task", "mtbench_runner", "results", "tatqa_bench")  # train uses tatqa_task's
CALL = "import sys; from results.command_line import exit_code; sys.exit(exit_code(lambda: {}))"
needs_dev_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")


def test_rooms_that_import_no_other_have_the_same_file() -> None:
    contents = {(ROOT / room / "command_line.py").read_text(encoding="utf-8") for room in ROOMS}
    assert len(contents) == 1


MAINS = [
    "tatqa_task", "mtbench_runner", "mtbench_runner.stand_in_judge", "results", "train",
    "train.pairs", "train.quantize", "train.push", "train.tiny_base", "tatqa_bench",
    "tatqa_bench.demo",
]  # fmt: skip


@pytest.mark.parametrize("module", MAINS)
def test_every_main_ends_by_it(module: str) -> None:
    path = ROOT / module.replace(".", "/")
    main = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
    assert "exit_code(" in main.read_text(encoding="utf-8")


@pytest.mark.parametrize("module", MAINS)
def test_ctrl_c_while_modules_are_imported_is_one_line(module: str, tmp_path: Path) -> None:
    for name in ("argparse", "subprocess"):  # one of them is imported early
        (tmp_path / f"{name}.py").write_text("import os; os.kill(os.getpid(), 2)")
    done = subprocess.run(
        [sys.executable, "-m", module, "recipes"],
        cwd=ROOT,
        env={"PATH": "", "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(b"error: stopped; what is done is kept")
    assert done.stderr.count(b"\n") == 1


def test_ctrl_c_while_libraries_are_loaded_is_not_lost() -> None:
    """As a program that goes on after "Exception ignored in": the exception came in a callback."""
    program = (
        "import os; from tatqa_task.command_line import exit_code\n"
        "from tatqa_task.imports import collector_at_rest\n"
        "class Library:\n"
        "    def __del__(self): os.kill(os.getpid(), 2)\n"
        "def main():\n"
        "    with collector_at_rest():\n"
        "        Library()\n"
        "    return 0\n"
        "raise SystemExit(exit_code(main))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith(b"error: stopped; ")
    assert done.stderr.count(b"\n") == 1


def test_ctrl_c_that_is_ignored_stays_so() -> None:
    """As with nohup, or in the background of a script."""
    found = subprocess.run(
        [
            sys.executable,
            "-c",
            "import os, signal; signal.signal(2, signal.SIG_IGN)\n"
            "from results.command_line import exit_code, stop_at_once\n"
            "stop_at_once(); os.kill(os.getpid(), 2)\n"
            "raise SystemExit(exit_code(lambda: os.kill(os.getpid(), 2) or 5))",
        ],
        cwd=ROOT,
        check=False,
    )
    assert found.returncode == 5


class Interrupted:
    """A process; Ctrl-C comes while somebody waits for it."""

    def __init__(self, code: int) -> None:
        self.ends: list[int | None] = [None, None, code]

    def wait(self) -> int:
        code = self.ends.pop(0)
        if code is None:
            raise KeyboardInterrupt
        return code


@pytest.mark.parametrize(("code", "ours"), [(0, 0), (1, 1), (7, 7), (-9, 1)])
def test_a_command_in_front_waits_for_how_the_other_ends(code: int, ours: int) -> None:
    """It was killed a quarter of a second after Ctrl-C, in the middle of what it kept."""
    assert finish(Interrupted(code)) == ours  # type: ignore[arg-type]


def ended(call: str, stdout: int, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """A main that does what `call` does, its output going to `stdout`."""
    return subprocess.run(
        [sys.executable, "-c", CALL.format(call)],
        stdout=stdout,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        env={"PATH": "", **environment},
        check=False,
    )


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_left_is_told_nothing(unbuffered: str) -> None:
    program = "print('word\\n' * 50_000) or 0"
    command = [sys.executable, "-c", CALL.format(program)]
    environment = {"PATH": "", "PYTHONUNBUFFERED": unbuffered}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, env=environment, **pipes) as process:  # type: ignore[call-overload]
        process.stdout.read(1)
        process.stdout.close()
        said = process.stderr.read()
    assert (process.returncode, said) == (1, b"")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed_are_as_the_null_device(closed: str, tmp_path: Path) -> None:
    """The next file that was opened took their place, and a command's output went into it."""
    program = (
        "import os, sys; from results.command_line import exit_code\n"
        "def main():\n"
        "    with open(sys.argv[1], 'w'):\n"
        "        os.system('echo out; echo err >&2')\n"
        "        print('out'); print('err', file=sys.stderr)\n"
        "    return 5\n"
        "sys.exit(exit_code(main))"
    )
    file = tmp_path / "file"
    command = ["bash", "-c", f'exec "$@" {closed}', "-", sys.executable, "-c", program, str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 5
    assert file.read_bytes() == b""


@needs_dev_full
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_is_one_line(unbuffered: str) -> None:
    with Path("/dev/full").open("wb") as full:
        done = ended("print('word') or 0", full.fileno(), PYTHONUNBUFFERED=unbuffered)
    assert done.returncode == 1
    assert done.stderr == b"error: standard output: No space left on device\n"


def test_letters_that_a_terminal_cannot_show_are_escapes() -> None:
    done = ended("print('r\\u00e9') or 0", subprocess.PIPE, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"r\\xe9\n", b"")


@pytest.mark.parametrize(
    ("raised", "code", "line"),
    [
        ("KeyboardInterrupt", 1, b"error: stopped; what is done is kept, the same command goes on"),
        ("FileNotFoundError(2, 'No such file', 'x/y')", 2, b"error: x/y: No such file"),
        ("PermissionError(13, 'Permission denied', 'x')", 2, b"error: x: Permission denied"),
        ("OSError(28, 'No space left', 'x')", 1, b"error: x: No space left"),
        ("OSError('no such\\nmodel')", 1, b"error: no such model"),
    ],
)
def test_what_a_main_lets_through_is_one_line(raised: str, code: int, line: bytes) -> None:
    done = ended(f"(_ for _ in ()).throw({raised})", subprocess.PIPE)
    assert done.returncode == code
    assert done.stderr.startswith(line)
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize(
    "call",
    [
        "tatqa_task generate made",
        "train.pairs --out pairs.jsonl",
        "tatqa_bench recipes cp demo",
    ],
)
def test_a_disk_that_is_full_is_no_wrong_call(call: str, tmp_path: Path) -> None:
    """No file may grow at all: exit code 1, one line, and no part of a file."""
    limited = f"""import resource, runpy, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
sys.argv = {call.split()!r}
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)"""
    environment = os.environ | {"TATQA_DATA": "synthetic"}
    done = subprocess.run(
        [sys.executable, "-c", limited], cwd=tmp_path, env=environment, capture_output=True
    )
    assert done.returncode == 1, done.stderr
    assert done.stderr.count(b"error: ") == done.stderr.count(b"\n") == 1
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("main", ["0", "(_ for _ in ()).throw(OSError(2, 'no'))", "sys.exit(0)"])
def test_the_end_looks_for_no_garbage(main: str) -> None:
    """With PyTorch in memory it took seconds."""
    count = "import atexit, gc, sys; atexit.register(lambda: sys.stderr.write(COUNT)); "
    count = count.replace("COUNT", "f'frozen {gc.get_freeze_count() > 0}'")
    command = [sys.executable, "-c", count + CALL.format(main)]
    done = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, check=False)
    assert done.stderr.endswith(b"frozen True")


def test_a_list_of_recipes_may_be_cut_short() -> None:
    command = f"{sys.executable} -m tatqa_bench recipes ls | head -1"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.count(b"\n") == 1
