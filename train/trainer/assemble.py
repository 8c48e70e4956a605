"""Put a recipe's trainer together: model, adapter, pairs, order, shared prefixes."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from datasets import Dataset
from transformers import PrinterCallback
from trl import DPOConfig

from train.pairs.tokens import TokenPair
from train.recipe import Recipe, RecipeError
from train.sharing import share_prefixes
from train.sharing.lengths import RECORDING, cheapest_lengths, distinct_tokens
from train.sharing.mask import FLEX_BLOCK
from train.sharing.preflight import preflight, tolerance
from train.trainer.adapter import InitAdapter, lora, start_from
from train.trainer.batches import ContextSampler, sequences
from train.trainer.config import compute_dtype, nf4
from train.trainer.dealing import count_costs
from train.trainer.pair_trainer import PairTrainer, set_lora_dropout

logger = logging.getLogger(__name__)
AHEAD = 16  # tokens in which a model that looks ahead shows it
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
    refuse_unknown_tokens(trainer, rows)
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


def refuse_unknown_tokens(trainer: PairTrainer, rows: Sequence[TokenPair]) -> None:
    """Raise RecipeError for token ids that the model has no embedding for."""
    largest = max(max(row.prompt_ids + row.chosen_ids + row.rejected_ids) for row in rows)
    known = trainer.model.get_input_embeddings().weight.shape[0]
    if largest >= known:
        raise RecipeError(
            f"model_name_or_path: the tokenizer gives token {largest}, the model knows {known}: "
            "they do not belong together"
        )


def refuse_beyond_positions(model: Any, rows: Sequence[TokenPair]) -> None:
    """Raise RecipeError for pairs longer than a learned table of positions, such as GPT-2's."""
    tables = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Embedding) and ("wpe" in name or "position" in name)
    ]
    longest = max(row.length for row in rows)
    known = model.config.get_text_config().max_position_embeddings if tables else longest
    if longest > known:
        raise RecipeError(
            f"max_length: the longest pair has {longest:,} tokens, the model has {known:,} "
            f"positions; set it to {known}"
        )


def refuse_looking_ahead(trainer: PairTrainer, row: TokenPair) -> None:
    """Raise RecipeError for a model whose predictions depend on later tokens, such as an encoder.

    One that shares prefixes is asked more by the pre-flight.
    """
    start = (row.prompt_ids + row.chosen_ids)[:AHEAD]
    other = [*start[:-1], start[0]]
    ids = torch.tensor([start, other], device=trainer.args.device)
    trainer.model.train()
    with torch.no_grad(), trainer.compute_loss_context_manager():
        logits = trainer.model(input_ids=ids, use_cache=False).logits[:, :-1].float()
        limit, _ = tolerance(trainer.model)
    if (logits[0] - logits[1]).norm() > limit * logits[0].norm():
        raise RecipeError(
            "model_name_or_path: what it predicts depends on later tokens: it is no causal "
            "language model"
        )


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
    totals = []
    for epoch in range(looked_at):
        order.set_epoch(epoch)
        for at_once in batches.of_all_processes():
            totals.append(
                max(distinct_tokens(row for i in batch for row in of_pair[i]) for batch in at_once)
            )
    order.set_epoch(0)
    return cheapest_lengths(totals, FLEX_BLOCK, recording * looked_at / epochs)


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

    set_lora_dropout(trainer.model, 0.0)
    trainer.model.train()
    lengths = trainer.order.tokens_of_pair
    shortest = sorted(range(len(lengths)), key=lengths.__getitem__)[:8]
    examples = [trainer.train_dataset[i] for i in shortest]
    with trainer.compute_loss_context_manager():
        preflight(trainer.model, examples, trainer.data_collator, prepare)
    set_lora_dropout(trainer.model, trainer.recipe.lora_dropout)


def computed_rows(recipe: Recipe, rows: Sequence[TokenPair]) -> list[TokenPair]:
    """The pairs as they are computed: supervised training alone never looks at a rejected reply."""
    if recipe.needs_reference:
        return list(rows)
    return [replace(row, rejected_ids=[]) for row in rows]


def dataset(recipe: Recipe, rows: Sequence[TokenPair]) -> Dataset:
    """A row for each pair: its token ids, and the beta that the recipe gives it."""
    columns: dict[str, list[Any]] = {
        name: [getattr(row, name) for row in rows]
        for name in ("prompt_ids", "chosen_ids", "rejected_ids")
    }
    by_type = {str(name): beta for name, beta in recipe.beta_by_type.items()}
    columns["beta"] = [by_type.get(row.pair.answer_type, recipe.beta) for row in rows]
    return Dataset.from_dict(columns)


def pair_order(recipe: Recipe, rows: Sequence[TokenPair]) -> ContextSampler:
    """Pairs of a context together, or (order: random) every pair as a context of its own."""
    contexts = [
        row.pair.context_uid if recipe.order == "context" else i for i, row in enumerate(rows)
    ]
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
            plain = torch.nn.Linear(
                module.in_features, module.out_features, module.bias is not None, device="meta"
            )
            plain.weight, plain.bias = torch.nn.Parameter(weight, requires_grad=False), module.bias
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, plain)
