"""Deal a step's pairs to processes so that none waits long for another.

A pass computes what a context's prompts have in common once, so a context goes to one process
whole wherever that leaves the processes even. One that outweighs the others is cut where it costs
less to compute its beginning twice than to wait.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from train.pairs.tokens import TokenPair
from train.sharing.lengths import as_bytes, common_tokens

EVEN = 1.01  # times the mean: a hand that costs no more is relieved no further


@dataclass(frozen=True)
class Costs:
    """Tokens that a pass computes: `shared` once for each context in it, `own` for each pair.

    context_of_pair, own: by pair. shared: by context.
    """

    context_of_pair: Sequence[Hashable]
    shared: Mapping[Any, int]
    own: Sequence[int]


def count_costs(
    rows: Sequence[TokenPair], context_of_pair: Sequence[Hashable], share: bool
) -> Costs:
    """The costs of these pairs; share: whether prefixes are computed once.

    An estimate: what else replies and prompts have in common is counted for each pair.
    """
    shared = dict.fromkeys(context_of_pair, 0)
    if share:
        shared = common_beginnings(rows, context_of_pair)
    own = []
    for context, row in zip(context_of_pair, rows, strict=True):
        prompt = len(row.prompt_ids) if share else 2 * len(row.prompt_ids)
        replies = len(row.chosen_ids) + len(row.rejected_ids)
        own.append(prompt - shared[context] + replies)
    return Costs(context_of_pair, shared, own)


def common_beginnings(
    rows: Sequence[TokenPair], context_of_pair: Sequence[Hashable]
) -> dict[Hashable, int]:
    """By context, how many tokens all its prompts begin with in common."""
    first: dict[Hashable, bytes] = {}
    common: dict[Hashable, int] = {}
    for context, row in zip(context_of_pair, rows, strict=True):
        prompt = as_bytes(row.prompt_ids)
        if context not in first:
            first[context], common[context] = prompt, len(row.prompt_ids)
        else:
            agreed = common_tokens(first[context], prompt)
            common[context] = min(common[context], agreed)
    return common


class Hand:
    """The pairs of one pass by context, and the tokens that it computes."""

    def __init__(self, costs: Costs) -> None:
        self.costs = costs
        self.held: dict[Hashable, list[int]] = {}
        self.tokens = 0

    @property
    def pairs(self) -> list[int]:
        """All its pairs, those of a context side by side."""
        return [pair for piece in self.held.values() for pair in piece]

    def own(self, pairs: Sequence[int]) -> int:
        """Tokens of the pairs alone, without what their context shares."""
        return sum(self.costs.own[pair] for pair in pairs)

    def more(self, context: Hashable, pairs: Sequence[int]) -> int:
        """Tokens that it would compute beyond its own if it took these pairs of a context."""
        shared = 0 if context in self.held else self.costs.shared[context]
        return shared + self.own(pairs)

    def less(self, context: Hashable, pairs: Sequence[int]) -> int:
        """Tokens that it would be spared if it gave away these of its pairs of a context."""
        whole = len(pairs) == len(self.held[context])
        return (self.costs.shared[context] if whole else 0) + self.own(pairs)

    def take(self, context: Hashable, pairs: Sequence[int]) -> None:
        """Add these pairs of a context."""
        self.tokens += self.more(context, pairs)
        self.held.setdefault(context, []).extend(pairs)

    def give(self, context: Hashable, pairs: Sequence[int]) -> None:
        """Part with these pairs of a context."""
        self.tokens -= self.less(context, pairs)
        rest = [pair for pair in self.held.pop(context) if pair not in pairs]
        if rest:
            self.held[context] = rest


class Trade(NamedTuple):
    """Pairs of a context that one hand gives to another, and those that it gets for them."""

    giver: Hand
    taker: Hand
    given: tuple[Hashable, list[int]]
    back: tuple[Hashable, list[int]] | None

    def dearer(self) -> int:
        """Tokens of the dearer of both hands afterwards."""
        change_of_giver = -self.giver.less(*self.given)
        change_of_taker = self.taker.more(*self.given)
        if self.back:
            change_of_giver += self.giver.more(*self.back)
            change_of_taker -= self.taker.less(*self.back)
        return max(self.giver.tokens + change_of_giver, self.taker.tokens + change_of_taker)

    def make(self) -> None:
        """Let both hands have what they get."""
        self.giver.give(*self.given)
        self.taker.take(*self.given)
        if self.back:
            self.taker.give(*self.back)
            self.giver.take(*self.back)


def deal(pairs: Sequence[int], costs: Costs, hands: int) -> list[list[int]]:
    """Deal the pairs to so many hands, cheapest first, none empty; at most as many as pairs."""
    dealt = [Hand(costs) for _ in range(hands)]
    for context, members in dearest_first(pairs, costs):
        min(dealt, key=tokens).take(context, members)
    fill_empty(dealt)
    while trade := best_trade(dealt):
        trade.make()
    return [hand.pairs for hand in sorted(dealt, key=tokens)]


def tokens(hand: Hand) -> int:
    """Tokens that a hand computes."""
    return hand.tokens


def dearest_first(pairs: Sequence[int], costs: Costs) -> list[tuple[Hashable, list[int]]]:
    """The pairs by context, those that cost most together first."""
    whole = Hand(costs)
    for pair in pairs:
        whole.take(costs.context_of_pair[pair], [pair])
    return sorted(whole.held.items(), key=lambda piece: -whole.less(*piece))


def fill_empty(dealt: Sequence[Hand]) -> None:
    """Give every empty hand half of a context: the largest piece of the dearest with two pairs."""
    for hand in dealt:
        if not hand.held:
            several = [other for other in dealt if len(other.pairs) > 1]
            giver = max(several, key=tokens)
            context, members = max(giver.held.items(), key=lambda piece: len(piece[1]))
            half = members[len(members) // 2 :]
            giver.give(context, half)
            hand.take(context, half)


def best_trade(dealt: Sequence[Hand]) -> Trade | None:
    """What relieves the dearest hand most; None if nothing does."""
    giver = max(dealt, key=tokens)
    best, least = None, giver.tokens
    if len(dealt) * giver.tokens <= EVEN * sum(map(tokens, dealt)):
        return None
    for taker in dealt:
        if taker is giver:
            continue
        for trade in trades(giver, taker):
            dearer = trade.dearer()
            if dearer < least:
                best, least = trade, dearer
    return best


def trades(giver: Hand, taker: Hand) -> Iterator[Trade]:
    """All or some pairs of a context given away, or a whole context for a whole one.

    To give all that it has relieves no hand, since the taker then computes as much: none is
    emptied.
    """
    for context, members in giver.held.items():
        for count in range(1, len(members) + 1):
            yield Trade(giver, taker, (context, members[:count]), None)
        for other in taker.held.items():
            if other[0] != context:
                yield Trade(giver, taker, (context, members), other)
