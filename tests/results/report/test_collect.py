"""Collected runs: seeds of one recipe together, steps between runs, costs, displacement."""

import dataclasses
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from results import record, statistics
from results.record import Record, Training
from results.report import collect, sections


def change(file: Path, **recipe: Any) -> None:
    """Change fields of a record's recipe."""
    content = json.loads(file.read_text())
    content["training"]["recipe"] |= recipe
    file.write_text(json.dumps(content))


@pytest.fixture
def three_seeds(results_folder: Path) -> Path:
    """The three runs as seeds of one recipe."""
    runs = results_folder / "runs"
    for seed, name in enumerate(("low", "middle", "high")):
        shutil.move(runs / name, runs / f"sft_seed{seed}")
        change(runs / f"sft_seed{seed}" / "record.json", beta=0.1, seed=seed)
    return runs


def test_seeds_of_one_recipe_are_one_line(three_seeds: Path) -> None:
    (run,), problems = collect.collect(three_seeds)
    assert problems == []
    assert run.name == "sft (3 seeds)"
    assert [record.name for record in run.records] == ["sft_seed0", "sft_seed1", "sft_seed2"]
    d = run.headlines["tatqa"].difference
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


def test_another_field_is_another_recipe(three_seeds: Path) -> None:
    change(three_seeds / "sft_seed1" / "record.json", beta=0.2)
    names = [run.name for run in collect.collect(three_seeds)[0]]
    assert names == ["sft (2 seeds)", "sft_seed1"]


def test_one_seed_is_about_the_adapter(results_folder: Path) -> None:
    run = collect.collect(results_folder / "runs")[0][0]
    words = list(sections.cautions(run))
    assert words[0] == "One training seed: the verdict is about this adapter, not about its recipe."


def test_a_run_is_compared_with_the_run_it_started_from(results_folder: Path) -> None:
    runs = results_folder / "runs"
    change(runs / "low/record.json", init_adapter="somewhere/middle", beta=0.3, lora_r=8)
    found, _ = collect.collect(runs)
    (step,) = [pair for pair in collect.between_runs(found) if pair.field == "init_adapter"]
    assert (step.run.name, step.reference.name) == ("low", "middle")
    d = step.row.difference
    assert d.delta == pytest.approx(mean(step.run.record) - mean(step.reference.record))
    assert d.family == len(collect.between_runs(found))
    text = [item for kind, item in sections.between(found) if kind == "h3"]
    assert sections.STEP in text


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


def test_displacement_is_the_mean_of_the_last_tenth_against_the_start() -> None:
    logps = [
        {"step": i, "chosen": -10.0 - i, "chosen_start": -9.0, "rejected": -20.0 - 2 * i,
         "rejected_start": -18.0}
        for i in range(1, 21)
    ]  # fmt: skip
    # the last two steps: chosen -1 - 19.5, rejected -2 - 39
    moved = collect.displacement(training([], logps=[{"step": 0, "chosen": -9.0}, *logps]))
    assert moved == pytest.approx((-20.5, -41))
    assert collect.displacement(training([{"step": 1, "loss": 0.5}])) is None


def test_displacement_from_the_rewards_where_nothing_else_was_logged() -> None:
    history = [{"step": 1, "rewards/chosen": -0.05, "rewards/rejected": -0.4, "beta": 0.1}]
    assert collect.displacement(training(history)) == pytest.approx((-0.5, -4))


@pytest.mark.parametrize("logps", [3, "x", {"chosen": 1}, [3], [{}], None])
def test_displacement_of_another_shape_is_none(logps: Any) -> None:
    assert collect.displacement(training([], logps=logps)) is None


def test_displacement_in_words() -> None:
    assert sections.displacement_words(0.5, -3).startswith("The chosen replies became likelier")
    fallen = sections.displacement_words(-3.2, -8.1)
    assert fallen.startswith("The chosen replies became LESS likely")
    assert "chosen -3.20, rejected -8.10 nats" in fallen


def test_a_format_that_is_followed_less_is_said_beside_exact_match(results_folder: Path) -> None:
    file = results_folder / "runs/low/record.json"
    content = json.loads(file.read_text())
    content["scores"]["tatqa"]["metrics"]["parsed"] = [0.0] * 60 + [1.0] * 20
    file.write_text(json.dumps(content))
    low = next(run for run in collect.collect(results_folder / "runs")[0] if run.name == "low")
    words = [line for line in sections.cautions(low) if "fell by more than the noise" in line]
    assert len(words) == 1
    assert "replies in the format asked for" in words[0]


def test_costs_are_minutes_and_gib(results_folder: Path) -> None:
    file = results_folder / "runs/low/record.json"
    content = json.loads(file.read_text())
    content["training"] |= {"peak_memory_bytes": 3 << 30, "seconds": 90.0, "device": "A GPU"}
    file.write_text(json.dumps(content))
    low = next(run for run in collect.collect(results_folder / "runs")[0] if run.name == "low")
    assert (low.minutes, low.gib) == (1.5, 3)
    assert sections.cost(low) == "Trained on 96 pairs in 1.5 minutes, 3.0 GiB at most, on A GPU."


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
    d = run.headlines["tatqa"].difference
    assert d.family == 1
    assert (d.low, d.high) == run.headlines["tatqa"].difference.interval(statistics.ALPHA)
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
    assert all(run.headlines[run.best_bench].difference.family == 1 for run in found)
    assert [run.name for run in found if run.stands_for_itself] == ["low", "middle"]
