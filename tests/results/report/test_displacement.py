"""How far chosen and rejected replies moved, from the log of training, and in words."""

import math
from typing import Any

import pytest

from results.record import Training
from results.report import displacement, sections


def training(history: list[dict[str, float]], **more: Any) -> Training:
    facts = {"recipe": {}, "history": history, "pairs": {}, "seconds": 90.0, "device": "cpu"}
    return Training.model_validate(facts | more)


def test_displacement_is_the_mean_of_the_last_tenth_against_the_start() -> None:
    logps = [
        {"step": i, "chosen": -10.0 - i, "chosen_start": -9.0, "rejected": -20.0 - 2 * i,
         "rejected_start": -18.0}
        for i in range(1, 21)
    ]  # fmt: skip
    # the last two steps: chosen -1 - 19.5, rejected -2 - 39
    moved = displacement.displacement(training([], logps=[{"step": 0, "chosen": -9.0}, *logps]))
    assert moved is not None
    assert (moved.chosen, moved.rejected) == pytest.approx((-20.5, -41))
    assert moved.error == pytest.approx(math.sqrt(0.5) / math.sqrt(2))  # of -20 and -21
    assert displacement.displacement(training([{"step": 1, "loss": 0.5}])) is None


def test_displacement_from_the_rewards_where_nothing_else_was_logged() -> None:
    history = [{"step": 1, "rewards/chosen": -0.05, "rewards/rejected": -0.4, "beta": 0.1}]
    moved = displacement.displacement(training(history))
    assert moved is not None
    assert (moved.chosen, moved.rejected) == pytest.approx((-0.5, -4))
    assert math.isnan(moved.error)  # of one step


@pytest.mark.parametrize("logps", [3, "x", {"chosen": 1}, [3], [{}], None])
def test_displacement_of_another_shape_is_none(logps: Any) -> None:
    assert displacement.displacement(training([], logps=logps)) is None


def test_displacement_in_words() -> None:
    def words(chosen: float, rejected: float, error: float) -> str:
        return sections.displacement_words(displacement.Displacement(chosen, rejected, error))

    assert words(0.5, -3, math.nan).startswith("The chosen replies became likelier (")
    fallen = words(-3.2, -8.1, 0.1)
    assert fallen.startswith("The chosen replies became LESS likely")
    assert "chosen -3.20, rejected -8.10 nats" in fallen
    assert fallen.endswith("in no pair.")
    assert words(-3.2, 8.1, 0.1).endswith("nats).")  # the rejected ones gained it
    still = "became neither likelier nor less likely by more than its noise of 0.20 nats"
    assert still in words(0.2, -3, 0.1)
    assert still in words(-0.2, -3, 0.1)
    assert "became likelier" in words(0.21, -3, 0.1)
