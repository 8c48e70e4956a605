"""How a command ends where its main does not see to it: an exit code and at most one line.

This file is the same in every room that imports no other (a test compares).
"""

import contextlib
import io
import os
import sys
from collections.abc import Callable


def exit_code(main: Callable[[], int]) -> int:
    """The exit code of a main; 1 after Ctrl-C, or where something could not be read or written.

    Standard output may be a full disk, or a reader that left early (`| head`), which needs no
    line. Characters that it cannot take are written as escapes.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = main()
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        message = "stopped; what is done is kept, the same command goes on from there"
    except BrokenPipeError:
        message = ""
    except OSError as error:
        message = in_words(error)
    leave_output()
    if message:
        sys.stderr.write(f"error: {message}\n")
    return 1


def in_words(error: OSError) -> str:
    """One line: libraries raise errors of this type too, with a text of their own."""
    if error.errno is None:
        return " ".join(str(error).split())
    return f"{error.filename or 'standard output'}: {error.strerror}"


def leave_output() -> None:
    """Let what is still to be written go nowhere: at the program's end it would fail once more."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
