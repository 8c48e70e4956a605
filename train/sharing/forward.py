"""Compute every distinct prefix of a preference batch once: a wrapper of a backbone's forward.

    sharing = share_prefixes(trainer.model)                         # refuses what it cannot do
    trainer.data_collator = sharing.collate(trainer.data_collator)  # optional: pack on the host

The batch becomes one row, the trie of its rows (layout.py); the trie's mask (mask.py) lets each
token see its own prefix alone, its depth is its position id, and the hidden states are put back
where the padded batch expects them. TRL's losses, metrics, reference pass and checkpoints sit
above the backbone and cannot tell the difference. `remove` leaves no trace in the model.

`collate` adds the trie to the batch as `packed`. TRL hands a batch's entries that it does not know
to the model, whose head and PEFT's wrapper hand them on to the backbone.
"""

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
import torch.utils.checkpoint
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPast, MoeModelOutputWithPast

from train.sharing.attention import implementation
from train.sharing.graphs import Pool, Recorded
from train.sharing.layout import Packed, SharingError, pack_prefixes, trim
from train.sharing.mask import FLEX_BLOCK, trie_mask
from train.sharing.support import (
    choose_kernel,
    decoder_layers,
    refuse_learned_prompts,
    refuse_unsupported,
    windows,
)

logger = logging.getLogger(__name__)
Collator = Callable[[list[Any]], dict[str, Any]]
RECOMPILE_LIMIT = 256  # packed lengths, with and without gradients, for each kind of layer
# A call with any of these is no call for the hidden states of whole rows of tokens.
NOT_OF_WHOLE_ROWS = (
    "past_key_values",
    "inputs_embeds",
    "output_hidden_states",
    "output_attentions",
)


class PrefixSharing:
    """Wraps `backbone.forward` in place.

    shapes: the packed lengths met so far; compiled layers are compiled for each of them, with and
    without gradients and for each kind of layer. seconds_of_recording: spent on recording graphs,
    and on the compiling that this brings.
    """

    def __init__(
        self,
        backbone: Any,
        kernel: str,
        bucket: int,
        graphs: bool = False,
        recompute: bool = False,
        lengths: Sequence[int] = (),
    ) -> None:
        self.kernel = kernel
        self.rounding: dict[str, Any] = {"bucket": bucket, "lengths": lengths}
        self.graphs = graphs
        self.recompute = recompute
        self.windows = windows(backbone.config.get_text_config())
        self.shapes: set[int] = set()
        self.seconds_of_recording = 0.0
        self.recorded: dict[tuple[Any, ...], Recorded] = {}
        self.pools: dict[bool, Pool] = {}  # of passes without and with gradients
        if graphs:
            for gradients in (False, True):
                self.pools[gradients] = Pool(torch.cuda.graph_pool_handle())
        tuners = (layer for layer in backbone.modules() if isinstance(layer, BaseTunerLayer))
        self._tuner = next(tuners, None)
        self._backbone = backbone
        self._forward = backbone.forward
        self._undo = [replace_attribute(backbone, "forward", self.forward)]

    def undo_later(self, action: Callable[[], None]) -> None:
        """Have `remove` do this too."""
        self._undo.append(action)

    def remove(self) -> None:
        """Give the model back as it was."""
        while self._undo:
            self._undo.pop()()

    def collate(self, collator: Collator, cut_prompts: bool = True) -> Collator:
        """TRL's preference collator, packing on the host, ahead of the device.

        cut_prompts: take the prompts out of the padded batch, since the loss reads none of them;
        False where something else reads it, such as an auxiliary loss or another model.
        """

        def collate_and_pack(examples: list[Any]) -> dict[str, Any]:
            batch = collator(examples)
            ids, mask = batch["input_ids"].numpy(), batch["attention_mask"].numpy()
            if not cut_prompts:
                return {**batch, "packed": list(pack_prefixes(ids, mask, **self.rounding))}
            wanted = np.zeros(ids.shape, dtype=bool)
            wanted[:, :-1] = batch["completion_mask"].numpy()[:, 1:] > 0
            batch, packed = trim(batch, pack_prefixes(ids, mask, wanted, **self.rounding))
            return {**batch, "packed": list(packed)}

        return collate_and_pack

    def forward(self, *args: Any, packed: list[Tensor] | None = None, **kwargs: Any) -> Any:
        """The backbone's forward for a batch [B, L]: hidden states [B, L, H], 0 where not wanted.

        Without `packed`, which `collate` adds, a batch of whole rows (told by `use_cache=False`,
        which TRL passes) is fetched from the device and packed here. Any other call, such as
        generation's, goes to the backbone's own forward, with this kernel and these compiled
        layers: each length is compiled, so `remove` first to generate at speed.
        """
        if packed is None:
            packed = self._pack(args, kwargs)
            if packed is None:
                return self._forward(*args, **kwargs)
        if more := given(kwargs, NOT_OF_WHOLE_ROWS):
            raise SharingError(f"a packed batch has no {more[0]}: call the model without `packed`")
        input_ids = kwargs.pop("input_ids")
        for name in ("attention_mask", "position_ids"):  # the trie has its own
            kwargs.pop(name, None)
        trie = Packed(*(part.to(input_ids.device) for part in packed))
        self._note(trie.tokens.numel())
        if kwargs.get("output_router_logits"):
            return self._with_router_logits(trie, input_ids, kwargs)
        hidden = put_back(self._hidden(trie, kwargs), trie, input_ids)
        return BaseModelOutputWithPast(last_hidden_state=hidden)

    def _pack(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor] | None:
        """The batch of a call as a trie; None if it is no call for hidden states of whole rows."""
        ids, mask = kwargs.get("input_ids"), kwargs.get("attention_mask")
        if args or ids is None or kwargs.get("use_cache") is not False:
            return None
        if given(kwargs, (*NOT_OF_WHOLE_ROWS, "position_ids")):
            return None
        if mask is None:
            mask = torch.ones_like(ids)
        if not isinstance(mask, Tensor) or mask.dim() != 2:
            return None
        try:
            return list(pack_prefixes(ids.cpu().numpy(), mask.cpu().numpy(), **self.rounding))
        except SharingError:  # padded on the left
            return None

    def _run(self, tokens: Tensor, depth: Tensor, last: Tensor, kwargs: dict[str, Any]) -> Any:
        """The backbone's own forward on the packed row."""
        dtype = self._backbone.dtype
        masks = {
            kind: trie_mask(last, self.kernel, depth, window, dtype)
            for kind, window in self.windows.items()
        }
        mask = masks if len(masks) > 1 else next(iter(masks.values()))
        return self._forward(
            input_ids=tokens[None], attention_mask=mask, position_ids=depth[None], **kwargs
        )

    def _hidden(self, trie: Packed, kwargs: dict[str, Any]) -> Tensor:
        """The backbone's hidden states [N, H] of the packed row, recorded where that is asked."""

        def compute(tokens: Tensor, depth: Tensor, last: Tensor) -> Tensor:
            return self._run(tokens, depth, last, kwargs).last_hidden_state[0]

        row = [trie.tokens, trie.depth, trie.last]
        gradients = torch.is_grad_enabled()
        # a recording can neither set the random state, as recomputing does, nor take other tensors
        # than the row's: those would be frozen in it
        tensors = any(isinstance(value, Tensor) for value in kwargs.values())
        if not self.graphs or (gradients and self.recompute) or tensors:
            return compute(*row)
        key = self._key(trie.tokens.numel(), gradients, kwargs)
        if key not in self.recorded:
            started = time.monotonic()
            self.recorded[key] = Recorded(self._backbone, compute, row, self.pools[gradients])
            self.seconds_of_recording += time.monotonic() - started
        return self.recorded[key](row)

    def _key(self, length: int, gradients: bool, kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """All that decides which operations a pass consists of, and changes from pass to pass.

        A dropout rate is not in it: that is changed for passes without gradients alone, whose
        recordings are others.
        """
        adapters: tuple[Any, ...] = ()
        if self._tuner is not None:
            adapters = (self._tuner.disable_adapters, *self._tuner.active_adapters)
        options = tuple(sorted((name, str(value)) for name, value in kwargs.items()))
        autocast = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
        return length, gradients, self._backbone.training, adapters, options, autocast

    def _with_router_logits(self, trie: Packed, input_ids: Tensor, kwargs: dict[str, Any]) -> Any:
        """For the auxiliary loss of a mixture of experts: each token's logits once a row."""
        output = self._run(trie.tokens, trie.depth, trie.last, kwargs)
        hidden = put_back(output.last_hidden_state[0], trie, input_ids)
        logits = tuple(
            put_back(layer, trie, input_ids).flatten(0, 1) for layer in output.router_logits
        )
        return MoeModelOutputWithPast(last_hidden_state=hidden, router_logits=logits)

    def _note(self, length: int) -> None:
        if length not in self.shapes:
            self.shapes.add(length)
            count = len(self.shapes)
            logger.info("prefix sharing: %d packed lengths so far, newest %d", count, length)


def given(kwargs: dict[str, Any], names: Iterable[str]) -> list[str]:
    """Those of the names that a call gives a value, be it a tensor."""
    return [name for name in names if kwargs.get(name) is not None and kwargs[name] is not False]


def put_back(values: Tensor, trie: Packed, input_ids: Tensor) -> Tensor:
    """Values [N, H] of the trie's slots in the padded layout [B, L, H], 0 where not wanted."""
    padded = values.new_zeros(input_ids.numel(), values.shape[-1])
    padded = padded.index_copy(0, trie.places, values.index_select(0, trie.slots))
    return padded.view(*input_ids.shape, -1)


def share_prefixes(
    model: torch.nn.Module,
    kernel: str = "auto",
    bucket: int = 1024,
    compile_layers: bool = False,
    recompute: bool = False,
    graphs: bool = False,
    lengths: Sequence[int] = (),
) -> PrefixSharing:
    """Make a causal LM (bare or wrapped by PEFT) compute shared prefixes once.

    kernel: "flex" (FlexAttention, GPUs), "sdpa" (dense mask, anywhere), "eager" (dense, where sdpa
    cannot be had), "auto" picks. bucket: packed lengths are rounded up to multiples of it, which
    bounds recompilation (dense masks without graphs: 1). lengths: packed lengths to round up to
    instead, as lengths.py chooses them; what is longer is rounded by `bucket`. recompute:
    activation checkpointing around the compiled layers. graphs: record the passes over each packed
    length as CUDA graphs, but for checkpointed ones and those that bring other tensors or return
    router logits; not for models that FSDP or DeepSpeed takes apart, nor for a loss that makes two
    passes with gradients before the first one's backward.

    Raises SharingError for a model that would be computed wrongly.
    """
    base: Any = model.get_base_model() if hasattr(model, "get_base_model") else model
    backbone = getattr(base, base.base_model_prefix, base)
    refuse_learned_prompts(model)
    refuse_unsupported(base, backbone)
    if kernel == "auto":
        kernel = choose_kernel(base)
    bucket = -(-bucket // FLEX_BLOCK) * FLEX_BLOCK if kernel == "flex" or graphs else 1
    before = base.config._attn_implementation
    model_type = base.config.get_text_config().model_type
    base.set_attn_implementation(implementation(kernel, model_type))
    sharing = PrefixSharing(backbone, kernel, bucket, graphs, recompute, lengths)
    sharing.undo_later(lambda: base.set_attn_implementation(before))
    if compile_layers or kernel == "flex":
        sharing.undo_later(compile_for_every_length())
    if compile_layers:
        compile_each_layer(sharing, base, backbone, recompute)
    return sharing


def compile_for_every_length() -> Callable[[], None]:
    """Let dynamo compile one function for many packed lengths; the result puts its limit back.

    Beyond the limit it runs the function uncompiled, FlexAttention with all scores in memory.
    """
    config = torch._dynamo.config
    before = config.recompile_limit
    config.recompile_limit = max(RECOMPILE_LIMIT, before)

    def undo() -> None:
        config.recompile_limit = before

    return undo


def compile_each_layer(
    sharing: PrefixSharing, base: Any, backbone: torch.nn.Module, recompute: bool
) -> None:
    """Compile the decoder layers, one graph for all of them, anew for each packed length."""
    # else the first layer, whose input needs no gradient, is a graph of its own
    hook = base.get_input_embeddings().register_forward_hook(with_gradient)
    sharing.undo_later(hook.remove)
    for layer in decoder_layers(backbone):
        compiled = compiled_forward(layer.forward, recompute)
        sharing.undo_later(replace_attribute(layer, "forward", compiled))


def with_gradient(module: Any, inputs: Any, output: Tensor) -> Tensor:
    """A hook: the module's output as one that needs a gradient."""
    return output.requires_grad_() if torch.is_grad_enabled() else output


def compiled_forward(forward: Callable[..., Any], recompute: bool) -> Callable[..., Any]:
    """The layer's forward compiled, and checkpointed from outside.

    Traced into the graph, checkpointing saved little.
    """
    compiled: Callable[..., Any] = torch.compile(forward, dynamic=False)
    if not recompute:
        return compiled

    def checkpointed(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return compiled(*args, **kwargs)
        return torch.utils.checkpoint.checkpoint(compiled, *args, use_reentrant=False, **kwargs)

    return checkpointed


def replace_attribute(owner: Any, name: str, value: Any) -> Callable[[], None]:
    """Set an attribute of the instance; the result puts back what was there."""
    had, before = name in vars(owner), vars(owner).get(name)
    setattr(owner, name, value)

    def undo() -> None:
        if had:
            setattr(owner, name, before)
        else:
            delattr(owner, name)

    return undo
