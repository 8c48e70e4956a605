"""Batches by context: the pairs of one table and text meet in one step.

So their prefix is computed once. Which pairs share an optimizer step changes; no pair's gradient
does. The order is a pure function of (seed, epoch), so a resumed run and any number of processes
see the same one.
"""

import math
import random
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch.utils.data import Sampler

from train.pairs.tokens import TokenPair
from train.sharing.lengths import as_bytes
from train.trainer.dealing import Costs, deal

# batches whose contexts are dealt together: long ones spread out, and the order stays random
WINDOW = 32
CARRIED = ("beta", "ref_chosen_logps", "ref_rejected_logps")  # columns of numbers, one a pair


def context_order(
    context_of_pair: Sequence[Hashable],
    tokens_of_pair: Sequence[int],
    batch_size: int,
    seed: int,
    epoch: int,
) -> list[int]:
    """A permutation of the pairs: a context's are adjacent, and batches cost about the same.

    tokens_of_pair: length of each pair's prompt, the cost of the context that its neighbours share.
    """
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for index, context in enumerate(context_of_pair):
        groups[context].append(index)
    contexts = list(groups.values())
    random.Random(f"{seed}/{epoch}").shuffle(contexts)
    order: list[int] = []
    per_window = max(1, WINDOW * batch_size * len(contexts) // max(1, len(context_of_pair)))
    for first in range(0, len(contexts), per_window):
        window = contexts[first : first + per_window]
        for batch in even_batches(window, tokens_of_pair, batch_size):
            order += batch
    return order


def even_batches(
    contexts: Sequence[list[int]], tokens_of_pair: Sequence[int], batch_size: int
) -> list[list[int]]:
    """The pairs of these contexts in batches of about one size and cost.

    Contexts go to the batches dearest first, back and forth.
    """
    pairs = sum(map(len, contexts))
    batches: list[list[int]] = [[] for _ in range(max(1, pairs // batch_size))]
    dearest_first = sorted(contexts, key=lambda context: -tokens_of_pair[context[0]])
    for place, context in enumerate(dearest_first):
        turn, batch = divmod(place, len(batches))
        if turn % 2:
            batch = len(batches) - 1 - batch
        batches[batch] += context
    return batches


class ContextSampler(Sampler[int]):  # type: ignore[misc]
    """Yields pair indices in one epoch's order; StepBatches cuts and deals them.

    count_costs: what the pairs cost, counted when first asked for, which a process on its own never
    does. Without it each costs its tokens_of_pair.
    """

    def __init__(
        self,
        context_of_pair: Sequence[Hashable],
        tokens_of_pair: Sequence[int],
        batch_size: int,
        seed: int,
        count_costs: Callable[[], Costs] | None = None,
    ) -> None:
        self.context_of_pair = context_of_pair
        self.tokens_of_pair = tokens_of_pair
        self.batch_size = batch_size
        self.seed = seed
        self.count_costs = count_costs
        self.epoch = 0

    @cached_property
    def costs(self) -> Costs:
        """Tokens that a pass computes of each pair and each context."""
        if self.count_costs:
            return self.count_costs()
        nothing_shared = dict.fromkeys(self.context_of_pair, 0)
        return Costs(self.context_of_pair, nothing_shared, self.tokens_of_pair)

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer at the start of each epoch, resumed or not."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.context_of_pair)

    def __iter__(self) -> Iterator[int]:
        order = context_order(
            self.context_of_pair, self.tokens_of_pair, self.batch_size, self.seed, self.epoch
        )
        return iter(order)


class StepBatches(Sampler[list[int]]):  # type: ignore[misc]
    """This process's micro-batches of every step, as many as any other process has.

    All processes together see the same pairs in the same step however many they are. One process
    takes them in order, `micro` at a time. Several are dealt contexts (dealing.py), so that a
    micro-batch has `micro` pairs on average. A last step with fewer pairs than processes is
    computed whole by each of them: the mean of their gradients is that of one.
    """

    def __init__(
        self, order: ContextSampler, step: int, micro: int, rank: int = 0, processes: int = 1
    ) -> None:
        self.order = order
        self.step = step
        self.micro = micro
        self.rank = rank
        self.processes = processes

    def __iter__(self) -> Iterator[list[int]]:
        for at_once in self.of_all_processes():
            yield at_once[self.rank]

    def of_all_processes(self) -> Iterator[list[list[int]]]:
        """Micro-batches that are computed at the same time: one of each process."""
        indices = list(self.order)
        for start in range(0, len(indices), self.step):
            yield from self._dealt(indices[start : start + self.step])

    def _dealt(self, pairs: list[int]) -> list[list[list[int]]]:
        """The micro-batches of a step, [rounds][processes]."""
        if self.processes == 1:
            return [[pairs[i : i + self.micro]] for i in range(0, len(pairs), self.micro)]
        if len(pairs) < self.processes:
            return [[pairs] * self.processes]
        rounds = self._rounds(len(pairs))
        hands = deal(pairs, self.order.costs, rounds * self.processes)
        dealt = []
        for number in range(rounds):
            at_once = hands[number * self.processes : (number + 1) * self.processes]
            if number % 2:
                at_once.reverse()  # else the last process had the dearest one of every round
            dealt.append(at_once)
        return dealt

    def _rounds(self, pairs: int) -> int:
        """Micro-batches that each process has in a step of so many pairs."""
        share = max(1, pairs // self.processes)
        return math.ceil(share / self.micro)

    def __len__(self) -> int:
        full, rest = divmod(len(self.order), self.step)
        last = self._rounds(rest) if rest else 0
        return full * self._rounds(self.step) + last


def sequences(pair: TokenPair) -> tuple[bytes, bytes]:
    """What a pass computes of a pair: the prompt with the chosen and with the rejected reply."""
    prompt = as_bytes(pair.prompt_ids)
    return prompt + as_bytes(pair.chosen_ids), prompt + as_bytes(pair.rejected_ids)


def collator(pad_token_id: int) -> Callable[[Sequence[dict[str, Any]]], dict[str, torch.Tensor]]:
    """TRL's DataCollatorForPreference for pairs that carry a beta, in a fifth of its time.

    A batch of B pairs has int64 [2 B, L] `input_ids`, `attention_mask` and `completion_mask`,
    chosen rows first and padded on the right, and [B] `beta` and, where the pairs have them,
    `ref_chosen_logps` and `ref_rejected_logps`.
    """

    def collate(examples: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        prompts = [example["prompt_ids"] for example in examples]
        chosen = [example["chosen_ids"] for example in examples]
        rejected = [example["rejected_ids"] for example in examples]
        batch = laid_out(prompts + prompts, chosen + rejected, pad_token_id)
        for name in CARRIED:
            if name in examples[0]:
                batch[name] = torch.tensor([example[name] for example in examples])
        return batch

    return collate


def laid_out(
    prompts: Sequence[list[int]], replies: Sequence[list[int]], pad_token_id: int
) -> dict[str, torch.Tensor]:
    """Each prompt with its reply, padded on the right, and both masks; int64, all of one shape."""
    rows = [prompt + reply for prompt, reply in zip(prompts, replies, strict=True)]
    lengths = np.array([len(row) for row in rows])[:, None]
    starts = np.array([len(prompt) for prompt in prompts])[:, None]
    columns = np.arange(lengths.max())
    real = columns < lengths
    ids = np.full(real.shape, pad_token_id)
    ids[real] = np.fromiter(chain.from_iterable(rows), np.int64, lengths.sum())
    completion = real & (columns >= starts)
    return {
        "input_ids": torch.from_numpy(ids),
        "attention_mask": torch.from_numpy(real.astype(np.int64)),
        "completion_mask": torch.from_numpy(completion.astype(np.int64)),
    }
