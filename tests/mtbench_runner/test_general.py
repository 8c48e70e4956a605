"""The rules of benchmarks/mtbench_general.py: for each instruction a reply that follows it."""

import json
from importlib import util
from pathlib import Path
from typing import Any

import pytest

from mtbench_runner.bench import load

PATH = Path(__file__).parents[2] / "benchmarks" / "mtbench_general.py"
FOLLOWS = {
    1: "A budget is a plan. It says what comes in. It says what goes out.",
    2: "Grey light, wet leaves, and one umbrella hurrying home.",
    3: "Please water all the thirsty plants today.",
    4: "It opens the door to other people's books.",
    5: "Bridges join. They also last.\n\nSome hang. Others float.",
    6: "1. Hat\n2. Towel\n3. Water\n4. Book\n5. Shade",
    7: "Athens, Berlin, Lisbon, New York",  # a rule does not know capitals
    8: "- Fry an egg\n- Toast bread\n- Cut fruit",
    9: "\n".join(f"{n} apples" for n in range(1, 8)),
    10: "Red (apple), yellow (sun), blue (sky)",
    11: '```json\n{"name": "Mira", "age": 31}\n```',
    12: "2021-07-04",
    13: "| Month | Days |\n|---|:--|\n| January | 31 |\n| February | 28 |\n| March | 31 |",
    14: "**COFFEE PRICES: 2024**",
    15: "yes",
    16: "It stretches to the sky. Nobody has ever owned it.",
    17: "Cold winds bring snow.",
    18: "A library has one shelf. Then another shelf.",
    19: "Unfortunately I am busy; I would be grateful for another day.",
    20: "A big dog ran past our old barn today.",
    21: "27, 21, 14, 9, 3",
    22: "1. Boil the water.\n2. Pour it over the leaves.\n3. Drink the tea.",
    23: "START\nTrains are fast.\nEND",
    24: "Yesterday we sold twelve bicycles.",
    25: "It should.\nPeople have time.\nOthers are closed.",
}
LONG = "Sure, here is what you asked me for today. " * 8
LOOPING = "and so on and so on again, as said before; " * 9


@pytest.fixture(scope="module")
def general() -> Any:
    spec = util.spec_from_file_location("mtbench_general", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_instruction_has_a_rule_that_tells_replies_apart(general: Any) -> None:
    assert general.CHECKS.keys() == {q["question_id"] for q in load("instruct").questions}
    for question, reply in FOLLOWS.items():
        check = general.CHECKS[question]
        assert check(reply), question
        assert not check(LONG), question
        assert not check(""), question


def test_a_place_in_a_list_is_no_quantity(general: Any) -> None:
    check = general.CHECKS[9]
    assert not check("\n".join(f"{n}. Apples - 2" for n in range(1, 8)))
    assert check("\n".join(f"{n}. 2 apples" for n in range(1, 8)))
    assert check("\n".join("- a loaf of bread" for _ in range(7)))


def test_replies_are_counted_by_rule(general: Any, bench: Path) -> None:
    path = bench / "model_answer" / "m.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    said = [LONG, LOOPING, "I'm sorry, but no.", '{"answer": ["3"], "scale": ""}', " ", "Yes."]
    for row, text in zip(rows, said, strict=False):
        row["choices"][0] |= {"turns": [text, text], "finish_reasons": ["length", "stop"]}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows[:6]))
    found = general.count(load(str(bench)), "m")
    assert {name: found[name] for name in ("replies", "cut", "declines", "json", "empty")} == {
        "replies": 12, "cut": 6, "declines": 2, "json": 2, "empty": 2
    }  # fmt: skip
    assert found["loops"] == 4  # both ends
