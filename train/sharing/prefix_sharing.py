"""Compute every distinct prefix of a preference batch once: a wrapper of a decoder's backbone forward, nothing else.

About six TAT-QA questions share one context, and each pair repeats its prompt for chosen and rejected. A decoder's
hidden state depends only on the tokens up to it, so of a padded DPO batch only the distinct prefixes need computing.
The rows are a trie: `pack_prefixes` lays its nodes out in preorder as one row of tokens, where node k is an ancestor
of node q exactly when `k <= q <= last[k]`. That inequality is the attention mask, a node's depth is its position id,
and the hidden states are put back where the padded batch expects them. TRL's losses, metrics, reference pass and
checkpoints sit above the backbone and cannot tell the difference.

From top to bottom: the layout (numpy, on the host), the mask, the forward that uses them, and, for speed alone, layers
compiled and whole passes recorded as CUDA graphs.

    sharing = share_prefixes(trainer.model)                           # refuses models it would compute wrongly
    trainer.data_collator = sharing.collate(trainer.data_collator)    # optional: pack on the host, no device sync

Related: tree attention in speculative decoding (SpecInfer, arXiv:2305.09781) uses the same mask for candidate replies.
"""

import contextlib
import inspect
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.utils.checkpoint
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPast

logger = logging.getLogger(__name__)
FLEX_BLOCK = 128  # FlexAttention's block: packed lengths are multiples of it


class SharingError(ValueError):
    """The model's attention cannot take the trie mask, or the batch is not right-padded; the message says which."""


class Packed(NamedTuple):
    """One batch of B rows of length L as a trie of T nodes, padded to N slots (N >= T). All tensors are int64.

    tokens: [N] token of each slot. depth: [N] its position id. last: [N] slot of its last descendant (itself for a
    leaf). positions: [P] places in the flattened batch whose hidden state is wanted, and slots: [P] where each is.
    sizes: [2] tokens of the padded batch, and those of them that are no padding.
    """

    tokens: Tensor
    depth: Tensor
    last: Tensor
    positions: Tensor
    slots: Tensor
    sizes: Tensor


def pack_prefixes(
    input_ids: np.ndarray,
    attention_mask: np.ndarray,
    wanted: np.ndarray | None = None,
    bucket: int = 1,
) -> Packed:
    """Lay out the distinct prefixes of right-padded rows in preorder.

    input_ids, attention_mask: [B, L]. wanted: [B, L] bool, the places whose hidden state is read (default: every real
    token). bucket: N is T rounded up to a multiple of it; the padding slots see only themselves.
    """
    lengths = attention_mask.sum(1)
    columns = np.arange(input_ids.shape[1])
    real = columns < lengths[:, None]
    if not np.array_equal(real, attention_mask.astype(bool)):
        raise SharingError(
            "prefix sharing needs right-padded rows: set the collator's padding side to right"
        )
    order, common = sorted_rows(np.where(real, input_ids + 1, 0))
    new, slot, last = preorder(common, lengths[order], columns)
    slot_of = np.empty_like(slot)
    slot_of[order] = slot
    total = int(new.sum())
    padding = np.arange(total, total + -total % bucket)
    positions = np.flatnonzero(real if wanted is None else real & wanted)
    parts = (
        np.concatenate([input_ids[order][new], 0 * padding]),
        np.concatenate([np.nonzero(new)[1], 0 * padding]),
        np.concatenate([last[new], padding]),
        positions,
        slot_of.reshape(-1)[positions],
        [real.size, real.sum()],
    )
    return Packed(*(torch.from_numpy(np.ascontiguousarray(part, np.int64)) for part in parts))


def sorted_rows(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The order that sorts the rows of keys [B, L], 0 behind a row's end, and each sorted row's longest common prefix
    with the one before it; [B] each."""
    raw = keys.astype(">u4")
    order = np.array(sorted(range(len(raw)), key=lambda row: raw[row].tobytes()))
    keys = keys[order]
    differs = (keys[1:] != keys[:-1]) | (keys[1:] == 0)
    common = np.where(differs.any(1), differs.argmax(1), keys.shape[1])
    return order, np.concatenate([[0], common])


def preorder(
    common: np.ndarray, lengths: np.ndarray, columns: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The trie of sorted rows in preorder, by (row, depth): whether the row brings a new node there, the slot of the
    node, and the slot of its last descendant; [B, L] each."""
    rows, end = np.arange(len(common))[:, None], len(common)
    start = np.concatenate(
        [[0], np.cumsum(lengths - common)]
    )  # slot of each row's first own node; [B + 1]
    owns = common[:, None] <= columns
    owner = np.maximum.accumulate(np.where(owns, rows, 0))  # row that brought the node
    later = np.minimum.accumulate(np.where(owns, rows, end)[::-1])[::-1][1:]
    following = np.vstack([later, np.full_like(columns, end)])  # first row that does not share it
    return (
        owns & (columns < lengths[:, None]),
        start[owner] + columns - common[owner],
        start[following] - 1,
    )


def trim(batch: dict[str, Tensor], packed: Packed) -> tuple[dict[str, Tensor], Packed]:
    """A preference batch [B, L] cut to each row's last prompt token and completion, and the layout that leads there.

    The loss reads nothing else, so the hidden states of the prompts need never be put back into a padded batch.
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
    row, column = packed.positions // completion.shape[1], packed.positions % completion.shape[1]
    return {**batch, **short}, packed._replace(positions=row * width + column - first[row, 0])


def sees(last: Tensor) -> Callable[[Any, Any, Any, Any], Any]:
    """FlexAttention mask function: query slot q sees key slot k when k is q itself or an ancestor of it."""
    return lambda batch, head, q, k: (k <= q) & (q <= last[k])


def trie_mask(last: Tensor, kernel: str) -> Any:
    """The mask over [N, N] slots: a FlexAttention BlockMask, or a dense bool tensor [1, 1, N, N] for sdpa."""
    n = last.numel()
    if kernel == "sdpa":
        index = torch.arange(n, device=last.device)
        return sees(last)(None, None, index[:, None], index[None, :])[None, None]
    from torch.nn.attention.flex_attention import BlockMask

    furthest, nearest = last.view(-1, FLEX_BLOCK).amax(1), last.view(-1, FLEX_BLOCK).amin(1)
    block = torch.arange(n // FLEX_BLOCK, device=last.device)
    below = block[:, None] > block[None, :]  # [query block, key block]
    full = below & (nearest[None, :] >= (block[:, None] + 1) * FLEX_BLOCK - 1)
    partial = (
        (below | (block[:, None] == block[None, :]))
        & (furthest[None, :] >= block[:, None] * FLEX_BLOCK)
        & ~full
    )
    return BlockMask.from_kv_blocks(
        *_ordered(partial), *_ordered(full), BLOCK_SIZE=FLEX_BLOCK, mask_mod=sees(last)
    )


def _ordered(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """For each query block: how many key blocks are set, and their indices with the set ones first ([1, 1, ...])."""
    indices = blocks.int().argsort(dim=-1, descending=True, stable=True)
    return blocks.sum(-1, dtype=torch.int32)[None, None], indices.int()[None, None].contiguous()


class PrefixSharing:
    """Wraps `backbone.forward` in place. `shapes` are the packed lengths met so far; each costs one compilation."""

    def __init__(
        self,
        backbone: torch.nn.Module,
        kernel: str,
        bucket: int,
        graphs: bool = False,
        recompute: bool = False,
    ) -> None:
        self.kernel, self.bucket, self.graphs, self.recompute = kernel, bucket, graphs, recompute
        self.shapes: set[int] = set()
        self.seconds_of_recording = 0.0
        self.graphed: dict[tuple[Any, ...], Graphed] = {}
        self.pools = {
            gradients: torch.cuda.graph_pool_handle() for gradients in (False, True) if graphs
        }
        self._tuner = next(
            (layer for layer in backbone.modules() if isinstance(layer, BaseTunerLayer)), None
        )
        self._backbone, self._forward = backbone, backbone.forward
        backbone.forward = self.forward

    def collate(
        self, collator: Callable[[list[Any]], dict[str, Any]]
    ) -> Callable[[list[Any]], dict[str, Any]]:
        """Pack in TRL's preference collator: on the host, ahead of the device, and with the prompts taken out."""

        def collate_and_pack(examples: list[Any]) -> dict[str, Any]:
            batch = collator(examples)
            wanted = np.zeros(batch["completion_mask"].shape, dtype=bool)
            wanted[:, :-1] = batch["completion_mask"].numpy()[:, 1:] > 0
            mask = batch["attention_mask"].numpy()
            batch, packed = trim(
                batch, pack_prefixes(batch["input_ids"].numpy(), mask, wanted, self.bucket)
            )
            return {**batch, "packed": list(packed)}

        return collate_and_pack

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        packed: list[Tensor] | None = None,
        **kwargs: Any,
    ) -> Any:
        """The backbone's forward for a batch [B, L]: `last_hidden_state` is [B, L, H], zero where not wanted.

        Without `packed`, which `collate` adds, the batch is fetched from the device and packed here.
        """
        if packed is None:
            mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
            packed = list(
                pack_prefixes(input_ids.cpu().numpy(), mask.cpu().numpy(), None, self.bucket)
            )
        trie = Packed(*(part.to(input_ids.device) for part in packed))
        self._count(trie.tokens.numel())
        hidden = self._hidden(trie, kwargs)
        padded = hidden.new_zeros(input_ids.numel(), hidden.shape[-1])
        padded = padded.index_copy(0, trie.positions, hidden.index_select(0, trie.slots))
        return BaseModelOutputWithPast(last_hidden_state=padded.view(*input_ids.shape, -1))

    def _hidden(self, trie: Packed, kwargs: dict[str, Any]) -> Tensor:
        """The backbone's hidden states [N, H] of the packed row."""

        def compute(tokens: Tensor, depth: Tensor, last: Tensor) -> Tensor:
            mask = trie_mask(last, self.kernel)
            output = self._forward(
                input_ids=tokens[None], attention_mask=mask, position_ids=depth[None], **kwargs
            )
            return output.last_hidden_state[0]

        row = [trie.tokens, trie.depth, trie.last]
        gradients = torch.is_grad_enabled()
        if not self.graphs or (
            gradients and self.recompute
        ):  # recomputing sets the random state: not in a recording
            return compute(*row)
        adapters = self._tuner and (self._tuner.disable_adapters, *self._tuner.active_adapters)
        key = (trie.tokens.numel(), gradients, self._backbone.training, adapters)
        if key not in self.graphed:
            started = time.monotonic()
            self.graphed[key] = Graphed(self._backbone, compute, row, self.pools[gradients])
            self.seconds_of_recording += time.monotonic() - started
        return self.graphed[key](row)

    def _count(self, length: int) -> None:
        if length not in self.shapes:
            self.shapes.add(length)
            logger.info(
                "prefix sharing: %d packed lengths so far, newest %d", len(self.shapes), length
            )

    def remove(self) -> None:
        """Give the backbone its own forward back."""
        self._backbone.forward = self._forward


def share_prefixes(
    model: torch.nn.Module,
    kernel: str = "auto",
    bucket: int = 1024,
    compile_layers: bool = False,
    recompute: bool = False,
    graphs: bool = False,
) -> PrefixSharing:
    """Make a causal LM (bare or wrapped by PEFT) compute shared prefixes once.

    kernel: "flex" (FlexAttention, GPUs), "sdpa" (dense mask, anywhere), "auto" picks. bucket: packed lengths are
    rounded up to multiples of it, which bounds recompilation (sdpa without graphs rounds to 1). recompute: activation
    checkpointing around the compiled layers. graphs: record the passes over each packed length as CUDA graphs, but for
    checkpointed ones; not for models that FSDP or DeepSpeed takes apart. Raises SharingError for a model that would be
    computed wrongly.
    """
    base: Any = model.get_base_model() if hasattr(model, "get_base_model") else model
    backbone = getattr(base, base.base_model_prefix, base)
    refuse_unsupported(base, backbone)
    if kernel == "auto":
        on_gpu = next(base.parameters()).is_cuda
        kernel = "flex" if on_gpu and getattr(base, "_supports_flex_attn", False) else "sdpa"
    base.set_attn_implementation({"flex": "flex_attention", "sdpa": "sdpa"}[kernel])
    if compile_layers:
        torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
        base.get_input_embeddings().register_forward_hook(
            _with_gradient
        )  # else the first layer is a graph of its own
        for layer in backbone.layers:
            layer.forward = _compiled(layer.forward, recompute)
    bucket = -(-bucket // FLEX_BLOCK) * FLEX_BLOCK if kernel == "flex" or graphs else 1
    return PrefixSharing(backbone, kernel, bucket, graphs, recompute)


def _with_gradient(module: Any, inputs: Any, output: Tensor) -> Tensor:
    return output.requires_grad_() if torch.is_grad_enabled() else output


def _compiled(forward: Callable[..., Any], recompute: bool) -> Callable[..., Any]:
    """The layer's forward compiled, and checkpointed from outside: traced into the graph, that saved little."""
    compiled = torch.compile(forward, dynamic=False)
    if not recompute:
        return compiled

    def checkpointed(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return compiled(*args, **kwargs)
        return torch.utils.checkpoint.checkpoint(compiled, *args, use_reentrant=False, **kwargs)

    return checkpointed


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
    elif not {"position_ids", "attention_mask"} <= set(
        inspect.signature(backbone.forward).parameters
    ):
        problem = "its backbone takes no position_ids"
    elif not getattr(model, "_supports_sdpa", False):
        problem = "it supports neither sdpa nor FlexAttention"
    if problem:
        raise SharingError(
            f"{type(model).__name__} cannot share prefixes: {problem}. Set share_prefixes: false"
        )


@contextlib.contextmanager
def stand_ins(model: torch.nn.Module) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    """Put a new parameter over the same memory in the place of each trained one; yields the trained and the new ones.

    A recording may not touch the stream on which DistributedDataParallel hooked itself onto the trained ones.
    """
    places = [
        (module, name, parameter)
        for module in model.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if parameter.requires_grad
    ]
    trained = [parameter for _, _, parameter in places]
    new = [torch.nn.Parameter(parameter.detach()) for parameter in trained]
    for (module, name, _), parameter in zip(places, new, strict=True):
        setattr(module, name, parameter)
    try:
        yield trained, new
    finally:
        for module, name, parameter in places:
            setattr(module, name, parameter)


class Graphed:
    """A pass over packed rows of one length, recorded once as CUDA graphs: the host launches it at one stroke.

    compute: [N] tokens, depth and last to hidden states [N, H]. The memory of `pool` is shared with other lengths, but
    never between passes with and without gradients: TRL may compute the reference between the policy's forward and
    backward.
    """

    def __init__(
        self,
        backbone: torch.nn.Module,
        compute: Callable[..., Tensor],
        row: list[Tensor],
        pool: Any,
    ) -> None:
        self.row = [part.clone() for part in row]
        self.ahead, self.back = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        how: dict[str, Any] = {
            "pool": pool,
            "capture_error_mode": "thread_local",
        }  # the loader's threads go on
        dtype, autocast = torch.get_autocast_dtype("cuda"), torch.is_autocast_enabled("cuda")
        with (
            stand_ins(backbone) as (self.trained, new),
            torch.autocast(
                "cuda", dtype, autocast, cache_enabled=False
            ),  # casts of weights belong into the graph
        ):
            torch.cuda.synchronize()
            with torch.cuda.stream(torch.cuda.Stream()):
                for _ in range(2):  # compile, and let libraries set themselves up
                    hidden = compute(*self.row)
                    if hidden.requires_grad:
                        torch.autograd.grad(hidden, new, torch.zeros_like(hidden))
            with torch.cuda.graph(self.ahead, **how):
                hidden = compute(*self.row)
            self.hidden = hidden.detach()
            if hidden.requires_grad:
                self.of_hidden = torch.zeros_like(hidden)
                with torch.cuda.graph(self.back, **how):
                    self.of_trained = torch.autograd.grad(hidden, new, self.of_hidden)

    def __call__(self, row: list[Tensor]) -> Tensor:
        """Hidden states [N, H], overwritten by the next call, as a function of the trained weights."""
        torch._foreach_copy_(self.row, row)
        return Replay.apply(self, *self.trained)


class Replay(torch.autograd.Function):
    """Connects a Graphed to the autograd graph."""

    @staticmethod
    def forward(ctx: Any, graphed: Graphed, *trained: Tensor) -> Tensor:
        """Hidden states of the row that was copied in."""
        ctx.graphed = graphed
        graphed.ahead.replay()
        return graphed.hidden.detach()

    @staticmethod
    def backward(ctx: Any, of_hidden: Tensor) -> Any:
        """Gradients of the trained weights, copied: the next replay writes over them."""
        ctx.graphed.of_hidden.copy_(of_hidden)
        ctx.graphed.back.replay()
        return None, *(gradient.clone() for gradient in ctx.graphed.of_trained)
