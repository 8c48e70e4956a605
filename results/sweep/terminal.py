"""A stage's terminal: progress bars are for the person who waits, everything else is for a file.

lm-eval logs a hundred lines and prints tables of raw means; of these, `python -m results run` shows the bars alone and
keeps all of it beside the scores (`--verbose` shows everything). Where the command fails, its error lines are shown.
"""

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

BAR = re.compile(rb"\d+%\|")  # tqdm's, somewhere in the line
PIECE = re.compile(rb"[^\r\n]*[\r\n]")
LAST_LINES = 20  # shown of a command that fails without an error line


def run_with_log(command: Sequence[str], environment: Mapping[str, str], log: Path) -> int:
    """Run a command, its bars on the terminal and its output in `log`; returns its exit code.

    What an earlier attempt wrote stays above it. Raises OSError if the log cannot be written.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        start = file.tell()
        code = run_split(command, environment, file)
    if code:
        sys.stderr.write(failure(log, start))
    return code


def run_split(command: Sequence[str], environment: Mapping[str, str], file: IO[bytes]) -> int:
    """Run a command; its bars go to standard error, its other lines to the file."""
    output = subprocess.PIPE
    with subprocess.Popen(
        command, env=environment, stdout=output, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout is not None
        open_bar = False
        for piece in pieces(process.stdout):
            if BAR.search(piece):
                open_bar = show(piece)
            else:
                file.write(piece)
                file.flush()
        if open_bar:
            sys.stderr.write("\n")
    return process.returncode


def pieces(stream: IO[bytes]) -> Iterator[bytes]:
    """What arrives, cut after each end of line and each carriage return."""
    rest = b""
    while block := getattr(stream, "read1", stream.read)(65536):
        rest += block
        end = 0
        for found in PIECE.finditer(rest):
            yield found.group()
            end = found.end()
        rest = rest[end:]
    if rest:
        yield rest


def show(bar: bytes) -> bool:
    """Draw one state of a bar over the one before; returns whether its line is still open.

    Where no person watches, in a file or a pipe, only a full bar is written.
    """
    text = bar.strip().decode(errors="replace")
    full = "100%|" in text
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{text}")
    elif full:
        sys.stderr.write(text)
    if full:
        sys.stderr.write("\n")
    sys.stderr.flush()
    return sys.stderr.isatty() and not full


def failure(log: Path, start: int) -> str:
    """What a person needs of a failed command's output: its error lines, or else its last lines."""
    lines = log.read_bytes()[start:].decode(errors="replace").splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    shown = errors or lines[-LAST_LINES:]
    return "".join(f"{line}\n" for line in shown)
