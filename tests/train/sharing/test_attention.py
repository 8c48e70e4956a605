"""Repeated keys and values change nothing: against transformers' own FlexAttention and sdpa.

FlexAttention has no backward pass on a CPU; gradients through it are compared by test_forward's
test on a GPU.
"""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.integrations.flex_attention import flex_attention_forward

from train.sharing import attention, share_prefixes
from train.sharing.mask import FLEX_BLOCK, trie_mask

ROWS = [[3, 4, 5, 6, 7, 8, 9, 10, 2], [3, 4, 5, 6, 7, 8, 11, 2], [3, 4, 12, 13, 2], [14, 2]]
MODULE: Any = SimpleNamespace(training=False)  # what attention functions ask of a layer


@pytest.fixture(autouse=True)
def nothing_compiled() -> Iterator[None]:
    """FlexAttention as plain operations, without the minute of compiling."""
    with torch.compiler.set_stance("force_eager"), torch.no_grad():
        yield


def tiny(kind: str, **fields: Any) -> Any:
    """A random two-layer model with two query heads a key head."""
    config = AutoConfig.for_model(
        kind, vocab_size=16, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=16, initializer_range=0.2,
        pad_token_id=0, **fields,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config).eval()


def last_of_a_trie() -> torch.Tensor:
    """Two contexts of 100 slots, a third of the second's being leaves, and padding."""
    last = torch.arange(2 * FLEX_BLOCK)
    last[:100] = 99
    last[100:166] = 199
    return last


@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (8, 2), (4, 1), (6, 2)])
@pytest.mark.parametrize("options", [{}, {"scaling": 0.3, "softcap": 5.0}], ids=["plain", "soft"])
def test_equals_transformers_flex_attention(
    heads: tuple[int, int], options: dict[str, float]
) -> None:
    """One head each, two and four queries a key, one key for all; values wider than keys."""
    torch.manual_seed(0)
    last = last_of_a_trie()
    query = torch.randn(1, heads[0], len(last), 16)
    key = torch.randn(1, heads[1], len(last), 16)
    value = torch.randn(1, heads[1], len(last), 32)
    mask = trie_mask(last, "flex", last)
    found, _ = attention.expanded_flex_attention(MODULE, query, key, value, mask, **options)
    expected, _ = flex_attention_forward(MODULE, query, key, value, mask, **options)
    assert found.shape == (1, len(last), heads[0], 32)
    torch.testing.assert_close(found, expected)


def test_every_query_head_comes_with_its_own_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel is never asked to share heads, and what else a layer says reaches it."""
    asked: list[Any] = []
    monkeypatch.setattr(
        attention, "flex_attention_forward", lambda *args, **kwargs: asked.append((args, kwargs))
    )
    query, key = torch.randn(1, 8, 4, 2), torch.randn(1, 2, 4, 2)
    attention.expanded_flex_attention(MODULE, query, key, key, "mask", s_aux="sinks", dropout=0.0)
    (module, queries, keys, values, mask), options = asked[0]
    assert module is MODULE
    assert queries is query
    assert mask == "mask"
    assert options == {"s_aux": "sinks", "dropout": 0.0}
    for repeated in (keys, values):
        assert torch.equal(repeated, key.repeat_interleave(4, dim=1))


def test_a_model_that_knows_the_name_keeps_it() -> None:
    """Any other model of transformers that compares with the exact name must be listed."""
    models = Path(transformers.__file__).parent / "models"
    found = set()
    for source in models.glob("*/modeling_*.py"):
        if '_attn_implementation == "flex_attention"' in source.read_text():
            found.add(source.parent.name)
    assert found == {"gemma4", "gemma4_unified"}
    for model_type in (*found, *(f"{name}_text" for name in found)):
        assert attention.implementation("flex", model_type) == "flex_attention"
    assert attention.implementation("flex", "qwen3") == attention.EXPANDED
    assert attention.implementation("sdpa", "gemma4") == "sdpa"


SLIDING: dict[str, Any] = {"sliding_window": 4}
IN_TURN = SLIDING | {"layer_types": ["sliding_attention", "full_attention"]}


@pytest.mark.parametrize(
    ("kind", "fields"), [("qwen3", {}), ("mistral", SLIDING), ("gemma3_text", IN_TURN)]
)
def test_a_model_on_flex_has_the_logits_of_the_dense_mask(kind: str, fields: Any) -> None:
    """Full attention, a window in each layer, and both in turn, whose masks are a mapping."""
    torch.manual_seed(0)
    model = tiny(kind, **fields)
    before = model.config._attn_implementation
    length = max(map(len, ROWS))
    ids = torch.tensor([row + [0] * (length - len(row)) for row in ROWS])
    real = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in ROWS])
    call = {"input_ids": ids, "attention_mask": real}
    found = {}
    for kernel in ("sdpa", "flex"):
        sharing = share_prefixes(model, kernel)
        found[kernel] = model(**call, use_cache=False).logits[real > 0]
        assert sharing.shapes
        found[f"{kernel}, not packed"] = model(**call, use_cache=True).logits[real > 0]
        if kernel == "flex":
            assert model.config._attn_implementation == attention.EXPANDED
            assert attention.EXPANDED not in model.config.to_json_string()
        sharing.remove()
        assert model.config._attn_implementation == before
    for name, logits in found.items():
        torch.testing.assert_close(logits, found["sdpa"], atol=2e-5, rtol=1e-4, msg=name)
