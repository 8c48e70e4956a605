"""Reference log-probabilities: computed once, and kept for every run that shares them.

They depend on the base model, its quantization and the token ids; not on beta, learning rate, rank
or seed. So a sweep over those computes them once, in its first run, and epochs after the first do
not compute them again.
"""

import contextlib
import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from tqdm import tqdm

from train.base import cache_folder
from train.pairs.tokens import TokenPair
from train.sharing.preflight import without_dropout
from train.trainer.pair_trainer import TrainError

logger = logging.getLogger(__name__)


def cache_file(model_sha256: str, precision: str, rows: Sequence[TokenPair]) -> Path:
    """Where the log-probabilities of these pairs are kept: a file named by all they depend on.

    model_sha256: of the base, and of the adapter on it where training goes on from one.
    """
    key = hashlib.sha256(f"{model_sha256} {precision}".encode())
    for row in rows:
        key.update(row.as_bytes())
    return cache_folder() / "reference" / f"{key.hexdigest()}.npy"


def attach_reference(trainer: Any, cache: Path | None) -> bool:
    """Give the trainer's dataset the columns that TRL reads; True if they came from the cache.

    A cache file that is damaged or of other pairs is written anew. Raises TrainError for a base
    that yields no numbers.
    """
    pairs = len(trainer.train_dataset)
    values = read(cache, pairs)
    found = values is not None
    if values is None:
        main = trainer.accelerator.is_main_process
        if cache and not (main and can_be_written(cache)):
            cache = None
        values = compute_reference(trainer)
        if bad := int((~np.isfinite(values)).any(1).sum()):
            what = f"the base model's log-probabilities of {bad} of {pairs} pairs are no numbers"
            raise TrainError(f"{what}; check its weights, or try --dtype float32")
        if cache:
            write(cache, values)
    for name, column in zip(
        ("ref_chosen_logps", "ref_rejected_logps"), values.T.tolist(), strict=True
    ):
        trainer.train_dataset = trainer.train_dataset.add_column(name, column)
    trainer.precompute_ref_logps = True
    return found


def read(cache: Path | None, pairs: int) -> np.ndarray | None:
    """What the file holds if it holds finite log-probabilities [pairs, 2]."""
    try:
        values = np.load(cache) if cache else np.empty(0)
    except (OSError, ValueError, EOFError):
        return None
    return values if values.shape == (pairs, 2) and np.isfinite(values).all() else None


def can_be_written(cache: Path) -> bool:
    """Whether the cache's folder takes a file; if not, that is said before the pass is computed."""
    trial = cache.with_name(f".{os.getpid()}.trial")
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        trial.write_bytes(b"\0" * 1024)
        trial.unlink()
    except OSError as error:
        logger.warning(
            "reference log-probabilities will be computed but not kept: %s; "
            "set XDG_CACHE_HOME to a folder that can be written",
            error,
        )
        return False
    return True


def write(cache: Path, values: np.ndarray) -> None:
    """Write the file whole; a cache folder that cannot be written costs time alone."""
    try:
        whole = cache.with_name(f".{os.getpid()}.npy")
        np.save(whole, values)
        whole.replace(cache)
    except OSError as error:
        logger.warning("reference log-probabilities are not kept: %s", error)


def compute_reference(trainer: Any) -> np.ndarray:
    """Log-probabilities [pairs, 2] by TRL's own reference pass, over all processes."""
    mine = list(trainer.step_batches())
    trainer.model.train()  # in evaluation mode bitsandbytes repacks 4-bit weights on a CPU
    progress = tqdm(
        mine, desc="reference", unit="batch", disable=not trainer.accelerator.is_main_process
    )
    done: list[tuple[list[int], torch.Tensor]] = []
    with as_reference(trainer):
        for indices, batch in zip(progress, trainer.loader(mine), strict=True):
            done.append((indices, reply_logps(trainer, batch)))
    on_host = [(indices, logps.float().cpu().numpy()) for indices, logps in done]
    values = np.full((len(trainer.order), 2), np.nan)
    for indices, logps_of_batch in gather_object(on_host):
        values[indices] = logps_of_batch
    return values


def reply_logps(trainer: Any, batch: dict[str, Any]) -> torch.Tensor:
    """Log-probabilities [pairs, 2] of a batch's chosen and rejected replies, no gradient.

    By TRL's reference pass: within `as_policy` the model's own, within `as_reference` the
    reference's.
    """
    inputs = trainer._prepare_inputs(batch)
    inputs.pop("beta", None)
    return torch.stack(trainer.compute_ref_log_probs(trainer.model, inputs), 1)


@contextlib.contextmanager
def as_policy(trainer: Any) -> Iterator[None]:
    """Let TRL's reference pass go through the trainer's model as it is, without dropout.

    TRL would switch the adapter off for every batch, which can take as long as the batch; a
    `ref_model` keeps it from that.
    """
    trainer.ref_model = trainer.model
    try:
        with without_dropout(trainer.model):
            yield
    finally:
        trainer.ref_model = None


@contextlib.contextmanager
def as_reference(trainer: Any) -> Iterator[None]:
    """Make the trainer's model the reference: the bare base, or the adapter it trains on from."""
    adapter = contextlib.nullcontext()
    if trainer.recipe.init_adapter is None:
        adapter = trainer.model.disable_adapter()
    with as_policy(trainer), adapter:
        yield
