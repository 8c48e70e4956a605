"""What a run will take, before it starts: micro-batch, steps, tokens, memory. `--dry-run` shows it."""

import os
from collections.abc import Sequence
from itertools import pairwise
from os.path import commonprefix

import yaml

from train.pairs import Counts
from train.recipe import Recipe, RecipeError
from train.tokens import TokenPair

GIB = 2**30
USABLE = 0.85  # share of the free memory that the estimate may fill
CPU_MICRO = 8  # pairs; more only makes the dense attention mask larger


def processes() -> int:
    """How many processes train together, as accelerate launch and torchrun say."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def micro_batch(recipe: Recipe, rows: Sequence[TokenPair]) -> int:
    """Pairs per forward pass: the largest divisor of a process's share of a step that the memory should hold."""
    import torch

    share, rest = divmod(recipe.effective_batch_size, processes())
    if rest or not share:
        batch = f"effective_batch_size {recipe.effective_batch_size}"
        raise RecipeError(f"{batch} does not divide into {processes()} processes; start as many as divide it")
    sizes = [n for n in range(share, 0, -1) if share % n == 0]
    if not torch.cuda.is_available():
        return next(n for n in sizes if n <= CPU_MICRO)
    free = USABLE * torch.cuda.mem_get_info()[0]
    return next((n for n in sizes if memory(recipe, rows, n) <= free), 1)


def memory(recipe: Recipe, rows: Sequence[TokenPair], micro: int) -> float:
    """Estimated peak bytes of one process: weights, trained parameters with gradient and Adam's moments, activations.

    Activations are those of the micro-batch with the most tokens in the first epoch, counting what a Llama-like layer
    keeps for its backward pass (18 hidden and 4 intermediate vectors a token, uncompiled).
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from train.dpo import StepBatches, compute_dtype, pair_order

    size = 2 if compute_dtype(recipe) == "bfloat16" else 4
    shape = AutoConfig.from_pretrained(recipe.model_name_or_path).get_text_config()
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(shape)
    total = trained = 0.0
    for name, module in model.named_modules():
        own = sum(parameter.numel() for parameter in module.parameters(recurse=False))
        linear = isinstance(module, torch.nn.Linear) and "lm_head" not in name
        tied = "lm_head" in name and shape.tie_word_embeddings
        packed = linear and recipe.load_in_4bit and recipe.memory == "small"  # fast keeps them dequantized
        total += 0 if tied else own * (0.52 if packed else size)
        if name.rpartition(".")[2] in recipe.lora_target_modules:
            trained += recipe.lora_r * sum(module.weight.shape)
    batches = StepBatches(pair_order(recipe, rows), recipe.effective_batch_size, micro, 0, processes())
    tokens = max((computed_tokens([rows[i] for i in batch], recipe.share_prefixes) for batch in batches), default=0)
    layer = size * (18 * shape.hidden_size + 4 * shape.intermediate_size)
    kept = shape.num_hidden_layers * (size * shape.hidden_size if recipe.memory == "small" else layer)
    return total + 16 * trained + tokens * (kept + layer)


def computed_tokens(rows: Sequence[TokenPair], share: bool) -> int:
    """Tokens that one forward pass over these pairs computes: distinct prefixes, or all with padding."""
    if not share:
        return 2 * len(rows) * max(row.length for row in rows)
    sequences = sorted(row.prompt_ids + reply for row in rows for reply in (row.chosen_ids, row.rejected_ids))
    shared = sum(len(commonprefix([a, b])) for a, b in pairwise(sequences))
    return sum(map(len, sequences)) - shared


def describe(recipe: Recipe, rows: Sequence[TokenPair], counts: Counts, micro: int) -> str:
    """The dry run's text: resolved recipe, pairs, token lengths, steps, memory."""
    epoch_steps = -(-len(rows) // recipe.effective_batch_size)
    lengths = sorted(row.length for row in rows)
    percentiles = (f"p{p} {lengths[(len(lengths) - 1) * p // 100]:,}" for p in (0, 50, 90, 99, 100))
    accumulation = recipe.effective_batch_size // (micro * processes())
    return "\n".join(
        [
            yaml.safe_dump(recipe.model_dump(), sort_keys=False).rstrip(),
            counts.table(),
            f"{len(rows):>8,}  pairs to train on",
            "tokens of prompt and longer reply: " + ", ".join(percentiles),
            f"steps: {epoch_steps * recipe.num_train_epochs:,}, each {micro} pairs x {accumulation} micro-batches x "
            f"{processes()} processes",
            f"memory, estimated: {memory(recipe, rows, micro) / GIB:.1f} GiB a process",
        ]
    )
