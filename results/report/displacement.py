"""How far training moved the log-probability of chosen and of rejected replies.

Preference training can win by making the rejected replies rarer while the chosen ones become
rarer too; the two means tell that apart.
"""

import math
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, NamedTuple

from results.record import Training
from results.report.collect import last_tenth

LOGPS = {"chosen", "chosen_start", "rejected", "rejected_start"}
REWARDS = {"rewards/chosen", "rewards/rejected"}


@dataclass(frozen=True)
class Displacement:
    """How far the mean log-probability of replies moved in training, in nats.

    `error`: standard error of `chosen` from step to step; NaN where one step is known.
    """

    chosen: float
    rejected: float
    error: float


class Move(NamedTuple):
    """By how much the mean log-probabilities differ at one step from those at the start, nats."""

    chosen: float
    rejected: float


def displacement(training: Training) -> Displacement | None:
    """How the mean log-probability of chosen and rejected replies moved, at the end.

    The mean over the last tenth of the logged steps, each against the model before training on
    the same pairs; from the rewards (beta times that difference) where nothing else was logged.
    None where neither was.
    """
    moves = moves_of_logps(training) or moves_of_rewards(training)
    if not moves:
        return None
    chosen, rejected = [], []
    for move in last_tenth(moves):
        chosen.append(move.chosen)
        rejected.append(move.rejected)
    error = math.nan
    if len(chosen) > 1:
        error = stdev(chosen) / math.sqrt(len(chosen))
    return Displacement(fmean(chosen), fmean(rejected), error)


def moves_of_logps(training: Training) -> list[Move]:
    """The move at each step whose log-probabilities were logged."""
    course: Any = training.more.get("logps")
    if not isinstance(course, list):
        return []
    moves = []
    for entry in course:
        if isinstance(entry, dict) and entry.keys() >= LOGPS:
            chosen = entry["chosen"] - entry["chosen_start"]
            rejected = entry["rejected"] - entry["rejected_start"]
            moves.append(Move(chosen, rejected))
    return moves


def moves_of_rewards(training: Training) -> list[Move]:
    """The move at each step whose rewards were logged: a reward is beta times it."""
    moves = []
    for entry in training.history:
        beta = entry.get("beta")
        if beta and entry.keys() >= REWARDS:
            moves.append(Move(entry["rewards/chosen"] / beta, entry["rewards/rejected"] / beta))
    return moves
