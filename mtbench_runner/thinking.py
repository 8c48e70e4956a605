"""Thoughts of a reasoning model: told apart from what it says."""

from typing import NamedTuple

# what opens a block of thoughts, and what closes it
BLOCKS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("[THINK]", "[/THINK]"),
)


class Thought(NamedTuple):
    """A reply without its thoughts, and whether it had any."""

    said: str
    thought: bool


def strip_thinking(reply: str) -> str:
    """The reply without a leading block of thoughts; empty if the model never finished thinking."""
    return split(reply).said


def split(reply: str) -> Thought:
    """The reply and its thoughts, told apart.

    Only a block at the very beginning counts, or text up to a closing mark whose opening mark
    stands in the prompt: an answer may well write about think tags.
    """
    for opening, closing in BLOCKS:
        starts = reply.lstrip().startswith(opening)
        before, closed, rest = reply.partition(closing)
        if closed and (starts or opening not in before):
            return Thought(rest.strip(), True)
        if starts:
            return Thought("", True)
    return Thought(reply.strip(), False)
