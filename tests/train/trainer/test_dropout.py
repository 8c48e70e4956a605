"""The adapter's dropout is off for a while and back on as it was, also after an error."""

from pathlib import Path
from typing import Any

import pytest
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from train.trainer.dropout import lora_dropout, set_lora_dropout, without_lora_dropout


def rates(model: Any) -> set[float]:
    return {layer.p for layer in lora_dropout(model)}


def fail_without(model: Any) -> None:
    with without_lora_dropout(model):
        assert rates(model) == {0.0}
        raise ValueError("in between")


def test_the_rate_comes_back(mini: Path) -> None:
    config = LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM", lora_dropout=0.3)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(mini), config)
    assert rates(model) == {0.3}
    set_lora_dropout(model, 0.1)
    with pytest.raises(ValueError, match="in between"):
        fail_without(model)
    assert rates(model) == {0.1}
