"""How a command starts and ends: what takes seconds of no use, an exit code, at most one line.

This file is the same in every room that imports no other (a test compares).
"""

import contextlib
import errno
import gc
import io
import os
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    import subprocess

WRONG_PLACE = (
    errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.ELOOP,
    errno.ENAMETOOLONG, errno.EROFS, errno.EEXIST,
)  # fmt: skip
STOPPED = "stopped; what is done is kept, the same command goes on from there"


def stop_at_once() -> None:
    """From now on Ctrl-C ends the program by one line: nothing is begun yet.

    To be called before modules are imported that take a while; `exit_code` ends it. A Ctrl-C that
    the caller ignores (`nohup`, a job in the background) is left to be ignored.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        with contextlib.suppress(ValueError):  # another thread than the first may not
            signal.signal(signal.SIGINT, _stop)


def interrupt_again() -> None:
    """Let Ctrl-C be an exception again: what the main does may be kept."""
    if signal.getsignal(signal.SIGINT) is _stop:
        with contextlib.suppress(ValueError):
            signal.signal(signal.SIGINT, signal.default_int_handler)


def exit_code(main: Callable[[], int]) -> int:
    """The exit code of a main; 1 after Ctrl-C, or where something could not be read or written.

    2 where a file is not there, is of another kind or may not be used: a wrong call or input.
    Standard output may be a full disk, or a reader that left early (`| head`), which needs no
    line. Characters that it cannot take are written as escapes. What is left in memory then goes
    with the process: Python would look through all of it for garbage, which takes seconds.
    """
    try:
        interrupt_again()
        _open_streams()
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")
        code = main()
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        message, code = STOPPED, 1
    except BrokenPipeError:
        message, code = "", 1
    except OSError as error:
        message, code = in_words(error), code_of(error)
    finally:
        gc.freeze()
    leave_output()
    if message:
        say_error(message)
    return code


def say_error(message: object) -> None:
    """What went wrong, on one line whatever characters the name of a file has."""
    line = " ".join(str(message).split())
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)
    sys.stderr.write(f"error: {shown}\n")


def finish(process: "subprocess.Popen[bytes]") -> int:
    """The exit code of a command that this one stands in front of.

    A Ctrl-C in the terminal goes to that command too, which knows how to end.
    """
    while True:
        with contextlib.suppress(KeyboardInterrupt):
            code = process.wait()
            return code if code >= 0 else 1  # killed by a signal


def code_of(error: OSError) -> int:
    """2 where a file is missing, in the way or forbidden; 1 for work that failed: a full disk."""
    return 2 if error.errno in WRONG_PLACE else 1


def in_words(error: OSError) -> str:
    """One line: libraries raise errors of this type too, with a text of their own."""
    if error.errno is None:
        return " ".join(str(error).split())
    return f"{error.filename or 'standard output'}: {error.strerror}"


def leave_output() -> None:
    """Let what is still to be written go nowhere: at the program's end it would fail once more."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _stop(*_: Any) -> NoReturn:
    """What a signal does while modules are imported, which catch an exception or report it."""
    os.write(2, f"error: {STOPPED}\n".encode())
    os._exit(1)


def _open_streams() -> None:
    """Give standard input, output and error that are closed (`>&-`) the null device.

    Else the next file that is opened takes the place of one, and commands write into it.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))
