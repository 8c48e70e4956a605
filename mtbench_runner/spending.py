"""What calls cost: prices, running costs with a limit, and an estimate before anything is paid."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypedDict

from mtbench_runner.outcome import MAYBE_BILLED, UNBILLED, Outcome
from mtbench_runner.rows import Conversation, Usage

BYTES_A_TOKEN = 4  # a rule of thumb for text in Latin script; only for estimates
NOTHING = 1e-9  # US dollars: what rounding leaves
TYPICAL_REPLY = 250  # tokens of a judgment, where none was made yet


@dataclass(frozen=True)
class Prices:
    """US dollars for a million tokens in, and out."""

    prompt: float
    completion: float

    def cost(self, prompt: float, completion: float) -> float:
        """US dollars of so many tokens."""
        return (prompt * self.prompt + completion * self.completion) / 1e6


class Spending:
    """Running costs of a stage. Without prices or a limit it never ends anything.

    Where a server gives no token counts, the length of the texts stands in for them: a limit is
    then kept approximately, not ignored.
    """

    def __init__(self, prices: Prices | None = None, limit: float | None = None) -> None:
        self.prices = prices
        self.limit = limit
        self.spent = 0.0
        self.reserved = 0.0  # for the calls under way
        self.dearest = 0.0  # call so far

    def reserve(self, messages: Conversation, most: int = TYPICAL_REPLY) -> float | None:
        """US dollars set aside for one more call; None where it might pass the limit.

        `most` is the longest reply that the call allows, in tokens.
        """
        if self.prices is None or self.limit is None:
            return 0.0
        amount = self._dearest(messages, most)
        if self.spent + self.reserved + amount > self.limit:
            return None
        self.reserved += amount
        return amount

    def _dearest(self, messages: Conversation, most: int) -> float:
        """US dollars that a call may come to."""
        prices = self.prices or Prices(0.0, 0.0)
        return max(self.dearest, prices.cost(tokens_of(messages), most))

    def what_lacks(self, messages: Conversation, most: int) -> str:
        """Why a call was not made."""
        left = (self.limit or 0.0) - self.spent
        amount = self._dearest(messages, most)
        return f"the next call may cost {amount:.4g} USD, of which {left:.4g} are left"

    def settle(self, reserved: float, outcome: Outcome, messages: Conversation) -> None:
        """Count a call that was made, in place of what was set aside for it."""
        self.reserved -= reserved
        if self.reserved < NOTHING:
            self.reserved = 0.0
        if self.prices is None or outcome.kind in UNBILLED:
            return
        if outcome.kind in MAYBE_BILLED:
            self.spent += reserved
            return
        prompt = outcome.usage["prompt"]
        completion = outcome.usage["completion"]
        if prompt is None:
            prompt = tokens_of(messages)
        if completion is None:
            completion = count_tokens(outcome.full_text)
        cost = self.prices.cost(prompt, completion)
        self.spent += cost
        self.dearest = max(self.dearest, cost)


def count_tokens(text: str) -> int:
    """About how many tokens a text has."""
    return len(text.encode()) // BYTES_A_TOKEN + 1


def tokens_of(messages: Conversation) -> int:
    """About how many tokens a conversation has."""
    return sum(count_tokens(message["content"]) for message in messages)


def total(usages: Iterable[Usage | None]) -> tuple[dict[str, int], int]:
    """Tokens in and out of many calls, and of how many of these the server gave no count."""
    tokens = {"prompt": 0, "completion": 0}
    unknown = 0
    for usage in usages:
        prompt = usage.get("prompt") if usage else None
        completion = usage.get("completion") if usage else None
        if prompt is None or completion is None:
            unknown += 1
        tokens["prompt"] += prompt or 0
        tokens["completion"] += completion or 0
    return tokens, unknown


def add_usage(usages: Sequence[Usage]) -> Usage:
    """The sum of several calls' counts; None where one of them is unknown."""
    whole = Usage(prompt=0, completion=0)
    for usage in usages:
        whole["prompt"] = _plus(whole["prompt"], usage["prompt"])
        whole["completion"] = _plus(whole["completion"], usage["completion"])
    return whole


def _plus(count: int | None, more: int | None) -> int | None:
    """The sum of two counts, unknown where one of them is."""
    if count is None or more is None:
        return None
    return count + more


class Estimate(TypedDict):
    """What a stage would ask for. `typical` and `most` differ in the length of the replies."""

    what: str
    calls: int
    prompt_tokens: int
    typical_completion_tokens: int
    most_completion_tokens: int
    typical_cost_usd: float | None
    most_cost_usd: float | None


def estimate(
    what: str,
    conversations: Sequence[Conversation],
    cap: int,
    prices: Prices | None,
    typical: int = TYPICAL_REPLY,
) -> Estimate:
    """Calls, tokens and cost of asking each conversation once, replies of at most `cap` tokens."""
    prompt = sum(tokens_of(messages) for messages in conversations)
    calls = len(conversations)
    usual, most = calls * min(typical, cap), calls * cap
    return Estimate(
        what=what,
        calls=calls,
        prompt_tokens=prompt,
        typical_completion_tokens=usual,
        most_completion_tokens=most,
        typical_cost_usd=prices.cost(prompt, usual) if prices else None,
        most_cost_usd=prices.cost(prompt, most) if prices else None,
    )
