"""Records of runs, and the code that makes, compares and reports them."""


class FailedError(Exception):
    """The work failed or is incomplete; its text is one line: what, where and how to go on."""

    exit_code = 1


class InputError(FailedError):
    """The call or its input is wrong."""

    exit_code = 2


def on_one_line(text: str) -> str:
    """The text on one line, without characters that control a terminal or reorder what follows."""
    shown = ""
    for character in " ".join(text.split()):
        shown += character if character.isprintable() else "\N{REPLACEMENT CHARACTER}"
    return shown
