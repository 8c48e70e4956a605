"""Runs `python -m` commands that end when this program does, and keeps training's program ready.

Loading training's libraries takes 15 s on one H100 machine, of 60 that a DPO run takes. So while
one run trains, the program of the next may load them already: `python -m train -` does that first,
and then takes its options from standard input.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from results.sweep.terminal import VERBOSE, LoggedProcess

ROOT = Path(__file__).resolve().parents[2]
SCORERS = {  # whose code decides scores
    "lm_eval": "tatqa_task",
    "tatqa_task": "tatqa_task",
    "mtbench_runner": "mtbench_runner",
}
SECONDS_TO_END = 60  # for a command that is told to stop: training writes a checkpoint first
# `python -m` that on Linux ends when this program is killed (PR_SET_PDEATHSIG, SIGKILL): a second
# run never meets the first one's orphan, not even where the kill comes before the request. Not as
# preexec_fn: Python's hooks around a fork lose a Ctrl-C that comes just then. The packages beside
# this one are imported before others of their names, which PYTHONPATH may name, and stay.
MODULE = """import ctypes, importlib, os, runpy, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 9)
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the program that started this stage is gone")
path = list(sys.path)
sys.path.insert(0, sys.argv[2])
for room in ("tatqa_task", "mtbench_runner", "train"):
    importlib.import_module(room)
if sys.argv[2] in path:
    sys.path[:] = path
del sys.argv[:3], path, room
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)"""
OURS = [sys.executable, "-c", MODULE]
# OpenMP's threads sleep while they wait for one another. Left alone they spin, and where another
# program uses one of two cores, that made scoring six times slower (measured: 129 s, 20 s asleep).
THREADS = {"OMP_WAIT_POLICY": "PASSIVE"}

HERE = ("127.0.0.1", "localhost")

RUNNING: list["subprocess.Popen[bytes]"] = []  # commands of all threads, and servers
SPARE: list["subprocess.Popen[bytes]"] = []  # programs of training that wait for their options


def say(line: str) -> None:
    """A line about the work on the terminal."""
    sys.stderr.write(f"== {line}\n")


def call(commands: Sequence[tuple[list[str], Path | None]], bars: bool = True) -> list[int]:
    """Run `python -m ARGUMENTS`, each with its log, all at once; returns their exit codes."""
    processes = [
        handed_to_spare(arguments) or start(arguments, log, bars) for arguments, log in commands
    ]
    RUNNING.extend(processes)
    try:
        codes = [process.wait() for process in processes]
    finally:
        for process in processes:
            stop(process)
            RUNNING.remove(process)
    for process, code in zip(processes, codes, strict=True):
        if code and isinstance(process, LoggedProcess):
            sys.stderr.write(process.failure())
    return codes


def ask(commands: Sequence[list[str]]) -> list[tuple[int, str]]:
    """Run `python -m ARGUMENTS` of checks, all at once; their exit codes and what they say."""
    asked = []
    for arguments in commands:
        started = subprocess.Popen(
            tied(arguments),
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        asked.append(started)
    RUNNING.extend(asked)
    try:
        said = [process.communicate()[1].decode(errors="replace") for process in asked]
    finally:
        for process in asked:
            stop(process)
            RUNNING.remove(process)
    return [(process.returncode, text) for process, text in zip(asked, said, strict=True)]


def load_ahead(number: int) -> None:
    """Let so many programs of training load their libraries and wait for their options.

    They end when the thread that calls this does (`MODULE`), or with `stop_all`.
    """
    while len(SPARE) < number:
        process = subprocess.Popen(
            tied(["train", "-"]),
            env=environment(),
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        SPARE.append(process)


def handed_to_spare(arguments: list[str]) -> "subprocess.Popen[bytes] | None":
    """A program that was loaded ahead and was given this command; None if there is none."""
    while arguments[0] == "train" and SPARE:
        process = SPARE.pop(0)
        try:
            assert process.stdin is not None
            process.stdin.write(json.dumps(arguments[1:]).encode() + b"\n")
            process.stdin.close()
        except OSError:  # it has ended before it was needed
            stop(process)
        else:
            return process
    return None


def stop_all() -> None:
    """End every command that any thread has started here and that has not ended.

    The newest first: a scorer whose server is gone before it is told to stop would end with an
    error of its own.
    """
    for process in reversed([*RUNNING, *SPARE]):
        stop(process)
    SPARE.clear()


def start(arguments: list[str], log: Path | None, bars: bool = True) -> "subprocess.Popen[bytes]":
    """Start `python -m ARGUMENTS`, which ends at the latest when this program does.

    What a scorer prints beside its bars goes to the log. In a session of its own: a Ctrl-C in the
    terminal is for this program, which tells its commands to stop. A Python that is hit by one
    while it starts dies with words of its own in the middle of ours.
    """
    command = tied(arguments)
    if log is None or not is_logged(arguments):
        return subprocess.Popen(command, env=environment(), start_new_session=True)
    return LoggedProcess(command, environment(), log, bars)


def tied(arguments: list[str]) -> list[str]:
    """The command line of `python -m ARGUMENTS` that ends when this program does (MODULE)."""
    return [*OURS, str(os.getpid()), str(ROOT), *arguments]


def is_logged(arguments: list[str]) -> bool:
    """Whether a command's output goes to a file: a scorer's does, unless all is to be seen."""
    return arguments[0] in SCORERS and not os.environ.get(VERBOSE)


def environment() -> dict[str, str]:
    """What commands run in: a train.py in the working folder is not ours.

    A proxy that the environment names is not for servers on this machine.
    """
    found = THREADS | os.environ | {"PYTHONSAFEPATH": "1"}
    for name in ("no_proxy", "NO_PROXY"):
        found[name] = ",".join(filter(None, [found.get(name), *HERE]))
    return found


def stop(process: "subprocess.Popen[bytes]") -> None:
    """End a process, if it has not ended: with time to save its work, then for good."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(SECONDS_TO_END)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
