"""Reference log-probabilities: computed once for all pairs, and kept for every run that shares them.

They depend on the base model, its quantization and the token ids; not on beta, learning rate, rank or seed. So a sweep
over those computes them once, in its first run, and epochs after the first do not compute them again.
"""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from tqdm import tqdm

from train.tokens import TokenPair


def cache_file(base_sha256: str, precision: str, rows: Sequence[TokenPair]) -> Path:
    """Where the log-probabilities of these pairs under this base are kept: a file named by all they depend on."""
    key = hashlib.sha256(f"{base_sha256} {precision}".encode())
    for row in rows:
        key.update(repr((row.prompt_ids, row.chosen_ids, row.rejected_ids)).encode())
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tatqa-bench" / "reference"
    return folder / f"{key.hexdigest()}.npy"


def attach_reference(trainer: Any, cache: Path | None) -> bool:
    """Give the trainer's dataset the columns that TRL reads; True if they came from the cache."""
    n = len(trainer.train_dataset)
    found = cache is not None and cache.is_file()
    values = np.load(cache) if cache is not None and found else compute_reference(trainer)
    if values.shape != (n, 2) or not np.isfinite(values).all():
        raise ValueError(f"{cache}: not the reference of {n} pairs; delete the file")
    if cache is not None and not found and trainer.accelerator.is_main_process:
        cache.parent.mkdir(parents=True, exist_ok=True)
        whole = cache.with_name(f".{os.getpid()}.npy")
        np.save(whole, values)
        whole.replace(cache)
    columns = dict(zip(("ref_chosen_logps", "ref_rejected_logps"), values.T.tolist(), strict=True))
    for name, column in columns.items():
        trainer.train_dataset = trainer.train_dataset.add_column(name, column)
    trainer.precompute_ref_logps = True
    return found


def compute_reference(trainer: Any) -> np.ndarray:
    """Log-probabilities [pairs, 2] of chosen and rejected by TRL's own reference pass, over this and all processes."""
    order = list(trainer.order)
    size = 2 * trainer.args.per_device_train_batch_size  # nothing is kept for a backward pass
    batches = [order[i : i + size] for i in range(0, len(order), size)]
    mine = batches[trainer.args.process_index :: trainer.args.world_size]
    trainer.model.train()  # in evaluation mode bitsandbytes repacks 4-bit weights on a CPU
    progress = tqdm(mine, desc="reference", unit="batch", disable=not trainer.accelerator.is_main_process)
    done: list[tuple[list[int], torch.Tensor]] = []
    for indices, batch in zip(progress, trainer.loader(mine), strict=True):
        inputs = trainer._prepare_inputs(batch)
        inputs.pop("beta", None)
        done.append((indices, torch.stack(trainer.compute_ref_log_probs(trainer.model, inputs), 1)))
    values = np.full((len(order), 2), np.nan)
    for indices, pair in gather_object([(indices, logps.float().cpu().numpy()) for indices, logps in done]):
        values[indices] = pair
    return values
