"""Which models can share prefixes: what their attention must be like, told from the model itself.

What is refused here would be computed wrongly or not at all. What slips through is for a run's
pre-flight (preflight.py) to catch.
"""

import inspect
from typing import Any

import torch

from train.sharing.layout import SharingError

FULL, SLIDING = "full_attention", "sliding_attention"
# What these do cannot be told from their configuration.
UNSUITED = {
    "big_bird": "its attention is bidirectional",
    "megatron-bert": "its attention is bidirectional",
    "moshi": "its decoder makes a mask of its own",
    "openai-gpt": "it makes a mask of its own",
    "xlm": "it makes a mask of its own",
}
NEEDED = {"position_ids", "attention_mask"}


def windows(config: Any) -> dict[str, int | None]:
    """The kinds of attention that a text config has, each with its sliding window, None if full.

    One mask is made of each; transformers' backbones take a mapping of kind to mask.
    """
    window = getattr(config, "sliding_window", None)
    if not getattr(config, "use_sliding_window", True):
        window = None
    kinds = set(getattr(config, "layer_types", None) or [SLIDING if window else FULL])
    return {kind: window if kind == SLIDING else None for kind in sorted(kinds)}


def refuse_unsupported(model: Any, backbone: Any) -> None:
    """Raise SharingError unless each layer is causal attention that takes a mask and positions."""
    problem = unsupported(model, backbone)
    if problem:
        raise refusal(model, problem)


def refusal(model: Any, problem: str) -> SharingError:
    """One line that says which model cannot share, why, and what to do."""
    text = " ".join(f"{type(model).__name__} cannot share prefixes: {problem}".split())
    return SharingError(f"{text[:300]}. Set share_prefixes: false")


def unsupported(model: Any, backbone: Any) -> str | None:
    """Why the model cannot share prefixes; None if nothing speaks against it."""
    config = model.config.get_text_config()
    kinds = windows(config)
    others = sorted(set(kinds) - {FULL, SLIDING})
    taken = set(inspect.signature(backbone.forward).parameters)
    if config.is_encoder_decoder:
        return "it is an encoder-decoder"
    if config.model_type in UNSUITED:
        return UNSUITED[config.model_type]
    if others:
        return "it has layers of " + ", ".join(others)
    if getattr(model, "_is_stateful", False):
        return "its layers carry a state from token to token"
    if bidirectional(config, backbone):
        return "its attention is bidirectional"
    if draws_noise(backbone):
        return "its router adds noise in training (router_jitter_noise)"
    if not taken >= NEEDED:
        return f"its backbone takes no {' and no '.join(sorted(NEEDED - taken))}"
    if SLIDING in kinds and not kinds[SLIDING]:
        return "it has sliding layers, but its config says no sliding_window"
    return None


def refuse_learned_prompts(model: Any) -> None:
    """Raise SharingError for PEFT's prompt tuning and the like: vectors stand before each row."""
    config: Any = getattr(model, "active_peft_config", None)
    if getattr(config, "is_prompt_learning", False):
        kind = config.peft_type.value
        raise SharingError(f"{kind} cannot share prefixes: what it learns stands before every row")


def bidirectional(config: Any, backbone: torch.nn.Module) -> bool:
    """Whether a token may see later ones: an encoder, or a decoder that was switched to one."""
    if getattr(config, "is_causal", True) is False:
        return True
    if getattr(config, "use_bidirectional_attention", None) in (True, "all"):
        return True
    return any(getattr(module, "is_causal", True) is False for module in backbone.modules())


def draws_noise(backbone: torch.nn.Module) -> bool:
    """Whether a mixture of experts jitters its routing, so that no two passes are alike."""
    return any(
        "jitter" in name and isinstance(value, float) and value > 0
        for module in backbone.modules()
        for name, value in vars(module).items()
    )


def dense_kernel(model: Any) -> str:
    """The kernel that takes a dense mask anywhere and compiles nothing."""
    return "sdpa" if getattr(model, "_supports_sdpa", False) else "eager"


def choose_kernel(model: Any) -> str:
    """FlexAttention on GPUs, else a dense mask, bool where sdpa can be had."""
    on_gpu = next(model.parameters()).is_cuda
    if on_gpu and getattr(model, "_supports_flex_attn", False):
        return "flex"
    return dense_kernel(model)


def decoder_layers(backbone: torch.nn.Module) -> torch.nn.ModuleList:
    """The list of decoder layers, whatever it is called: the longest of the outermost lists.

    Raises SharingError if there is none.
    """
    lists = [
        (name.count("."), -len(module), module)
        for name, module in backbone.named_modules()
        if isinstance(module, torch.nn.ModuleList)
    ]
    if not lists:
        raise SharingError(f"{type(backbone).__name__} has no list of layers to compile")
    return min(lists, key=lambda found: found[:2])[2]
