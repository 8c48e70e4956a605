"""The trie's mask: FlexAttention's blocks say what the mask function says, windows count depths."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from train.sharing.layout import Packed, pack_prefixes
from train.sharing.mask import FLEX_BLOCK, sees, sees_near, trie_mask


def padded(rows: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    length = max(map(len, rows))
    ids = np.array([row + [0] * (length - len(row)) for row in rows])
    return ids, np.array([[1] * len(row) + [0] * (length - len(row)) for row in rows])


tokens = st.integers(0, 3)  # few, so that rows share prefixes by chance too


def long_trie(seed: int) -> Packed:
    """Nine rows of up to 550 tokens that share starts of one base."""
    rng = np.random.default_rng(seed)
    base = rng.integers(0, 50, 400).tolist()
    rows = []
    for _ in range(9):
        own = rng.integers(0, 3, rng.integers(0, 150)).tolist()
        rows.append(base[: rng.integers(1, 400)] + own)
    return pack_prefixes(*padded(rows), bucket=FLEX_BLOCK)


@given(st.integers(0, 10_000))
@settings(max_examples=10, deadline=None)
def test_block_mask_is_that_of_create_block_mask(seed: int) -> None:
    import torch
    from torch.nn.attention.flex_attention import create_block_mask

    trie = long_trie(seed)
    last = trie.last
    ours = trie_mask(last, "flex", trie.depth)
    theirs = create_block_mask(sees(last), None, None, len(last), len(last), device="cpu")
    for name in ("kv_num_blocks", "full_kv_num_blocks", "q_num_blocks", "full_q_num_blocks"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name)), name
    assert torch.equal(ours.to_dense(), theirs.to_dense())


def blocks_of(counts: Any, indices: Any) -> set[tuple[int, int]]:
    """The set (query block, key block) pairs of a BlockMask's half."""
    found = set()
    for query, (count, keys) in enumerate(zip(counts[0, 0].tolist(), indices[0, 0], strict=True)):
        found |= {(query, key) for key in keys[:count].tolist()}
    return found


@pytest.mark.parametrize("window", [1, 64, 129, 300, 5000])
def test_windowed_blocks_hold_exactly_what_is_seen(window: int) -> None:
    """A full block is seen whole, a skipped one not at all; the rest is the mask function's."""
    import torch

    trie = long_trie(window)
    n = len(trie.last)
    seen = trie_mask(trie.last, "sdpa", trie.depth, window)[0, 0]
    index = torch.arange(n)
    function = sees_near(trie.last, trie.depth, window)
    assert torch.equal(seen, function(0, 0, index[:, None], index[None, :]))
    mask = trie_mask(trie.last, "flex", trie.depth, window)
    full = blocks_of(mask.full_kv_num_blocks, mask.full_kv_indices)
    some = blocks_of(mask.kv_num_blocks, mask.kv_indices)
    assert not full & some
    for query in range(n // FLEX_BLOCK):
        for key in range(n // FLEX_BLOCK):
            rows = slice(query * FLEX_BLOCK, (query + 1) * FLEX_BLOCK)
            columns = slice(key * FLEX_BLOCK, (key + 1) * FLEX_BLOCK)
            block = seen[rows, columns]
            if (query, key) in full:
                assert block.all()
            elif (query, key) not in some:
                assert not block.any()


def test_a_window_counts_depths_not_slots() -> None:
    """Two rows share three tokens: the second's own token is far in slots, near in depth."""
    trie = pack_prefixes(*padded([[1, 2, 3, 4, 5, 6], [1, 2, 3, 9]]))
    near = trie_mask(trie.last, "sdpa", trie.depth, 2)[0, 0]
    own = trie.tokens.tolist().index(9)
    assert trie.tokens[near[own]].tolist() == [3, 9]
    added = trie_mask(trie.last, "eager", trie.depth, 2)[0, 0]
    assert (added == 0).equal(near)
