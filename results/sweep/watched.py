"""Runs a command for as long as whoever started this script lives: `python watched.py COMMAND ...`.

The starter holds a pipe to this script's standard input. When the pipe closes, because the starter
is done or was killed, the command and all its descendants are ended: a model server would otherwise
hold the GPU's memory for ever. So are they if this script is told to end, or is killed itself.
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys

POLL_SECONDS = 0.2
GRACE_SECONDS = 20  # to end by itself after SIGTERM


def main(command: list[str]) -> int:
    """Run the command; returns its exit code."""
    child = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=end_with_parent
    )
    try:
        signal.signal(signal.SIGTERM, lambda *told: sys.exit(1))
        wait(child)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        end(child)
    return child.wait()


def wait(child: "subprocess.Popen[bytes]") -> None:
    """Return when the child has ended, or the starter's pipe is closed."""
    closed: list[object] = []
    while child.poll() is None and not closed:
        closed, _, _ = select.select([sys.stdin], [], [], POLL_SECONDS)


def end_with_parent() -> None:
    """On Linux: let this process be told to end when its parent is killed (PR_SET_PDEATHSIG)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def end(child: "subprocess.Popen[bytes]") -> None:
    """End the child's process group: politely first, then for good."""
    signal_group(child.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(GRACE_SECONDS)
    signal_group(child.pid, signal.SIGKILL)


def signal_group(group: int, number: signal.Signals) -> None:
    """Send a signal to a process group, if any of it is left."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
