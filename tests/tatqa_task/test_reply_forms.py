"""Other members of the kinds of replies in README's table: none is in it, each was misread once.

What a fair reader takes from them; `tests/tatqa_task/test_answer.py` holds the rules.
"""

import pytest

from tatqa_task.answer import parse

GOOD = '{"answer": ["1,496.5"], "scale": "million"}'
DRAFT = '{"answer": ["1"], "scale": ""}'

OBJECTS = [
    ('{"answer": [{"text": "1,496.5", "scale": "million"}]}', ["1,496.5"], "million"),
    ('{"answer": [{"value": "1,496.5"}], "scale": "million"}', ["1,496.5"], "million"),
    ('{"final_answer": ["1,496.5"], "unit_scale": "million"}', ["1,496.5"], "million"),
    ('{"span": ["1,496.5"], "scale": "million"}', ["1,496.5"], "million"),
    ('{"spans": ["a", "b"], "scale": ""}', ["a", "b"], ""),
    ('{"answer_text": "1,496.5", "scale": "million"}', ["1,496.5"], "million"),
    ('{"predicted_answer": ["1,496.5"], "scale": "million"}', ["1,496.5"], "million"),
]

NUMBERS = [
    ('{"answer": ["5"], "scale": ["million"]}', ["5"], "million"),
    ('{"answer": ["1 496.5"], "scale": "million"}', ["1,496.5"], "million"),
    ('{"answer": ["1\u202f496.5"], "scale": "million"}', ["1,496.5"], "million"),
    ('{"answer": ["1’496.5"], "scale": "million"}', ["1,496.5"], "million"),
    ('{"answer": ["1,496.5 dollars"], "scale": "million"}', ["1,496.5"], "million"),
    ('{"answer": ["₹1,496.5"], "scale": "million"}', ["1,496.5"], "million"),
    ('{"answer": ["$1,496.5M"], "scale": "million"}', ["$1,496.5"], "million"),
    ('{"answer": ["$1.5bn"], "scale": "billion"}', ["$1.5"], "billion"),
    ('{"answer": ["12.5 pct"], "scale": "percent"}', ["12.5"], "percent"),
    ('{"answer": ["approximately 12.5"], "scale": "percent"}', ["12.5"], "percent"),
    ('{"answer": ["about 12.5%"], "scale": "percent"}', ["12.5"], "percent"),
    ('{"answer": ["minus 12.5"], "scale": "percent"}', ["-12.5"], "percent"),
    ('{"answer": ["negative 12.5"], "scale": "percent"}', ["-12.5"], "percent"),
    ('{"answer": ["**1,496.5**"], "scale": "million"}', ["1,496.5"], "million"),
    ('{"answer": ["`1,496.5`"], "scale": "million"}', ["1,496.5"], "million"),
    ('{"answer": ["\\\\boxed{1,496.5}"], "scale": "million"}', ["1,496.5"], "million"),
]

NEARLY_JSON = [
    ('{"answer": ["1,496.5"}, "scale": "million"}', ["1,496.5"], "million"),
    ('"answer": ["1,496.5"], "scale": "million"}', ["1,496.5"], "million"),
    ('"answer": ["1,496.5"], "scale": "million"', ["1,496.5"], "million"),
    ('answer": ["1,496.5"], "scale": "million"}', ["1,496.5"], "million"),
    ('[["1,496.5"], "million"]', ["1,496.5"], "million"),
    ('{\\"answer\\": [\\"1,496.5\\"], \\"scale\\": \\"million\\"}', ["1,496.5"], "million"),
    ('"{\\"answer\\": [\\"1,496.5\\"], \\"scale\\": \\"million\\"}"', ["1,496.5"], "million"),
    ("{„answer“: [„1,496.5“], „scale“: „million“}", ["1,496.5"], "million"),
    ("{«answer»: [«1,496.5»], «scale»: «million»}", ["1,496.5"], "million"),
]

IN_WORDS = [
    ("answer:\n  - 1,496.5\nscale: million", ["1,496.5"], "million"),
    ("| answer | scale |\n|---|---|\n| 1,496.5 | million |", ["1,496.5"], "million"),
    ("| answer | 1,496.5 |\n| scale | million |", ["1,496.5"], "million"),
    ("answer\tscale\n1,496.5\tmillion", ["1,496.5"], "million"),
    ("<final_answer>1,496.5 million</final_answer>", ["1,496.5"], "million"),
    ("[ANSWER]1,496.5 million[/ANSWER]", ["1,496.5"], "million"),
    ("<ans>1,496.5 million</ans>", ["1,496.5"], "million"),
    ("<|answer|>1,496.5 million", ["1,496.5"], "million"),
    ("\\fbox{1,496.5 million}", ["1,496.5"], "million"),
    ("Answer - 1,496.5 million", ["1,496.5"], "million"),
    ("Answer – 1,496.5 million", ["1,496.5"], "million"),
    ("Answer: 1,496.5 | Scale: million", ["1,496.5"], "million"),
    ("Scale: million\nAnswer: 1,496.5", ["1,496.5"], "million"),
    ("The answer is: 1,496.5, and the scale is million.", ["1,496.5"], "million"),
    (
        "The correct answer is 1,496.5 million because revenue was 2 million more.",
        ["1,496.5"],
        "million",
    ),
    ("The answer would be $1,496.5 million, as stated in the table.", ["$1,496.5"], "million"),
    ("=> 1,496.5 million", ["1,496.5"], "million"),
    ("1,496.5\nmillion", ["1,496.5"], "million"),
    ("1,496.5, million", ["1,496.5"], "million"),
    ("Thus, the total is 1,200 + 296.5 = 1,496.5 million.", ["1,496.5"], "million"),
    ("1,200 + 296.5 = 1,496.5", ["1,496.5"], ""),
]

REASONING = [
    "<scratch_pad>#</scratch_pad>@",
    "<|begin_of_thought|>#<|end_of_thought|>@",
    "<|channel|>analysis<|message|>#<|end|><|start|>assistant<|channel|>final<|message|>@",
    "◁think▷#◁/think▷@",
    "<seed:think>#</seed:think>@",
    "<inner_monologue>#</inner_monologue>@",
    "<unused94>thought\n#<unused95>@",
]


@pytest.mark.parametrize(("reply", "items", "scale"), OBJECTS + NUMBERS + NEARLY_JSON + IN_WORDS)
def test_what_a_fair_reader_takes(reply: str, items: list[str], scale: str) -> None:
    read = parse(reply)
    assert read[:2] == (items, scale)
    assert not read.parsed


@pytest.mark.parametrize("reply", REASONING)
def test_reasoning_is_no_answer(reply: str) -> None:
    """`#` stands for a draft, `@` for the answer."""
    assert parse(reply.replace("#", DRAFT).replace("@", GOOD))[:2] == (["1,496.5"], "million")


KEPT = [
    ('{"answer": ["approximately 7%"], "scale": ""}', ["approximately 7%"]),
    ('{"answer": ["£59.1m"], "scale": ""}', ["£59.1m"]),
    ('{"answer": ["(1,234)"], "scale": "million"}', ["(1,234)"]),
    ('{"answer": ["5 minus"], "scale": ""}', ["5 minus"]),
    ('{"answer": ["2019 2018"], "scale": ""}', ["2019 2018"]),
    ('{"answer": ["€1 = $1.1213"], "scale": ""}', ["€1 = $1.1213"]),
]


@pytest.mark.parametrize(("reply", "items"), KEPT)
def test_texts_that_gold_answers_have_stay(reply: str, items: list[str]) -> None:
    assert parse(reply)[0] == items


SEVERAL = [
    ("Answer: 5, 6", ["5, 6"]),
    ("Answer: 5 and 6", ["5 and 6"]),
    ("Answer: 5 million, and 6 million", ["5 million, and 6 million"]),
    ("Answer: -12.5", ["-12.5"]),
    ("Answer: - 12.5", ["-12.5"]),
    ("Answer:\n- 12.5", ["12.5"]),
    ("Answer: Europe, because it says so", ["Europe, because it says so"]),
]


@pytest.mark.parametrize(("reply", "items"), SEVERAL)
def test_an_explanation_is_cut_off_one_number_alone(reply: str, items: list[str]) -> None:
    assert parse(reply)[0] == items
