"""A drop-in for TRL's DPOTrainer that computes shared prefixes once; it knows nothing of TAT-QA.

    from train.sharing.dpo_trainer import SharedPrefixDPOTrainer

    trainer = SharedPrefixDPOTrainer(model=..., args=DPOConfig(...), train_dataset=..., ...)
    trainer.train()              # the arguments, losses, metrics and checkpoints are DPOTrainer's
    trainer.stop_sharing()       # the model as it was; generation works before and after

Works with PEFT, with a separate `ref_model`, with precomputed references, and in evaluation. A
pair's chosen and rejected reply share their prompt, so about half of the tokens go; more where a
batch holds several pairs of one prompt or context.
"""

from collections.abc import Mapping
from typing import Any

from trl import DPOTrainer

from train.sharing.forward import PrefixSharing, share_prefixes
from train.sharing.preflight import preflight

FIRST = 64  # rows among which the pre-flight looks for short ones


class SharedPrefixDPOTrainer(DPOTrainer):  # type: ignore[misc]
    """TRL's DPOTrainer over models that share prefixes.

    sharing_options: of `share_prefixes`, such as {"compile_layers": True, "graphs": True} on a GPU.
    check: compare one small batch with the plain forward first. Raises SharingError for a model
    that would be computed wrongly.
    """

    def __init__(
        self,
        *args: Any,
        sharing_options: Mapping[str, Any] | None = None,
        check: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        collator: Any = self.data_collator
        if check:
            self._compare(collator)
        options = dict(sharing_options or {})
        self.sharings: list[PrefixSharing] = [share_prefixes(self.model, **options)]
        if self.ref_model is not None:
            reference = self.accelerator.unwrap_model(self.ref_model)
            self.sharings.append(share_prefixes(reference, **options))
        # an auxiliary loss counts the experts of prompts too
        cut_prompts = not self.aux_loss_enabled
        self.data_collator: Any = self.sharings[0].collate(collator, cut_prompts)
        self._plain_collator = collator

    def _compare(self, collator: Any) -> None:
        rows = self.train_dataset
        examples = [rows[i] for i in range(min(FIRST, len(rows)))]
        sides = ("prompt_ids", "chosen_ids", "rejected_ids")
        bare = [{name: example[name] for name in sides} for example in examples]
        with self.compute_loss_context_manager():
            preflight(self.model, bare, collator, self._prepare_inputs)

    def stop_sharing(self) -> None:
        """Give model and reference their own forward back."""
        for sharing in self.sharings:
            sharing.remove()
        self.data_collator = self._plain_collator
