"""DPO with TRL: the trainer, and the run that a recipe describes.

TRL's loss code is untouched. PairTrainer sets what is around it: which pairs meet in a step, their equal weight, beta.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import send_to_device
from datasets import Dataset
from peft import LoraConfig
from torch.utils.data import DataLoader, Sampler
from transformers import BitsAndBytesConfig, PreTrainedTokenizerBase
from trl import DPOConfig, DPOTrainer

from .batching import ContextSampler
from .prefix_sharing import PrefixSharing, share_prefixes
from .recipe import Recipe
from .tokens import TokenPair

ANSWER_TYPES = ("span", "multi-span", "arithmetic", "count")


class TrainError(Exception):
    """Training cannot go on; the message is one line."""


class StepBatches(Sampler[list[int]]):
    """This process's micro-batches: every step's pairs in `order`, an equal share for each process, split by `micro`.

    All processes together see the same pairs in the same step however many they are.
    """

    def __init__(self, order: Sampler[int], step: int, micro: int, rank: int = 0, processes: int = 1) -> None:
        self.order, self.step, self.micro, self.rank, self.processes = order, step, micro, rank, processes

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch."""
        self.order.set_epoch(epoch)  # type: ignore[attr-defined]

    def __iter__(self) -> Iterator[list[int]]:
        indices = list(self.order)
        for start in range(0, len(indices), self.step):
            pairs = indices[start : start + self.step]
            share = len(pairs) // self.processes
            mine = pairs[self.rank * share : (self.rank + 1) * share]
            yield from (mine[i : i + self.micro] for i in range(0, len(mine), self.micro))

    def __len__(self) -> int:
        full, rest = divmod(len(self.order), self.step)  # type: ignore[arg-type]
        return sum(math.ceil(n // self.processes / self.micro) for n in [self.step] * full + [rest])


class PairTrainer(DPOTrainer):
    """TRL's DPOTrainer on ready token ids, with whole optimizer steps of equally weighted pairs."""

    loss_is_scaled_for_ga = True
    sharing: PrefixSharing | None = None

    def __init__(self, recipe: Recipe, order: Sampler[int], **kwargs: Any) -> None:
        self.recipe, self.order = recipe, order
        super().__init__(**kwargs)
        self._keep_lora_trainable()

    def _keep_lora_trainable(self) -> None:
        """fp32 for what is trained (in bf16 small steps round to nothing), and the dropout that TRL switched off."""
        for parameter in self.model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        for name, module in self.model.named_modules():
            if "lora_dropout" in name and isinstance(module, torch.nn.Dropout):
                module.p = self.recipe.lora_dropout

    def _prepare_dataset(self, dataset: Dataset, *args: Any) -> Dataset:
        return dataset

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        return send_to_device(inputs, self.args.device)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """train.card writes the card, once, at the end."""

    def get_train_dataloader(self) -> DataLoader:
        """Micro-batches of this process; nothing is repeated to fill up a batch."""
        batches = StepBatches(
            self.order, self.recipe.effective_batch_size, self.args.per_device_train_batch_size,
            self.args.process_index, self.args.world_size,
        )  # fmt: skip
        generator = torch.Generator().manual_seed(self.args.seed)
        return DataLoader(
            self.train_dataset, batch_sampler=batches, collate_fn=self.data_collator, generator=generator
        )

    def get_batch_samples(self, epoch_iterator: Iterator, num_batches: int, device: torch.device) -> tuple[list, Any]:
        """The micro-batches of one step and how many pairs they hold on this process."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        return batches, sum(len(batch["input_ids"]) // 2 for batch in batches)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """TRL's mean over a micro-batch, times the micro-batch's share of the step's pairs."""
        share = len(inputs["input_ids"]) // 2 / num_items_in_batch
        loss = super().compute_loss(model, inputs, return_outputs) * share
        if not torch.isfinite(loss):
            raise TrainError(f"loss is {loss.item()} at step {self.state.global_step + 1}; lower learning_rate or beta")
        return loss


def make_trainer(
    recipe: Recipe, rows: Sequence[TokenPair], tokenizer: PreTrainedTokenizerBase, out: Path, micro: int
) -> PairTrainer:
    """The trainer that a recipe describes, on ready token ids."""
    cuda = torch.cuda.is_available()
    dtype = ("bfloat16" if cuda else "float32") if recipe.dtype == "auto" else recipe.dtype
    columns = ("prompt_ids", "chosen_ids", "rejected_ids")
    dataset = Dataset.from_list([{key: getattr(row, key) for key in columns} for row in rows])
    trainer = PairTrainer(
        recipe,
        pair_order(recipe, rows),
        model=recipe.model_name_or_path,
        args=config(recipe, out, micro, dtype),
        train_dataset=dataset,
        processing_class=tokenizer,
        quantization_config=nf4(dtype) if recipe.load_in_4bit else None,
        peft_config=LoraConfig(
            r=recipe.lora_r,
            lora_alpha=recipe.lora_alpha,
            lora_dropout=recipe.lora_dropout,
            target_modules=list(recipe.lora_target_modules),
            task_type="CAUSAL_LM",
        ),
    )
    if recipe.share_prefixes:
        trainer.sharing = share_prefixes(trainer.model)
        trainer.data_collator = trainer.sharing.collate(trainer.data_collator)
    return trainer


def pair_order(recipe: Recipe, rows: Sequence[TokenPair]) -> ContextSampler:
    """Pairs of a context together, or (order: random) every pair as a context of its own."""
    contexts = [row.pair.context_uid if recipe.order == "context" else i for i, row in enumerate(rows)]
    return ContextSampler(contexts, [len(row.prompt_ids) for row in rows], recipe.effective_batch_size, recipe.seed)


def config(recipe: Recipe, out: Path, micro: int, dtype: str) -> DPOConfig:
    """TRL's configuration for a recipe with micro-batches of `micro` pairs."""
    cuda = torch.cuda.is_available()
    return DPOConfig(
        output_dir=str(out),
        loss_type=recipe.loss_type,
        loss_weights=recipe.loss_weights,
        beta=recipe.beta,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type=recipe.lr_scheduler_type,
        warmup_steps=recipe.warmup_ratio,
        num_train_epochs=recipe.num_train_epochs,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=recipe.effective_batch_size // micro,
        gradient_checkpointing=recipe.memory == "small",
        max_length=None,
        seed=recipe.seed,
        bf16=dtype == "bfloat16",
        use_cpu=not cuda,
        model_init_kwargs={"dtype": dtype},
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_steps=recipe.save_steps,
        save_total_limit=2,
        report_to=recipe.report_to,
        dataloader_pin_memory=cuda,
    )


def nf4(dtype: str) -> BitsAndBytesConfig:
    """QLoRA's 4-bit NormalFloat with double quantisation (Dettmers et al. 2023)."""
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, dtype),
    )  # fmt: skip


def train(trainer: PairTrainer, out: Path) -> dict[str, Any]:
    """Train and save the adapter into `out`; returns the measured part of train.json."""
    started = time.monotonic()
    trainer.train()
    seconds = time.monotonic() - started
    trainer.save_model(str(out))
    pairs = len(trainer.train_dataset) * trainer.recipe.num_train_epochs
    cuda, sharing = torch.cuda.is_available(), trainer.sharing
    return {
        "tokens": {k: getattr(sharing, k) for k in ("presented", "real", "computed")} if sharing else None,
        "history": [entry for entry in trainer.state.log_history if "loss" in entry],
        "seconds": seconds,
        "pairs_per_second": pairs / seconds,
        "peak_memory_bytes": torch.cuda.max_memory_allocated() if cuda else None,
    }
