"""DPO with TRL, as a recipe describes it.

TRL's loss code is untouched. PairTrainer sets what is around it: which pairs meet in a step, their
equal weight, beta.
"""

import contextlib
import math
import signal
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft.tuners.tuners_utils import BaseTunerLayer
from torch.utils.data import DataLoader
from trl import DPOTrainer

from train.folder import begin
from train.recipe import Recipe
from train.sharing import Packed, PrefixSharing
from train.sharing.forward import replace_attribute
from train.trainer.adapter import is_target
from train.trainer.batches import ContextSampler, StepBatches, collator
from train.trainer.config import compute_dtype, fsdp_policy


class TrainError(Exception):
    """Training cannot go on; the message is one line."""


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


class PairTrainer(DPOTrainer):  # type: ignore[misc]
    """TRL's DPOTrainer on ready token ids: equally weighted pairs, and beta pair by pair."""

    loss_is_scaled_for_ga = True  # compute_loss does it
    sharing: PrefixSharing | None = None
    first_step_is_checked = False  # set where a run starts with a reference

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
        refuse_embeddings(self.model)
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
        return self.loader(self.step_batches())

    def step_batches(self) -> StepBatches:
        """This process's share of every step."""
        args, step = self.args, self.recipe.effective_batch_size
        return StepBatches(
            self.order, step, args.per_device_train_batch_size, args.process_index, args.world_size
        )

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
                step = self.state.global_step
                remedy = "lower the learning_rate"
                if step <= 1:  # nothing has been updated yet
                    remedy = "look at beta, loss_weights and the base's weights"
                raise TrainError(f"{name} is {logs[name]} at step {step}; {remedy}")
        if "loss" in logs:
            self._average_metrics()
            logs.update(self.step_totals.logps_at_start())
        super().log(logs, start_time)
        if self.first_step_is_checked and self.state.global_step == 1:
            self.first_step_is_checked = False
            refuse_other_reference(self.recipe, logs)

    def _average_metrics(self) -> None:
        """Put the mean over processes in the place of this one's metrics of a step."""
        if self.args.world_size == 1:
            return
        metrics = self._metrics["train"]
        own = torch.tensor(list(metrics.values()), dtype=torch.float64, device=self.args.device)
        means = self.accelerator.reduce(own, "mean").tolist()
        for name, values in zip(metrics, means, strict=True):
            metrics[name] = values

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Trainer's, for a checkpoint or the end; weights that are no numbers are not saved."""
        for name, parameter in self.model.named_parameters():
            if not parameter.requires_grad:
                continue
            moments = self.optimizer.state.get(parameter, {}) if self.optimizer else {}
            for what, values in {"weight": parameter, **moments}.items():
                if isinstance(values, torch.Tensor) and not torch.isfinite(values).all():
                    raise TrainError(
                        f"{name} ({what}) is no number after step {self.state.global_step}; "
                        "lower the learning_rate"
                    )
        if _internal_call and output_dir:
            if self.args.should_save:
                begin(Path(output_dir))
            self.accelerator.wait_for_everyone()  # each process writes a file of its own there
        super().save_model(output_dir, _internal_call)

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        """The micro-batches of one step, and how many pairs a process holds on average."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        self.step_totals = StepTotals.of(batches, self.accelerator)
        return batches, self.step_totals.pairs / self.args.world_size

    def training_step(
        self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """TRL's, without its `model.train()` where the model is in training mode already.

        That walks through a thousand modules, with the GPU waiting for the next pass. Something
        that evaluates in between switches the whole model.
        """
        self._count_tokens(inputs)  # here they are on the host: nothing waits for the GPU
        if not (model.training and self.model.training):  # `model` may be DDP around self.model
            model.train()
        undo = replace_attribute(model, "train", lambda mode=True: model)
        try:
            return super().training_step(model, inputs, num_items_in_batch)
        finally:
            undo()

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """TRL's mean over a micro-batch, times the micro-batch's share of the step's pairs.

        A share of 1 is what a process has on average: gradients, losses and metrics are averaged
        over processes, so a process with more pairs than others counts more. The supervised term
        alone is a mean over tokens, of all chosen replies of the step on all processes, so its
        weight is the share of the tokens.
        """
        factor = beta_factor(self.recipe, self.state.global_step, self.state.max_steps)
        beta = inputs.pop("beta")
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
        with metrics_of_this_process(self.accelerator):
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
            presented, real = Packed(*packed).sizes.tolist()
            computed = packed[0].numel()
        else:
            presented, real, computed = mask.numel(), int(mask.sum()), mask.numel()
        self.tokens.update(presented=presented, real=real, computed=computed)


@contextlib.contextmanager
def metrics_of_this_process(accelerator: Any) -> Iterator[None]:
    """Keep TRL from gathering metrics, which needs as many pairs on each process.

    PairTrainer.log averages them, in one call where TRL's take fifteen.
    """

    def own(values: torch.Tensor) -> torch.Tensor:
        return values

    accelerator.gather = accelerator.gather_for_metrics = own
    try:
        yield
    finally:
        del accelerator.gather, accelerator.gather_for_metrics


def refuse_other_reference(recipe: Recipe, logs: dict[str, float]) -> None:
    """Raise TrainError if the first step's log-probabilities are not those of the reference.

    Policy and reference are one model there, so a reference from a cache that does not agree within
    rounding is another model's. LoRA dropout on an adapter that is trained on from is no rounding.
    """
    if recipe.init_adapter and recipe.lora_dropout:
        return
    relative, absolute = (1e-3, 0.01) if compute_dtype(recipe) == "float32" else (0.03, 1.0)
    for side in ("chosen", "rejected"):
        now, start = logs[f"logps/{side}"], logs[f"logps/{side}_start"]
        if abs(now - start) > relative * abs(start) + absolute:
            raise TrainError(
                f"the reference's log-probabilities are of another model: {start:.2f} for {side} "
                f"replies, at the first step {now:.2f}; delete the cache's reference folder"
            )


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


def refuse_embeddings(model: Any) -> None:
    """Raise ValueError for an adapter on embeddings or the head, however the model names them.

    lm-eval resizes embeddings before it loads an adapter, and then cannot load one of theirs.
    """
    base = model.get_base_model()
    ends = [base.get_input_embeddings(), base.get_output_embeddings()]
    for name, module in base.named_modules():
        if isinstance(module, BaseTunerLayer) and (
            isinstance(module.get_base_layer(), torch.nn.Embedding) or module in ends
        ):
            raise ValueError(f"lora_target_modules: {name} is an embedding or the head")


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
    """Leave SIGTERM and Ctrl-C, which reach every process of a job, to the trainer.

    It goes on to its checkpoint, and needs batches until then.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
