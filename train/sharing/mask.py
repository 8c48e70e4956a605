"""Who sees whom in the packed row: the trie's mask, for each kind of attention and kernel.

Related: tree attention in speculative decoding uses the same mask for candidate replies
(SpecInfer, arXiv:2305.09781).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

FLEX_BLOCK = 128  # FlexAttention's block: packed lengths are multiples of it


def sees(last: Tensor) -> Callable[[Any, Any, Any, Any], Any]:
    """FlexAttention mask function: query slot q sees key slot k, itself or an ancestor."""
    return lambda batch, head, q, k: (k <= q) & (q <= last[k])


def sees_near(last: Tensor, depth: Tensor, window: int) -> Callable[[Any, Any, Any, Any], Any]:
    """The same within a sliding window, which counts depths: slots between may be of other rows."""
    return lambda batch, head, q, k: (k <= q) & (q <= last[k]) & (depth[q] - depth[k] < window)


def trie_mask(
    last: Tensor,
    kernel: str,
    depth: Tensor,
    window: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> Any:
    """The mask over [N, N] slots as the kernel takes it.

    flex: a BlockMask. sdpa: bool [1, 1, N, N]. eager: the same as numbers of `dtype` to be added.
    last, depth: [N], see Packed. window: of sliding attention; None: an ancestor however far.
    """
    if window is None:
        function = sees(last)
    else:
        function = sees_near(last, depth, window)
    if kernel == "flex":
        return block_mask(last, function, depth, window)
    index = torch.arange(last.numel(), device=last.device)
    seen = function(None, None, index[:, None], index[None, :])[None, None]
    if kernel == "sdpa":
        return seen
    hidden = torch.finfo(dtype).min
    return torch.zeros(seen.shape, dtype=dtype, device=last.device).masked_fill(~seen, hidden)


def block_mask(
    last: Tensor, function: Callable[..., Any], depth: Tensor, window: int | None
) -> Any:
    """FlexAttention's BlockMask, its blocks found from each block's extremes instead of N x N.

    A block that the window cuts through is left to the mask function; one that it cannot reach
    is skipped.
    """
    from torch.nn.attention.flex_attention import BlockMask

    by_block = last.view(-1, FLEX_BLOCK)
    furthest, nearest = by_block.amax(1), by_block.amin(1)
    block = torch.arange(len(by_block), device=last.device)
    below = block[:, None] > block[None, :]  # [query block, key block]
    reached = furthest[None, :] >= block[:, None] * FLEX_BLOCK
    whole = nearest[None, :] >= (block[:, None] + 1) * FLEX_BLOCK - 1
    full = below & whole
    some = (below | (block[:, None] == block[None, :])) & reached
    if window is not None:
        depths = depth.view(-1, FLEX_BLOCK)
        deepest, shallowest = depths.amax(1), depths.amin(1)
        full = full & (deepest[:, None] - shallowest[None, :] < window)
        some = some & (shallowest[:, None] - deepest[None, :] < window)
    return BlockMask.from_kv_blocks(
        *ordered(some & ~full), *ordered(full), BLOCK_SIZE=FLEX_BLOCK, mask_mod=function
    )


def ordered(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Of each query block: how many key blocks are set, and their indices, the set ones first."""
    indices = blocks.int().argsort(dim=-1, descending=True, stable=True)
    return blocks.sum(-1, dtype=torch.int32)[None, None], indices.int()[None, None].contiguous()
