"""Commands of a sweep: training's program is loaded ahead and does just what it is told."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from results.sweep import processes
from results.sweep.terminal import LoggedProcess


@pytest.fixture(autouse=True)
def none_left() -> Iterator[None]:
    yield
    processes.stop_all()
    assert not processes.SPARE


def test_a_program_loaded_ahead_does_the_command(capfd: pytest.CaptureFixture[str]) -> None:
    wrong = ["train", "no_such_recipe.yaml", "--check"]
    assert processes.call([(wrong, None)]) == [2]
    plainly_started = capfd.readouterr()
    processes.load_ahead(1)
    ahead = processes.SPARE[0]
    assert processes.call([(wrong, None)]) == [2]
    assert capfd.readouterr() == plainly_started
    assert not processes.SPARE
    assert ahead.returncode == 2


def test_one_that_ended_before_it_was_needed_is_replaced() -> None:
    processes.load_ahead(2)
    for process in processes.SPARE:
        process.kill()
        process.wait()
    assert processes.call([(["train", "calc_sft", "--check"], None)]) == [0]


def test_no_more_are_loaded_than_asked_for_and_scorers_leave_them_alone() -> None:
    processes.load_ahead(1)
    processes.load_ahead(1)
    (only,) = processes.SPARE
    assert processes.call([(["tatqa_task", "include-path"], None)]) == [0]
    assert processes.SPARE == [only]
    assert only.poll() is None


def test_a_program_that_is_told_nothing_ends_without_a_word(
    capfd: pytest.CaptureFixture[str],
) -> None:
    processes.load_ahead(1)
    (waiting,) = processes.SPARE
    waiting.communicate()  # closes its standard input, as the end of the sweep does
    assert waiting.returncode == 0
    assert capfd.readouterr() == ("", "")


def test_the_newest_is_stopped_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server before the scorer that asks it: that would end with an error of its own."""
    server = processes.start(["train", "-"], None)
    scorer = processes.start(["train", "-"], None)
    monkeypatch.setattr(processes, "RUNNING", [server, scorer])
    stopped = []

    def stop(process: "subprocess.Popen[bytes]") -> None:
        stopped.append(process)
        process.kill()
        process.wait()

    monkeypatch.setattr(processes, "stop", stop)
    processes.stop_all()
    assert stopped == [scorer, server]


def test_a_ctrl_c_in_the_terminal_does_not_reach_the_commands(tmp_path: Path) -> None:
    """They are told to stop by this program; see `processes.start`."""
    plain = processes.start(["train", "-"], None)
    logged = processes.start(["tatqa_task", "include-path"], tmp_path / "log")
    assert isinstance(logged, LoggedProcess)
    processes.load_ahead(1)
    started = [plain, logged, *processes.SPARE]
    try:
        groups = [os.getpgid(process.pid) for process in started]
        assert groups == [process.pid for process in started]
        assert os.getpgid(0) not in groups
    finally:
        for process in started:
            processes.stop(process)
