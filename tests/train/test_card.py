"""Cards say what was done, on what data, how to load the base, and scores only where measured."""

from typing import Any

import pytest
import yaml

from train.card import card
from train.recipe import Recipe

RECORD = {
    "scores": {
        "tatqa": {"bench": "tatqa", "metrics": {"em": [1.0, 0.0, 0.5], "f1": [1.0, None, 0.5]}},
        "mt_bench": {"bench": "mt_bench", "metrics": {"score": [7.0, 8.0]}},
        "demo": {"bench": "tatqa", "stand_in": True, "metrics": {"em": [1.0]}},
    }
}


def facts(
    data: dict[str, str] | None = None, device: str = "cpu (x)", **fields: Any
) -> dict[str, Any]:
    recipe = Recipe.model_validate({"model_name_or_path": "org/base", **fields})
    last = {"loss": 0.5, "rewards/accuracies": 0.75}
    return {
        "recipe": recipe.model_dump(),
        "data": data or {"kind": "official"},
        "pairs": {"kept": 1234},
        "history": [last],
        "device": device,
        "seconds": 61.4,
    }


def parts(text: str) -> tuple[dict[str, Any], str]:
    _, head, body = text.split("---\n", 2)
    return yaml.safe_load(head), body


def test_what_was_done() -> None:
    head, body = parts(card(facts(), "mine"))
    assert head["base_model"] == "org/base"
    assert head["license"] == "other"
    assert head["tags"] == ["lora", "dpo", "trl", "tat-qa"]
    assert "model-index" not in head
    assert "trained with DPO (Rafailov et al., 2023) on 1,234 preference pairs" in body
    assert "the data are CC BY 4.0" in body
    assert "this card claims no score" in body
    assert "| last step | loss 0.5000, reward accuracy 0.75 |" in body
    assert "| trained on | cpu (x), 61 s |" in body
    assert "None" not in body


def test_supervised_runs_are_not_called_dpo() -> None:
    made = facts(loss_type="sft", form="calc")
    del made["history"][0]["rewards/accuracies"]
    head, body = parts(card(made, "mine"))
    assert head["tags"][1] == "sft"
    assert "trained with supervised fine-tuning on 1,234 right replies made from the train" in body
    assert "| beta |" not in body
    assert "whose calculated answers are expressions" in body
    assert "| last step | loss 0.5000 |" in body


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"kind": "synthetic"}, "synthetic questions"),
        ({"kind": "other"}, "not the official one"),
        ({"kind": "given", "name": "mine.jsonl"}, "preference pairs: `mine.jsonl`"),
    ],
)
def test_other_data_are_never_called_tatqa_under_its_licence(
    data: dict[str, str], said: str
) -> None:
    fields = {"pairs": "mine.jsonl"} if data["kind"] == "given" else {}
    head, body = parts(card(facts(data, **fields), "mine"))
    assert said in body
    assert "CC BY" not in body
    of_tatqa = data["kind"] != "given"
    assert ("financial report" in body) is of_tatqa
    assert "tat-qa" not in head["tags"]


def test_prompting_is_said_as_the_pairs_were() -> None:
    """Pairs of texts are trained on without the chat template that the card asked for."""
    assert "Prompt it through the base model's chat template, thinking off." in card(facts(), "x")
    own = card(facts({"kind": "given", "name": "m.jsonl"}, pairs="m.jsonl"), "mine")
    assert "as plain text where they are texts" in own


def test_runs_of_older_versions_have_a_card_too() -> None:
    older = facts()
    del older["data"]
    for field in ("form", "pairs", "init_adapter"):
        del older["recipe"][field]
    assert "not the official one" in card(older, "mine")


def test_the_snippet_loads_the_base_as_it_was_trained_on() -> None:
    cpu = card(facts(), "mine")
    assert 'from_pretrained("org/base", dtype=torch.float32)' in cpu
    assert "BitsAndBytesConfig" not in cpu
    gpu = card(facts(device="NVIDIA H100", load_in_4bit=True), "mine")
    assert "AutoTokenizer, BitsAndBytesConfig\n" in gpu
    assert 'bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True' in gpu
    assert "bnb_4bit_compute_dtype=torch.bfloat16" in gpu
    stated = card(facts(device="NVIDIA H100", dtype="float32"), "mine")
    assert "dtype=torch.float32" in stated
    for text in (cpu, gpu, stated):
        code = text.split("```python\n")[1].split("```")[0]
        compile(code, "snippet", "exec")


def test_scores_are_the_record_means_without_stand_ins() -> None:
    head, body = parts(card(facts(), "mine", RECORD))
    results = head["model-index"][0]["results"]
    found = {(r["dataset"]["type"], m["type"]): m["value"] for r in results for m in r["metrics"]}
    assert found == {("tatqa", "em"): 50.0, ("tatqa", "f1"): 75.0, ("mt_bench", "score"): 7.5}
    assert "Measured by this project: tatqa exact match (n = 3) 50.0" in body


def test_a_local_base_is_named_without_its_path(tmp_path: Any) -> None:
    (tmp_path / "README.md").write_text("license: mit\n")
    head, body = parts(card(facts(model_name_or_path=str(tmp_path)), "mine"))
    assert "base_model" not in head
    assert head["license"] == "mit"
    assert str(tmp_path) not in body
    assert f"`{tmp_path.name}` (a local folder when it was trained)" in body


def test_an_adapter_trained_on_from_is_named_without_its_path() -> None:
    body = card(facts(init_adapter="/home/me/runs/calc_sft"), "mine")
    assert "| init_adapter | calc_sft |" in body
