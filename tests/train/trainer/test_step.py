"""beta over the steps of a run, by hand."""

import math
from typing import Any

import pytest

from train.recipe import Recipe
from train.trainer.step import beta_factor


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, [1, 1, 1, 1, 1, 1]),
        ({"beta_schedule": "linear", "beta_end": 0.6}, [1, 2, 3, 4, 5, 6]),
        (
            {"beta_schedule": "cosine", "beta_end": 0.3},
            [2 - math.cos(math.pi * i / 5) for i in range(6)],
        ),
        (
            {"beta_schedule": "linear", "beta_end": 0.05, "beta_schedule_unit": "epoch"},
            [1, 1, 1, 0.5, 0.5, 0.5],
        ),
    ],
)
def test_beta_factor(fields: dict[str, Any], expected: list[float]) -> None:
    recipe = Recipe(model_name_or_path="", beta=0.1, num_train_epochs=2, **fields)
    assert [beta_factor(recipe, step, 6) for step in range(6)] == pytest.approx(expected)
