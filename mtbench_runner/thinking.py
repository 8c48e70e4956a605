"""Thoughts of a reasoning model: told apart from what it says."""

import re
from typing import NamedTuple

# blocks whose opening mark may stand in the prompt, so that the reply has the closing one alone
BLOCKS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<unused94>thought", "<unused95>"),
)
# any block that a reply begins with: these, <Think>, <seed:think>, <reasoning> and the like
OPENING = re.compile(
    r"\s*(<(?:\w+:)?(?:ant)?(?:think(?:ing)?|thoughts?|reasoning|reflection|scratchpad)>"
    r"|\[THINK\]|◁think▷)",
    re.IGNORECASE,
)
# gpt-oss's channels, where a server leaves them in
ANALYSIS = "<|channel|>analysis<|message|>"
FINAL = "<|channel|>final<|message|>"


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
    opened = OPENING.match(reply)
    if opened:
        mark = opened[1]
        return _after(f"{mark[0]}/{mark[1:]}", reply)
    if reply.lstrip().startswith(ANALYSIS):
        return _after(FINAL, reply)
    for opening, closing in BLOCKS:
        if reply.lstrip().startswith(opening):
            return _after(closing, reply)
    for opening, closing in BLOCKS:
        before, closed, rest = reply.partition(closing)
        if closed and opening not in before:
            return Thought(rest.strip(), True)
    return Thought(reply.strip(), False)


def _after(closing: str, reply: str) -> Thought:
    """What follows the closing mark; nothing where it never comes."""
    found = re.search(re.escape(closing), reply, re.IGNORECASE)
    return Thought(reply[found.end() :].strip() if found else "", True)
