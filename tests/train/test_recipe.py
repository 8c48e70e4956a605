"""Recipes are read strictly, and the shipped ones say what the experiment log says."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from train.__main__ import main, overrides
from train.recipe import Recipe, RecipeError, load, parse

FOLDER = Path(__file__).resolve().parents[2] / "train" / "recipes"
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
LOG: dict[str, Any] = {  # "Parameters" of the log's runs
    "model_name_or_path": "Qwen/Qwen3-1.7B", "load_in_4bit": True, "split": "train",
    "strategy": "log", "beta": 0.02,
    "learning_rate": 5e-6, "num_train_epochs": 1, "effective_batch_size": 32, "max_length": 768,
    "max_prompt_length": 384, "lora_r": 16, "lora_alpha": 32, "lora_dropout": 0.05,
    "lora_target_modules": ["q_proj", "v_proj"], "lr_scheduler_type": "linear", "warmup_ratio": 0.0,
    "loss_type": ["sigmoid"], "beta_schedule": "constant", "beta_by_type": {},
}  # fmt: skip
PLAIN = {**LOG, "strategy": "corrupt", "max_length": None, "max_prompt_length": None}
TABLE: dict[str, dict[str, Any]] = {  # the one thing that each run changes
    "beta_005_lora_16_32": {"beta": 0.05},
    "beta_003_lora_16_32_ultralow_mem": {"beta": 0.03},
    "beta_002_lora_16_32_ultralow_mem": {},
    "beta_002_lr25e6_optimal_config": {"learning_rate": 2.5e-6},
    "beta_002_2epochs_optimal": {"num_train_epochs": 2},
    "beta_002_lora32_64_highcap": {"lora_r": 32, "lora_alpha": 64},
    "beta_002_lr1e5_aggressive": {"learning_rate": 1e-5},
    "beta_001": {"beta": 0.01},
    "beta_0025": {"beta": 0.025},
    "beta_002_lr75e6": {"learning_rate": 7.5e-6},
    "beta_002_3epochs": {"num_train_epochs": 3},
    "beta_002_attention": {"lora_target_modules": ATTENTION},
    "beta_002_attention_mlp": {
        "lora_target_modules": [*ATTENTION, "gate_proj", "up_proj", "down_proj"]
    },
    "beta_002_dropout_0": {"lora_dropout": 0.0},
    "beta_002_dropout_01": {"lora_dropout": 0.1},
    "beta_002_cosine": {"lr_scheduler_type": "cosine"},
    "beta_002_warmup": {"warmup_ratio": 0.1},
    "beta_002_batch_64": {"effective_batch_size": 64},
    "beta_002_length_1024_512": {"max_length": 1024, "max_prompt_length": 512},
    "beta_002_qwen3_8b": {"model_name_or_path": "Qwen/Qwen3-8B"},
    "beta_002_schedule": {"beta": 0.03, "beta_schedule": "linear"},
    "beta_by_type": {
        "beta_by_type": {"count": 0.05, "span": 0.03, "multi-span": 0.02, "arithmetic": 0.02}
    },
}
OWN: dict[str, dict[str, Any]] = {
    "qwen3_dpo": {}, "qwen3_sft": {"loss_type": ["sft"]},
    "qwen3_dpo_sft": {"loss_type": ["sigmoid", "sft"]},
}  # fmt: skip
SFT = {
    "model_name_or_path": "Qwen/Qwen2.5-Coder-1.5B-Instruct", "load_in_4bit": False,
    "strategy": "corrupt",
    "scale_markers": True, "init_adapter": None, "loss_type": ["sft"], "learning_rate": 2e-4,
    "num_train_epochs": 3,
    "lora_r": 16, "lora_alpha": 32, "lora_target_modules": "all-linear",
}  # fmt: skip
ROUND = {
    **SFT, "form": "calc", "strategy": "mined", "init_adapter": "results/runs/calc_sft",
    "beta": 0.1, "learning_rate": 1e-5,
    "num_train_epochs": 1, "max_pairs_per_question": 2,
}  # fmt: skip
REAL: dict[str, dict[str, Any]] = {  # supervised, then on the model's own mistakes
    "calc_sft": {**SFT, "form": "calc"},
    "direct_sft": {**SFT, "form": "direct"},
    "calc_dpo_round": {**ROUND, "loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.2]},
    "calc_apo_round": {**ROUND, "loss_type": ["apo_zero"]},
}


@pytest.mark.parametrize(("name", "changes"), [*TABLE.items(), *OWN.items()])
def test_recipe_says_what_the_log_says(name: str, changes: dict[str, Any]) -> None:
    recipe = load(FOLDER / f"{name}.yaml").model_dump()
    expected = {**(PLAIN if name in OWN else LOG), **changes}
    assert {key: recipe[key] for key in expected} == expected


@pytest.mark.parametrize(("name", "fields"), REAL.items())
def test_recipes_of_the_real_run(name: str, fields: dict[str, Any]) -> None:
    recipe = load(FOLDER / f"{name}.yaml").model_dump()
    assert {key: recipe[key] for key in fields} == fields


def test_every_recipe_says_in_its_first_line_what_it_is() -> None:
    for path in FOLDER.glob("*.yaml"):
        assert path.read_text().startswith("# ")


def test_no_recipe_is_missing_from_the_table_or_from_the_readme() -> None:
    names = {path.stem for path in FOLDER.glob("*.yaml")}
    assert names == {*TABLE, *OWN, *REAL, "demo"}
    load(FOLDER / "demo.yaml")
    readme = (FOLDER.parent / "README.md").read_text()
    assert not {name for name in names if f"`{name}`" not in readme}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"betta": 0.1}, "unknown key `betta`; did you mean `beta`?"),
        ({"lora_rank": 8}, "unknown key `lora_rank`; did you mean `lora_r`?"),
        ({"zzzzzz": 8}, "unknown key `zzzzzz`; known: model_name_or_path, "),
        ({"beta": "much"}, "beta: Input should be a valid number"),
        ({"beta": 0}, "beta: Input should be greater than 0"),
        ({"learning_rate": 1e30}, "learning_rate: Input should be less than or equal to 1"),
        ({"lora_r": 10**9}, "lora_r: Input should be less than or equal to 8192"),
        ({"lora_alpha": 10**21}, "lora_alpha: Input should be less than or equal to 65536"),
        ({"num_train_epochs": 10**14}, "num_train_epochs: Input should be less than"),
        ({"effective_batch_size": 10**10}, "effective_batch_size: Input should be less than"),
        (
            {"lora_target_modules": ["q_proj", "q_proj"]},
            "lora_target_modules: a layer is named twice",
        ),
        ({"beta_end": 0.2}, "beta_end and a beta_schedule go together"),
        ({"beta_schedule": "cosine"}, "beta_end and a beta_schedule go together"),
        (
            {"beta_by_type": {"spam": 1}},
            "beta_by_type.spam.[key]: Input should be 'span', 'multi-span'",
        ),
        ({"loss_type": ["dpo"]}, "loss_type.0: Input should be 'sigmoid', 'hinge'"),
        ({"loss_type": []}, "loss_type: List should have at least 1 item"),
        ({"beta_by_type": {"count": 0}}, "beta_by_type.count: Input should be greater than 0"),
        (
            {"corruptions": {"wrong_sign": -1}},
            "corruptions.wrong_sign: Input should be greater than or equal to 0",
        ),
        (
            {"loss_type": ["sigmoid", "sft"], "loss_weights": [1]},
            "loss_weights needs one entry per loss_type",
        ),
        (
            {"max_length": 384, "max_prompt_length": 384},
            "max_prompt_length leaves no room below max_length",
        ),
        ({"strategy": "mined"}, "samples and strategy: mined go together"),
        ({"learning_rate": True}, "learning_rate: true and false have no meaning here, found True"),
        ({"lora_r": True}, "lora_r: true and false have no meaning here"),
        ({"loss_type": ["sft"], "loss_weights": [True]}, "loss_weights: true and false"),
        ({"beta_by_type": {"count": True}}, "beta_by_type: true and false have no meaning here"),
        ({"load_in_4bit": 1}, "load_in_4bit: true or false is needed, found 1"),
        ({"share_prefixes": "no"}, "share_prefixes: true or false is needed, found 'no'"),
        ({"learning_rate": float("inf")}, "learning_rate: Input should be a finite number"),
        ({"beta": float("nan")}, "beta: Input should be a finite number"),
        ({"corruptions": {"wrong_sign": float("inf")}}, "corruptions.wrong_sign: Input should be"),
        ({"beta_by_type": {"count": float("nan")}}, "beta_by_type.count: Input should be"),
        (
            {"loss_type": ["sigmoid", "sft"], "loss_weights": [1, float("inf")]},
            "loss_weights.1: Input should be a finite number",
        ),
        (
            {"loss_type": ["sigmoid", "sft"], "loss_weights": [1, -0.2]},
            "loss_weights.1: Input should be greater than or equal to 0",
        ),
        ({"loss_weights": [0]}, "loss_weights: a loss of weight 0 does nothing"),
        (
            {"loss_type": ["sft", "sigmoid"], "loss_weights": [1, 0]},
            "loss_weights: a loss of weight 0 does nothing",
        ),
        ({"loss_type": ["sigmoid", "sigmoid"]}, "loss_type names sigmoid twice"),
        ({"corruptions": {"wrong_scale": 0}}, "corruptions are all 0"),
        ({"beta_schedule_unit": "epoch"}, "beta_schedule_unit: epoch needs a beta_schedule"),
        (
            {"beta_schedule_unit": "epoch", "beta_schedule": "linear", "beta_end": 0.2},
            "beta_schedule_unit: epoch needs a beta_schedule and several epochs",
        ),
        (
            {"loss_type": ["sft"], "beta_by_type": {"span": 0.3}},
            "supervised training has no beta",
        ),
        (
            {"loss_type": ["sft"], "beta_schedule": "linear", "beta_end": 0.3},
            "supervised training has no beta",
        ),
        ({"seed": -1}, "seed: Input should be greater than or equal to 0"),
        ({"seed": 2**32}, "seed: Input should be less than 4294967296"),
        ({"loss_weights": []}, "loss_weights needs one entry per loss_type"),
        ({"loss_type": ["robust"]}, "loss_type robust needs a label_smoothing above 0"),
        ({"loss_type": ["exo_pair"]}, "loss_type exo_pair needs a label_smoothing above 0"),
        ({"label_smoothing": 0.1}, "label_smoothing is for robust and exo_pair alone"),
        (
            {"loss_type": ["robust"], "label_smoothing": 0.5},
            "label_smoothing: Input should be less than 0.5",
        ),
        (
            {"lora_target_modules": ["q_proj", "model.embed_tokens"]},
            "lora_target_modules: model.embed_tokens is an embedding; lm-eval cannot load",
        ),
        ({"lora_target_modules": ["lm_head"]}, "lora_target_modules: lm_head is an embedding"),
        (
            {"lora_target_modules": "q_proj.*"},
            "lora_target_modules: q_proj.* is no name of a layer",
        ),
        ({"lora_target_modules": []}, "lora_target_modules: no layer is named"),
        ({"lora_target_modules": 3}, "lora_target_modules: names of layers in a list"),
        ({"form": "calc", "strategy": "log"}, "strategy: log has no form: calc"),
        ({"max_pairs_per_question": 2}, "max_pairs_per_question is for strategy: mined alone"),
        (
            {"strategy": "log", "corruptions": {"wrong_sign": 1}},
            "corruptions are for strategy: corrupt alone",
        ),
        ({"pairs": "p.jsonl", "form": "calc"}, "pairs and form exclude each other"),
        ({"pairs": "p.jsonl", "scale_markers": True}, "pairs and scale_markers exclude each other"),
        ({"pairs": ""}, "pairs: String should have at least 1 character"),
        ({"eval_share": 0.6}, "eval_share: Input should be less than or equal to 0.5"),
        ({"max_grad_norm": -1}, "max_grad_norm: Input should be greater than or equal to 0"),
        ({"num_train_epochs": 1.5}, "num_train_epochs: Input should be a valid integer"),
    ],
)
def test_what_a_recipe_cannot_say(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse({"model_name_or_path": "x", **fields}, "r.yaml")
    assert str(caught.value).startswith(f"r.yaml: {message}")
    assert "\n" not in str(caught.value)


def test_yaml_numbers_without_a_point_are_numbers(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(
        "model_name_or_path: x\nlearning_rate: 5e-6\n"
    )  # text to YAML 1.1
    assert load(tmp_path / "r.yaml", {"beta": "1e-2"}).learning_rate == 5e-6


def test_a_single_text_is_a_list_of_one() -> None:
    recipe = parse({"model_name_or_path": "x", "loss_type": "sft", "lora_target_modules": "q"}, "")
    assert recipe.loss_type == ["sft"]
    assert recipe.lora_target_modules == ["q"]


@pytest.mark.parametrize("written", ["all-linear", ["all-linear"]])
def test_all_linear_layers_are_named_as_in_peft(written: object) -> None:
    recipe = parse({"model_name_or_path": "x", "lora_target_modules": written}, "")
    assert recipe.lora_target_modules == "all-linear"


def test_losses_that_read_label_smoothing_get_it() -> None:
    for loss in ("robust", "exo_pair"):
        fields = {"model_name_or_path": "x", "loss_type": loss, "label_smoothing": 0.1}
        assert parse(fields, "").label_smoothing == 0.1


def test_a_recipe_written_out_is_read_back_the_same(tmp_path: Path) -> None:
    import yaml

    recipe = load(FOLDER / "demo.yaml")
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe.model_dump()))
    assert load(tmp_path / "r.yaml") == recipe


def test_several_words_are_a_list_as_with_trl() -> None:
    words = ["--lora_target_modules", "q_proj", "v_proj", "--beta", "0.2", "--loss_type=sigmoid"]
    assert overrides([*words, "sft"]) == {
        "lora_target_modules": ["q_proj", "v_proj"],
        "beta": 0.2,
        "loss_type": ["sigmoid", "sft"],
    }


def test_switches_and_hyphens_are_read_as_with_trl() -> None:
    """A switch without a value was refused, and so was a hyphen in place of an underscore."""
    words = ["--use_dora", "--no_share_prefixes", "--no-load-in-4bit", "--learning-rate", "0.1"]
    assert overrides(words) == {
        "use_dora": True,
        "share_prefixes": False,
        "load_in_4bit": False,
        "learning_rate": 0.1,
    }
    with pytest.raises(RecipeError, match="expected --field value, found `--no_beta`"):
        overrides(["--no_beta"])


def test_overrides() -> None:
    given = [
        "--beta",
        "0.03",
        "--loss_type=[sigmoid, sft]",
        "--share_prefixes",
        "false",
        "--beta_by_type={count: 0.1}",
    ]
    assert overrides(given) == {
        "beta": 0.03, "loss_type": ["sigmoid", "sft"], "share_prefixes": False,
        "beta_by_type": {"count": 0.1},
    }  # fmt: skip
    for wrong in (
        ["beta", "3"],
        ["--beta"],
        ["--beta", "[1"],
        ["--seed", "010"],
        ["--a", "{b, b}"],
    ):
        with pytest.raises(RecipeError, match="command line"):
            overrides(wrong)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read the recipe"),
        ("- 1", "flat mapping"),
        ("a: [", "not YAML"),
        ("beta: 1", "Field required"),
        (
            "beta: 1\nmodel_name_or_path: x\nbeta: 2",
            "`beta` stands twice, the second time in line 3",
        ),
        ("model_name_or_path: x\ncorruptions: {wrong_sign: 1, wrong_sign: 2}", "stands twice"),
        ("beta: 2001-13-45", "not YAML"),
        ("[" * 5000, "not YAML"),
        ("model_name_or_path: ''", "model_name_or_path is empty"),
        ("seed: 010", "write `010` as a plain decimal number"),  # YAML's 8
        ("learning_rate: 1:30", "write `1:30` as a plain"),  # YAML's 90
        ("lora_r: 1_6", "write `1_6` as a plain"),
        ("LEARNING_RATE: 1", "did you mean `learning_rate`?"),
    ],
)
def test_unreadable_recipes(
    content: str | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "r.yaml"
    if content is not None:
        path.write_text(content)
    assert main([str(path)]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1


def test_help_names_every_field() -> None:
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-m", "train", "--help"], capture_output=True, text=True, check=True
    )
    assert not [name for name in Recipe.model_fields if f"  {name} " not in done.stdout]


def test_the_shipped_schema_is_that_of_the_recipe() -> None:
    """Editors and `results run` read it; write it anew with Recipe.model_json_schema()."""
    shipped = json.loads((FOLDER.parent / "recipe.schema.json").read_text())
    assert shipped == Recipe.model_json_schema()


@pytest.mark.parametrize("said", ["x", "{}", "5", "[1]", "["])
def test_what_is_told_later_and_is_no_command_line_is_one_line(
    said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{said}\n"))
    with pytest.raises(SystemExit) as stop:
        main(["-"])
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith("error: standard input: expected the command line")
