"""Recipes: one flat YAML per training run, read strictly.

The fields keep the names they have in TRL, PEFT and transformers; `python -m train --help` prints what each one means.
"""

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    ValidationError,
    model_validator,
)

Loss = Literal[
    "sigmoid",
    "hinge",
    "ipo",
    "robust",
    "sft",
    "sigmoid_norm",
    "apo_zero",
    "apo_down",
    "exo_pair",
    "nca_pair",
]
LOSSES = ", ".join(get_args(Loss))
Weights = dict[str, NonNegativeFloat]
BetaByType = dict[Literal["span", "multi-span", "arithmetic", "count"], PositiveFloat]


class RecipeError(Exception):
    """The recipe cannot be read or asks for what is impossible; the message is one line."""


def one_line(error: Exception) -> str:
    """The start of another library's message, for one of our own."""
    return " ".join(str(error).split())[:400]


class Recipe(BaseModel):
    """Everything that decides which adapter comes out of a run."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model_name_or_path: str = Field(description="base model: a folder or a Hugging Face id")
    load_in_4bit: bool = Field(
        default=False, description="QLoRA: base weights in NF4 with double quantisation"
    )
    dtype: Literal["auto", "bfloat16", "float32"] = Field(
        default="auto", description="auto: bfloat16 on a GPU"
    )
    split: Literal["train", "validation", "test"] = Field(
        default="train", description="TAT-QA split the pairs are of"
    )
    strategy: Literal["corrupt", "log", "mined"] = Field(
        default="corrupt", description="rejected replies: see README"
    )
    corruptions: Weights = Field(
        default={}, description="weights of the kinds to use; default: all"
    )
    samples: list[str] = Field(
        default=[], description="mined: lm-eval sample files of tatqa_train (globs allowed)"
    )
    max_pairs: int | None = Field(
        default=None, ge=1, description="use this many pairs, answer types in proportion"
    )
    loss_type: list[Loss] = Field(
        default=["sigmoid"], min_length=1, description=f"TRL's losses, summed: {LOSSES}"
    )
    loss_weights: list[float] | None = Field(
        default=None, description="one weight per loss_type; default 1 each"
    )
    beta: float = Field(
        default=0.1, gt=0, description="strength of the pull to the reference model"
    )
    beta_end: float | None = Field(
        default=None, gt=0, description="beta at the last step, for a schedule"
    )
    beta_schedule: Literal["constant", "linear", "cosine"] = Field(
        default="constant", description="course of beta"
    )
    beta_schedule_unit: Literal["step", "epoch"] = Field(
        default="step", description="beta changes with each"
    )
    beta_by_type: BetaByType = Field(
        default={}, description="beta of an answer type; schedules scale it"
    )
    learning_rate: float = Field(default=5e-6, gt=0, description="peak rate of AdamW")
    lr_scheduler_type: Literal["linear", "cosine", "constant"] = Field(
        default="linear", description="after warm-up"
    )
    warmup_ratio: float = Field(
        default=0.0, ge=0, lt=1, description="share of the steps in which the rate rises"
    )
    num_train_epochs: int = Field(default=1, ge=1, description="passes over the pairs")
    effective_batch_size: int = Field(
        default=32, ge=1, description="pairs per optimizer step, over all processes"
    )
    max_length: int | None = Field(
        default=None, ge=2, description="pairs with more tokens are dropped and counted"
    )
    max_prompt_length: int | None = Field(
        default=None, ge=1, description="prompts keep their last; default: all"
    )
    lora_r: int = Field(default=16, ge=1, description="rank of the adapter")
    lora_alpha: int = Field(
        default=32, ge=1, description="the adapter's output is scaled by lora_alpha / lora_r"
    )
    lora_dropout: float = Field(
        default=0.0, ge=0, lt=1, description="dropout before the adapter, while training"
    )
    lora_target_modules: list[str] = Field(
        default=["q_proj", "v_proj"], description="layers that get an adapter"
    )
    seed: int = Field(default=42, description="of pairs, order, adapter initialisation and dropout")
    memory: Literal["fast", "small"] = Field(
        default="fast", description="small: recompute activations, less memory"
    )
    share_prefixes: bool = Field(
        default=True, description="compute each distinct prefix of a batch once (exact)"
    )
    order: Literal["context", "random"] = Field(
        default="context", description="context: its pairs share a step"
    )
    save_steps: int = Field(default=50, ge=1, description="steps between checkpoints")
    report_to: str = Field(
        default="none", description="Trainer's own reporting: none, tensorboard, wandb, trackio"
    )

    @model_validator(mode="after")
    def _consistent(self) -> "Recipe":
        if self.loss_weights and len(self.loss_weights) != len(self.loss_type):
            raise ValueError("loss_weights needs one entry per loss_type")
        if (self.beta_schedule == "constant") != (self.beta_end is None):
            raise ValueError("beta_end and a beta_schedule go together")
        if (self.strategy == "mined") != bool(self.samples):
            raise ValueError("samples and strategy: mined go together")
        if self.max_length and (self.max_prompt_length or 0) >= self.max_length:
            raise ValueError("max_prompt_length leaves no room below max_length")
        return self


def nearest(key: str, known: Iterable[str]) -> str:
    """A hint that names the known word nearest to `key`, or all of them."""
    close = difflib.get_close_matches(key, list(known), n=1, cutoff=0.5)
    return f"did you mean `{close[0]}`?" if close else f"known: {', '.join(known)}"


def parse(mapping: Mapping[str, Any], where: str) -> Recipe:
    """Check a mapping against the fields. Raises RecipeError with one line that names `where`, key and remedy."""
    for key in mapping:
        if key not in Recipe.model_fields:
            raise RecipeError(
                f"{where}: unknown key `{key}`; {nearest(str(key), Recipe.model_fields)}"
            )
    try:
        return Recipe.model_validate(dict(mapping))
    except ValidationError as error:
        first = error.errors()[0]
        at, message = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
        raise RecipeError(": ".join(text for text in (where, at, message) if text)) from None


def load(path: Path, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Read one recipe file and put `overrides` over it. Raises RecipeError."""
    try:
        mapping = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(
            f"{path}: cannot read the recipe ({error.strerror}); see train/recipes/"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: not YAML: {one_line(error)}") from None
    if not isinstance(mapping, dict):
        raise RecipeError(f"{path}: a recipe is a flat mapping of field to value")
    return parse({**mapping, **(overrides or {})}, str(path))
