"""Held-out pairs: their figures by hand, and beside a plain forward of the trained model."""

import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from train.callbacks import Accounts, EpochOrder
from train.pairs.build import build, held_out
from train.pairs.pair import Counts
from train.pairs.tokens import TokenPair, tokenize
from train.recipe import Recipe, RecipeError
from train.trainer import assemble
from train.trainer.config import config
from train.trainer.held_out import HeldOut, figures
from train.trainer.reference import attach_reference

pytestmark = pytest.mark.usefixtures("small_data")


def test_figures_by_hand() -> None:
    start = torch.tensor([[-4.0, -6.0], [-2.0, -3.0]])
    now = torch.tensor([[-3.0, -7.0], [-3.0, -3.0]])
    found = figures(now, start, chosen_tokens=12, beta=0.5)
    assert found["held_out/nll"] == 0.5
    assert found["held_out/logps/chosen"] == -3.0
    assert found["held_out/logps/rejected"] == -5.0
    assert found["held_out/margins"] == 0.25  # of 0.5 * (1 + 1) and 0.5 * (-1 - 0)
    assert found["held_out/accuracies"] == 0.5
    losses = [math.log(1 + math.exp(-1.0)), math.log(1 + math.exp(0.5))]
    assert found["held_out/loss"] == pytest.approx(sum(losses) / 2)


def test_without_a_reference_there_is_no_margin() -> None:
    found = figures(torch.tensor([[-3.0, -7.0]]), torch.zeros(0), 3, 0.5)
    assert set(found) == {"held_out/nll", "held_out/logps/chosen", "held_out/logps/rejected"}


def logps(model: Any, row: TokenPair, reply: list[int]) -> float:
    ids = torch.tensor([row.prompt_ids + reply])
    with torch.no_grad():
        of_next = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
    of_reply = of_next.gather(1, ids[0, 1:, None])[-len(reply) :]
    return float(of_reply.sum())


@pytest.mark.parametrize("losses", [["sigmoid"], ["sft"]])
def test_they_are_measured_on_the_model_as_it_is_after_each_epoch(
    losses: list[str], mini: Path, tmp_path: Path
) -> None:
    from peft import AutoPeftModelForCausalLM

    recipe = Recipe.model_validate(
        {
            "model_name_or_path": str(mini), "loss_type": losses, "learning_rate": 1e-3,
            "lora_r": 4, "lora_dropout": 0.1,
            "effective_batch_size": 8, "num_train_epochs": 2, "eval_share": 0.25,
        }
    )  # fmt: skip
    tokenizer = AutoTokenizer.from_pretrained(mini)
    trained, kept_back = held_out(list(build(recipe, Counts())), 0.25, 42)
    rows = tokenize(trained[:16], tokenizer, None, None, Counter())
    eval_rows = tokenize(kept_back[:5], tokenizer, None, None, Counter())
    trainer = assemble.make_trainer(recipe, rows, tokenizer, config(recipe, tmp_path, 4, 1))
    for callback in (EpochOrder(trainer), Accounts(trainer), HeldOut(trainer, eval_rows)):
        trainer.add_callback(callback)
    if recipe.needs_reference:
        attach_reference(trainer, None)
    trainer.precompute_ref_logps = True
    trainer.train()
    trainer.save_model(str(tmp_path))
    entries = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert ["held_out/nll" in entry for entry in entries] == [False, True, False, True]
    model = AutoPeftModelForCausalLM.from_pretrained(tmp_path).eval()
    chosen = [logps(model, row, row.chosen_ids) for row in eval_rows]
    found = entries[-1]
    assert found["held_out/logps/chosen"] == pytest.approx(sum(chosen) / 5, abs=1e-3)
    tokens = sum(len(row.chosen_ids) for row in eval_rows)
    assert found["held_out/nll"] == pytest.approx(-sum(chosen) / tokens, abs=1e-4)
    if not recipe.needs_reference:
        assert "held_out/margins" not in found
        return
    rejected = [logps(model, row, row.rejected_ids) for row in eval_rows]
    with model.disable_adapter():
        chosen_start = [logps(model, row, row.chosen_ids) for row in eval_rows]
        rejected_start = [logps(model, row, row.rejected_ids) for row in eval_rows]
    moved = sum(chosen) - sum(chosen_start) - sum(rejected) + sum(rejected_start)
    assert found["held_out/margins"] == pytest.approx(recipe.beta * moved / 5, abs=1e-4)


def test_contexts_are_held_out_whole() -> None:
    every = list(build(Recipe(model_name_or_path=""), Counts()))
    trained, kept_back = held_out(every, 0.25, 1)
    of_trained = {pair.context_uid for pair in trained}
    of_kept_back = {pair.context_uid for pair in kept_back}
    assert not of_trained & of_kept_back
    assert (len(of_trained), len(of_kept_back)) == (9, 3)
    assert sorted(pair.uid for pair in trained + kept_back) == sorted(pair.uid for pair in every)
    assert held_out(every, 0.25, 1) == (trained, kept_back)
    assert held_out(every, 0.25, 2) != (trained, kept_back)
    assert held_out(every, 0.0, 1) == (every, [])
    with pytest.raises(RecipeError, match="eval_share: 0.01 of 12 contexts are 0"):
        held_out(every, 0.01, 1)
