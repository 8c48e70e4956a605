"""Few packed lengths for many batches: which ones a run's batches are rounded up to.

Each length is compiled and recorded once, each token of padding computed like any other. The
lengths of a run's batches are known before it starts, so the cheapest choice is too.
"""

from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

# What one length costs, in tokens: about as many are trained on while it is compiled and recorded.
# On an H100 50,000 where the compiler's results are kept from a run before, 400,000 where they are
# not; which it will be is not known beforehand, so this lies between.
RECORDING = 200_000
TOKEN_BYTES = 8


def as_bytes(tokens: Iterable[int]) -> bytes:
    """Token ids at TOKEN_BYTES each: rows are sorted and compared ten times as fast as lists."""
    return array("q", tokens).tobytes()


def distinct_tokens(rows: Iterable[bytes]) -> int:
    """How many nodes the trie of these rows has: tokens that one pass over them computes."""
    ordered = sorted(rows)  # in any order that puts equal beginnings side by side
    shared = sum(common_tokens(row, following) for row, following in pairwise(ordered))
    return sum(map(len, ordered)) // TOKEN_BYTES - shared


def common_tokens(a: bytes, b: bytes) -> int:
    """How many tokens two rows begin with in common, by bisection."""
    agreed, end = 0, min(len(a), len(b)) // TOKEN_BYTES
    while agreed < end:
        middle = (agreed + end + 1) // 2
        part = slice(agreed * TOKEN_BYTES, middle * TOKEN_BYTES)
        if a[part] == b[part]:
            agreed = middle
        else:
            end = middle - 1
    return agreed


def cheapest_lengths(totals: Sequence[int], block: int, recording: float = RECORDING) -> list[int]:
    """The lengths, ascending multiples of `block`, that cost least for batches of these tokens.

    A choice costs the padded tokens of all batches, each rounded up to the next chosen length, and
    `recording` tokens for every length. Solved by dynamic programming over the sorted batches.
    """
    batches_of = Counter(-(-total // block) * block for total in totals)
    lengths = sorted(batches_of)
    best: list[tuple[float, list[int]]] = [(0.0, [])]  # of the first 0, 1, 2, ... lengths
    for end, length in enumerate(lengths, start=1):
        choices = []
        batches = 0
        for start in range(end - 1, -1, -1):  # all from `start` on are rounded up to this one
            batches += batches_of[lengths[start]]
            cost, chosen = best[start]
            choices.append((cost + batches * length + recording, [*chosen, length]))
        best.append(min(choices))
    return best[-1][1]


def rounded_up(total: int, lengths: Sequence[int], bucket: int) -> int:
    """The first length that holds `total` tokens, else the next multiple of `bucket`."""
    for length in lengths:
        if length >= total:
            return length
    return total + -total % bucket
