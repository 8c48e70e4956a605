"""The equations of loss.py are what TRL computes."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from train.trainer.loss import (
    LogProbs,
    apo_zero_loss,
    dpo_loss,
    rewards,
    supervised_loss,
)

ONE = LogProbs(*(torch.tensor([value]) for value in (-3.0, -5.0, -4.0, -4.0)))  # r+ 1, r- -1


def test_worked_by_hand() -> None:
    """beta 0.5, margin 0.5 (1 - -1) = 1: -log sigmoid(1) = 0.313262; sigmoid(0.5) = 0.622459."""
    assert float(dpo_loss(ONE, 0.5)) == pytest.approx(0.313262, abs=1e-6)
    assert float(apo_zero_loss(ONE, 0.5)) == pytest.approx(2 * (1 - 0.622459), abs=1e-6)
    assert float(supervised_loss(ONE, 6)) == pytest.approx(0.5)
    assert [float(reward) for reward in rewards(ONE, 0.5)] == [0.5, -0.5]


@pytest.mark.parametrize("name", ["sigmoid", "apo_zero", "sft"])
def test_equals_trl(name: Any, mini: Path, small_data: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    from train.pairs.build import Counts, build
    from train.pairs.tokens import tokenize
    from train.recipe import Recipe
    from train.trainer.assemble import make_trainer
    from train.trainer.config import config

    recipe = Recipe(model_name_or_path=str(mini), loss_type=[name], beta=0.3, share_prefixes=False)
    tokenizer = AutoTokenizer.from_pretrained(mini)
    rows = tokenize(list(build(recipe, Counts()))[:4], tokenizer, None, None, Counter())
    trainer = make_trainer(recipe, rows, tokenizer, config(recipe, tmp_path, 4, 1))
    torch.manual_seed(0)
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            parameter.data = 0.3 * torch.randn_like(parameter)
    batch = trainer.data_collator(list(trainer.train_dataset))
    batch.pop("beta")
    trainer.beta, trainer.precompute_ref_logps = 0.3, True
    with torch.no_grad():
        reference = trainer.compute_ref_log_probs(trainer.model, batch)
        batch |= dict(zip(("ref_chosen_logps", "ref_rejected_logps"), reference, strict=True))
        theirs = trainer._compute_loss(trainer.model, dict(batch), False)
        trainer.ref_model = trainer.model  # TRL then leaves the adapter on
        policy = trainer.compute_ref_log_probs(trainer.model, batch)
        trainer.ref_model = None
    logps = LogProbs(*policy, *reference)
    tokens = int(batch["completion_mask"][: len(rows)].sum())
    ours: dict[str, Any] = {
        "sigmoid": lambda: dpo_loss(logps, 0.3),
        "apo_zero": lambda: apo_zero_loss(logps, 0.3),
        "sft": lambda: supervised_loss(logps, tokens),
    }
    assert float(ours[name]()) == pytest.approx(float(theirs), rel=1e-5)
