"""Put a recipe's trainer together: model, adapter, pairs, order, shared prefixes."""

import logging
from collections.abc import Hashable, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from datasets import Dataset
from transformers import PrinterCallback
from trl import DPOConfig

from train.init_adapter import InitAdapter
from train.pairs.tokens import TokenPair
from train.recipe import Recipe
from train.sharing import share_prefixes
from train.sharing.lengths import RECORDING, cheapest_lengths, distinct_tokens
from train.sharing.mask import FLEX_BLOCK
from train.sharing.preflight import preflight
from train.trainer.adapter import lora, start_from
from train.trainer.batches import ContextSampler, sequences
from train.trainer.config import compute_dtype, nf4
from train.trainer.dealing import count_costs
from train.trainer.pair_trainer import PairTrainer
from train.trainer.refusals import (
    refuse_beyond_positions,
    refuse_looking_ahead,
    refuse_unknown_tokens,
)

logger = logging.getLogger(__name__)
EPOCHS = 4  # whose batches are counted before packed lengths are chosen; later ones are alike


def make_trainer(
    recipe: Recipe,
    rows: Sequence[TokenPair],
    tokenizer: Any,
    args: DPOConfig,
    init: InitAdapter | None = None,
) -> PairTrainer:
    """The trainer that a recipe describes, on ready token ids; its adapter starts as `init`."""
    rows = computed_rows(recipe, rows)
    trainer = PairTrainer(
        recipe,
        pair_order(recipe, rows),
        model=recipe.model_name_or_path,
        args=args,
        train_dataset=dataset(recipe, rows),
        processing_class=tokenizer,
        quantization_config=nf4(compute_dtype(recipe)) if recipe.load_in_4bit else None,
        peft_config=lora(recipe),
    )
    refuse_unknown_tokens(trainer.model, rows)
    refuse_beyond_positions(trainer.model, rows)
    say_what_is_left_out(trainer)
    if init:
        start_from(trainer.model, init)
    cuda = torch.cuda.is_available()
    if cuda and recipe.load_in_4bit and recipe.memory == "fast":
        keep_dequantized(trainer.model)
    if recipe.share_prefixes:
        share(trainer, packed_lengths(trainer, rows) if cuda else [])
    elif not (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled):
        refuse_looking_ahead(trainer, rows[0])
    trainer.remove_callback(PrinterCallback)
    return trainer


def say_what_is_left_out(trainer: PairTrainer) -> None:
    """A mixture of experts trains without its auxiliary loss: it counts prompts too."""
    experts = hasattr(trainer.model.config.get_text_config(), "output_router_logits")
    if experts and trainer.accelerator.is_main_process:
        logger.warning(
            "the base is a mixture of experts: its auxiliary loss, which balances their load, "
            "is left out (router_aux_loss_coef 0)"
        )


def packed_lengths(
    trainer: PairTrainer, rows: Sequence[TokenPair], recording: float = RECORDING
) -> list[int]:
    """The packed lengths that cost the batches of the first epochs least.

    They are the same on all processes, which wait for the longest batch of those at once.
    recording: what a length costs, see cheapest_lengths, in a training of all epochs.
    """
    order, batches = trainer.order, trainer.step_batches()
    epochs = trainer.recipe.num_train_epochs
    looked_at = min(epochs, EPOCHS)
    of_pair = [sequences(row) for row in rows]
    longest = []
    for epoch in range(looked_at):
        order.set_epoch(epoch)
        for at_once in batches.of_all_processes():
            totals = []
            for batch in at_once:
                both_rows = chain.from_iterable(of_pair[i] for i in batch)
                totals.append(distinct_tokens(both_rows))
            longest.append(max(totals))
    order.set_epoch(0)
    return cheapest_lengths(longest, FLEX_BLOCK, recording * looked_at / epochs)


def share(trainer: PairTrainer, lengths: Sequence[int]) -> None:
    """Have the trainer compute shared prefixes once. Raises SharingError where it cannot.

    lengths: that packed rows are rounded up to, on a GPU.
    """
    cuda = torch.cuda.is_available()
    sharded = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled
    if not sharded:
        compare_with_plain(trainer)
    trainer.sharing = share_prefixes(
        trainer.model,
        compile_layers=cuda,
        recompute=trainer.recipe.memory == "small",
        graphs=cuda and not sharded,
        lengths=lengths,
    )
    trainer.data_collator = trainer.sharing.collate(trainer.data_collator)


def compare_with_plain(trainer: PairTrainer) -> None:
    """The pre-flight: raises SharingError unless a small batch gives the same numbers both ways."""

    def prepare(batch: dict[str, Any]) -> dict[str, Any]:
        batch.pop("beta")
        return dict(trainer._prepare_inputs(batch))

    trainer.model.train()
    lengths = trainer.order.tokens_of_pair
    shortest = sorted(range(len(lengths)), key=lengths.__getitem__)[:8]
    examples = [trainer.train_dataset[i] for i in shortest]
    with trainer.compute_loss_context_manager():
        preflight(trainer.model, examples, trainer.data_collator, prepare)


def computed_rows(recipe: Recipe, rows: Sequence[TokenPair]) -> list[TokenPair]:
    """The pairs as they are computed: supervised training alone never looks at a rejected reply."""
    if recipe.needs_reference:
        return list(rows)
    return [replace(row, rejected_ids=[]) for row in rows]


def dataset(recipe: Recipe, rows: Sequence[TokenPair]) -> Dataset:
    """A row for each pair: its token ids, and the beta that the recipe gives it."""
    by_type = {str(name): beta for name, beta in recipe.beta_by_type.items()}
    return Dataset.from_dict(
        {
            "prompt_ids": [row.prompt_ids for row in rows],
            "chosen_ids": [row.chosen_ids for row in rows],
            "rejected_ids": [row.rejected_ids for row in rows],
            "beta": [by_type.get(row.pair.answer_type, recipe.beta) for row in rows],
        }
    )


def pair_order(recipe: Recipe, rows: Sequence[TokenPair]) -> ContextSampler:
    """Pairs of a context together, or (order: random) every pair as a context of its own."""
    contexts: list[Hashable] = list(range(len(rows)))
    if recipe.order == "context":
        contexts = [row.pair.context_uid for row in rows]
    return ContextSampler(
        contexts,
        [len(row.prompt_ids) for row in rows],
        recipe.effective_batch_size,
        recipe.seed,
        partial(count_costs, rows, contexts, recipe.share_prefixes),
    )


def keep_dequantized(model: torch.nn.Module) -> None:
    """Put each 4-bit linear layer's dequantized weight in its place.

    The numbers are the same, and no pass unpacks them. It costs 2 bytes a weight instead of half a
    byte: 2.6 GiB for 1.7 B parameters.
    """
    for name, module in list(model.named_modules()):
        if isinstance(module, Linear4bit):
            weight = dequantize_4bit(module.weight.data, module.weight.quant_state)
            has_bias = module.bias is not None
            plain = torch.nn.Linear(
                module.in_features, module.out_features, has_bias, device="meta"
            )
            plain.weight = torch.nn.Parameter(weight, requires_grad=False)
            plain.bias = module.bias
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, plain)
