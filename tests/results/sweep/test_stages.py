"""Stages as real processes: skipped by content, resumed after kill -9, one at a time, no orphan."""

import argparse
import errno
import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import filelock
import pytest

import results.__main__ as main
from results import FailedError, InputError
from results.sweep import processes, stages
from results.sweep.stages import LockedError, Stage

ROOT = Path(__file__).resolve().parents[3]
# counts its runs, writes rows one at a time, goes on where it stopped, fails if told so; where the
# file `hold` names a row, it says its process id before that row and waits for good
WORK = """
import json, os, pathlib, signal, sys
source, out = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
hold = source.with_name("hold")
held = int(hold.read_text()) if hold.exists() else None
word = source.read_text()
if word.startswith("exit"): sys.exit(int(word.split()[1]))
if word == "nothing": sys.exit(0)
out.mkdir(exist_ok=True)
with (out.parent / "calls").open("a") as calls: calls.write("x")
for i in range(5):
    file = out / f"{i}.json"
    if i == held:
        new = source.with_name("held.new")
        new.write_text(str(os.getpid()))
        new.rename(source.with_name("held"))
        signal.pause()
    if not file.exists():
        file.write_text(json.dumps([word, i]))
"""


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    (tmp_path / "work_in_rows.py").write_text(WORK)
    (tmp_path / "source").write_text("one")
    (tmp_path / "run").mkdir()
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    return make(tmp_path)


def make(tmp_path: Path) -> Stage:
    folder, source = tmp_path / "run", str(tmp_path / "source")
    arguments = ["work_in_rows", source, str(folder / "out")]
    return Stage(folder, "rows", arguments, [source], folder / "out")


def calls(stage: Stage) -> int:
    return len((stage.folder / "calls").read_text())


def test_a_done_stage_is_not_run_again(stage: Stage) -> None:
    stages.perform(stage)
    stages.perform(stage)
    assert calls(stage) == 1
    assert stage.note()["done"] is True


def test_changed_input_runs_again_and_old_output_is_kept_aside(
    stage: Stage, tmp_path: Path
) -> None:
    stages.perform(stage)
    (tmp_path / "source").write_text("two")
    assert not stage.done()
    stages.perform(stage)
    assert calls(stage) == 2
    assert json.loads((stage.output / "0.json").read_text()) == ["two", 0]
    aside = stage.folder / "out.old-1"
    assert json.loads((aside / "0.json").read_text()) == ["one", 0]


def test_touching_an_input_changes_nothing(stage: Stage, tmp_path: Path) -> None:
    stages.perform(stage)
    os.utime(tmp_path / "source", (1, 1))
    assert stage.done()


def test_a_note_of_the_users_beside_the_samples_is_never_lost(stage: Stage, tmp_path: Path) -> None:
    stages.perform(stage)
    (stage.output / "my notes.txt").write_text("mine")
    (tmp_path / "source").write_text("two")
    stages.perform(stage)
    kept = [file.read_text() for file in stage.folder.rglob("my notes.txt")]
    assert kept == ["mine"]


def test_what_a_pasted_command_made_is_kept(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    stage.output.mkdir()
    (stage.output / "0.json").write_text("pasted")
    stages.perform(stage)
    assert (stage.folder / "out.old-1" / "0.json").read_text() == "pasted"
    assert "kept as" in capsys.readouterr().err


def test_work_that_is_refused_in_the_place_of_other_work_leaves_its_note(
    stage: Stage, tmp_path: Path
) -> None:
    """As training does where another worker has another version of the recipe."""
    one = replace(stage, output=stage.output / "4.json")
    stages.perform(one)
    note = one.note()
    (tmp_path / "source").write_text("exit 2")
    with pytest.raises(InputError):
        stages.perform(one)
    assert one.note() == note
    (tmp_path / "source").write_text("one")
    assert one.done()


def test_a_lost_file_among_others_runs_again(stage: Stage) -> None:
    stages.perform(stage)
    (stage.output / "3.json").unlink()
    assert not stage.done()
    stages.perform(stage)
    assert (stage.output / "3.json").exists()


@pytest.mark.parametrize("torn", ["", "{", "[1]", '{"done": true}', "[" * 100_000])
def test_a_torn_note_is_named_and_not_replaced(stage: Stage, torn: str) -> None:
    stages.perform(stage)
    stage.file.write_text(torn)
    with pytest.raises(InputError, match="rows.stage.json"):
        stages.perform(stage)
    assert stage.file.read_text() == torn


def test_stages_at_once_keep_what_succeeded(stage: Stage, tmp_path: Path) -> None:
    bad_source = tmp_path / "bad"
    bad_source.write_text("exit 1")
    out = stage.folder / "bad_out"
    arguments = ["work_in_rows", str(bad_source), str(out), "0"]
    bad = Stage(stage.folder, "bad", arguments, [str(bad_source)], out)
    with pytest.raises(FailedError, match="run: bad"):
        stages.perform_together([bad, stage])
    assert stage.done()
    assert not bad.done()


def test_server_and_model_are_filled_in_and_do_not_change_the_key(stage: Stage) -> None:
    served = Stage(
        stage.folder, "s", ["m", f"model={stages.MODEL},url={stages.SERVER}/v1"], [], stage.output
    )
    names = {stages.SERVER: "http://h:1", stages.MODEL: "a-1"}
    assert served.filled(names) == ["m", "model=a-1,url=http://h:1/v1"]
    assert served.command(names=names) == "python -m m model=a-1,url=http://h:1/v1"
    assert served.key() == served.key()


@pytest.mark.parametrize("name", ["TATQA_DATA"])
def test_other_data_runs_again(stage: Stage, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stages.perform(stage)
    monkeypatch.setenv(name, "synthetic")
    assert not stage.done()


def test_lost_output_runs_again(stage: Stage) -> None:
    stages.perform(stage)
    for file in stage.output.iterdir():
        file.unlink()
    assert not stage.done()


@pytest.mark.parametrize(
    ("word", "error"), [("exit 1", FailedError), ("exit 2", InputError), ("nothing", FailedError)]
)
def test_failures_name_the_stage_and_are_not_done(
    stage: Stage, tmp_path: Path, word: str, error: type[Exception]
) -> None:
    (tmp_path / "source").write_text(word)
    with pytest.raises(error, match="run: rows"):
        stages.perform(stage)
    assert not stage.done()


def start_and_hold(tmp_path: Path, row: int) -> tuple["subprocess.Popen[str]", int]:
    """A program that performs the stage, whose work waits before a row; and the work's process."""
    held = tmp_path / "held"
    held.unlink(missing_ok=True)
    (tmp_path / "hold").write_text(str(row))
    code = (
        "import sys; from pathlib import Path; from results.sweep import stages; "
        "sys.path.insert(0, %r); "
        "stage = stages.Stage(Path(%r), 'rows', %r, [%r], Path(%r))\n"
        "with stages.locked(stage.folder): stages.perform(stage)"
    )
    s = make(tmp_path)
    filled = code % (str(ROOT), str(s.folder), s.arguments, s.inputs[0], str(s.output))
    process = subprocess.Popen([sys.executable, "-c", filled], stderr=subprocess.PIPE, text=True)
    while not held.exists():
        assert process.poll() is None, f"ended before row {row}"
        time.sleep(0.01)
    (tmp_path / "hold").unlink()
    return process, int(held.read_text())


@pytest.mark.skipif(
    sys.platform != "linux", reason="a process learns of its parent's end on Linux only"
)
def test_killed_at_any_row_it_goes_on_and_leaves_no_orphan(
    stage: Stage, tmp_path: Path, wait_for_end: Callable[[int], None]
) -> None:
    for row in (1, 3):
        process, work = start_and_hold(tmp_path, row)
        process.kill()
        process.wait()
        wait_for_end(work)  # for good, were it not ended with its parent
        assert not (stage.output / f"{row}.json").exists()
    first = (stage.output / "0.json").stat().st_mtime_ns
    with stages.locked(stage.folder):
        stages.perform(stage)
    assert (stage.output / "0.json").stat().st_mtime_ns == first
    assert [json.loads((stage.output / f"{i}.json").read_text()) for i in range(5)] == [
        ["one", i] for i in range(5)
    ]
    assert calls(stage) == 3


@pytest.mark.skipif(
    sys.platform != "linux", reason="a process learns of its parent's end on Linux only"
)
def test_a_command_whose_parent_ended_before_it_began_does_nothing(stage: Stage) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    orphan = [sys.executable, "-c", processes.MODULE, str(gone.pid), str(ROOT), *stage.arguments]
    assert subprocess.run(orphan, capture_output=True).returncode == 1
    assert not stage.output.exists()


def test_a_second_run_is_refused_while_the_first_is_at_work(stage: Stage, tmp_path: Path) -> None:
    process, _ = start_and_hold(tmp_path, 1)
    with pytest.raises(FailedError, match="another run is at work"), stages.locked(stage.folder):
        pass
    process.kill()
    process.communicate()
    with stages.locked(stage.folder):
        pass


@pytest.mark.parametrize("number", [errno.ENOTSUP, errno.ENOLCK, errno.EIO])
def test_a_file_system_without_locks_is_one_line(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(file: int, how: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(FailedError, match=r"cannot be locked.*flock"), stages.locked(stage.folder):
        pass


def test_workers_write_the_report_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else one takes what another has just written for somebody else's."""
    told = []

    def report(args: argparse.Namespace) -> int:
        with pytest.raises(filelock.Timeout):
            filelock.FileLock(args.runs / "report.lock", timeout=0).acquire()
        told.append(args.runs)
        return 0

    monkeypatch.setattr(main, "report_command", report)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "record.json").touch()
    plans = [argparse.Namespace(folder=tmp_path / "run", base=None, recorded=lambda: True)]
    args = argparse.Namespace(runs=tmp_path, report=None)
    assert main.run_plans(args, plans, lambda: None) == 0
    assert told == [tmp_path]


def test_where_there_are_no_locks_nobody_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(file: int, how: int) -> None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with stages.in_turn(tmp_path / "report.lock"):
        pass


def test_one_that_holds_its_turn_for_too_long_is_passed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "TURN_SECONDS", 0)
    with filelock.FileLock(tmp_path / "lock"), stages.in_turn(tmp_path / "lock"):
        pass


def test_a_folder_in_place_of_the_lock_is_one_line(stage: Stage) -> None:
    (stage.folder / stages.LOCK).mkdir(parents=True)
    with (
        pytest.raises(FailedError, match=r"run.lock: cannot be locked"),
        stages.locked(stage.folder),
    ):
        pass


def test_who_holds_a_folder_is_told_where_the_lock_is_a_file_with_a_name(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As filelock writes it where the system has no flock: another host's stays after its end."""

    def missing(file: int, how: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", missing)
    stage.folder.mkdir(exist_ok=True)
    (stage.folder / stages.LOCK).write_text("123\nnode-7\n")
    with (
        pytest.raises(LockedError, match=r"process 123 of node-7; if that is gone, delete .*lock"),
        stages.locked(stage.folder),
    ):
        pass


@pytest.mark.parametrize("text", ["", "123", "\xff"])
def test_a_lock_file_that_names_nobody_names_nobody(stage: Stage, text: str) -> None:
    stage.folder.mkdir(exist_ok=True)
    (stage.folder / stages.LOCK).write_text(text, encoding="latin-1")
    assert stages.holder(stage.folder) == ""


def test_commands_can_be_pasted(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TATQA_DATA", "a folder")
    odd = Stage(tmp_path, "s", ["json.tool", "it's"], [], tmp_path)
    assert odd.command() == """TATQA_DATA='a folder' python -m json.tool 'it'"'"'s'"""


def test_content_of_a_folder_counts_names_and_bytes(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    (folder / "a").write_text("1")
    before = stages.content(str(folder))
    (folder / "a").rename(folder / "b")
    renamed = stages.content(str(folder))
    (folder / "b").write_text("2")
    assert len({before, renamed, stages.content(str(folder))}) == 3
    (folder / "README.md").write_text("What this is.")
    described = stages.content(str(folder))
    (folder / "README.md").write_text("What this is, in other words.")
    assert stages.content(str(folder)) == described
    (folder / "README.md").unlink()
    assert stages.content(str(folder)) == described
    assert stages.content("Qwen/Qwen3-1.7B") == "Qwen/Qwen3-1.7B"


def test_a_module_of_the_users_in_the_working_folder_is_not_run_in_place_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tatqa_task.py").write_text("open('stolen', 'w')")
    assert processes.call([(["tatqa_task", "include-path"], None)]) == [0]
    assert not Path("stolen").exists()
