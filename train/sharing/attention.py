"""FlexAttention with a key and value head for every query head; transformers' names of kernels.

Where query heads share keys and values, FlexAttention's backward pass has one program sum up the
gradients of all heads that share, one head after the other, and a part of the GPU waits: a step
of 16 heads over 8 takes 7 % less with the keys and values repeated (docs/SPEED.md). transformers
repeats them itself where the number of query heads is no power of two.

Keys and values are always repeated here, whatever the number of heads: that is at most two more
vectors a token and layer to keep, as wide as the queries, beside the twenty or more that a layer
keeps anyway.

Registered under a name of our own, as transformers documents for attention functions; nothing of
its own is replaced.
"""

from typing import Any

from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.flex_attention import flex_attention_forward, repeat_kv
from transformers.masking_utils import flex_attention_mask

# transformers asks what FlexAttention needs of any name that contains its own
EXPANDED = "flex_attention_expanded"
# These compare the name with FlexAttention's own; under another they slice the mask as a dense one.
KNOW_THE_NAME = ("gemma4", "gemma4_text", "gemma4_unified", "gemma4_unified_text")


def implementation(kernel: str, model_type: str) -> str:
    """transformers' name of a kernel ("flex", "sdpa" or "eager") for a model of this type."""
    if kernel != "flex":
        return kernel
    return "flex_attention" if model_type in KNOW_THE_NAME else EXPANDED


def expanded_flex_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    """transformers' FlexAttention of queries [B, H, N, D], keys and values [B, H / n, N, ...]."""
    key = repeat_kv(key, query.shape[1] // key.shape[1])
    value = repeat_kv(value, query.shape[1] // value.shape[1])
    result: tuple[Tensor, Tensor | None] = flex_attention_forward(
        module, query, key, value, attention_mask, **kwargs
    )
    return result


AttentionInterface.register(EXPANDED, expanded_flex_attention)
AttentionMaskInterface.register(EXPANDED, flex_attention_mask)  # of calls that are not packed
