"""Other members of the kinds of replies in README's table: none is in it, each was misread once.

What a fair reader takes from them; `tests/tatqa_task/test_answer.py` holds the rules. At the end
the gold answers of dev in the forms of real models.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tatqa_task import data, metric
from tatqa_task.answer import NOTHING, parse, render
from tatqa_task.types import Question

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

# Tried on 2026-11-26, misread by version 2.0.
MORE_NUMBERS = [
    ('{"answer": ["1٬496.5"], "scale": "million"}', ["1,496.5"], "million"),
    ('{"answer": ["1,496․5"], "scale": "million"}', ["1,496.5"], "million"),
    ('{"answer": ["➖12.6"], "scale": "percent"}', ["-12.6"], "percent"),
    ('{"answer": ["⁻12.6"], "scale": "percent"}', ["-12.6"], "percent"),
    ('{"answer": ["-\u200b12.6"], "scale": "percent"}', ["-12.6"], "percent"),
    ('{"answer": ["\u200b1,496.5"], "scale": "million"}', ["1,496.5"], "million"),
    ('{"answer": ["&minus;12.6"], "scale": "percent"}', ["-12.6"], "percent"),
    ('{"answer": ["12.6％"], "scale": ""}', ["12.6%"], ""),
    ('{"answer": ["12.6-"], "scale": "million"}', ["-12.6"], "million"),
    ('{"answer": ["1,496.5†"], "scale": "million"}', ["1,496.5"], "million"),
    ('{"answer": ["≃12.6"], "scale": "percent"}', ["12.6"], "percent"),
    ('{"answer": ["ca. 12.6"], "scale": "percent"}', ["12.6"], "percent"),
    ('{"answer": ["nearly 12.6%"], "scale": "percent"}', ["12.6"], "percent"),
    ('{"answer": ["1,496.5 USD million"], "scale": "million"}', ["1,496.5"], "million"),
    ('{"answer": ["$ million 1,496.5"], "scale": "million"}', ["1,496.5"], "million"),
    ('{"answer": ["1,496.5 [million]"], "scale": "million"}', ["1,496.5"], "million"),
    ('{"answer": ["(12.6 million)"], "scale": "million"}', ["12.6"], "million"),
    ("(19.0%)", ["19.0"], "percent"),
    ('{"answer": ["1,496.5"], "scale": 1000000}', ["1,496.5"], "million"),
    ('{"answer": ["1,496.5"], "scale": 1}', ["1,496.5"], ""),
    ('{"answer": ["1,496.5", "million"], "scale": ""}', ["1,496.5"], "million"),
    ('{"answer": ["1,496.5", ["millions"]], "scale": ""}', ["1,496.5"], "million"),
    ('{"answer": [["1,496.5", "million"]]}', ["1,496.5"], "million"),
]

MORE_KEYS = [
    ('{"ans": ["5"], "scale": "million"}', ["5"], "million"),
    ('{"answer:": ["5"], "scale:": "million"}', ["5"], "million"),
    ('{"answer_1": ["5"], "scale": "million"}', ["5"], "million"),
    ('{"answer1": "a", "answer2": "b", "scale": ""}', ["a", "b"], ""),
    ('{"total": ["5"], "scale": "million"}', ["5"], "million"),
    ('{"2019": "5", "scale": "million"}', ["5"], "million"),
    ('{"answer": {"2019": "5", "2018": "6"}, "scale": "million"}', ["5", "6"], "million"),
    ('{"answer": ["5"], "magnitude": "million"}', ["5"], "million"),
    ('{"answer": ["5"], "numeric_scale": "million"}', ["5"], "million"),
]

MORE_NEARLY_JSON = [
    (
        "{&quot;answer&quot;: [&quot;5&quot;], &quot;scale&quot;: &quot;million&quot;}",
        ["5"],
        "million",
    ),
    ('{"answer" ["5"], "scale": "million"}', ["5"], "million"),
    ('{"answer": "5" "scale": "million"}', ["5"], "million"),
    ('{"answer" => ["5"], "scale" => "million"}', ["5"], "million"),
    ('{"answer": {"5"}, "scale": "million"}', ["5"], "million"),
    ('{"answer": ["a" "b"], "scale": ""}', ["a", "b"], ""),
    ('{"answer": ["a", "b", ...], "scale": ""}', ["a", "b"], ""),
    ('{"answer": ["a", "b" ...], "scale": ""}', ["a", "b"], ""),
    ('{"answer": [None], "scale": ""}', [], ""),
    ('{"answer": ["5"], -- sum\n "scale": "million"}', ["5"], "million"),
    ('{"answer": ["5"], <!-- sum --> "scale": "million"}', ["5"], "million"),
    ('{"answer": ["5"] (in the table), "scale": "million"}', ["5"], "million"),
    ('{"answer": ["5"], ["scale": "million"]}', ["5"], "million"),
    ('{"answer": ["5"], {"scale": "million"}}', ["5"], "million"),
    ('{"answer": ["5", {"scale": "million"}]}', ["5"], "million"),
]

MORE_NEARLY_JSON += [
    ('{"answer": ["65,477", " thousand"], ["scale": ""], []}', ["65,477"], "thousand"),
    ('{"answer": ["73", "thousand"], "scale": ["负"]}', ["73"], "thousand"),
    ('{"answer": ["35", "30"], "scale": ["thousand", "thousand"]}', ["35", "30"], "thousand"),
    ('{"answer": ["53,330"], ["thousand"]}', ["53,330"], "thousand"),
    ('{"answer": ["To reduce risk.", "], "scale": ""}', ["To reduce risk."], ""),
]

MORE_WORDS = [
    ('```json\n["a", "b"]\n```', ["a", "b"], ""),
    ("```\n5 million\n```", ["5"], "million"),
    ("<answer>\n5\n</answer>\n<scale>\nmillion\n</scale>", ["5"], "million"),
    ("<answers><answer>a</answer><answer>b</answer></answers>", ["a", "b"], ""),
    ("**Answer**\n$1,496.5\n\n**Scale**\nmillion", ["$1,496.5"], "million"),
    ("## Answer\n\n1,496.5\n\n## Scale\n\nmillion", ["1,496.5"], "million"),
    ("Answer\n1,496.5 million", ["1,496.5"], "million"),
    ("Ans. 1,496.5 million", ["1,496.5"], "million"),
    ("Therefore, 1,496.5 million.", ["1,496.5"], "million"),
    ("∴ 1,496.5 million", ["1,496.5"], "million"),
    ("1 + 1\n#### 1,496.5", ["1,496.5"], ""),
    ("\\boxed{1{,}496.5}", ["1,496.5"], ""),
    ("Revenue increased by 12.6% in 2019.", ["12.6"], "percent"),
    ("The total was $1,496.5 million, up from 2018.", ["$1,496.5"], "million"),
    ('The answer is "Europe".', ["Europe"], ""),
    ("The answers are Europe and Asia.", ["Europe and Asia"], ""),
    ("– Europe\n– Asia", ["Europe", "Asia"], ""),
    ("The answers are:\n1) Europe\n2) Asia", ["Europe", "Asia"], ""),
    ("Here are the answers:\n\n* Europe\n* Asia\n", ["Europe", "Asia"], ""),
    ("Answer: 1,496.5/million", ["1,496.5"], "million"),
    ("1,496.5 | million", ["1,496.5"], "million"),
    ("million: 1,496.5", ["1,496.5"], "million"),
]

REASONING = [
    "&lt;think&gt;#&lt;/think&gt;@",
    "```thinking\n#\n```\n@",
    "<thinking_mode>#</thinking_mode>@",
    '<think type="deep">#</think>@',
    "<|START_THINKING|>#<|END_THINKING|><|START_RESPONSE|>@<|END_RESPONSE|>",
    "<|think_start|>#<|think_end|>@",
    "<reasoning_content>#</reasoning_content>@",
    "<cot>#</cot>@",
    "<internal>#</internal>@",
    "**Thinking:** #\n\n**Answer:** @",
    "<scratch_pad>#</scratch_pad>@",
    "<|begin_of_thought|>#<|end_of_thought|>@",
    "<|channel|>analysis<|message|>#<|end|><|start|>assistant<|channel|>final<|message|>@",
    "◁think▷#◁/think▷@",
    "<seed:think>#</seed:think>@",
    "<inner_monologue>#</inner_monologue>@",
    "<unused94>thought\n#<unused95>@",
]


FORMS = OBJECTS + NUMBERS + NEARLY_JSON + IN_WORDS
FORMS += MORE_NUMBERS + MORE_KEYS + MORE_NEARLY_JSON + MORE_WORDS


@pytest.mark.parametrize(("reply", "items", "scale"), FORMS)
def test_what_a_fair_reader_takes(reply: str, items: list[str], scale: str) -> None:
    read = parse(reply)
    assert read[:2] == (items, scale)
    assert not read.parsed


@pytest.mark.parametrize("reply", REASONING)
def test_reasoning_is_no_answer(reply: str) -> None:
    """`#` stands for a draft, `@` for the answer."""
    assert parse(reply.replace("#", DRAFT).replace("@", GOOD))[:2] == (["1,496.5"], "million")


@pytest.mark.parametrize("tag", ["<|START_THINKING|>", '<think type="deep">', "&lt;think&gt;"])
def test_reasoning_that_is_cut_off_is_no_answer(tag: str) -> None:
    assert parse(tag + DRAFT) == NOTHING


def test_a_tag_inside_a_text_of_an_object_is_text() -> None:
    reply = '{"answer": ["the <analysis> tag", "b<|im_end|>"], "scale": ""}'
    assert parse(reply)[:3] == (["the <analysis> tag", "b<|im_end|>"], "", True)


EXPRESSIONS = [
    ("6 ➗ 3 ➕ 1 ➖ 2", "1"),
    ("12.5% of 200", "25"),
    ("(5 + 3", "8"),
    ("((5 + 3) / 2", "4"),
    ("(5 + 3) / 2)", "4"),
    ("abs(5 - 8)", "3"),
    ("max(5, 8) - min(3, 4)", "5"),
    ("round((5 + 3) / 3, 2)", "2.67"),
    ("SUM([5, 8])", "13"),
    ("1 496.5 − 1 202.9", "293.6"),
    ("1_496.5 - 1_202.9", "293.6"),
    ("1,496.5 (2019) - 1,202.9 [2018]", "293.6"),
    ("1,496.5 less 1,202.9", "293.6"),
    ("the sum of 5, 8 and 9", "22"),
    ("average of 5 and 8", "6.5"),
    ("Change: 1,496.5 - 1,202.9", "293.6"),
    ("1,496.5 - 1,202.9 # 2019 minus 2018", "293.6"),
]


@pytest.mark.parametrize(("written", "value"), EXPRESSIONS)
def test_expressions_as_they_are_written(written: str, value: str) -> None:
    read = parse(render([written], "million"), "calc")
    assert (read.answer, read.scale, read.calc_used) == ([value], "million", True)


@pytest.mark.parametrize(
    "written", ["5/0", "5/(3 - 3)", "2^3", "2 ** 3", "9" * 30 + " * " + "9" * 30]
)
def test_expressions_without_a_value_stay_as_they_are(written: str) -> None:
    assert parse(render([written], ""), "calc")[0] == [written]


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


# --- real gold answers in the forms of real models ---

WORDED = {"": "", "percent": "percentage"}
BEHIND = [
    '\n{"answer": ["..."], "scale": "..."}',
    '\n{"answer": ["5", "6"], "scale": "million"}',
    '\n{"answer": null}',
    '\n\n### Question\nAnd 2018?\n{"answer": ["4"], "scale": ""}',
    '\n\nQ: And 2018?\n{"answer": ["4"], "scale": ""}',
    '\n\n**Question:** And 2018?\n{"answer": ["4"], "scale": ""}',
    ' or, if you prefer the absolute value: {"answer": ["5"], "scale": ""}',
]
BEFORE = [f"[THINK]{DRAFT}[/THINK]", f"<thinking>{DRAFT}</thinking>"]


def line(question: Question) -> str:
    return render(question.answer, question.scale)


def with_scale(question: Question, wording: str) -> str:
    """The gold line with words around its scale."""
    scale = WORDED.get(question.scale, wording.format(question.scale))
    return render(question.answer, scale)


def typographic(question: Question) -> str:
    items = "”，“".join(question.gold_items)
    return f"{{“answer”：[“{items}”]，“scale”：“{question.scale}”}}"


def an_object_each(question: Question) -> str:
    return "\n".join(render([item], question.scale) for item in question.gold_items)


def one_text(question: Question, comma: str) -> str:
    return json.dumps({"answer": comma.join(question.gold_items), "scale": question.scale})


ANY_GOLD: list[tuple[str, Callable[[Question], str], float]] = [
    ("in {}s", lambda question: with_scale(question, "in {}s"), 99.8),
    ("USD {}", lambda question: with_scale(question, "USD {}"), 99.8),
    ("$ {}", lambda question: with_scale(question, "$ {}"), 99.8),
    ("other key", lambda question: line(question).replace('"answer"', '"answers"'), 99.8),
    ("typographic", typographic, 99.5),
    ("an object each", an_object_each, 98.9),
    ("one text, commas", lambda question: one_text(question, ", "), 87.9),
    ("one text, and", lambda question: one_text(question, " and "), 86.8),
]

ONE_NUMBER: list[tuple[str, float]] = [
    ('{{"answer": [{number}], "scale": "{scale}"}}', 100),
    ('{{"answer": ["~{number}"], "scale": "{scale}"}}', 98),
    ('{{"answer": ["{number}."], "scale": "{scale}"}}', 98.8),
    ("Answer: {number}\nScale: {scale}", 100),
    ("answer: {number}, scale: {scale}", 100),
    ("### Final Answer\n{number} {scale}", 100),
    ("<answer>{number} {scale}</answer>", 100),
    ("The final answer is: $\\boxed{{{number}}}$ {scale}", 100),
    ("The change was {number} {scale}.", 99.3),
]


def em(replies: list[tuple[Question, str]]) -> float:
    """Exact match of replies, in percent."""
    right = 0.0
    for question, reply in replies:
        read = parse(reply)
        right += metric.score(question, read.answer, read.scale).em
    return 100 * right / len(replies)


@pytest.fixture(scope="module")
def golds(shared_data: Path) -> list[Question]:
    contexts = data.load("validation", str(shared_data / "tatqa"))
    return [question for context in contexts for question in context.questions]


@pytest.mark.real
@pytest.mark.parametrize(
    ("write", "least"), [row[1:] for row in ANY_GOLD], ids=[row[0] for row in ANY_GOLD]
)
def test_gold_answers_in_a_form_that_holds_any(
    write: Callable[[Question], str], least: float, golds: list[Question]
) -> None:
    assert em([(question, write(question)) for question in golds]) >= least


@pytest.mark.real
@pytest.mark.parametrize("text", BEHIND)
def test_gold_answers_with_something_behind_them(text: str, golds: list[Question]) -> None:
    assert em([(question, line(question) + text) for question in golds]) >= 99.8


@pytest.mark.real
@pytest.mark.parametrize("text", BEFORE)
def test_gold_answers_behind_reasoning(text: str, golds: list[Question]) -> None:
    assert em([(question, text + line(question)) for question in golds]) >= 99.8


def only_number(question: Question) -> str | None:
    """The gold answer, if it is one number without words."""
    number = question.gold_items[0]
    has_words = any(character.isalpha() for character in number)
    if len(question.gold_items) > 1 or has_words or metric.to_number(number) is None:
        return None
    return number


@pytest.mark.real
@pytest.mark.parametrize(("form", "least"), ONE_NUMBER)
def test_gold_numbers_in_a_form_that_holds_one(
    form: str, least: float, golds: list[Question]
) -> None:
    replies = []
    for question in golds:
        number = only_number(question)
        if number is not None:
            written = form.format(number=number, scale=question.scale).rstrip()
            replies.append((question, written))
    assert em(replies) >= least


@pytest.mark.real
def test_gold_numbers_whose_scale_stands_inside_and_beside(golds: list[Question]) -> None:
    replies = []
    for question in golds:
        number = only_number(question)
        if number is not None and question.scale in ("thousand", "million", "billion"):
            inside = f"${number.lstrip('$')} {question.scale}"
            replies.append((question, render([inside], question.scale)))
    assert em(replies) == 100
