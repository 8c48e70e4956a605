"""A stage's terminal: progress bars are for the person who waits, everything else is for a file.

lm-eval logs a hundred lines and prints tables of raw means; of these, `python -m results run`
shows the bars alone and keeps all of it beside the scores (`--verbose` shows everything). Where
the command fails, its error lines are shown.
"""

import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

BAR = re.compile(rb"\d+%\|")  # tqdm's, somewhere in the line
PIECE = re.compile(rb"[^\r\n]*[\r\n]")
LAST_LINES = 20  # shown of a command that fails without an error line
LINGER_SECONDS = 10  # a command's own children may hold its output open
VERBOSE = "TATQA_BENCH_VERBOSE"  # environment variable: everything on the terminal


class LoggedProcess(subprocess.Popen[bytes]):
    """A command whose bars are on the terminal and whose other output is in a file.

    What an earlier attempt wrote stays above it. Without `bars` they are left out: two commands
    at once would draw over each other. Raises OSError if the log cannot be written.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        bars: bool = True,
    ) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self.bars = bars
        self.log = log
        self.file = log.open("ab")
        self.begin = self.file.tell()
        output = subprocess.PIPE
        super().__init__(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self) -> None:
        """Until the command ends: bars to standard error, other lines to the file."""
        assert self.stdout is not None
        open_bar = False
        with self.file:
            for piece in pieces(self.stdout):
                if BAR.search(piece):
                    open_bar = self.bars and show(piece)
                else:
                    self.file.write(piece)
                    self.file.flush()
        if open_bar:
            sys.stderr.write("\n")

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the command and for all of its output."""
        code = super().wait(timeout)
        self.reader.join(LINGER_SECONDS)
        return code

    def failure(self) -> str:
        """What a person needs of a failed command's output: its error lines, or its last lines."""
        text = self.log.read_bytes()[self.begin :].decode(errors="replace")
        lines = text.splitlines()
        errors = [line for line in lines if line.startswith("error: ")]
        shown = errors or lines[-LAST_LINES:]
        return "".join(f"{line}\n" for line in shown)


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
