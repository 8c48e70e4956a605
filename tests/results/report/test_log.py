"""The log's figures: all there, none invented; and what is computed from them."""

import math
import re
from pathlib import Path

import pytest
from scipy import stats

from results.report import log as published
from results.report import page


def test_every_run_of_the_log_has_its_place() -> None:
    assert [run["status"] for run in published.LOG["runs"]].count("completed") == 6
    assert [run["name"] for run in published.LOG["runs"] if run["status"] == "planned"] == [
        "beta_002_lr1e5_aggressive"
    ]
    keys = {frozenset(run) for run in published.LOG["runs"]}
    assert len(keys) == 1


@pytest.mark.real
def test_every_figure_stands_in_the_log(shared_data: Path) -> None:
    log = (shared_data.parent / "reference" / "dpo_experiments.md").read_text(encoding="utf-8")
    labels = {
        "overall": r"\*\*TAT-QA\*\*",
        "arithmetic": "Arithmetic",
        "count": "Count",
        "multi-span": "Multi-span",
        "span": "Span",
        "mtbench": r"\*\*MT-Bench\*\*",
        "instruct": r"\*\*Instruction Following\*\*",
    }
    checked = 0
    for run in published.LOG["runs"]:
        if not run["name"].startswith("beta_00") or "(" in run["name"]:
            continue
        section = log.split(f"### Experiment: {run['name']} ")[1].split("### Experiment")[0]
        for measure, label in labels.items():
            if run[measure] and run[measure][0] is not None:
                line = re.search(rf"^\s*- {label}: ([\d.]+)%? → ([\d.]+)", section, re.M)
                assert line
                assert [float(line[1]), float(line[2])] == run[measure][:2]
                checked += 1
        for key, pattern in (("loss", r"Final loss: ([\d.]+)"), ("seconds", r"\(([\d.]+)s\)")):
            found = re.search(pattern, section.split("**Results")[0])
            assert (float(found[1]) if found else None) == run[key]
    assert checked == 4 * 7 + 3


def test_every_stated_delta_agrees_with_before_and_after() -> None:
    checked = 0
    for run in published.DONE:
        for measure in (*published.TYPES, "mtbench", "instruct"):
            reading = run.reading(measure)
            if reading.shares is not None and reading.stated is not None:
                before, after = reading.shares  # the log rounds before it subtracts
                assert after - before == pytest.approx(reading.stated, abs=0.11)
                checked += 1
    assert checked == 30


def test_shares_of_count_are_whole_questions_of_32() -> None:
    for run in published.DONE:
        for share in run.reading("count").shares or ():
            assert abs(share * 32 / 100 - round(share * 32 / 100)) < 0.02


def test_count_cannot_be_significant_even_at_best() -> None:
    p = {run.name: run.at_best("count") for run in published.DONE if "count" in run.readings}
    assert p["beta_003_lora_16_32_ultralow_mem"] == stats.binomtest(4, 4).pvalue == 0.125
    assert min(p.values()) > 0.05


def test_errors_follow_their_formulas() -> None:
    assert published.independent_error((42.6, 49.3), 1668) == pytest.approx(1.7218, abs=1e-4)
    error, readings = published.rating_error()
    assert readings == [1.76, 1.48, 1.63, 1.72, 1.40]
    assert error == pytest.approx(0.2182, abs=1e-4)
    x = published.largest_by_chance(1.0, 6, 5)
    assert (1 - 2 * stats.t.sf(x, 4)) ** 6 == pytest.approx(0.5)
    assert published.largest_by_chance(error, 6, 5) == pytest.approx(0.45, abs=0.005)
    # simulated: 400,000 times the largest of 6 normal values over the root of a chi-square of 4 / 4
    assert published.largest_by_shared_chance(error, 6, 5) == pytest.approx(0.384, abs=0.001)
    alone = published.largest_by_shared_chance(1.0, 1, 5)
    assert alone == pytest.approx(float(stats.t.ppf(0.75, 4)), abs=1e-4)
    # 1,668 questions in 278 contexts: 6 a context
    assert published.context_error((42.6, 49.3), "overall") == pytest.approx(
        1.7218 * 6**0.5, abs=1e-3
    )


def test_the_page_says_what_the_numbers_say() -> None:
    text = page.markdown(published.blocks())
    assert "measured another way" in text.splitlines()[0]
    assert "10 pairs of runs" in text
    assert "after Holm 0" in text
    assert "{" not in text
    assert "the largest delta is 1.8 standard errors, known from 5 readings (4 degrees" in text
    assert "beyond ±0.45 half of the time" in text
    assert "beyond ±0.38 if it is counted that all 6 share one estimated error" in text
    assert "so +0.39 as the best of 6 is what chance gives" in text
    assert "36 % against 40 % is 1 prompt of 25: p = 1 even at best" in text
    assert not re.search(r"\bnan\b|None", text)
    assert all(run["name"] in text for run in published.LOG["runs"])
    assert max(abs(d) / published.rating_error()[0] for _, d in published.by_beta("mtbench")) < 2


def test_planned_runs_have_no_figures() -> None:
    row = next(row for row in published.overview() if row[0] == "beta_002_lr1e5_aggressive")
    assert set(row[6:]) == {""}
    assert not math.isnan(sum(delta for _, delta in published.by_beta("overall")))
