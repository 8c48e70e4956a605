"""TRL's configuration for a recipe, and the precisions that go with it."""

from pathlib import Path

import torch
from torch.distributed.fsdp import MixedPrecisionPolicy
from transformers import BitsAndBytesConfig
from trl import DPOConfig

from train.recipe import Recipe


def compute_dtype(recipe: Recipe) -> str:
    """The type of base weights and compute."""
    if recipe.dtype != "auto":
        return recipe.dtype
    return "bfloat16" if torch.cuda.is_available() else "float32"


def config(recipe: Recipe, out: Path, micro: int, processes: int) -> DPOConfig:
    """TRL's configuration: micro-batches of `micro` pairs on each of the processes."""
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
        router_aux_loss_coef=0.0,  # prompts, whose experts it counts too, are not in the batch
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
        report_to=recipe.report_to,
        disable_tqdm=True,
        ddp_find_unused_parameters=False,
        ddp_broadcast_buffers=False,  # they are the same everywhere and never change
    )


def fsdp_policy(bf16: bool) -> MixedPrecisionPolicy:
    """Compute in bf16, but leave what the model returns and sums of gradients in fp32.

    accelerate's own policy rounds log-probabilities to bf16 too: -241.5 becomes -242, and margins
    become noise.
    """
    return MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if bf16 else None, reduce_dtype=torch.float32
    )


def nf4(dtype: str) -> BitsAndBytesConfig:
    """QLoRA's NF4, double quantisation (Dettmers et al. 2023), in storage that FSDP can shard."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        bnb_4bit_quant_storage=dtype,
    )
