"""Recipes: one flat YAML per training run, read strictly.

The fields keep the names they have in TRL, PEFT and transformers; `python -m train --help` prints
what each one means.
"""

import difflib
import re
from collections.abc import Hashable, Iterable, Mapping
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
    ValidationInfo,
    field_validator,
    model_validator,
)

from train.shipped import base_model

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

PLAIN_NUMBER = re.compile(
    r"[-+]?(0|[1-9][0-9]*)(\.[0-9]*)?([eE][-+]?[0-9]+)?|[-+]?\.([0-9]+|inf|nan)", re.IGNORECASE
)
SMOOTHED = ("robust", "exo_pair")  # TRL's losses that read label_smoothing
# lm-eval resizes embeddings before it loads an adapter, and then cannot load one of theirs.
EMBEDDINGS = (
    "embed_tokens",
    "lm_head",
    "wte",
    "wpe",
    "embed_in",
    "embed_out",
    "word_embeddings",
    "tok_embeddings",
)
# What decides how pairs are made of TAT-QA; a recipe with pairs of its own leaves these alone.
OF_TATQA = (
    "split",
    "form",
    "strategy",
    "corruptions",
    "samples",
    "max_pairs_per_question",
    "scale_markers",
    "beta_by_type",
)


class RecipeError(Exception):
    """The recipe cannot be read or asks for what is impossible; the message is one line."""


def one_line(error: Exception) -> str:
    """The start of another library's message, for one of our own."""
    return " ".join(str(error).split())[:400]


class Recipe(BaseModel):
    """A run as its author writes it down; run.py adds hashes of its data and base."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False
    )

    model_name_or_path: str = Field(description="base model: a folder or a Hugging Face id")
    load_in_4bit: bool = Field(
        default=False, description="QLoRA: base weights in NF4 with double quantisation"
    )
    dtype: Literal["auto", "bfloat16", "float32"] = Field(
        default="auto", description="auto: bfloat16 on a GPU"
    )
    init_adapter: str | None = Field(
        default=None,
        min_length=1,
        description="train on from this LoRA adapter (a folder), frozen it is the reference",
    )
    pairs: str | None = Field(
        default=None,
        min_length=1,
        description="preference data in TRL's formats (JSONL file or Hub id) instead of TAT-QA",
    )
    split: Literal["train", "validation", "test"] = Field(
        default="train", description="TAT-QA split the pairs are of"
    )
    form: Literal["direct", "calc"] = Field(
        default="direct", description="calc: a calculated answer is an expression (tatqa_calc)"
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
    max_pairs_per_question: int | None = Field(
        default=None, ge=1, description="mined: default: one for every different wrong reply"
    )
    scale_markers: bool = Field(
        default=False, description="drop questions whose scale their own context does not show"
    )
    max_pairs: int | None = Field(
        default=None, ge=1, description="use this many pairs, answer types in proportion"
    )
    eval_share: float = Field(
        default=0.0, ge=0, le=0.5, description="share of contexts held out, measured every epoch"
    )
    loss_type: list[Loss] = Field(
        default=["sigmoid"], min_length=1, description=f"TRL's losses, summed: {LOSSES}"
    )
    loss_weights: list[NonNegativeFloat] | None = Field(
        default=None, description="one weight per loss_type; default 1 each"
    )
    label_smoothing: float = Field(
        default=0.0, ge=0, lt=0.5, description="robust: share of flipped labels; exo_pair: epsilon"
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
    learning_rate: float = Field(default=5e-6, gt=0, le=1, description="peak rate of AdamW")
    lr_scheduler_type: Literal["linear", "cosine", "constant"] = Field(
        default="linear", description="after warm-up"
    )
    warmup_ratio: float = Field(
        default=0.0, ge=0, lt=1, description="share of the steps in which the rate rises"
    )
    max_grad_norm: float = Field(
        default=1.0, ge=0, description="longer gradients are clipped to this; 0: never"
    )
    num_train_epochs: int = Field(default=1, ge=1, le=10_000, description="passes over the pairs")
    effective_batch_size: int = Field(
        default=32, ge=1, le=65_536, description="pairs per optimizer step, over all processes"
    )
    max_length: int | None = Field(
        default=None, ge=2, description="pairs with more tokens are dropped and counted"
    )
    max_prompt_length: int | None = Field(
        default=None, ge=1, description="prompts keep their last; default: all"
    )
    lora_r: int = Field(default=16, ge=1, le=8192, description="rank of the adapter")
    lora_alpha: int = Field(
        default=32,
        ge=1,
        le=65_536,
        description="the adapter's output is scaled by lora_alpha / lora_r",
    )
    lora_dropout: float = Field(
        default=0.0, ge=0, lt=1, description="dropout before the adapter, while training"
    )
    lora_target_modules: list[str] | Literal["all-linear"] = Field(
        default=["q_proj", "v_proj"], description="layers that get an adapter, or all-linear"
    )
    use_rslora: bool = Field(default=False, description="scale by lora_alpha / sqrt(lora_r)")
    use_dora: bool = Field(default=False, description="DoRA: learn each column's length as well")
    seed: int = Field(
        default=42,
        ge=0,
        lt=2**32,
        description="of pairs, order, adapter initialisation and dropout",
    )
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

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        """`true` would otherwise be read as 1 (and 1 as true)."""
        wants_bool = cls.model_fields[str(info.field_name)].annotation is bool
        if wants_bool and not isinstance(value, bool):
            raise ValueError(f"true or false is needed, found {value!r:.40}")
        if not wants_bool and _holds_bool(value):
            raise ValueError(f"true and false have no meaning here, found {value!r:.40}")
        return value

    @field_validator("loss_type", "samples", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        """A single text is a list of one, as in TRL."""
        return [value] if isinstance(value, str) else value

    @field_validator("lora_target_modules", mode="before")
    @classmethod
    def _targets(cls, value: Any) -> Any:
        """`all-linear` alone or names of layers, none of which is an embedding."""
        names = [value] if isinstance(value, str) else value
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError("names of layers in a list, or all-linear")
        if not names:
            raise ValueError("no layer is named")
        if names == ["all-linear"]:
            return "all-linear"
        if len(set(names)) < len(names):
            raise ValueError("a layer is named twice")
        for name in names:
            _refuse_no_layer(name)
        return names

    @property
    def needs_reference(self) -> bool:
        """Whether any loss compares with a reference model; supervised training alone does not."""
        return set(self.loss_type) != {"sft"}

    @model_validator(mode="after")
    def _consistent_losses(self) -> "Recipe":
        for loss in self.loss_type:
            if self.loss_type.count(loss) > 1:
                raise ValueError(f"loss_type names {loss} twice; weigh it by loss_weights")
        weights = [1.0] * len(self.loss_type) if self.loss_weights is None else self.loss_weights
        if len(weights) != len(self.loss_type):
            raise ValueError("loss_weights needs one entry per loss_type")
        if not all(weights):
            raise ValueError("loss_weights: a loss of weight 0 does nothing; leave it out")
        return self

    @model_validator(mode="after")
    def _consistent_smoothing(self) -> "Recipe":
        smoothed = [loss for loss in self.loss_type if loss in SMOOTHED]
        if smoothed and not self.label_smoothing:
            raise ValueError(f"loss_type {smoothed[0]} needs a label_smoothing above 0")
        if self.label_smoothing and not smoothed:
            raise ValueError(f"label_smoothing is for {' and '.join(SMOOTHED)} alone")
        return self

    @model_validator(mode="after")
    def _consistent_beta(self) -> "Recipe":
        scheduled = self.beta_schedule != "constant"
        if scheduled != (self.beta_end is not None):
            raise ValueError("beta_end and a beta_schedule go together")
        if self.beta_schedule_unit == "epoch" and not (scheduled and self.num_train_epochs > 1):
            raise ValueError("beta_schedule_unit: epoch needs a beta_schedule and several epochs")
        if not self.needs_reference and (scheduled or self.beta_by_type):
            raise ValueError("supervised training has no beta; leave its schedule and types out")
        return self

    @model_validator(mode="after")
    def _consistent_strategy(self) -> "Recipe":
        if (self.strategy == "mined") != bool(self.samples):
            raise ValueError("samples and strategy: mined go together")
        if self.max_pairs_per_question and self.strategy != "mined":
            raise ValueError("max_pairs_per_question is for strategy: mined alone")
        if self.corruptions and self.strategy != "corrupt":
            raise ValueError("corruptions are for strategy: corrupt alone")
        if self.corruptions and not any(self.corruptions.values()):
            raise ValueError("corruptions are all 0")
        if self.form == "calc" and self.strategy == "log":
            raise ValueError("strategy: log has no form: calc; take corrupt or mined")
        return self

    @model_validator(mode="after")
    def _consistent_pairs(self) -> "Recipe":
        if self.pairs:
            self._refuse_what_pairs_replace()
        if self.max_length and (self.max_prompt_length or 0) >= self.max_length:
            raise ValueError("max_prompt_length leaves no room below max_length")
        return self

    def _refuse_what_pairs_replace(self) -> None:
        for name in OF_TATQA:
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"pairs and {name} exclude each other: {name} is of TAT-QA's")


def _refuse_no_layer(name: str) -> None:
    """Raise ValueError for what names no layer that may get an adapter."""
    if not re.fullmatch(r"[\w.]+", name):
        raise ValueError(f"{name} is no name of a layer")
    if name.rpartition(".")[2] in EMBEDDINGS:
        raise ValueError(f"{name} is an embedding; lm-eval cannot load an adapter of it")


def _holds_bool(value: Any) -> bool:
    """Whether a value, or one in its list or mapping, is true or false."""
    if isinstance(value, dict):
        value = list(value.values())
    items = value if isinstance(value, list) else [value]
    return any(isinstance(item, bool) for item in items)


def nearest(key: str, known: Iterable[str]) -> str:
    """A hint that names the known word nearest to `key`, or all of them."""
    close = difflib.get_close_matches(key.lower(), list(known), n=1, cutoff=0.5)
    return f"did you mean `{close[0]}`?" if close else f"known: {', '.join(known)}"


def parse(mapping: Mapping[str, Any], where: str) -> Recipe:
    """Check a mapping against the fields.

    Raises RecipeError with one line that names `where`, key and remedy.
    """
    for key in mapping:
        if key not in Recipe.model_fields:
            hint = nearest(str(key), Recipe.model_fields)
            raise RecipeError(f"{where}: unknown key `{key}`; {hint}")
    try:
        return Recipe.model_validate(dict(mapping))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        message = first["msg"].removeprefix("Value error, ")
        parts = [text for text in (where, place, message) if text]
        raise RecipeError(": ".join(parts)) from None


class _StrictLoader(yaml.SafeLoader):
    """YAML without its silent surprises.

    A key may stand once, where plain YAML lets the last of several win; and 010 (read as 8), 1:30
    (as 90) and 1_0 (as 10) are no numbers.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """The mapping of a node. Raises YAMLError for a repeated key."""
        seen = set()
        for key_node, _ in node.value:
            key = key_node.value
            if isinstance(key_node, yaml.ScalarNode) and key in seen:
                line = key_node.start_mark.line + 1
                raise yaml.YAMLError(f"`{key}` stands twice, the second time in line {line}")
            if isinstance(key_node, yaml.ScalarNode):
                seen.add(key)
        return super().construct_mapping(node, deep)

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        """A scalar's text. Raises YAMLError for a number that YAML reads as another one."""
        number = node.tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
        if number and not PLAIN_NUMBER.fullmatch(node.value):
            line = node.start_mark.line + 1
            raise yaml.YAMLError(f"line {line}: write `{node.value}` as a plain decimal number")
        return super().construct_scalar(node)


def read_yaml(text: str) -> Any:
    """A recipe's YAML, or the value of an option on the command line. Raises YAMLError."""
    return yaml.load(text, _StrictLoader)


def load(path: Path, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Read one recipe file and put `overrides` over it. Raises RecipeError."""
    try:
        mapping = read_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        reason = f"cannot read the recipe ({error.strerror}); see train/recipes/"
        raise RecipeError(f"{path}: {reason}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise RecipeError(f"{path}: not YAML: {one_line(error)}") from None
    if not isinstance(mapping, dict):
        raise RecipeError(f"{path}: a recipe is a flat mapping of field to value")
    fields = {**mapping, **(overrides or {})}
    if fields.get("model_name_or_path") == "":
        raise RecipeError(f"{path}: model_name_or_path is empty: name the base model")
    if isinstance(fields.get("model_name_or_path"), str):
        fields["model_name_or_path"] = base_model(fields["model_name_or_path"])
    return parse(fields, str(path))
