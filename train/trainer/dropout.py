"""Dropout in training: the adapter's own, at the recipe's rate, and no other.

TRL's `disable_dropout` means all dropout of the base model, but reaches only Dropout modules, and
the adapter's are among them.
"""

import torch


def switch_off_functional_dropout(model: torch.nn.Module) -> None:
    """Set every dropout rate that a module keeps as a number, such as attention_dropout, to 0."""
    for module in model.modules():
        for name, value in list(vars(module).items()):
            if "drop" in name and isinstance(value, float):
                setattr(module, name, 0.0)


def set_lora_dropout(model: torch.nn.Module, rate: float) -> None:
    """Give the adapter's own dropout its rate back."""
    for name, module in model.named_modules():
        if "lora_dropout" in name and isinstance(module, torch.nn.Dropout):
            module.p = rate
