"""Compute every distinct prefix of a preference batch once: a wrapper of a decoder's backbone forward, and nothing else.

About six TAT-QA questions share one context, and each pair repeats its prompt for chosen and rejected. A decoder's hidden
state depends only on the tokens up to it, so of a padded DPO batch only the distinct prefixes need computing. The rows are
a trie: `pack_prefixes` lays its nodes out in preorder as one row of tokens, where node k is an ancestor of node q exactly
when `k <= q <= last[k]`. That inequality is the attention mask, a node's depth is its position id, and the hidden states
are put back where the padded batch expects them. TRL's losses, metrics, reference pass and checkpoints sit above the
backbone and cannot tell the difference.

    sharing = share_prefixes(trainer.model)                           # refuses models it would compute wrongly
    trainer.data_collator = sharing.collate(trainer.data_collator)    # optional: pack on the host, no device sync

Related: tree attention in speculative decoding (SpecInfer, arXiv:2305.09781) uses the same mask for candidate replies.
"""

import inspect
import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

logger = logging.getLogger(__name__)
FLEX_BLOCK = 128  # FlexAttention's block: packed lengths are multiples of it


class SharingError(ValueError):
    """The model's attention cannot take the trie mask, or the batch is not right-padded; the message says which."""


class Packed(NamedTuple):
    """One batch of B rows of length L as a trie of T nodes, padded to N slots (N >= T). All tensors are int64.

    tokens: [N] token of each slot. depth: [N] its position id. last: [N] slot of its last descendant (itself for a leaf).
    positions: [P] places in the flattened [B * L] batch whose hidden state is wanted, and slots: [P] where each is.
    """

    tokens: Tensor
    depth: Tensor
    last: Tensor
    positions: Tensor
    slots: Tensor


def pack_prefixes(
    input_ids: np.ndarray, attention_mask: np.ndarray, wanted: np.ndarray | None = None, bucket: int = 1
) -> tuple[Packed, int]:
    """Lay out the distinct prefixes of right-padded rows in preorder; returns the layout and the number of nodes T.

    input_ids, attention_mask: [B, L]. wanted: [B, L] bool, the places whose hidden state is read (default: every real
    token). bucket: N is T rounded up to a multiple of it; the padding slots see only themselves.
    """
    lengths = attention_mask.sum(1)
    columns = np.arange(input_ids.shape[1])
    real = columns < lengths[:, None]
    if not np.array_equal(real, attention_mask.astype(bool)):
        raise SharingError("prefix sharing needs right-padded rows: set the collator's padding side to right")
    keys = np.where(real, input_ids + 1, 0)
    raw = keys.astype(">u4")
    order = np.array(sorted(range(len(raw)), key=lambda row: raw[row].tobytes()))
    keys, sorted_lengths = keys[order], lengths[order]
    differs = (keys[1:] != keys[:-1]) | (keys[1:] == 0)
    common = np.where(differs.any(1), differs.argmax(1), keys.shape[1])  # longest common prefix with the row before
    common = np.concatenate([[0], common])
    start = np.concatenate([[0], np.cumsum(sorted_lengths - common)])  # slot of each row's first own node; [B + 1]
    owns = common[:, None] <= columns
    rows = np.arange(len(order))[:, None]
    owner = np.maximum.accumulate(np.where(owns, rows, 0))  # row that introduced the node at (row, depth)
    following = np.where(owns, rows, len(order))
    following = np.vstack([np.minimum.accumulate(following[::-1])[::-1][1:], np.full_like(columns, len(order))])
    new = owns & (columns < sorted_lengths[:, None])  # in row-major order these are the nodes in preorder
    slot_of = np.empty_like(owner)
    slot_of[order] = start[owner] + columns - common[owner]
    total = int(start[-1])
    padding = -total % bucket
    layout = (
        np.concatenate([(keys - 1)[new], np.zeros(padding, np.int64)]),
        np.concatenate([np.broadcast_to(columns, new.shape)[new], np.zeros(padding, np.int64)]),
        np.concatenate([(start[following] - 1)[new], np.arange(total, total + padding)]),
    )
    positions = np.flatnonzero(real if wanted is None else real & wanted)
    slots = slot_of.reshape(-1)[positions]
    return Packed(*(torch.from_numpy(np.ascontiguousarray(a, np.int64)) for a in (*layout, positions, slots))), total


def sees(last: Tensor) -> Callable[[Any, Any, Any, Any], Any]:
    """FlexAttention mask function: query slot q sees key slot k when k is q itself or an ancestor of it."""
    return lambda batch, head, q, k: (k <= q) & (q <= last[k])


def trie_mask(last: Tensor, kernel: str) -> Any:
    """The mask over [N, N] slots: a FlexAttention BlockMask, or a dense bool tensor [1, 1, N, N] for sdpa."""
    n = last.numel()
    if kernel == "sdpa":
        index = torch.arange(n, device=last.device)
        return sees(last)(None, None, index[:, None], index[None, :])[None, None]
    from torch.nn.attention.flex_attention import create_block_mask

    build = torch.compile(create_block_mask) if last.is_cuda else create_block_mask
    return build(sees(last), None, None, n, n, device=last.device)


class PrefixSharing:
    """Wraps `backbone.forward` in place; counts what it saved over every forward in training mode.

    presented: padded tokens the trainer asked for. real: those without padding. distinct: nodes of the tries.
    computed: slots the backbone ran on (distinct plus bucket padding). shapes: the packed lengths met so far, each of
    which costs a compilation when layers are compiled.
    """

    def __init__(self, backbone: torch.nn.Module, kernel: str, bucket: int) -> None:
        self.kernel, self.bucket = kernel, bucket
        self.presented = self.real = self.distinct = self.computed = 0
        self.shapes: set[int] = set()
        self._backbone, self._forward = backbone, backbone.forward
        backbone.forward = self.forward

    def pack(self, input_ids: Tensor, attention_mask: Tensor, completion_mask: Tensor | None = None) -> Packed:
        """Pack one batch on the host and count it; only hidden states that predict a completion token are wanted."""
        mask = attention_mask.cpu().numpy()
        wanted = None
        if completion_mask is not None:
            wanted = np.zeros_like(mask, dtype=bool)
            wanted[:, :-1] = completion_mask.cpu().numpy()[:, 1:] > 0
        packed, distinct = pack_prefixes(input_ids.cpu().numpy(), mask, wanted, self.bucket)
        self.presented += mask.size
        self.real += int(mask.sum())
        self.distinct += distinct
        self.computed += packed.tokens.numel()
        if packed.tokens.numel() not in self.shapes:
            self.shapes.add(packed.tokens.numel())
            logger.info("prefix sharing: %d packed lengths so far, newest %d", len(self.shapes), packed.tokens.numel())
        return packed

    def collate(self, collator: Callable[[list[Any]], dict[str, Any]]) -> Callable[[list[Any]], dict[str, Any]]:
        """Let the collator pack: the layout travels with the batch, so no step waits for the device to read it back."""

        def collate_and_pack(examples: list[Any]) -> dict[str, Any]:
            batch = collator(examples)
            batch["packed"] = list(self.pack(batch["input_ids"], batch["attention_mask"], batch.get("completion_mask")))
            return batch

        return collate_and_pack

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, packed: list[Tensor] | None = None, **kwargs: Any
    ) -> Any:
        """The backbone's forward for a padded batch [B, L]: `last_hidden_state` is [B, L, H], zero where not wanted."""
        if packed is None:
            packed = list(self.pack(input_ids, torch.ones_like(input_ids) if attention_mask is None else attention_mask))
        trie = Packed(*(part.to(input_ids.device) for part in packed))
        output = self._forward(
            input_ids=trie.tokens[None],
            attention_mask=trie_mask(trie.last, self.kernel),
            position_ids=trie.depth[None],
            **kwargs,
        )
        hidden = output.last_hidden_state[0]
        padded = hidden.new_zeros(input_ids.numel(), hidden.shape[-1])
        padded = padded.index_copy(0, trie.positions, hidden.index_select(0, trie.slots))
        output.last_hidden_state = padded.view(*input_ids.shape, -1)
        return output

    def remove(self) -> None:
        """Give the backbone its own forward back."""
        self._backbone.forward = self._forward


def share_prefixes(
    model: torch.nn.Module, kernel: str = "auto", bucket: int = 512, compile_layers: bool = False
) -> PrefixSharing:
    """Make a causal LM (bare or wrapped by PEFT) compute shared prefixes once.

    kernel: "flex" (FlexAttention, GPUs), "sdpa" (dense mask, anywhere), "auto" picks. bucket: packed lengths are rounded up
    to multiples of it, which bounds recompilation. Raises SharingError for a model that would be computed wrongly.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
    backbone = getattr(base, base.base_model_prefix, base)
    refuse_unsupported(base, backbone)
    if kernel == "auto":
        on_gpu = next(base.parameters()).is_cuda
        kernel = "flex" if on_gpu and getattr(base, "_supports_flex_attn", False) else "sdpa"
    base.set_attn_implementation({"flex": "flex_attention", "sdpa": "sdpa"}[kernel])
    if compile_layers:
        torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
        for layer in backbone.layers:
            layer.compile(dynamic=False)
    return PrefixSharing(backbone, kernel, max(bucket, FLEX_BLOCK) if kernel == "flex" else bucket)


def refuse_unsupported(model: Any, backbone: Any) -> None:
    """Raise SharingError unless every layer is full causal attention that takes a mask and explicit positions."""
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True):
        kinds.add("sliding_attention")
    problem = None
    if config.is_encoder_decoder:
        problem = "it is an encoder-decoder"
    elif kinds - {"full_attention"}:
        problem = "it has layers of " + ", ".join(sorted(kinds - {"full_attention"}))
    elif not {"position_ids", "attention_mask"} <= set(inspect.signature(backbone.forward).parameters):
        problem = "its backbone takes no position_ids"
    elif not getattr(model, "_supports_sdpa", False):
        problem = "it supports neither sdpa nor FlexAttention"
    if problem:
        raise SharingError(f"{type(model).__name__} cannot share prefixes: {problem}. Set share_prefixes: false")
