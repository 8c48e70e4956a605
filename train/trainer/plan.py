"""What a run will take: micro-batch, steps, tokens, memory. `--dry-run` shows it."""

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import torch
import yaml
from transformers import AutoConfig, AutoModelForCausalLM

from train.base import is_target
from train.pairs.pair import Counts
from train.pairs.tokens import TokenPair
from train.recipe import Recipe, RecipeError, one_line
from train.sharing.lengths import distinct_tokens
from train.trainer.assemble import computed_rows, pair_order
from train.trainer.batches import StepBatches, sequences
from train.trainer.config import compute_dtype

RECORDED = 1.5  # recorded CUDA graphs hold memory beside the passes they were recorded from
USABLE = 0.85  # share of the free memory that the estimate may fill
DENSE_MASK = 8  # bytes for each pair of tokens, where FlexAttention cannot be had
NF4 = 0.52  # bytes of a 4-bit weight, with its block's scale
TRAINED = 16  # bytes of a trained parameter: itself, its gradient and Adam's two moments in fp32
HIDDEN_KEPT, WIDE_KEPT = 18, 4  # vectors a token that a layer keeps for its backward pass
HEAD = "lm_head"
CPU_MICRO = 8  # pairs; more only makes the dense attention mask larger


def processes() -> int:
    """How many processes train together, as accelerate launch and torchrun say."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def micro_batch(recipe: Recipe, rows: Sequence[TokenPair]) -> int:
    """Pairs per forward pass: the largest divisor of a process's share that memory should hold."""
    share, rest = divmod(recipe.effective_batch_size, processes())
    if rest or not share:
        batch = f"effective_batch_size {recipe.effective_batch_size}"
        raise RecipeError(
            f"{batch} does not divide into {processes()} processes; start as many as divide it"
        )
    model = empty_model(recipe)
    if not torch.cuda.is_available():
        return micro_batch_on_cpu(recipe, model, rows, share)
    free, _ = torch.cuda.mem_get_info()
    for micro in divisors(share):
        if memory(recipe, model, rows, micro) <= USABLE * free:
            return micro
    return 1


def micro_batch_on_cpu(recipe: Recipe, model: Any, rows: Sequence[TokenPair], share: int) -> int:
    """The same for the machine's memory, whatever else that holds now; at most CPU_MICRO.

    Raises RecipeError where a pair alone is too much: the system would end the run without a word.
    """
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for micro in divisors(share):
        if micro > CPU_MICRO:
            continue
        needed = memory(recipe, model, rows, micro)
        if needed <= total:
            return micro
    raise RecipeError(
        f"memory: about {needed / 2**30:.0f} GiB are needed for a pair of {longest(rows):,} "
        f"tokens, the machine has {total / 2**30:.0f}; set max_length"
    )


def longest(rows: Sequence[TokenPair]) -> int:
    """Tokens of the longest pair, its prompt with its longer reply."""
    return max(row.length for row in rows)


def divisors(share: int) -> list[int]:
    """All micro-batches that a process's share of a step can be cut into, largest first."""
    return [n for n in range(share, 0, -1) if share % n == 0]


def smaller(recipe: Recipe, micro: int) -> int | None:
    """The next smaller micro-batch, for when `micro` pairs turned out too many; None below 1."""
    for size in divisors(recipe.effective_batch_size // processes()):
        if size < micro:
            return size
    return None


def memory(recipe: Recipe, model: Any, rows: Sequence[TokenPair], micro: int) -> float:
    """Estimated peak bytes of one process: weights, trained parameters, activations.

    model: the base as `empty_model` makes it.
    """
    most_tokens = 0
    for batch in micro_batches(recipe, computed_rows(recipe, rows), micro):
        most_tokens = max(most_tokens, computed_tokens(batch, recipe.share_prefixes))
    shape = model.config.get_text_config()
    return parameter_bytes(recipe, model) + activation_bytes(recipe, shape, most_tokens)


def empty_model(recipe: Recipe) -> Any:
    """The base without its weights. Raises RecipeError where its config makes none."""
    shape = AutoConfig.from_pretrained(recipe.model_name_or_path).get_text_config()
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(shape)
    except Exception as error:  # a damaged config.json
        problem = f"no model can be made of its config: {type(error).__name__}: {one_line(error)}"
        raise RecipeError(f"model_name_or_path: {problem}") from None


def parameter_bytes(recipe: Recipe, model: torch.nn.Module) -> float:
    """Bytes of the base's weights, and of the adapter with its gradient and Adam's moments."""
    linear: dict[str, torch.nn.Linear] = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            linear[name] = module
    trained: int = 0
    for name in adapted(recipe, linear):
        trained += recipe.lora_r * (linear[name].in_features + linear[name].out_features)
    packed: int = 0
    if recipe.load_in_4bit and recipe.memory == "small":  # fast keeps them dequantized
        for name, layer in linear.items():
            if HEAD not in name:
                packed += layer.weight.numel()
    whole: int = sum(parameter.numel() for parameter in model.parameters()) - packed
    return value_bytes(recipe) * whole + NF4 * packed + TRAINED * trained


def activation_bytes(recipe: Recipe, shape: Any, tokens: int) -> float:
    """Bytes that a pass over so many tokens keeps, counting what a Llama-like layer does.

    shape: the base's text config. Models that do not name their feed-forward width have 4 times the
    hidden one.
    """
    hidden = value_bytes(recipe) * shape.hidden_size
    width = getattr(shape, "intermediate_size", None) or 4 * shape.hidden_size
    wide = value_bytes(recipe) * (max(width) if isinstance(width, Sequence) else width)
    layer = HIDDEN_KEPT * hidden + WIDE_KEPT * wide
    kept = hidden if recipe.memory == "small" else layer
    activations: float = tokens * (shape.num_hidden_layers * kept + layer)
    if not torch.cuda.is_available():
        return activations + (DENSE_MASK * tokens**2 if recipe.share_prefixes else 0)
    recorded = recipe.share_prefixes and recipe.memory == "fast"
    return activations * (RECORDED if recorded else 1)


def value_bytes(recipe: Recipe) -> int:
    """Of one weight or activation."""
    return 2 if compute_dtype(recipe) == "bfloat16" else 4


def micro_batches(
    recipe: Recipe, rows: Sequence[TokenPair], micro: int
) -> Iterator[list[TokenPair]]:
    """The pairs of each forward pass of all processes in the first epoch."""
    order = pair_order(recipe, rows)
    batches = StepBatches(order, recipe.effective_batch_size, micro, 0, processes())
    for at_once in batches.of_all_processes():
        for batch in at_once:
            yield [rows[i] for i in batch]


def sharing(recipe: Recipe, rows: Sequence[TokenPair], micro: int) -> str:
    """How many tokens an epoch has, each reply with its prompt, and how many are computed."""
    whole = computed = 0
    for batch in micro_batches(recipe, computed_rows(recipe, rows), micro):
        for row in batch:
            whole += 2 * len(row.prompt_ids) + len(row.chosen_ids) + len(row.rejected_ids)
        computed += computed_tokens(batch, recipe.share_prefixes)
    return f"{whole:,} with every prompt twice, {computed:,} computed ({whole / computed:.1f} to 1)"


def adapted(recipe: Recipe, linear: Iterable[str]) -> list[str]:
    """Those of the model's linear layers, by name, that get an adapter."""
    targets = recipe.lora_target_modules
    if isinstance(targets, str):  # all-linear: PEFT leaves out the head
        return [name for name in linear if HEAD not in name]
    found = []
    for name in linear:
        if any(is_target(name, target) for target in targets):
            found.append(name)
    return found


def computed_tokens(rows: Sequence[TokenPair], share: bool) -> int:
    """Tokens that one pass over these pairs computes: distinct prefixes, or all with padding."""
    if not share:
        return 2 * len(rows) * longest(rows)
    return distinct_tokens(chain.from_iterable(map(sequences, rows)))


def describe(recipe: Recipe, rows: Sequence[TokenPair], counts: Counts, micro: int) -> str:
    """The dry run's text: resolved recipe, pairs, token lengths, steps, memory."""
    steps = -(-len(rows) // recipe.effective_batch_size) * recipe.num_train_epochs
    accumulation = recipe.effective_batch_size // (micro * processes())
    pairs = f"{micro} pairs" if processes() == 1 else f"about {micro} pairs"
    needed = memory(recipe, empty_model(recipe), rows, micro)
    lengths = sorted(row.length for row in rows)
    percentiles = []
    for p in (0, 50, 90, 99, 100):
        length = lengths[(len(lengths) - 1) * p // 100]
        percentiles.append(f"p{p} {length:,}")
    return (
        f"{yaml.safe_dump(recipe.model_dump(), sort_keys=False)}{counts.table()}\n"
        f"{len(rows):>8,}  pairs to train on\n"
        f"tokens of prompt and longer reply: {', '.join(percentiles)}\n"
        f"tokens an epoch: {sharing(recipe, rows, micro)}\n"
        f"steps: {steps:,}, each {pairs} x {accumulation} micro-batches x {processes()} "
        "processes\n"
        f"memory, estimated: {needed / 2**30:.1f} GiB a process"
    )
