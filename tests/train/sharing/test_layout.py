"""The trie's layout: every distinct prefix once, in preorder."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.sharing.layout import SharingError, pack_prefixes
from train.sharing.mask import trie_mask


def padded(rows: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    length = max(map(len, rows))
    ids = np.array([row + [0] * (length - len(row)) for row in rows])
    return ids, np.array([[1] * len(row) + [0] * (length - len(row)) for row in rows])


tokens = st.integers(0, 3)  # few, so that rows share prefixes by chance too
rows_strategy = st.lists(st.lists(tokens, min_size=1, max_size=9), min_size=1, max_size=8)


@given(rows_strategy, st.sampled_from([1, 4]))
def test_every_distinct_prefix_has_one_slot_and_sees_its_own_prefix(
    rows: list[list[int]], bucket: int
) -> None:
    packed = pack_prefixes(*padded(rows), bucket=bucket)
    distinct = {tuple(row[: i + 1]) for row in rows for i in range(len(row))}
    n, length = packed.tokens.numel(), max(map(len, rows))
    assert n == -(-len(distinct) // bucket) * bucket
    assert packed.sizes.tolist() == [len(rows) * length, sum(map(len, rows))]
    mask = trie_mask(packed.last, "sdpa", packed.depth)[0, 0]
    slot_of = dict(zip(packed.places.tolist(), packed.slots.tolist(), strict=True))
    assert set(slot_of) == {r * length + c for r, row in enumerate(rows) for c in range(len(row))}
    for r, row in enumerate(rows):
        for c in range(len(row)):
            slot = slot_of[r * length + c]
            assert packed.depth[slot] == c
            assert packed.tokens[mask[slot]].tolist() == row[: c + 1]
    assert mask[len(distinct) :].sum() == n - len(distinct), "padding sees itself alone"


def test_rows_padded_on_the_left_are_refused() -> None:
    with pytest.raises(SharingError, match="right-padded"):
        pack_prefixes(np.array([[0, 5], [6, 7]]), np.array([[0, 1], [1, 1]]))
