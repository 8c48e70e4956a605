"""The trie of a batch, laid out as one row of tokens: the host's part, in numpy.

The README beside this file draws one. Rows that begin alike share their first nodes; `Packed`
holds every node once, in preorder, so that node k is an ancestor of node q (or q itself) exactly
when `k <= q <= last[k]`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from train.sharing.lengths import rounded_up


class SharingError(ValueError):
    """The model or batch cannot be computed as a trie; the message says which and why."""


class Packed(NamedTuple):
    """One batch of B rows of length L as a trie of T nodes, padded to N slots (N >= T), all int64.

    tokens: [N] token of each slot. depth: [N] its position id. last: [N] slot of its last
    descendant (itself for a leaf). places: [P] of the flattened batch whose hidden state is wanted,
    and slots: [P] where each is. sizes: [2] tokens of the padded batch, and those of them that are
    no padding.
    """

    tokens: Tensor
    depth: Tensor
    last: Tensor
    places: Tensor
    slots: Tensor
    sizes: Tensor


def pack_prefixes(
    input_ids: np.ndarray,
    attention_mask: np.ndarray,
    wanted: np.ndarray | None = None,
    bucket: int = 1,
    lengths: Sequence[int] = (),
) -> Packed:
    """Lay out the distinct prefixes of right-padded rows in preorder.

    input_ids, attention_mask: [B, L]. wanted: [B, L] bool, the places whose hidden state is read
    (default: every real token). lengths: N is the first of them that holds T, beyond them T rounded
    up to a multiple of `bucket`; the padding slots see only themselves. Raises SharingError if rows
    are padded elsewhere than on the right.
    """
    row_lengths = attention_mask.sum(1)
    columns = np.arange(input_ids.shape[1])
    real = columns < row_lengths[:, None]
    if not np.array_equal(real, attention_mask.astype(bool)):
        raise SharingError(
            "prefix sharing needs right-padded rows: set the collator's padding side to right"
        )
    order, common = sorted_rows(np.where(real, input_ids + 1, 0))  # 0: behind the row's end
    new, slot, last = preorder(common, row_lengths[order], columns)
    slot_of = np.empty_like(slot)
    slot_of[order] = slot
    # [new] takes nodes row by row, column by column: over sorted rows that is preorder
    tokens, depth, last = input_ids[order][new], np.nonzero(new)[1], last[new]
    total = len(tokens)
    padding = np.arange(total, rounded_up(total, lengths, bucket))
    places = np.flatnonzero(real if wanted is None else real & wanted)
    return Packed(
        tokens=int64(tokens, np.zeros_like(padding)),
        depth=int64(depth, np.zeros_like(padding)),
        last=int64(last, padding),
        places=int64(places),
        slots=int64(slot_of.reshape(-1)[places]),
        sizes=torch.tensor([real.size, real.sum()]),
    )


def int64(*parts: np.ndarray) -> Tensor:
    """The parts one after the other."""
    return torch.from_numpy(np.concatenate(parts).astype(np.int64))


def sorted_rows(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The order that sorts rows, and each sorted row's longest common prefix with the one before.

    keys: [B, L], 0 behind a row's end. Both results: [B].
    """
    raw = keys.astype(">u4")  # big-endian bytes sort as the numbers do
    order = np.array(sorted(range(len(raw)), key=lambda row: raw[row].tobytes()))
    keys = keys[order]
    differs = (keys[1:] != keys[:-1]) | (keys[1:] == 0)
    common = np.where(differs.any(1), differs.argmax(1), keys.shape[1])
    return order, np.concatenate([[0], common])


def preorder(
    common: np.ndarray, row_lengths: np.ndarray, columns: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The trie of sorted rows in preorder, by (row, column); [B, L] each.

    Whether the row brings a new node there, the slot of the node, and that of its last descendant.

    A row has branched off from the one before it in every column from its `common` on. The node at
    (row, column) was brought by the last row so far that has branched off there, and what is below
    it ends where the next row that has branched off there begins. What the results hold beyond a
    row's end means nothing.

    In the README's example `row_lengths` is [5, 5, 5, 5] and `common` [0, 3, 2, 3]: the rows bring
    5, 2, 3 and 2 new nodes, whose slots begin at 0, 5, 7 and 10. In its column 2, of the tokens
    p p q q:

        branched    1 0 1 0    slot  2 2  7  7
        brought_by  0 0 2 2    last  6 6 11 11
        next_branch 2 2 4 4    (4: there is none)
    """
    rows = np.arange(len(common))[:, None]
    beyond = len(common)  # in the place of a row where there is none
    first_slot = np.concatenate(
        [[0], np.cumsum(row_lengths - common)]
    )  # of each row, and of `beyond`
    branched = common[:, None] <= columns
    brought_by = np.maximum.accumulate(np.where(branched, rows, 0))
    from_here_on = np.minimum.accumulate(np.where(branched, rows, beyond)[::-1])[::-1]
    next_branch = np.vstack([from_here_on[1:], np.full_like(columns, beyond)])
    new = branched & (columns < row_lengths[:, None])
    slot = first_slot[brought_by] + columns - common[brought_by]
    last = first_slot[next_branch] - 1
    return new, slot, last


def trim(batch: dict[str, Tensor], packed: Packed) -> tuple[dict[str, Tensor], Packed]:
    """A preference batch [B, L] cut to each row's last prompt token and completion.

    The loss reads nothing else, so the hidden states of the prompts need never be put back into a
    padded batch. The layout that comes back leads to the cut rows.
    """
    completion = batch["completion_mask"] > 0
    # a completion follows at least one prompt token; a row without one keeps its first tokens
    first = (completion.int().argmax(1, keepdim=True) - 1).clamp(min=0)
    width = int(completion.sum(1).max()) + 1
    columns = first + torch.arange(width)
    inside = columns < batch["attention_mask"].sum(1, keepdim=True)
    columns = torch.where(inside, columns, 0)
    names = ("input_ids", "attention_mask", "completion_mask")
    short = {name: torch.where(inside, batch[name].gather(1, columns), 0) for name in names}
    row = packed.places // completion.shape[1]
    column = packed.places % completion.shape[1]
    return {**batch, **short}, packed._replace(places=row * width + column - first[row, 0])
