"""Collected runs: seeds of one recipe together, what they cost, and how they are told."""

import dataclasses
import json
import math
import shutil
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from results import record, statistics
from results.record import Record, Training
from results.report import between, collect, costs, sections

Change = Callable[..., None]


def test_seeds_of_one_recipe_are_one_line(three_seeds: Path) -> None:
    (run,), problems = collect.collect(three_seeds)
    assert problems == []
    assert run.name == "sft (3 seeds)"
    assert [record.name for record in run.records] == ["sft_seed0", "sft_seed1", "sft_seed2"]
    d = run.headline("tatqa").difference
    singles = [mean(record) - mean(run.base) for record in run.records]
    assert d.delta == pytest.approx(sum(singles) / 3)
    assert d.runs == 3
    assert d.se_runs > 0
    assert d.df_runs == 2
    words = " ".join(sections.cautions(run))
    assert "Mean of 3 training seeds: the interval holds for the recipe" in words
    assert "degrees of freedom), seeds" in words
    assert words.count("(2).") == 1


def mean(one: Record) -> float:
    values = [float(x or 0) for x in one.scores["tatqa"].metrics["em"]]
    return sum(values) / len(values)


def test_another_field_is_another_recipe(three_seeds: Path, change: Change) -> None:
    change(three_seeds / "sft_seed1" / "record.json", beta=0.2)
    names = [run.name for run in collect.collect(three_seeds)[0]]
    assert names == ["sft (2 seeds)", "sft_seed1"]


def test_a_field_that_is_off_is_one_that_an_older_version_did_not_have(
    three_seeds: Path, change: Change
) -> None:
    change(three_seeds / "sft_seed1" / "record.json", eval_share=0.0, pairs=None)
    assert [run.name for run in collect.collect(three_seeds)[0]] == ["sft (3 seeds)"]
    change(three_seeds / "sft_seed1" / "record.json", eval_share=0.1)
    names = [run.name for run in collect.collect(three_seeds)[0]]
    assert names == ["sft (2 seeds)", "sft_seed1"]


def test_a_repeated_seed_and_other_data_are_no_further_seeds(
    three_seeds: Path, change: Change
) -> None:
    change(three_seeds / "sft_seed2" / "record.json", seed=0)
    found, _ = collect.collect(three_seeds)
    assert [run.name for run in found] == ["sft (2 seeds)", "sft_seed2"]
    assert [run.again for run in found] == ["", "sft_seed0"]
    (pair,) = between.between_runs(found)
    assert (pair.run.name, pair.reference.name, pair.field) == (
        "sft_seed2",
        "sft_seed0",
        between.AGAIN,
    )
    told = list(sections.between(found))
    assert [item for kind, item in told if kind == "h3"] == [
        "The same recipe with the same seed, trained once more"
    ]
    assert ("h3", "The same recipe with the same seed, trained once more") in told
    opening = [str(item) for _, item in sections.opening(found)]
    assert opening[0].startswith("**sft (2 seeds)**")  # one recipe, not the best of two
    file = three_seeds / "sft_seed1" / "record.json"
    content = json.loads(file.read_text())
    content["provenance"]["data"]["sha256"] = "0"
    file.write_text(json.dumps(content))
    names = [run.name for run in collect.collect(three_seeds)[0]]
    assert names == ["sft_seed0", "sft_seed1", "sft_seed2"]


def test_a_bench_that_one_seed_has_is_of_that_seed(three_seeds: Path) -> None:
    for seed in (0, 1):
        file = three_seeds / f"sft_seed{seed}" / "record.json"
        content = json.loads(file.read_text())
        del content["scores"]["mtbench"]
        file.write_text(json.dumps(content))
    (run,), problems = collect.collect(three_seeds)
    assert problems == []
    assert {bench: run.headline(bench).difference.runs for bench in run.rows} == {
        "tatqa": 3,
        "mtbench": 1,
    }
    assert "(1 of 3 seeds)" in sections.bench_sentence(run, "mtbench")
    assert "seeds)" not in sections.bench_sentence(run, "tatqa")
    assert list(sections.blocks([run], [], own=False))
    for seed in (0, 1, 2):
        file = three_seeds / f"sft_seed{seed}" / "record.json"
        content = json.loads(file.read_text())
        content["scores"] = {"other": content["scores"]["tatqa"] | {"bench": "other"}}
        file.write_text(json.dumps(content))
    found, problems = collect.collect(three_seeds)
    assert found == []
    assert "not comparable: before has tatqa, mtbench, after has other" in problems[0]


def test_a_second_step_from_another_recipe_is_another_recipe(
    two_steps: Path, change: Change
) -> None:
    change(two_steps / "sft_seed1" / "record.json", beta=0.2)
    names = [run.name for run in collect.collect(two_steps)[0]]
    assert names == ["dpo_seed0-round1", "dpo_seed1-round1", "sft (2 seeds)", "sft_seed1"]


def test_adapters_that_start_from_each_other_are_read(two_steps: Path, change: Change) -> None:
    change(two_steps / "sft_seed0" / "record.json", init_adapter="somewhere/dpo_seed0-round1")
    change(two_steps / "sft_seed1" / "record.json", init_adapter="somewhere/sft_seed1")
    assert len(collect.collect(two_steps)[0]) == 5


def test_names_of_several_seeds() -> None:
    named = [types.SimpleNamespace(name=name) for name in ("a_seed=1", "a_seed=12", "b")]
    assert collect.common_name(named[:1]) == "a_seed=1"  # type: ignore[arg-type]
    assert collect.common_name(named[:2]) == "a (2 seeds)"  # type: ignore[arg-type]
    assert collect.common_name(named[1:]) == "a_seed=12 (2 seeds)"  # type: ignore[arg-type]


def test_one_seed_is_about_the_adapter(results_folder: Path) -> None:
    run = collect.collect(results_folder / "runs")[0][0]
    words = list(sections.cautions(run))
    assert words[0] == "One training seed: the verdict is about this adapter, not about its recipe."


def test_the_opening_shows_the_form_of_tatqa_that_is_answered_best(results_folder: Path) -> None:
    runs = results_folder / "runs"
    for name in ("base-tiny", "low"):
        file = runs / name / "record.json"
        content = json.loads(file.read_text())
        calc = json.loads(json.dumps(content["scores"]["tatqa"])) | {"bench": "tatqa_calc"}
        if name == "low":
            calc["metrics"]["em"] = [1.0] * 80
        content["scores"]["tatqa_calc"] = calc
        file.write_text(json.dumps(content))
    found, _ = collect.collect(runs)
    low = next(run for run in found if run.name == "low")
    assert low.tatqa == ["tatqa", "tatqa_calc"]
    assert low.best_bench == "tatqa_calc"
    opening = [item for _, item in sections.opening(found)]
    assert "in TAT-QA, expressions worked out" in opening[0]
    assert opening[2].startswith("TAT-QA, expressions worked out: exact match, %: better")


def training(history: list[dict[str, float]], **more: Any) -> Training:
    facts = {"recipe": {}, "history": history, "pairs": {}, "seconds": 90.0, "device": "cpu"}
    return Training.model_validate(facts | more)


def test_a_format_that_is_followed_less_is_said_beside_exact_match(results_folder: Path) -> None:
    file = results_folder / "runs/low/record.json"
    content = json.loads(file.read_text())
    content["scores"]["tatqa"]["metrics"]["parsed"] = [0.0] * 60 + [1.0] * 20
    file.write_text(json.dumps(content))
    low = next(run for run in collect.collect(results_folder / "runs")[0] if run.name == "low")
    words = [line for line in sections.cautions(low) if "fell by more than the noise" in line]
    assert len(words) == 1
    assert "replies in the format asked for" in words[0]


def test_a_recipe_in_words(results_folder: Path, change: Change) -> None:
    runs = results_folder / "runs"
    change(runs / "low" / "record.json", loss_type=["sft"], strategy="corrupt", seed=3)
    low, middle = (run for run in collect.collect(runs)[0] if run.record.name in ("low", "middle"))
    shared = "learning rate 5e-06, epochs 1, LoRA rank and alpha 16, 32"
    assert sections.recipe_words(low, [low, middle]) == f"loss sft, strategy corrupt, {shared}."
    assert sections.recipe_words(middle, [middle]) == f"loss sigmoid, beta 0.05, {shared}."


def test_a_recipe_in_words_names_what_most_runs_have_otherwise(
    results_folder: Path, change: Change
) -> None:
    """Of three runs one has a cosine: its words say so, and those of the two others do not."""
    runs = results_folder / "runs"
    change(runs / "low" / "record.json", lr_scheduler_type="cosine")
    change(runs / "middle" / "record.json", lr_scheduler_type="linear")
    found = {run.record.name: run for run in collect.collect(runs)[0]}
    low, middle = found["low"], found["middle"]
    assert "lr_scheduler_type cosine" in sections.recipe_words(low, [low, middle, middle])
    assert "lr_scheduler_type" not in sections.recipe_words(middle, [low, middle, middle])
    assert sections.unusual_fields(low, [low, middle]) == ["beta", "lr_scheduler_type"]


def test_pairs_of_several_seeds_are_the_least_and_the_most(three_seeds: Path) -> None:
    for seed, kept in ((0, 1282), (1, 1069), (2, "?")):
        file = three_seeds / f"sft_seed{seed}" / "record.json"
        content = json.loads(file.read_text())
        content["training"]["pairs"]["kept"] = kept
        file.write_text(json.dumps(content))
    (run,), _ = collect.collect(three_seeds)
    assert costs.training_cost(run).startswith(
        "Trained on 1,069 to 1,282 pairs in 0.2 minutes a seed"
    )


def test_costs_are_minutes_and_gib(results_folder: Path) -> None:
    file = results_folder / "runs/low/record.json"
    content = json.loads(file.read_text())
    content["training"] |= {"peak_memory_bytes": 3 << 30, "seconds": 90.0, "device": "A GPU"}
    file.write_text(json.dumps(content))
    low = next(run for run in collect.collect(results_folder / "runs")[0] if run.name == "low")
    assert (low.minutes, low.gib) == (1.5, 3)
    assert (
        costs.training_cost(low) == "Trained on 96 pairs in 1.5 minutes, 3.0 GiB at most, on A GPU."
    )


def test_examples_of_the_record_stand_in_the_opening(results_folder: Path) -> None:
    file = results_folder / "runs/low/record.json"
    found = record.load(file)
    examples = [
        {"bench": "tatqa", "kind": kind, "group": "span", "question": f"{kind}?", "gold": "g",
         "before": "b", "after": "a"}
        for kind in ("lost", "gained", "gained", "format")
    ]  # fmt: skip
    changed = Record.model_validate(found.model_dump() | {"examples": examples})
    record.save(changed, file)
    runs = collect.collect(results_folder / "runs")[0]
    (shown,) = [item for kind, item in sections.opening(runs) if kind == "examples"]
    assert [row[0] for row in shown] == ["gained (span)", "lost (span)", "format (span)"]


def test_families_do_not_widen_what_stands_alone(results_folder: Path) -> None:
    runs = results_folder / "runs"
    shutil.rmtree(runs / "middle")
    shutil.rmtree(runs / "high")
    (run,), _ = collect.collect(runs)
    d = run.headline("tatqa").difference
    assert d.family == 1
    assert (d.low, d.high) == run.headline("tatqa").difference.interval(statistics.ALPHA)
    assert not math.isnan(run.last("loss"))
    assert math.isnan(run.last("nothing"))
    history = [{"loss": float(i)} for i in range(20)] + [{"step": 21.0}]
    ends = training(history)
    ended = dataclasses.replace(run, records=[run.record.model_copy(update={"training": ends})])
    assert ended.last("loss") == 18.5  # of 18 and 19
    assert sections.training_end(ended) == "Loss over the last tenth of the steps 18.500."


def test_forms_of_tatqa_and_synthetic_questions_have_tables_of_their_own(
    results_folder: Path,
) -> None:
    runs = results_folder / "runs"
    for name, changes in {"middle": {"bench": "tatqa_calc"}, "high": {"stand_in": True}}.items():
        shutil.copytree(runs / "base-tiny", runs / f"base-{name}")
        for side in (f"base-{name}", name):
            file = runs / side / "record.json"
            content = json.loads(file.read_text())
            content["scores"]["tatqa"] |= changes
            content["base"] = content["base"] and f"base-{name}"
            file.write_text(json.dumps(content))
    found, problems = collect.collect(runs)
    assert problems == []
    tables = {
        run.rows[bench][0].title: [run.name for run in having]
        for bench, having in collect.runs_by_bench(found)
        for run in having[:1]
        if bench.startswith("tatqa")
    }
    assert tables == {
        "TAT-QA (SYNTHETIC QUESTIONS, no TAT-QA figure): exact match, %": ["high"],
        "TAT-QA: exact match, %": ["low"],
        "TAT-QA, expressions worked out: exact match, %": ["middle"],
    }
    assert list(tables)[0].startswith("TAT-QA: ")  # "low" ends highest; stand-ins are last
    assert list(tables)[-1].startswith("TAT-QA (SYNTHETIC")
    assert all(run.headline(run.best_bench).difference.family == 1 for run in found)
    assert [run.name for run in found if run.stands_for_itself] == ["low", "middle"]
