"""Order by context: a permutation, batches of even cost, another one every epoch."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st

from train.trainer.batches import ContextSampler, StepBatches, collator, context_order
from train.trainer.dealing import Costs


@given(
    st.lists(st.integers(0, 12), max_size=80),
    st.integers(1, 9),
    st.integers(0, 3),
    st.integers(0, 3),
)
def test_every_pair_once_and_contexts_whole(
    contexts: list[int], batch: int, seed: int, epoch: int
) -> None:
    order = context_order(contexts, [1] * len(contexts), batch, seed, epoch)
    assert sorted(order) == list(range(len(contexts)))
    seen = [contexts[index] for index in order]
    changes = sum(a != b for a, b in zip(seen, seen[1:], strict=False))
    assert changes == max(0, len(set(contexts)) - 1)


def cost_spread(order: Sequence[int], tokens: Sequence[int], batch: int) -> float:
    sums = [
        sum(tokens[i] for i in order[start : start + batch])
        for start in range(0, len(order), batch)
    ]
    return max(sums) / min(sums)


def test_long_contexts_are_spread_over_the_batches() -> None:
    contexts = [i // 6 for i in range(960)]
    tokens = [200 + 40 * (context * 37 % 50) for context in contexts]
    balanced = context_order(contexts, tokens, 32, seed=0, epoch=0)
    unbalanced = context_order(contexts, [1] * 960, 32, seed=0, epoch=0)
    assert cost_spread(balanced, tokens, 32) < 1.45 < 1.8 < cost_spread(unbalanced, tokens, 32)


def test_sampler_is_a_function_of_seed_and_epoch() -> None:
    contexts = [i // 6 for i in range(120)]

    def orders(seed: int) -> list[list[int]]:
        sampler = ContextSampler(contexts, [1] * 120, 32, seed)
        found = []
        for epoch in (0, 1, 0):
            sampler.set_epoch(epoch)
            found.append(list(sampler))
        return found

    first, second, again = orders(1)
    assert first == again
    assert first != second
    assert first != orders(2)[0]
    assert len(ContextSampler(contexts, [1] * 120, 32, 0)) == 120


def sampler_of(contexts: Sequence[int], step: int) -> ContextSampler:
    return ContextSampler(contexts, [10 + 7 * context for context in contexts], step, seed=0)


@given(
    st.lists(st.integers(0, 9), max_size=70),
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(1, 5),
)
def test_all_processes_together_have_the_same_steps(
    contexts: list[int], micro: int, rounds: int, processes: int
) -> None:
    """Each pair once in its step, and no process has a micro-batch more than another, or none."""
    step = micro * rounds * processes
    order = sampler_of(contexts, step)
    batches = [StepBatches(order, step, micro, rank, processes) for rank in range(processes)]
    dealt = [list(each) for each in batches]
    indices = list(order)
    for start in range(0, len(indices), step):
        pairs = indices[start : start + step]
        expected = rounds if len(pairs) == step else math.ceil(len(pairs) // processes / micro)
        expected = max(1, expected)  # fewer pairs than processes: each computes all of them
        times = processes if len(pairs) < processes else 1
        seen: list[int] = []
        for of_process in dealt:
            now, of_process[:expected] = of_process[:expected], []
            assert len(now) == expected
            assert all(now)
            seen += [pair for batch in now for pair in batch]
        assert sorted(seen) == sorted(pairs * times)
    assert not any(dealt)
    for each in batches:
        assert len(each) == len(list(each))


def test_one_process_takes_a_step_in_order() -> None:
    order = sampler_of([i // 6 for i in range(45)], 16)
    indices = list(order)
    ends = [0, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44, 45]
    expected = [indices[start:end] for start, end in pairwise(ends)]
    assert list(StepBatches(order, 16, 4)) == expected
    assert len(StepBatches(order, 16, 4)) == 12


def test_two_processes_are_dealt_whole_contexts() -> None:
    """Contexts of 4, 3 and 1 pairs whose prompts cost 8, 5 and 3 tokens: 4 pairs of 8 + 4 each."""
    contexts, prompts = [0] * 4 + [1] * 3 + [2], [8] * 4 + [5] * 3 + [3]

    def costs() -> Costs:
        return Costs(contexts, {0: 8, 1: 5, 2: 3}, [1] * 8)

    order = ContextSampler(contexts, prompts, 8, seed=0, count_costs=costs)
    dealt = {tuple(sorted(next(iter(StepBatches(order, 8, 4, rank, 2))))) for rank in (0, 1)}
    assert dealt == {(0, 1, 2, 3), (4, 5, 6, 7)}


ids = st.lists(st.integers(0, 200_000), min_size=1, max_size=7)
examples = st.fixed_dictionaries(
    {name: ids for name in ("prompt_ids", "chosen_ids", "rejected_ids")}
)


@given(st.lists(examples, min_size=1, max_size=6), st.booleans())
def test_the_batch_is_that_of_trl(pairs: list[dict[str, Any]], referenced: bool) -> None:
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    references = {"ref_chosen_logps": -3.5, "ref_rejected_logps": -70.25} if referenced else {}
    pairs = [{**pair, **references, "beta": 0.1 + i} for i, pair in enumerate(pairs)]
    theirs, ours = DataCollatorForPreference(pad_token_id=9)(pairs), collator(9)(pairs)
    assert ours.pop("beta").tolist() == torch.tensor([pair["beta"] for pair in pairs]).tolist()
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert torch.equal(ours[name], tensor), name
        assert ours[name].dtype == tensor.dtype, name
