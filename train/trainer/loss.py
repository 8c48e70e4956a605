"""The loss that is optimised, shown in one place. Training calls TRL's; a test holds them equal.

A policy p, trained from a reference p0, is asked to prefer a chosen reply y+ over a rejected y- to
the prompt x. With the log ratios

    r+ = log p(y+|x) - log p0(y+|x)        r- = log p(y-|x) - log p0(y-|x)

DPO (Rafailov et al. 2023, arXiv:2305.18290, eq. 7) minimises -log sigmoid(beta (r+ - r-)).
beta r+ and beta r- are the logged rewards. Only their difference counts: both may fall, chosen
less than rejected, which is displacement. The supervised term -log p(y+|x) holds against that
(RPO: Pang et al. 2024, arXiv:2404.19733); so does APO-zero, which pushes r+ up and r- down apart
(D'Oosterlinck et al. 2024, arXiv:2408.06266, eq. 7).

Over an optimizer step: DPO's terms are means over its pairs, the supervised term is a mean over
the tokens of its chosen replies, however the step is cut into micro-batches and processes.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class LogProbs:
    """Log-probabilities of whole replies, [pairs] each, summed over a reply's tokens."""

    chosen: Tensor
    rejected: Tensor
    ref_chosen: Tensor
    ref_rejected: Tensor

    @property
    def chosen_ratio(self) -> Tensor:
        """r+: how much likelier the chosen replies are than under the reference, in nats."""
        return self.chosen - self.ref_chosen

    @property
    def rejected_ratio(self) -> Tensor:
        """r-: the same of the rejected replies."""
        return self.rejected - self.ref_rejected


def dpo_loss(logps: LogProbs, beta: float | Tensor) -> Tensor:
    """TRL's `sigmoid`: the mean over pairs of -log sigmoid(beta (r+ - r-))."""
    margin = beta * (logps.chosen_ratio - logps.rejected_ratio)
    return -F.logsigmoid(margin).mean()


def apo_zero_loss(logps: LogProbs, beta: float | Tensor) -> Tensor:
    """TRL's `apo_zero`: (1 - sigmoid(beta r+)) + sigmoid(beta r-), which holds r+ up by itself."""
    chosen = 1 - torch.sigmoid(beta * logps.chosen_ratio)
    rejected = torch.sigmoid(beta * logps.rejected_ratio)
    return (chosen + rejected).mean()


def supervised_loss(logps: LogProbs, chosen_tokens: int) -> Tensor:
    """TRL's `sft`: negative log-probability a token, over all chosen replies of a step."""
    return -logps.chosen.sum() / chosen_tokens


def rewards(logps: LogProbs, beta: float | Tensor) -> tuple[Tensor, Tensor]:
    """The logged rewards of chosen and rejected, beta r+ and beta r-; their difference: margin."""
    return beta * logps.chosen_ratio, beta * logps.rejected_ratio
