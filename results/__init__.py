"""Records of runs, and the code that makes, compares and reports them."""


class FailedError(Exception):
    """The work failed or is incomplete; its text is one line: what, where and how to go on."""

    exit_code = 1


class InputError(FailedError):
    """The call or its input is wrong."""

    exit_code = 2
