"""The run that a report opens with."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from results.report import choice, collect, sections

Change = Callable[..., None]


def scored(file: Path, right: int) -> None:
    """Let a run answer so many of the 80 questions right, the same ones each time."""
    content = json.loads(file.read_text())
    em = [float(i < right) for i in range(80)]
    content["scores"]["tatqa"]["metrics"]["em"] = em
    file.write_text(json.dumps(content))


def test_the_opening_is_not_chosen_by_what_chance_can_do(
    results_folder: Path, change: Change
) -> None:
    runs = results_folder / "runs"
    for name, right in (("low", 60), ("middle", 59), ("high", 10)):
        scored(runs / name / "record.json", right)
    shutil.copytree(runs / "middle", runs / "middle_seed2")
    change(runs / "middle_seed2" / "record.json", seed=2)
    scored(runs / "middle_seed2" / "record.json", 58)
    found, _ = collect.collect(runs)
    opened_with = choice.chosen(found)
    assert opened_with.highest.name == "low"
    assert opened_with.run.name == "middle (2 seeds)"
    assert [run.name for run in opened_with.as_high] == ["low", "middle (2 seeds)"]
    assert [run.name for run, _ in opened_with.rivals] == ["middle (2 seeds)", "high"]
    assert all(row.difference.family == 2 for _, row in opened_with.rivals)
    opening = [str(item) for _, item in sections.opening(found)]
    assert opening[0].startswith("Of 3 recipes 2 end as high as these questions can tell, in TAT")
    assert opening[0].endswith("Of them the one with the most training seeds:")
    (told,) = [line for line in opening if line.startswith("The highest, low, against the next")]
    assert "Chosen on these same questions, the highest figure is flattered." in told
    assert told.endswith("Runs that end as high: low (75.0), middle (2 seeds) (73.1).")


def test_what_stands_out_is_the_opening(results_folder: Path) -> None:
    runs = results_folder / "runs"
    for name, right in (("low", 75), ("middle", 10), ("high", 10)):
        scored(runs / name / "record.json", right)
    found, _ = collect.collect(runs)
    opening = [str(item) for _, item in sections.opening(found)]
    assert opening[0] == "Of 3 recipes the one that ends highest, in TAT-QA: exact match, %:"
    (told,) = [line for line in opening if "against the next, " in line]
    assert ": better, +81.2" in told
    assert "Runs that end as high" not in told
    shutil.rmtree(runs / "middle")
    shutil.rmtree(runs / "high")
    alone = [str(item) for _, item in sections.opening(collect.collect(runs)[0])]
    assert not [line for line in alone if "against the next" in line]
