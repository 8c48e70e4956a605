"""The model card of a run: what was done, on what, and how to load it; scores only from a record.

`python -m train` writes it beside the adapter, without scores; `python -m train.push` writes it
again, with those that `results` measured (record.json), as the Hub's model-index.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from train.sources import HUB_ID, licence_of, sentence

BODY = Path(__file__).with_name("card.md")
SHOWN = (
    "loss_type", "loss_weights", "beta", "learning_rate", "num_train_epochs",
    "effective_batch_size", "lora_r", "lora_alpha", "lora_dropout", "lora_target_modules",
    "load_in_4bit", "max_prompt_length", "init_adapter", "seed",
)  # fmt: skip
METHODS = {
    "sigmoid": "DPO (Rafailov et al., 2023)",
    "sft": "supervised fine-tuning",
}
STRATEGIES = {
    "corrupt": "right replies against wrong ones made by rule",
    "log": "gold answers against wrong ones by the experiment log's rule",
    "mined": "right replies against a model's own wrong ones",
}
PURPOSE = ", to answer questions on a table and text from a financial report with one line of JSON"
LIMITS = (
    "It knows English reports and the prompts of `tatqa_task/prompt.py` alone: check every figure "
    "it gives."
)
OWN_PROMPTS = (
    "Prompt it as in its pairs: through the base model's chat template, thinking off, where these "
    "are messages; as plain text where they are texts."
)
METRICS = {"em": "exact match", "f1": "token F1", "score": "mean judge score"}  # reported, by name
UNKNOWN_DATA = {"kind": "unknown"}


def card(
    facts: Mapping[str, Any],
    name: str,
    record: Mapping[str, Any] | None = None,
    licence: str | None = None,
) -> str:
    """The card of a run (train.json) as Markdown with the Hub's metadata.

    `record` is the run's record.json; what is scored on synthetic questions or by a stand-in judge
    stays out. `licence` is the base's, where somebody else than its folder says it.
    """
    recipe = facts["recipe"]
    scores = list(results(record)) if record else []
    text = BODY.read_text(encoding="utf-8").format(
        name=name,
        base=base_name(recipe["model_name_or_path"]),
        method=method(recipe),
        pairs=facts["pairs"]["kept"],
        what=what(recipe),
        source=sentence(facts.get("data", UNKNOWN_DATA), recipe["split"]),
        purpose=purpose(recipe),
        limits="" if recipe.get("pairs") else LIMITS,
        licence=licence_note(facts.get("data", UNKNOWN_DATA)),
        snippet=snippet(facts, name),
        prompting=prompting(recipe),
        rows=rows(facts),
        scores=score_note(scores),
    )
    return f"---\n{metadata(facts, name, scores, licence).to_yaml()}\n---\n\n{text}"


def method(recipe: Mapping[str, Any]) -> str:
    """The losses in words."""
    names = [METHODS.get(loss, f"TRL's `{loss}` loss") for loss in recipe["loss_type"]]
    return " plus ".join(names)


def purpose(recipe: Mapping[str, Any]) -> str:
    """What the adapter is for, as far as the recipe knows: not with the user's own pairs."""
    if recipe.get("pairs"):
        return ""
    in_calc = recipe.get("form") == "calc"
    return PURPOSE + (" whose calculated answers are expressions" if in_calc else "")


def prompting(recipe: Mapping[str, Any]) -> str:
    """How to ask it; the user's own pairs may be texts, which are trained on as they are."""
    if recipe.get("pairs"):
        return OWN_PROMPTS
    return "Prompt it through the base model's chat template, thinking off."


def supervised(recipe: Mapping[str, Any]) -> bool:
    """Are the chosen replies alone trained on?"""
    return list(recipe["loss_type"]) == ["sft"]


def what(recipe: Mapping[str, Any]) -> str:
    """What it was trained on, as it follows a number."""
    if recipe.get("pairs"):
        return "preference pairs:"
    if supervised(recipe):
        return "right replies made from"
    return f"preference pairs ({STRATEGIES[recipe['strategy']]}) made from"


def base_name(base: str) -> str:
    """The base by its Hub id, or by its folder's name; nobody else has the folder."""
    if Path(base).is_dir() or not HUB_ID.fullmatch(base):
        return f"`{Path(base).name}` (a local folder when it was trained)"
    return f"[`{base}`](https://huggingface.co/{base})"


def metadata(
    facts: Mapping[str, Any], name: str, scores: list[EvalResult], licence: str | None
) -> ModelCardData:
    """The Hub's metadata: base, licence, tags, model-index."""
    base = facts["recipe"]["model_name_or_path"]
    is_local = Path(base).is_dir() or not HUB_ID.fullmatch(base)
    tags = ["lora", "sft" if supervised(facts["recipe"]) else "dpo", "trl"]
    if facts.get("data", UNKNOWN_DATA)["kind"] == "official":
        tags.append("tat-qa")
    return ModelCardData(
        base_model=None if is_local else base,
        license=licence or licence_of(base) or "other",
        library_name="peft",
        pipeline_tag="text-generation",
        tags=tags,
        model_name=name,
        eval_results=scores or None,
    )


def licence_note(data: Mapping[str, Any]) -> str:
    """What is known of the data's licence."""
    return {"official": "; the data are CC BY 4.0", "synthetic": ""}.get(
        str(data["kind"]), "; the data's licence is not known here"
    )


def rows(facts: Mapping[str, Any]) -> str:
    """Settings and how training ended, as the rows of a table."""
    lines = []
    for field in SHOWN:
        value = facts["recipe"].get(field)
        if field == "beta" and supervised(facts["recipe"]):
            continue
        if field == "init_adapter" and value:
            value = Path(value).name
        if value is not None:
            lines.append(f"| {field} | {value} |")
    last = facts["history"][-1]
    end = f"loss {last['loss']:.4f}"
    if "rewards/accuracies" in last:
        end += f", reward accuracy {last['rewards/accuracies']:.2f}"
    lines.append(f"| last step | {end} |")
    lines.append(f"| trained on | {facts['device']}, {facts['seconds']:.0f} s |")
    return "\n".join(lines)


SNIPPET = """\
```python
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer{more_imports}

base = AutoModelForCausalLM.from_pretrained("{base}", dtype=torch.{dtype}{quantization})
model = PeftModel.from_pretrained(base, "{name}")
tokenizer = AutoTokenizer.from_pretrained("{base}")
```"""
QUANTIZATION = """,
    quantization_config=BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.{dtype},
    ),
"""


def snippet(facts: Mapping[str, Any], name: str) -> str:
    """Code that loads base and adapter, the base as it was trained on."""
    recipe = facts["recipe"]
    dtype = recipe["dtype"]
    if dtype == "auto":
        dtype = "float32" if facts["device"].startswith("cpu") else "bfloat16"
    base = recipe["model_name_or_path"]
    in_4bit = recipe["load_in_4bit"]
    return SNIPPET.format(
        base=Path(base).name if Path(base).is_dir() else base,
        name=name,
        dtype=dtype,
        more_imports=", BitsAndBytesConfig" if in_4bit else "",
        quantization=QUANTIZATION.format(dtype=dtype) if in_4bit else "",
    )


def results(record: Mapping[str, Any]) -> Iterator[EvalResult]:
    """The means of a record's scores, in per cent where they are shares; no stand-in's."""
    for bench in record["scores"].values():
        if bench.get("stand_in"):
            continue
        for metric, title in METRICS.items():
            values = [value for value in bench["metrics"].get(metric, []) if value is not None]
            if values:
                factor = 1 if metric == "score" else 100
                yield EvalResult(
                    task_type="text-generation",
                    dataset_type=bench["bench"],
                    dataset_name=bench["bench"],
                    metric_type=metric,
                    metric_name=f"{title} (n = {len(values):,})",
                    metric_value=round(factor * sum(values) / len(values), 2),
                )


def score_note(scores: list[EvalResult]) -> str:
    """The sentence on what it scores."""
    if not scores:
        return "What it gained and lost is for `results` to measure; this card claims no score."
    said = [f"{score.dataset_name} {score.metric_name} {score.metric_value}" for score in scores]
    return f"Measured by this project: {'; '.join(said)}."


def read(folder: Path, name: str) -> dict[str, Any] | None:
    """A JSON object of a run's folder; None if there is none. Raises ValueError if it is torn."""
    path = folder / name
    if not path.is_file():
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found
