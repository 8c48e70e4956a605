"""A step's pairs dealt to processes: all of them, evenly, contexts whole where that is even."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from train.pairs.pair import Pair
from train.pairs.tokens import TokenPair
from train.trainer.dealing import Costs, Hand, count_costs, deal


def row(prompt: list[int], chosen: list[int], rejected: list[int]) -> TokenPair:
    return TokenPair(Pair("q", "c", "any", "given", "", "", ""), prompt, chosen, rejected)


def costs_of(contexts: Sequence[str], shared: dict[str, int], own: Sequence[int]) -> Costs:
    return Costs(contexts, shared, own)


def computed(costs: Costs, pairs: Sequence[int]) -> int:
    """Tokens of a pass over these pairs: each context's shared ones once."""
    contexts = {costs.context_of_pair[pair] for pair in pairs}
    return sum(costs.shared[c] for c in contexts) + sum(costs.own[pair] for pair in pairs)


def test_costs_are_counted_by_hand() -> None:
    rows = [
        row([1, 2, 3, 4], [5], [6, 7]),
        row([1, 2, 9], [5, 5], [6]),
        row([8, 8], [5], []),
        row([1, 2, 3], [5], [6]),
    ]
    shared = count_costs(rows, ["a", "a", "b", "a"], share=True)
    # all prompts of a begin with 1 2; what is left of them, and both replies, is each pair's own
    assert shared.shared == {"a": 2, "b": 2}
    assert list(shared.own) == [2 + 3, 1 + 3, 0 + 1, 1 + 2]
    apart = count_costs(rows, ["a", "a", "b", "a"], share=False)
    assert apart.shared == {"a": 0, "b": 0}
    assert list(apart.own) == [8 + 3, 6 + 3, 4 + 1, 6 + 2]


def test_contexts_stay_whole_where_that_is_even() -> None:
    contexts = "aabbcc"
    costs = costs_of(contexts, {"a": 100, "b": 60, "c": 40}, [5] * 6)
    # 110 against 70 + 50, which in order, three pairs each, would be 175 and 115
    assert deal(range(6), costs, 2) == [[0, 1], [2, 3, 4, 5]]


def test_a_whole_context_is_exchanged_for_a_whole_one() -> None:
    costs = costs_of("abcde", {"a": 7, "b": 6, "c": 5, "d": 4, "e": 4}, [0] * 5)
    # dearest first: 7 + 4 + 4 against 6 + 5; giving 7 for 5 makes it 13 and 13
    assert sorted(map(sorted, deal(range(5), costs, 2))) == [[0, 1], [2, 3, 4]]


def test_a_context_that_outweighs_the_others_is_cut() -> None:
    contexts = "aaaaaab"
    costs = costs_of(contexts, {"a": 10, "b": 10}, [20] * 6 + [5])
    # whole: 130 and 15. 3 pairs to b's process: 70 against 10 + 60 + 15 = 85; 2: 90 against 65
    dealt = deal(range(7), costs, 2)
    assert [computed(costs, pairs) for pairs in dealt] == [70, 85]
    # 130 and 101: one pair fewer would be 110 and 101 + 30, so it stays whole
    near = costs_of(contexts, {"a": 10, "b": 96}, [20] * 6 + [5])
    assert sorted(map(len, deal(range(7), near, 2))) == [1, 6]


steps = st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 300)), min_size=1, max_size=40)
beginnings = st.fixed_dictionaries({name: st.integers(0, 900) for name in "abcdef"})


@given(steps, beginnings, st.integers(1, 9))
def test_every_pair_is_dealt_once_and_no_hand_is_empty(
    pairs: list[tuple[str, int]], shared: dict[str, int], hands: int
) -> None:
    hands = min(hands, len(pairs))
    costs = costs_of([context for context, _ in pairs], shared, [own for _, own in pairs])
    dealt = deal(range(len(pairs)), costs, hands)
    assert len(dealt) == hands
    assert all(dealt)
    assert sorted(pair for hand in dealt for pair in hand) == list(range(len(pairs)))
    assert dealt == deal(range(len(pairs)), costs, hands)
    tokens = [computed(costs, hand) for hand in dealt]
    assert tokens == sorted(tokens)
    assert tokens[-1] <= computed(costs, range(len(pairs)))


@given(steps, beginnings, st.data())
def test_a_hand_knows_what_it_costs(
    pairs: list[tuple[str, int]], shared: dict[str, int], data: st.DataObject
) -> None:
    costs = costs_of([context for context, _ in pairs], shared, [own for _, own in pairs])
    hand = Hand(costs)
    for pair, (context, _) in enumerate(pairs):
        hand.take(context, [pair])
        assert hand.tokens == computed(costs, hand.pairs)
    while hand.pairs:
        held, members = data.draw(st.sampled_from(list(hand.held.items())))
        hand.give(held, members[: data.draw(st.integers(1, len(members)))])
        assert hand.tokens == computed(costs, hand.pairs)
