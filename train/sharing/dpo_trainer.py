"""A drop-in for TRL's DPOTrainer that computes shared prefixes once; it knows nothing of TAT-QA.

    from train.sharing.dpo_trainer import SharedPrefixDPOTrainer

    trainer = SharedPrefixDPOTrainer(model=..., args=DPOConfig(...), train_dataset=..., ...)
    trainer.train()              # the arguments, losses, metrics and checkpoints are DPOTrainer's
    trainer.stop_sharing()       # the model and the collator as they were

Works with PEFT, with a separate `ref_model`, with precomputed references, and in evaluation. A
pair's chosen and rejected reply share their prompt, so about half of the tokens go; more where a
batch holds several pairs of one prompt or context. Generation works meanwhile too, but with layers
that are compiled anew for each length: stop sharing first.
"""

from collections.abc import Mapping
from itertools import islice
from typing import Any

from trl import DPOTrainer

from train.sharing.forward import PrefixSharing, share_prefixes
from train.sharing.layout import Packed, SharingError
from train.sharing.preflight import preflight

FIRST = 64  # pairs among which the pre-flight looks for short ones


class SharedPrefixDPOTrainer(DPOTrainer):  # type: ignore[misc]
    """TRL's DPOTrainer over models that share prefixes.

    sharing_options: of `share_prefixes`, such as {"compile_layers": True, "graphs": True} on a GPU,
    with `gradient_checkpointing=False` in args (`recompute` is sharing's own). check: compare one
    small batch with the plain forward first. Raises SharingError for a model that would be
    computed wrongly.
    """

    def __init__(
        self,
        *args: Any,
        sharing_options: Mapping[str, Any] | None = None,
        check: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        if self.args.neftune_noise_alpha:
            raise SharingError("NEFTune draws noise for whole rows: set no neftune_noise_alpha")
        collator: Any = self.data_collator
        options = dict(sharing_options or {})
        if options.get("graphs") and self.args.activation_checkpointing:
            raise SharingError(
                "checkpointed layers cannot be recorded: set gradient_checkpointing=False, "
                "or share without graphs"
            )
        if check:
            self._compare(collator)
        self.sharings: list[PrefixSharing] = [share_prefixes(self.model, **options)]
        if self.ref_model is not None:
            reference = self.accelerator.unwrap_model(self.ref_model)
            self.sharings.append(share_prefixes(reference, **options))
        # an auxiliary loss counts the experts of prompts too
        cut_prompts = not self.aux_loss_enabled
        self.data_collator: Any = self.sharings[0].collate(collator, cut_prompts)
        self._plain_collator = collator

    def _compare(self, collator: Any) -> None:
        sides = ("prompt_ids", "chosen_ids", "rejected_ids")
        first = islice(self.train_dataset, FIRST)  # it may be a stream
        bare = [{name: example[name] for name in sides} for example in first]
        with self.compute_loss_context_manager():
            preflight(self.model, bare, collator, self._prepare_inputs)

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """TRL's, with the tokens in its count that were cut from the batch."""
        if "packed" in inputs and self.model.training:
            whole = Packed(*inputs["packed"]).sizes[1]
            cut = whole - inputs["attention_mask"].sum()
            self._total_train_tokens += self.accelerator.gather_for_metrics(cut).sum().item()
        return super().compute_loss(model, inputs, *args, **kwargs)

    def stop_sharing(self) -> None:
        """Give model and reference their own forward back."""
        for sharing in self.sharings:
            sharing.remove()
        self.data_collator = self._plain_collator
