"""DPO, or supervised training alone, by TRL's DPOTrainer, as a recipe describes it.

TRL's loss code is untouched. PairTrainer sets what is around it: which pairs meet in a step, their
equal weight, beta. In supervised training alone (`loss_type: [sft]`) rejected replies are empty,
the reference is zeros that nothing reads, and TRL's `sft` term is all there is.
"""

import contextlib
import math
import signal
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch.utils.data import DataLoader
from trl import DPOTrainer

from train.folder import begin
from train.recipe import Recipe
from train.sharing import Packed, PrefixSharing
from train.sharing.forward import replace_attribute
from train.trainer.batches import ContextSampler, StepBatches, collator
from train.trainer.config import compute_dtype, fsdp_policy
from train.trainer.dropout import set_lora_dropout, switch_off_functional_dropout
from train.trainer.refusals import refuse_embeddings, refuse_missing_targets
from train.trainer.step import StepTotals, beta_factor

NUM_TOKENS = "num_tokens"  # TRL's metric counts trimmed batches; see PairTrainer.tokens
PREFERENCE_METRICS = (  # nothing of these is known where only chosen replies are trained
    "rewards/chosen",
    "rewards/rejected",
    "rewards/accuracies",
    "rewards/margins",
    "logps/rejected",
    "logits/rejected",
)


class TrainError(Exception):
    """Training cannot go on; the message is one line."""


class PairTrainer(DPOTrainer):  # type: ignore[misc]
    """TRL's DPOTrainer on ready token ids: equally weighted pairs, and beta pair by pair."""

    loss_is_scaled_for_ga = True  # compute_loss does it
    sharing: PrefixSharing | None = None
    first_step_is_checked = False  # set where a run starts with a reference

    def __init__(self, recipe: Recipe, order: ContextSampler, **kwargs: Any) -> None:
        self.recipe = recipe
        self.order = order
        # of this process: padded, without padding, run through the backbone
        self.tokens: Counter[str] = Counter()
        self.step_totals = StepTotals()
        super().__init__(**kwargs)
        weights = self.args.loss_weights or [1.0] * len(self.loss_types)
        self.weights_of_losses: list[float] = list(weights)
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
        """None with every checkpoint: train.run writes the card once, at the end."""

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
        workers: dict[str, Any] = {}
        if torch.cuda.is_available():
            workers = {"num_workers": 2, "prefetch_factor": 4, "worker_init_fn": undisturbed}
        return DataLoader(
            self.train_dataset,
            batch_sampler=batches,
            collate_fn=self.data_collator,
            # not the global one: resume is to the bit
            generator=torch.Generator().manual_seed(self.args.seed),
            pin_memory=self.args.dataloader_pin_memory,
            **workers,
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
        """TRL's loss of a micro-batch (loss.py shows it), times its share of the step.

        TRL takes the mean over the micro-batch's pairs, Trainer the sum over a process's
        micro-batches and the mean over processes. So that each pair counts the same,

            share = pairs of the micro-batch / pairs that a process has on average in this step

        num_items_in_batch: the latter, as get_batch_samples gives it.
        """
        factor = beta_factor(self.recipe, self.state.global_step, self.state.max_steps)
        beta = inputs.pop("beta")
        self.beta = beta * factor
        share = len(beta) / num_items_in_batch
        chosen_tokens = inputs["completion_mask"][: len(beta)].sum()
        self.loss_weights: list[Any] = self._weights(chosen_tokens, share)
        if not self.recipe.needs_reference:
            inputs["ref_chosen_logps"] = inputs["ref_rejected_logps"] = torch.zeros_like(beta)
        with metrics_of_this_process(self.accelerator):
            loss = super().compute_loss(model, inputs, return_outputs) * share
        self._note_beta(factor)
        self._weigh_metrics(share)
        return loss

    def _weights(self, chosen_tokens: torch.Tensor, share: float) -> list[Any]:
        """What each loss counts for in a micro-batch that counts for its share of the pairs.

        The supervised term is a mean over the tokens of all chosen replies of the step, so it
        counts for its share of those.
        """
        token_share = chosen_tokens / self.step_totals.chosen_tokens * self.args.world_size
        weights: list[Any] = []
        for name, weight in zip(self.loss_types, self.weights_of_losses, strict=True):
            weights.append(weight * token_share / share if name == "sft" else weight)
        return weights

    def _note_beta(self, factor: float) -> None:
        """Log beta, and that of each answer type which has its own."""
        metrics = self._metrics["train"]
        metrics["beta"].append(self.recipe.beta * factor)
        for answer_type, beta in self.recipe.beta_by_type.items():
            metrics[f"beta/{answer_type}"].append(beta * factor)

    def _weigh_metrics(self, share: float) -> None:
        """Weigh TRL's metrics of a micro-batch by its share, and drop those that say nothing."""
        metrics = self._metrics["train"]
        metrics.pop(NUM_TOKENS, None)
        if not self.recipe.needs_reference:
            for name in PREFERENCE_METRICS:
                metrics.pop(name, None)
        for values in metrics.values():  # TRL logs their plain mean over the step's micro-batches
            values[-1] *= share * self.current_gradient_accumulation_steps

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


def undisturbed(worker: int) -> None:
    """Leave SIGTERM and Ctrl-C, which reach every process of a job, to the trainer.

    It goes on to its checkpoint, and needs batches until then.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
