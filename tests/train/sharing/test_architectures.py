"""Every causal language model of transformers, tiny and random: equal to plain TRL, or refused.

About 25 run by default, all of them with `-m slow` (some minutes); `python
tests/train/sharing/test_architectures.py` prints the table of train/README.md.
"""

import json
import re
import signal
import sys
from dataclasses import dataclass
from typing import Any

import pytest

CONTEXT = list(range(3, 30))
PROMPTS = (
    (CONTEXT + [30, 31], [40, 41, 42, 2], [40, 45, 2]),
    (CONTEXT + [33], [43, 44, 2], [46, 47, 48, 49, 50, 2]),
    (CONTEXT[:9], [51, 52, 2], [53, 2]),
)
# Fields of a small model, by the many names that configurations have for them.
SIZES: dict[str, int] = {
    **dict.fromkeys(("hidden_size", "n_embd", "d_model"), 32),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "n_inner", "d_ff"), 48),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 16),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), 4),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "attention_heads"), 4),
    **dict.fromkeys(("decoder_layers", "num_key_value_heads", "num_experts_per_tok"), 2),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4),
    **dict.fromkeys(("moe_num_experts", "decoder_attention_heads", "index_topk"), 4),
    **dict.fromkeys(("n_group", "topk_group", "encoder_layers"), 1),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx"), 256),
    **dict.fromkeys(("head_dim", "sliding_window", "attention_chunk_size", "rotary_dim"), 8),
    **dict.fromkeys(("kv_lora_rank", "q_lora_rank", "qk_rope_head_dim"), 8),
    **dict.fromkeys(("qk_nope_head_dim", "v_head_dim", "index_head_dim"), 8),
    **dict.fromkeys(("mamba_d_state", "mamba_d_head", "mamba_n_heads", "state_size"), 8),
    **dict.fromkeys(("local_attention", "local_window_size", "attention_window"), 8),
    "mamba_d_ssm": 64, "vocab_size": 64, "moe_topk": 2, "index_n_heads": 2,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
LARGEST = 60_000_000  # parameters; what cannot be made smaller is left out

EQUAL = (
    "llama", "qwen2", "qwen3", "mistral", "gemma", "gemma2", "gemma3_text", "phi3", "olmo2",
    "olmo3",
    "smollm3", "granite", "cohere2", "starcoder2", "gpt_neox", "stablelm", "glm4", "exaone4",
    "helium",
    "gpt2", "mixtral", "qwen3_moe", "gpt_oss", "deepseek_v3", "nemotron", "ministral",
)  # fmt: skip
REFUSED = ("mamba", "qwen3_next", "bert", "bloom", "bart", "phimoe", "megatron-bert")


@dataclass(frozen=True)
class Outcome:
    """What became of one architecture: equal, differs, refused, or why it could not be tried."""

    status: str
    detail: str = ""


def tiny_config(model_type: str) -> Any:
    """A small configuration without dropout; fields that it rejects are left out."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return shrunk(CONFIG_MAPPING[model_type])


UNSET = ("num_key_value_heads", "head_dim", "num_experts_per_tok")  # None, and needed by some


def shrunk(kind: Any) -> Any:
    """A small configuration of a class, with small ones of its parts."""
    fields = small_fields(kind)
    for _ in range(6):
        try:
            return kind(**fields)
        except Exception as error:  # each library class has its own
            rejected = [name for name in fields if name in str(error)]
            if not rejected:
                raise
            for name in rejected:
                del fields[name]
    raise ValueError(f"{kind.__name__}: no small configuration")


def small_fields(kind: Any) -> dict[str, Any]:
    """The sizes that a class has among its fields, small, and its dropout, off."""
    defaults = kind()
    fields: dict[str, Any] = {}
    for name, size in SIZES.items():
        value = getattr(defaults, name, None)
        unset = value is None and name in UNSET and hasattr(defaults, name)
        if unset or (value is not None and not isinstance(value, (list, tuple))):
            fields[name] = size
    for name in vars(defaults):
        if re.search("drop", name) and isinstance(getattr(defaults, name), float):
            fields[name] = 0.0
    for name in kind.sub_configs:
        part = getattr(defaults, name, None)
        if part is not None:
            fields[name] = shrunk(type(part))
    if "qk_rope_head_dim" in fields:  # latent attention: a head's size follows from its parts
        fields.pop("head_dim", None)
        fields["num_key_value_heads"] = fields["num_attention_heads"]
    return fields


def tiny_model(model_type: str) -> Any:
    """The architecture with random weights large enough that attention matters."""
    import torch
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as NAMES

    found = NAMES[model_type]
    name = found if isinstance(found, str) else found[0]
    kind = getattr(transformers, name)
    config = tiny_config(model_type)
    with torch.device("meta"):
        size = sum(p.numel() for p in kind._from_config(config).parameters())
    if size > LARGEST:
        raise ValueError(f"{size:,} parameters at least")
    torch.manual_seed(0)
    model = kind._from_config(config).float().train()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "sink" in name:
                parameter.copy_(torch.randn_like(parameter))
            elif parameter.dim() > 1:
                parameter.copy_(0.2 * torch.randn_like(parameter))
    return model


def batch() -> dict[str, Any]:
    """Chosen rows, then rejected ones, padded on the right, as TRL's collator lays them out."""
    import torch

    rows = [
        (prompt, reply) for side in (1, 2) for prompt, reply in ((p[0], p[side]) for p in PROMPTS)
    ]
    width = max(len(prompt) + len(reply) for prompt, reply in rows)
    made = {name: torch.zeros(len(rows), width, dtype=torch.long) for name in
            ("input_ids", "attention_mask", "completion_mask")}  # fmt: skip
    for i, (prompt, reply) in enumerate(rows):
        length = len(prompt) + len(reply)
        made["input_ids"][i, :length] = torch.tensor(prompt + reply)
        made["attention_mask"][i, :length] = 1
        made["completion_mask"][i, len(prompt) : length] = 1
    return made


def log_probs_and_gradient(model: Any, collate: Any = None) -> tuple[Any, Any]:
    """Log-probabilities [2 B] by TRL's fused head, and the gradient of their weighted sum."""
    import torch

    inputs = collate([]) if collate else batch()
    completion = inputs.pop("completion_mask")
    labels = inputs["input_ids"].masked_fill(completion == 0, -100)
    model.zero_grad()
    output = model(**inputs, labels=labels, fused_lm_head=True, use_cache=False)
    sums = output.log_probs.sum(1)
    (sums * torch.linspace(0.5, 1.5, len(sums))).sum().backward()
    gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return sums.detach(), torch.cat(gradients)


def trial(model_type: str) -> Outcome:
    """Make the model, compute a batch plainly and with shared prefixes, compare."""
    from trl.trainer.dpo_trainer import add_fused_lm_head

    from train.sharing.forward import share_prefixes
    from train.sharing.layout import SharingError

    try:
        model = tiny_model(model_type)
    except Exception as error:
        return Outcome("not made", f"{type(error).__name__}: {error}")
    try:
        sharing = share_prefixes(model)
    except SharingError as error:
        return Outcome("refused", str(error))
    sharing.remove()
    try:
        model.set_attn_implementation(model.config._attn_implementation)
        add_fused_lm_head(model)
        plain = log_probs_and_gradient(model)
    except Exception as error:
        return Outcome("not in TRL", f"{type(error).__name__}: {error}")
    sharing = share_prefixes(model)
    shared = log_probs_and_gradient(model, sharing.collate(lambda examples: batch()))
    distance = float((plain[0] - shared[0]).abs().max() / plain[0].abs().max())
    turned = float((plain[1] - shared[1]).norm() / plain[1].norm())
    equal = distance < 1e-5 and turned < 1e-4
    return Outcome(
        "equal" if equal else "differs", f"log-probability {distance:.0e}, gradient {turned:.0e}"
    )


@pytest.mark.parametrize("model_type", EQUAL)
def test_equals_plain_trl(model_type: str) -> None:
    outcome = trial(model_type)
    assert outcome.status == "equal", outcome


@pytest.mark.parametrize("model_type", REFUSED)
def test_is_refused(model_type: str) -> None:
    outcome = trial(model_type)
    assert outcome.status == "refused", outcome


@pytest.mark.slow
def test_no_architecture_differs_or_breaks() -> None:
    outcomes = sweep()
    wrong = {
        name: found for name, found in outcomes.items() if found.status in ("differs", "breaks")
    }
    assert not wrong


def sweep(names: list[str] | None = None) -> dict[str, Outcome]:
    """All causal language models of transformers, a minute each at most."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as NAMES

    def too_long(number: int, frame: Any) -> None:
        raise TimeoutError("a minute")

    signal.signal(signal.SIGALRM, too_long)
    outcomes = {}
    for name in names or list(NAMES):
        signal.alarm(60)
        try:
            outcomes[name] = trial(name)
        except Exception as error:
            outcomes[name] = Outcome("breaks", f"{type(error).__name__}: {error}")
        finally:
            signal.alarm(0)
        found = outcomes[name]
        print(json.dumps([name, found.status, found.detail[:160]]), flush=True)  # noqa: T201
    return outcomes


if __name__ == "__main__":
    sweep(sys.argv[1:])
