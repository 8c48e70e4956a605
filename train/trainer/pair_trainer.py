"""DPO with TRL, as a recipe describes it.

TRL's loss code is untouched. PairTrainer sets what is around it: which pairs meet in a step, their equal weight, beta.
"""

import math
import signal
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from datasets import Dataset
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.utils.data import DataLoader, Sampler
from transformers import BitsAndBytesConfig, PrinterCallback
from trl import DPOConfig, DPOTrainer

from train.pairs.tokens import TokenPair
from train.recipe import Recipe
from train.sharing.prefix_sharing import Packed, PrefixSharing, share_prefixes
from train.trainer.adapter import InitAdapter, is_target, lora, start_from
from train.trainer.batches import ContextSampler, collator


class TrainError(Exception):
    """Training cannot go on; the message is one line."""


class StepBatches(Sampler[list[int]]):
    """This process's micro-batches: every step's pairs in `order`, an equal share for each process, `micro` at a time.

    All processes together see the same pairs in the same step however many they are. What the last step holds beyond
    equal shares, fewer pairs than there are processes, is left out.
    """

    def __init__(
        self, order: ContextSampler, step: int, micro: int, rank: int = 0, processes: int = 1
    ) -> None:
        self.order, self.step, self.micro, self.rank, self.processes = (
            order,
            step,
            micro,
            rank,
            processes,
        )

    def __iter__(self) -> Iterator[list[int]]:
        indices = list(self.order)
        for pairs in (
            indices[start : start + self.step] for start in range(0, len(indices), self.step)
        ):
            share = len(pairs) // self.processes
            mine = pairs[self.rank * share : (self.rank + 1) * share]
            yield from (mine[i : i + self.micro] for i in range(0, share, self.micro))

    def __len__(self) -> int:
        full, rest = divmod(len(self.order), self.step)
        return sum(
            math.ceil(pairs // self.processes / self.micro) for pairs in [self.step] * full + [rest]
        )


def beta_factor(recipe: Recipe, step: int, steps: int) -> float:
    """beta at `step` of `steps`, counted from 0, as a multiple of its value at the start."""
    if recipe.beta_end is None:
        return 1.0
    if recipe.beta_schedule_unit == "epoch":
        step, steps = step * recipe.num_train_epochs // steps, recipe.num_train_epochs
    done = step / max(1, steps - 1)
    course = done if recipe.beta_schedule == "linear" else (1 - math.cos(math.pi * done)) / 2
    return 1 + (recipe.beta_end / recipe.beta - 1) * course


UNTOLD = ("num_tokens",)  # of trimmed batches; see PairTrainer.tokens
PREFERENCE_METRICS = (  # nothing of these is known where only chosen replies are trained
    "rewards/chosen",
    "rewards/rejected",
    "rewards/accuracies",
    "rewards/margins",
    "logps/rejected",
    "logits/rejected",
)


@dataclass(frozen=True)
class StepTotals:
    """Sums over all pairs of one optimizer step, on all processes, known before it is computed.

    chosen_tokens: of all chosen replies. chosen_start, rejected_start: sums of log-probabilities
    under the reference, which is the model as training started; None where none is computed.
    """

    pairs: float = 0.0
    chosen_tokens: float = 0.0
    chosen_start: float | None = None
    rejected_start: float | None = None

    @classmethod
    def of(cls, batches: Sequence[dict[str, Any]], accelerator: Any) -> "StepTotals":
        """The totals of the micro-batches of all processes."""
        sums = torch.zeros(4, dtype=torch.float64)
        for batch in batches:
            pairs = len(batch["beta"])
            sums[0] += pairs
            sums[1] += batch["completion_mask"][:pairs].sum()
            if "ref_chosen_logps" in batch:
                sums[2] += batch["ref_chosen_logps"].double().sum()
                sums[3] += batch["ref_rejected_logps"].double().sum()
        if accelerator.num_processes > 1:
            sums = accelerator.reduce(sums.to(accelerator.device), "sum")
        pairs, tokens, chosen, rejected = sums.tolist()
        if not batches or "ref_chosen_logps" not in batches[0]:
            return cls(pairs, tokens)
        return cls(pairs, tokens, chosen, rejected)

    def logps_at_start(self) -> dict[str, float]:
        """Mean log-probability of the step's chosen and rejected replies as training started."""
        if self.chosen_start is None or self.rejected_start is None:
            return {}
        return {
            "logps/chosen_start": self.chosen_start / self.pairs,
            "logps/rejected_start": self.rejected_start / self.pairs,
        }


class PairTrainer(DPOTrainer):
    """TRL's DPOTrainer on ready token ids: whole optimizer steps of equally weighted pairs, and beta pair by pair."""

    loss_is_scaled_for_ga = True  # compute_loss does it
    sharing: PrefixSharing | None = None

    def __init__(self, recipe: Recipe, order: ContextSampler, **kwargs: Any) -> None:
        self.recipe, self.order = recipe, order
        self.tokens: Counter[str] = (
            Counter()
        )  # of this process: padded, without padding, run through the backbone
        self.step_totals = StepTotals()
        super().__init__(**kwargs)
        self.weights_of_losses: list[float] = list(
            self.args.loss_weights or [1.0] * len(self.loss_types)
        )
        refuse_missing_targets(recipe, self.model)
        if self.is_fsdp_enabled:
            self.accelerator.state.fsdp_plugin.mixed_precision_policy = fsdp_policy(self.args.bf16)
        self.data_collator: Any = collator(self.data_collator.pad_token_id)
        for parameter in self.model.parameters():
            if parameter.requires_grad:
                # in bf16, as TRL leaves it on a 4-bit base, small steps round to nothing
                parameter.data = parameter.data.float()
        switch_off_functional_dropout(self.model)
        set_lora_dropout(self.model, recipe.lora_dropout)

    @property
    def seconds_of_recording(self) -> float:
        """Seconds so far in which packed lengths met for the first time compiled and recorded."""
        return self.sharing.seconds_of_recording if self.sharing else 0.0

    def _prepare_dataset(self, dataset: Dataset, *args: Any) -> Dataset:
        return dataset

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Not with every checkpoint: train.record writes the card."""

    def get_train_dataloader(self) -> DataLoader:
        """Micro-batches of this process; nothing is repeated to fill up a batch."""
        args, step = self.args, self.recipe.effective_batch_size
        batches = StepBatches(
            self.order, step, args.per_device_train_batch_size, args.process_index, args.world_size
        )
        return self.loader(batches)

    def loader(self, batches: Iterable[list[int]]) -> DataLoader:
        """The given batches of pairs; on a GPU two workers collate ahead of it."""
        workers: dict[str, Any] = {
            "num_workers": 2,
            "prefetch_factor": 4,
            "worker_init_fn": undisturbed,
        }
        return DataLoader(
            self.train_dataset,
            batch_sampler=batches,
            collate_fn=self.data_collator,
            generator=torch.Generator().manual_seed(
                self.args.seed
            ),  # not the global one: resume is to the bit
            pin_memory=self.args.dataloader_pin_memory,
            **(workers if torch.cuda.is_available() else {}),
        )

    def _prepare_input(self, data: Any) -> Any:
        """Copy to the device without waiting for it, which the loader's pinned memory allows."""
        if isinstance(data, torch.Tensor):
            return data.to(self.args.device, non_blocking=True)
        return super()._prepare_input(data)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """TRL's log of a step, with the start's log-probabilities of the same pairs beside it.

        A loss or gradient that is no number ends the run before anything of it is saved.
        """
        for name in ("loss", "grad_norm"):
            if not math.isfinite(logs.get(name, 0.0)):
                raise TrainError(
                    f"{name} is {logs[name]} at step {self.state.global_step}; "
                    "lower the learning_rate"
                )
        if "loss" in logs:
            logs.update(self.step_totals.logps_at_start())
        super().log(logs, start_time)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Trainer's, for a checkpoint or the end; weights that are no numbers are not saved."""
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad and not torch.isfinite(parameter).all():
                raise TrainError(
                    f"{name} is no number after step {self.state.global_step}; "
                    "lower the learning_rate"
                )
        super().save_model(output_dir, _internal_call)

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list, Any]:
        """The micro-batches of one step, and how many pairs they hold on this process."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        self.step_totals = StepTotals.of(batches, self.accelerator)
        return batches, sum(len(batch["beta"]) for batch in batches)

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """TRL's mean over a micro-batch, times the micro-batch's share of the step's pairs.

        Its metrics are weighed likewise. The supervised term alone is a mean over tokens, of all
        chosen replies of the step on all processes, so its weight is the share of the tokens.
        """
        factor = beta_factor(self.recipe, self.state.global_step, self.state.max_steps)
        beta = inputs.pop("beta")
        self._count_tokens(inputs)
        self.beta = beta * factor
        share = len(beta) / num_items_in_batch
        tokens = inputs["completion_mask"][: len(beta)].sum()
        token_share = tokens / self.step_totals.chosen_tokens * self.args.world_size
        self.loss_weights: list[Any] = [
            weight * token_share / share if name == "sft" else weight
            for name, weight in zip(self.loss_types, self.weights_of_losses, strict=True)
        ]
        if not self.recipe.needs_reference:
            inputs["ref_chosen_logps"] = inputs["ref_rejected_logps"] = torch.zeros_like(beta)
        loss = super().compute_loss(model, inputs, return_outputs) * share
        metrics = self._metrics["train"]
        metrics["beta"].append(self.recipe.beta * factor)
        for answer_type, value in self.recipe.beta_by_type.items():
            metrics[f"beta/{answer_type}"].append(value * factor)
        left_out = UNTOLD if self.recipe.needs_reference else (*UNTOLD, *PREFERENCE_METRICS)
        for unknown in left_out:
            metrics.pop(unknown, None)
        for name in metrics:  # TRL logs their plain mean over the step's micro-batches
            metrics[name][-1] *= share * self.current_gradient_accumulation_steps
        return loss

    def _count_tokens(self, inputs: dict[str, Any]) -> None:
        """Add a micro-batch to this process's tokens: with padding, without, and computed."""
        mask, packed = inputs["attention_mask"], inputs.get("packed")
        if packed:
            presented, real = Packed(*packed).sizes
            computed = packed[0].numel()
        else:
            presented, real, computed = mask.numel(), mask.sum(), mask.numel()
        self.tokens.update(presented=presented, real=real, computed=computed)


def refuse_missing_targets(recipe: Recipe, model: torch.nn.Module) -> None:
    """Raise ValueError for a target that no layer is named after; PEFT is content if any is."""
    if isinstance(recipe.lora_target_modules, str):
        return
    names = [name for name, _ in model.named_modules()]
    missing = [
        target
        for target in recipe.lora_target_modules
        if not any(is_target(name, target) for name in names)
    ]
    if missing:
        raise ValueError(
            f"lora_target_modules: the base model has no layer named {', '.join(missing)}"
        )


def switch_off_functional_dropout(model: torch.nn.Module) -> None:
    """Set every dropout rate that a module keeps as a number, such as attention_dropout, to zero.

    TRL's disable_dropout means all dropout of the base model, but reaches only Dropout modules.
    """
    for module in model.modules():
        for name, value in list(vars(module).items()):
            if "drop" in name and isinstance(value, float):
                setattr(module, name, 0.0)


def set_lora_dropout(model: torch.nn.Module, rate: float) -> None:
    """Give the adapter's own dropout its rate, which TRL switches off with the base model's."""
    for name, module in model.named_modules():
        if "lora_dropout" in name and isinstance(module, torch.nn.Dropout):
            module.p = rate


def undisturbed(worker: int) -> None:
    """Leave SIGTERM and Ctrl-C, which reach every process of a job, to the trainer: it goes on to its checkpoint."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def fsdp_policy(bf16: bool) -> MixedPrecisionPolicy:
    """Compute in bf16, but leave what the model returns and sums of gradients in fp32.

    accelerate's own policy rounds log-probabilities to bf16 too: -241.5 becomes -242, and margins become noise.
    """
    return MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if bf16 else None, reduce_dtype=torch.float32
    )


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
    if init:
        start_from(trainer.model, init)
    cuda = torch.cuda.is_available()
    if cuda and recipe.load_in_4bit and recipe.memory == "fast":
        keep_dequantized(trainer.model)
    if recipe.share_prefixes:
        sharded = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled
        trainer.sharing = share_prefixes(
            trainer.model,
            compile_layers=cuda,
            recompute=recipe.memory == "small",
            graphs=cuda and not sharded,
        )
        trainer.data_collator = trainer.sharing.collate(trainer.data_collator)
    trainer.remove_callback(PrinterCallback)
    return trainer


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


def keep_dequantized(model: torch.nn.Module) -> None:
    """Put each 4-bit linear layer's dequantized weight in its place: the same numbers, without unpacking every pass.

    It costs 2 bytes a weight instead of half a byte: 2.6 GiB for 1.7 B parameters.
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


def pair_order(recipe: Recipe, rows: Sequence[TokenPair]) -> ContextSampler:
    """Pairs of a context together, or (order: random) every pair as a context of its own."""
    contexts = [
        row.pair.context_uid if recipe.order == "context" else i for i, row in enumerate(rows)
    ]
    return ContextSampler(
        contexts, [len(row.prompt_ids) for row in rows], recipe.effective_batch_size, recipe.seed
    )


def compute_dtype(recipe: Recipe) -> str:
    """Of base weights and compute."""
    return (
        ("bfloat16" if torch.cuda.is_available() else "float32")
        if recipe.dtype == "auto"
        else recipe.dtype
    )


def config(recipe: Recipe, out: Path, micro: int, processes: int) -> DPOConfig:
    """TRL's configuration for a recipe with micro-batches of `micro` pairs on each of the processes."""
    cuda, dtype = torch.cuda.is_available(), compute_dtype(recipe)
    schedule = recipe.lr_scheduler_type
    return DPOConfig(
        output_dir=str(out),
        model_init_kwargs={
            "dtype": dtype,
            "device_map": {"": 0} if cuda and processes == 1 else None,
        },
        loss_type=recipe.loss_type,
        loss_weights=recipe.loss_weights,
        beta=recipe.beta,
        label_smoothing=recipe.label_smoothing,
        max_grad_norm=recipe.max_grad_norm,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="constant_with_warmup" if schedule == "constant" else schedule,
        warmup_steps=recipe.warmup_ratio,
        num_train_epochs=recipe.num_train_epochs,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=recipe.effective_batch_size // (micro * processes),
        activation_checkpointing=recipe.memory == "small" and not (cuda and recipe.share_prefixes),
        max_length=None,
        seed=recipe.seed,
        bf16=dtype == "bfloat16",
        use_cpu=not cuda,
        dataloader_pin_memory=cuda,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_steps=recipe.save_steps,
        save_total_limit=2,
        report_to=recipe.report_to,
        disable_tqdm=True,
        ddp_find_unused_parameters=False,
    )


def nf4(dtype: str) -> BitsAndBytesConfig:
    """QLoRA's 4-bit NormalFloat with double quantisation (Dettmers et al. 2023); FSDP can shard this storage."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        bnb_4bit_quant_storage=dtype,
    )
