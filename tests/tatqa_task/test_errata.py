"""The rules that doubt gold answers, by made-up questions, and the list that they led to."""

from pathlib import Path
from typing import Any

import pytest

from tatqa_task import data, errata, harness
from tatqa_task.types import Context, Question

TABLE = [
    ["", "2019", "2018"],
    ["Net sales", "$1,496.5", "$1,202.9"],
    ["Loss", "(25.0)", "(33.6)"],
]


def asked(answer: Any, scale: Any = "", derivation: str = "", text: str = "What?") -> Question:
    kind: Any = "span" if isinstance(answer, list) else "arithmetic"
    return Question("u", text, answer, kind, None, scale, derivation, 1)


DOUBTED = [
    ("scale_twice", asked(["$3.0 million"], "million")),
    ("scale_twice", asked(["$19.1 million"], "thousand")),
    ("typographic_minus", asked(["−298"], "million")),
    ("words_with_scale", asked(["Altium Designer"], "percent")),
    ("ratio_without_hundred", asked(0.24, "percent", "(1,496.5-1,202.9)/1,202.9")),
    ("ratio_without_hundred", asked(-0.26, "percent", "-25.0 / -33.6 - 1")),
    (
        "earlier_minus_later",
        asked(-293.6, "million", "1,202.9 - 1,496.5", "What is the difference?"),
    ),
    ("earlier_minus_later", asked(8.6, "million", "(33.6) - (25.0)", "What is the change?")),
    ("old_minus_new", asked(25.6, "percent", "(33.6-25.0)/33.6", "What is the percentage change?")),
    ("unit_not_stated", asked(293.6, "billion")),
    ("unit_left_out", asked(["$1,496.5"])),
    ("unit_left_out", asked(["1,202.9", "(33.6)"])),
    ("unit_left_out", asked(1349.7, "", "(1,496.5 + 1,202.9) / 2")),
]


@pytest.mark.parametrize(("rule", "question"), DOUBTED)
def test_doubted(rule: str, question: Question) -> None:
    context = Context("c", TABLE, ["in millions"], [question])
    found = list(errata.findings([context]))
    assert rule in {finding.rule for finding in found}
    assert {finding.uid for finding in found} == {"u"}


STANDS = [
    asked(["$3.0 million"]),
    asked(["-298"], "million"),
    asked(293.6, "million", "1,496.5 - 1,202.9", "What is the difference?"),
    asked(24.41, "percent", "(1,496.5-1,202.9)/1,202.9"),
    asked(2.7, "percent", "(2.5+2.9)/2"),
    asked(8.6, "million", "33.6 - 25.0", "By how much did the loss decrease?"),
    asked(25.6, "percent", "(33.6-25.0)/33.6", "What is the percentage decline?"),
    asked(["$1,496.5"], "million"),
    asked(["$1,496.5"], "", "", "What were net sales per share?"),
    asked(["2019"]),
    asked(["17.1"]),  # not in the table
    asked(["Net sales of $1,496.5"]),
    asked(1.24, "", "1,496.5 / 1,202.9"),
]


@pytest.mark.parametrize("question", STANDS)
def test_stands(question: Question) -> None:
    assert list(errata.findings([Context("c", TABLE, ["in millions"], [question])])) == []


def test_twins_and_another_unit() -> None:
    first, second = asked(["60%"]), Question("v", " what? ", ["23%"], "span", None, "", "", 2)
    same = Question("w", "Other?", ["1"], "span", None, "thousand", "", 3)
    found = errata.findings([Context("c", TABLE, ["(in millions)"], [first, second, same])])
    assert {(finding.uid, finding.rule): finding.evidence for finding in found} == {
        ("u", "twin"): "asked twice, with ['60%'] and ['23%']",
        ("v", "twin"): "asked twice, with ['23%'] and ['60%']",
        ("w", "unit_not_stated"): "neither table nor text says thousand, it says in millions",
    }


def test_one_number_with_two_scales() -> None:
    first = asked(["$1,496.5"], "million")
    second = Question("v", "Sum?", 2699.4, "arithmetic", None, "thousand", "1,496.5 + 1,202.9", 2)
    third = Question("w", "Loss?", ["(25.0)"], "span", None, "thousand", "", 3)
    found = errata.findings([Context("c", TABLE, ["millions, thousands"], [first, second, third])])
    assert {(finding.uid, finding.rule): finding.evidence for finding in found} == {
        ("u", "two_units"): "`1,496.5` is million here and thousand in v",
        ("v", "two_units"): "`1,496.5` is thousand here and million in u",
    }


def test_the_list() -> None:
    entries = errata.listed().values()
    assert len(entries) == 62
    for entry in entries:
        assert entry.split in ("validation", "test")
        assert entry.verdict in ("wrong", "unmatchable", "ambiguous")
        assert entry.rule in {*errata.RULES, "by_eye"}
        assert entry.evidence
        assert (entry.answer is None) == (entry.scale is None)


@pytest.mark.real
@pytest.mark.parametrize(("split", "n"), [("validation", 32), ("test", 30)])
def test_the_rules_find_what_is_listed(
    shared_data: Path, split: str, n: int, monkeypatch: Any
) -> None:
    folder = str(shared_data / "tatqa")
    found = {finding.uid for finding in errata.findings(data.load(split, folder))}
    entries = [entry for entry in errata.listed().values() if entry.split == split]
    assert len(entries) == n
    assert {entry.uid for entry in entries if entry.rule != "by_eye"} <= found
    assert len(found) <= n + 9  # what a reader found to stand
    monkeypatch.setenv("TATQA_DATA", folder)
    docs = [doc for doc in harness.documents(split) if doc["uid"] not in errata.listed()]
    kept = sum(
        len(harness.dataset(split, kind, verified=True)[split]) for kind in data.ANSWER_TYPES
    )
    assert kept == len(docs) == {"validation": 1636, "test": 1633}[split]
