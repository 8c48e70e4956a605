"""Which packed lengths a run's batches are rounded up to."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.sharing.lengths import as_bytes, cheapest_lengths, distinct_tokens, rounded_up


def test_distinct_tokens_of_the_drawn_example() -> None:
    """The twelve nodes of README.md's trie."""
    rows = ["TUpa.", "TUpb.", "TUqa.", "TUqcd"]
    assert distinct_tokens([as_bytes(map(ord, row)) for row in rows]) == 12


@pytest.mark.parametrize(
    ("recording", "expected"), [(1e9, [640]), (200.0, [256, 640]), (0.0, [128, 256, 640])]
)
def test_dear_recordings_make_fewer_lengths(recording: float, expected: list[int]) -> None:
    """Batches of 100, 250, 250 and 600 tokens; by hand: a third length saves 128 tokens."""
    assert cheapest_lengths([100, 250, 250, 600], 128, recording) == expected


def cost(lengths: list[int], totals: list[int], recording: float) -> float:
    """What a choice costs, by its definition."""
    return recording * len(lengths) + sum(rounded_up(total, lengths, 10**6) for total in totals)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=8), st.floats(0, 60))
def test_no_other_choice_is_cheaper(totals: list[int], recording: float) -> None:
    """Against every choice of multiples of the block."""
    found = cheapest_lengths(totals, 10, recording)
    assert found == sorted(set(found))
    assert found[-1] >= max(totals)
    possible = range(10, 61, 10)
    for count in range(1, 7):
        for choice in combinations(possible, count):
            lengths = list(choice)
            if lengths[-1] >= max(totals):
                assert cost(found, totals, recording) <= cost(lengths, totals, recording) + 1e-6


def test_what_no_length_holds_is_rounded_by_the_bucket() -> None:
    """Held-out pairs and later epochs may have longer batches than the first one."""
    assert rounded_up(900, [256, 640], 1024) == 1024
    assert rounded_up(256, [256, 640], 1024) == 256
    assert rounded_up(257, [256, 640], 1024) == 640
    assert rounded_up(7, [], 1) == 7
