"""The equations of loss.py are what TRL computes."""

from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from train.recipe import SMOOTHED, Loss
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


@pytest.fixture
def scene(mini: Path, small_data: Path, tmp_path: Path) -> tuple[Any, dict[str, Any], LogProbs]:
    """A trainer of four pairs, their batch, and the log-probabilities of policy and reference."""
    from transformers import AutoTokenizer

    from train.pairs.build import build
    from train.pairs.pair import Counts
    from train.pairs.tokens import tokenize
    from train.recipe import Recipe
    from train.trainer.assemble import make_trainer
    from train.trainer.config import config

    recipe = Recipe(model_name_or_path=str(mini), beta=0.3, share_prefixes=False)
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
        trainer.ref_model = trainer.model  # TRL then leaves the adapter on
        policy = trainer.compute_ref_log_probs(trainer.model, batch)
        trainer.ref_model = None
    return trainer, batch, LogProbs(*policy, *reference)


def trl_loss(trainer: Any, batch: dict[str, Any], name: str, label_smoothing: float = 0.0) -> float:
    """What TRL computes for a batch by one of its losses."""
    trainer.loss_types, trainer.loss_weights = [name], [1.0]
    trainer.label_smoothing = label_smoothing
    with torch.no_grad():
        return float(trainer._compute_loss(trainer.model, dict(batch), False))


def test_equals_trl(scene: tuple[Any, dict[str, Any], LogProbs]) -> None:
    trainer, batch, logps = scene
    tokens = int(batch["completion_mask"][:4].sum())
    ours = {
        "sigmoid": dpo_loss(logps, 0.3),
        "apo_zero": apo_zero_loss(logps, 0.3),
        "sft": supervised_loss(logps, tokens),
    }
    for name, loss in ours.items():
        assert float(loss) == pytest.approx(trl_loss(trainer, batch, name), rel=1e-5)


def test_no_loss_of_a_recipe_is_another_one(
    scene: tuple[Any, dict[str, Any], LogProbs],
) -> None:
    """A field that does nothing would make two of them equal; with and without label smoothing."""
    trainer, batch, _ = scene
    found: dict[str, float] = {}
    for name in get_args(Loss):
        if name in SMOOTHED:
            found[f"{name} 0.1"] = trl_loss(trainer, batch, name, 0.1)
            found[f"{name} 0.3"] = trl_loss(trainer, batch, name, 0.3)
        else:
            found[name] = trl_loss(trainer, batch, name)
    values = sorted(found.values())
    assert all(later - earlier > 1e-4 for earlier, later in pairwise(values)), found


@pytest.mark.parametrize("name", [name for name in get_args(Loss) if name != "sft"])
def test_a_loss_is_a_mean_over_pairs(
    name: str, scene: tuple[Any, dict[str, Any], LogProbs]
) -> None:
    """So it does not depend on the micro-batch; sft, a mean over tokens, is weighed apart."""
    trainer, batch, _ = scene
    smoothing = 0.1 if name in SMOOTHED else 0.0
    whole = trl_loss(trainer, batch, name, smoothing)
    parts = []
    for i in range(4):
        rows = [i, i + 4]  # chosen rows come first
        part = {key: value[rows] for key, value in batch.items() if not key.startswith("ref")}
        part |= {key: value[[i]] for key, value in batch.items() if key.startswith("ref")}
        parts.append(trl_loss(trainer, part, name, smoothing))
    assert sum(parts) / 4 == pytest.approx(whole, rel=1e-5)
