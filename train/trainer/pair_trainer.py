"""DPO with TRL, as a recipe describes it.

TRL's loss code is untouched. PairTrainer sets what is around it: which pairs meet in a step, their equal weight, beta.
"""

import math
import signal
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from datasets import Dataset
from peft import LoraConfig
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.utils.data import DataLoader, Sampler
from transformers import BitsAndBytesConfig, PrinterCallback
from trl import DPOConfig, DPOTrainer

from train.pairs.tokens import TokenPair
from train.recipe import Recipe
from train.sharing.prefix_sharing import Packed, PrefixSharing, share_prefixes
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


class PairTrainer(DPOTrainer):
    """TRL's DPOTrainer on ready token ids: whole optimizer steps of equally weighted pairs, and beta pair by pair."""

    loss_is_scaled_for_ga = True  # compute_loss does it
    sharing: PrefixSharing | None = None

    def __init__(self, recipe: Recipe, order: ContextSampler, **kwargs: Any) -> None:
        self.recipe, self.order = recipe, order
        self.tokens: Counter[str] = (
            Counter()
        )  # of this process: padded, without padding, run through the backbone
        super().__init__(**kwargs)
        missing = set(recipe.lora_target_modules) - {
            name.rpartition(".")[2] for name, _ in self.model.named_modules()
        }
        if missing:  # PEFT is content if any is found
            raise ValueError(
                f"lora_target_modules: the base model has no layer named {', '.join(missing)}"
            )
        if self.is_fsdp_enabled:
            self.accelerator.state.fsdp_plugin.mixed_precision_policy = fsdp_policy(self.args.bf16)
        self.data_collator: Any = collator(self.data_collator.pad_token_id)
        for parameter in self.model.parameters():
            if (
                parameter.requires_grad
            ):  # in bf16, as TRL leaves it on a 4-bit base, small steps round to nothing
                parameter.data = parameter.data.float()
        for name, module in self.model.named_modules():
            if "lora_dropout" in name and isinstance(module, torch.nn.Dropout):
                module.p = (
                    recipe.lora_dropout
                )  # TRL switches all dropout off, in the base model rightly so

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
        """TRL's log of a step; a loss that is no number ends the run before anything of it is saved."""
        if not math.isfinite(logs.get("loss", 0.0)):
            raise TrainError(
                f"loss is {logs['loss']} at step {self.state.global_step}; lower the learning_rate"
            )
        super().log(logs, start_time)

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list, Any]:
        """The micro-batches of one step, and how many pairs they hold on this process."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        return batches, sum(len(batch["beta"]) for batch in batches)

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """TRL's mean over a micro-batch, times the micro-batch's share of the step's pairs; its metrics likewise."""
        factor, beta = (
            beta_factor(self.recipe, self.state.global_step, self.state.max_steps),
            inputs.pop("beta"),
        )
        mask, packed = inputs["attention_mask"], inputs.get("packed")
        presented, real = Packed(*packed).sizes if packed else (mask.numel(), mask.sum())
        self.tokens.update(
            presented=presented, real=real, computed=packed[0].numel() if packed else mask.numel()
        )
        self.beta = beta * factor
        share = len(beta) / num_items_in_batch
        loss = super().compute_loss(model, inputs, return_outputs) * share
        metrics = self._metrics["train"]
        metrics["beta"].append(self.recipe.beta * factor)
        for name, value in self.recipe.beta_by_type.items():
            metrics[f"beta/{name}"].append(value * factor)
        metrics.pop("num_tokens")  # of trimmed batches; see self.tokens
        for name in metrics:  # TRL logs their plain mean over the step's micro-batches
            metrics[name][-1] *= share * self.current_gradient_accumulation_steps
        return loss


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
    recipe: Recipe, rows: Sequence[TokenPair], tokenizer: Any, args: DPOConfig
) -> PairTrainer:
    """The trainer that a recipe describes, on ready token ids."""
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


def dataset(recipe: Recipe, rows: Sequence[TokenPair]) -> Dataset:
    """A row for each pair: its token ids, and the beta that the recipe gives it."""
    columns: dict[str, list[Any]] = {
        name: [getattr(row, name) for row in rows]
        for name in ("prompt_ids", "chosen_ids", "rejected_ids")
    }
    by_type = {str(name): beta for name, beta in recipe.beta_by_type.items()}
    columns["beta"] = [by_type.get(row.pair.answer_type, recipe.beta) for row in rows]
    return Dataset.from_dict(columns)


def lora(recipe: Recipe) -> LoraConfig:
    """The adapter that a recipe describes."""
    return LoraConfig(
        r=recipe.lora_r,
        lora_alpha=recipe.lora_alpha,
        lora_dropout=recipe.lora_dropout,
        target_modules=list(recipe.lora_target_modules),
        task_type="CAUSAL_LM",
    )


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
