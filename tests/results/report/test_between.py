"""Runs against each other: repeats, steps from one adapter to the next, single fields."""

from collections.abc import Callable
from pathlib import Path

import pytest

from results.record import Record
from results.report import between, collect, sections

Change = Callable[..., None]


def mean(one: Record) -> float:
    values = [float(x or 0) for x in one.scores["tatqa"].metrics["em"]]
    return sum(values) / len(values)


def test_the_same_recipe_again_differs_in_no_field(three_seeds: Path, change: Change) -> None:
    change(three_seeds / "sft_seed1" / "record.json", seed=0, eval_share=0.0)
    found, _ = collect.collect(three_seeds)
    assert [run.name for run in found] == ["sft (2 seeds)", "sft_seed1"]
    assert [one.field for one in between.between_runs(found)] == [between.AGAIN]
    change(three_seeds / "sft_seed1" / "record.json", beta=0.2)
    found, _ = collect.collect(three_seeds)
    assert [one.field for one in between.between_runs(found)] == ["beta"]


def test_a_second_step_from_several_seeds_is_one_line(two_steps: Path) -> None:
    found, problems = collect.collect(two_steps)
    assert problems == []
    assert [run.name for run in found] == ["dpo-round1 (2 seeds)", "sft (3 seeds)"]
    (step,) = between.between_runs(found)
    assert (step.run.name, step.reference.name) == ("dpo-round1 (2 seeds)", "sft (2 seeds)")
    pairs = zip(step.run.records, step.reference.records, strict=True)
    moved = [mean(after) - mean(before) for after, before in pairs]
    d = step.row.difference
    assert d.delta == pytest.approx(sum(moved) / 2)
    assert (d.runs, d.df_runs) == (2, 1)
    assert d.se_runs == pytest.approx(abs(moved[0] - moved[1]) / 2)  # of the pairs' differences


def test_the_same_step_from_two_adapters_is_compared_by_where_it_starts(
    two_steps: Path, change: Change
) -> None:
    change(two_steps / "sft_seed1" / "record.json", beta=0.2)
    change(two_steps / "sft_seed2" / "record.json", init_adapter="elsewhere/adapter")
    for seed in (0, 1):
        change(two_steps / f"dpo_seed{seed}-round1" / "record.json", samples=[], seed=0)
    found, _ = collect.collect(two_steps)
    pairs = {(p.field, p.run.name, p.reference.name) for p in between.between_runs(found)}
    assert ("init_adapter", "dpo_seed1-round1", "dpo_seed0-round1") in pairs
    assert (between.STEP, "dpo_seed0-round1", "sft_seed0") in pairs
    titles = [item for kind, item in sections.between(found) if kind == "h3"]
    assert "By trained on from another adapter" in titles


def test_a_run_is_compared_with_the_run_it_started_from(
    results_folder: Path, change: Change
) -> None:
    runs = results_folder / "runs"
    change(runs / "low/record.json", init_adapter="somewhere/middle", beta=0.3, lora_r=8)
    found, _ = collect.collect(runs)
    (step,) = [pair for pair in between.between_runs(found) if pair.field == between.STEP]
    assert (step.run.name, step.reference.name) == ("low", "middle")
    d = step.row.difference
    assert d.delta == pytest.approx(mean(step.run.record) - mean(step.reference.record))
    assert d.family == len(between.between_runs(found))
    text = [item for kind, item in sections.between(found) if kind == "h3"]
    assert sections.TITLES[between.STEP] in text
