"""A stage's terminal: progress bars are for the person who waits, everything else is for a file.

lm-eval logs a hundred lines and prints tables of raw means; of these, `python -m results run`
shows the bars alone and keeps all of it beside the scores (`--verbose` shows everything). Where
the command fails, its error lines are shown. Where no person watches, in a file or a pipe, a line
says how far it is at each quarter.
"""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

BAR = re.compile(rb"(\d+)%\|[^|]*\|\s*([\d.]+\w?/[\d.]+\w?)|\d+%\|")  # tqdm's, in a line
PIECE = re.compile(rb"[^\r\n]*[\r\n]")
SHORTEST_KEY = 8
LAST_LINES = 20  # shown of a command that fails without an error line
LINGER_SECONDS = 10  # a command's own children may hold its output open
VERBOSE = "TATQA_BENCH_VERBOSE"  # environment variable: everything on the terminal


class LoggedProcess(subprocess.Popen[bytes]):
    """A command whose bars are on the terminal and whose other output is in a file.

    What an earlier attempt wrote stays above it. Without `bars` a terminal shows quarters as well:
    two commands at once would draw over each other. Raises OSError if the log cannot be written.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        bars: bool = True,
    ) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self.drawn = bars and sys.stderr.isatty()
        self.quarters = Quarters(f"{log.parent.name}: {log.stem}")
        self.log = log
        self.file = log.open("ab")
        self.begin = self.file.tell()
        output = subprocess.PIPE
        super().__init__(
            command,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self) -> None:
        """Until the command ends: bars to standard error, other lines to the file."""
        assert self.stdout is not None
        open_bar = False
        with self.file:
            for piece in pieces(self.stdout):
                if BAR.search(piece) and self.drawn:
                    open_bar = draw(piece)
                elif found := BAR.search(piece):
                    self.quarters.see(found)
                else:
                    self.file.write(without_key(piece))
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


def without_key(text: bytes) -> bytes:
    """A text without the key of a server, which some repeat when they refuse it.

    A short word is none: servers that ask for no key are given any.
    """
    key = os.environ.get("OPENAI_API_KEY", "").encode()
    return text.replace(key, b"(key)") if len(key) >= SHORTEST_KEY else text


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


def draw(bar: bytes) -> bool:
    """Draw one state of a bar over the one before; returns whether its line is still open."""
    text = bar.strip().decode(errors="replace")
    full = "100%|" in text
    end = "\n" if full else ""
    sys.stderr.write(f"\r{text}{end}")
    sys.stderr.flush()
    return not full


class Quarters:
    """Says at each quarter how far a command's bar is; a bar that is full at once says nothing."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.told = 0

    def see(self, bar: "re.Match[bytes]") -> None:
        """Look at one state of a bar."""
        if bar[1] is None:
            return
        quarter = int(bar[1]) // 25
        begun = quarter < 4 or self.told > 0
        if quarter > self.told and begun:
            sys.stderr.write(f"== {self.title}: {bar[2].decode()}\n")
            sys.stderr.flush()
        self.told = quarter if begun and quarter < 4 else 0
