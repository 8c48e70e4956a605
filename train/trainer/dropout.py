"""Dropout in training: the adapter's own, at the recipe's rate, and no other.

TRL's `disable_dropout` means all dropout of the base model, but reaches only Dropout modules, and
the adapter's among them.
"""

import contextlib
from collections.abc import Iterator

import torch


def switch_off_functional_dropout(model: torch.nn.Module) -> None:
    """Set every dropout rate that a module keeps as a number, such as attention_dropout, to 0."""
    for module in model.modules():
        for name, value in list(vars(module).items()):
            if "drop" in name and isinstance(value, float):
                setattr(module, name, 0.0)


def set_lora_dropout(model: torch.nn.Module, rate: float) -> None:
    """Give the adapter's own dropout its rate."""
    for layer in lora_dropout(model):
        layer.p = rate


@contextlib.contextmanager
def without_lora_dropout(model: torch.nn.Module) -> Iterator[None]:
    """Switch the adapter's own dropout off, and back on as it was."""
    rates = [(layer, layer.p) for layer in lora_dropout(model)]
    set_lora_dropout(model, 0.0)
    try:
        yield
    finally:
        for layer, rate in rates:
            layer.p = rate


def lora_dropout(model: torch.nn.Module) -> Iterator[torch.nn.Dropout]:
    """The Dropout modules of the adapter."""
    for name, module in model.named_modules():
        if "lora_dropout" in name and isinstance(module, torch.nn.Dropout):
            yield module
