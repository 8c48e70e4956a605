"""The reply: rendered from gold answers, parsed from whatever a model writes."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tatqa_task import data
from tatqa_task.answer import NOTHING, Reply, parse, render

GOOD = '{"answer": ["12.5"], "scale": "million"}'

FOLLOWS_THE_FORMAT = [
    (GOOD, ["12.5"], "million"),
    (f"```json\n{GOOD}\n```", ["12.5"], "million"),
    (
        f'<think>\nIt may be {{"answer": ["1"], "scale": ""}}.\n</think>\n\n{GOOD}',
        ["12.5"],
        "million",
    ),
    (f'{GOOD} or, if you prefer, {{"answer": ["1"], "scale": ""}}', ["12.5"], "million"),
    (f'{GOOD} or {{"answer": ["13', ["12.5"], "million"),  # the last complete one
    (
        f'{GOOD}\n\nQuestion: And 2018?\nAnswer: {{"answer": ["9"], "scale": ""}}',
        ["12.5"],
        "million",
    ),
    (f'{GOOD}<|im_end|>\n<|im_start|>user\n{{"answer": ["9"], "scale": ""}}', ["12.5"], "million"),
    (f"Question: restated first.\n\nQuestion: again\n{GOOD}", ["12.5"], "million"),
    ('{"result": {"scale": "", "answer": ["a", "b"]}}', ["a", "b"], ""),
    ('{"reasoning": "1 + 1", "answer": ["2"], "scale": ""}', ["2"], ""),
    ('{"answer": ["a {b} \\"c\\" d"], "scale": ""}', ['a {b} "c" d'], ""),
    (
        '{"answer": ["$53.1 million"], "scale": ""}',
        ["$53.1 million"],
        "",
    ),  # as gold spans are written
    ('{"answer": [], "scale": ""}', [], ""),
]

MENDED = [
    ("{'answer': ['12.5'], 'scale': 'million'}", ["12.5"], "million"),
    ("{'answer': ['the company's plan', 'b'], 'scale': ''}", ["the company's plan", "b"], ""),
    ('{"answer": ["a", "b",], "scale": "",}', ["a", "b"], ""),
    (
        '{"answer": [12.50], "scale": "percent"}',
        ["12.50"],
        "percent",
    ),  # a number, as it was written
    ('{"answer": 12.5, "scale": "percent"}', ["12.5"], "percent"),
    ('{"answer": "a b", "scale": ""}', ["a b"], ""),
    ('{"answer": ["12.5 million"], "scale": "million"}', ["12.5"], "million"),
    ('{"answer": ["12.5"], "scale": "Millions"}', ["12.5"], "million"),
    ('{"answer": ["12.5"], "scale": "%"}', ["12.5"], "percent"),
    ('{"answer": ["12.5"], "scale": "dozen"}', ["12.5"], ""),
    ('{"answer": ["12.5"]}', ["12.5"], ""),
    ('{"answer": ["12.5"], "scale": "mil', ["12.5"], ""),  # cut off
    ('{"answer": ["12.5", "13', ["12.5", "13"], ""),
    ('{"answer": ["12.5"', ["12.5"], ""),
    ("{'answer': ['1'], 'scale': ''} {'answer': ['2", ["1"], ""),  # the last complete one
    ("{answer: 1,234, scale: thousand}", ["1,234"], "thousand"),
    ('{"answer": null, "scale": ""}', [], ""),
    ("Answer: 12.5 million", ["12.5"], "million"),
    ("12.5 million\n\nQuestion: And 2018?\nAnswer: 9", ["12.5"], "million"),
    ("So the answer is **12.5%**.", ["12.5"], "percent"),
    ("Answer: first try\nFinal answer: Europe", ["Europe"], ""),
    ("the modified retrospective method", ["the modified retrospective method"], ""),
]


@pytest.mark.parametrize(("reply", "answer", "scale"), FOLLOWS_THE_FORMAT)
def test_replies_that_follow_the_format(reply: str, answer: list[str], scale: str) -> None:
    assert parse(reply)[:3] == (answer, scale, True)


@pytest.mark.parametrize(("reply", "answer", "scale"), MENDED)
def test_replies_that_are_mended(reply: str, answer: list[str], scale: str) -> None:
    assert parse(reply) == Reply(answer, scale, parsed=False)


@pytest.mark.parametrize("reply", ["", " \n", "<think>\n" + GOOD, "</think>", "```"])
def test_replies_that_say_nothing(reply: str) -> None:
    assert parse(reply) == NOTHING


def test_render() -> None:
    assert render(["€ 5", 'say "x"'], "") == '{"answer": ["€ 5", "say \\"x\\""], "scale": ""}'
    assert render(-12.6, "million") == '{"answer": ["-12.6"], "scale": "million"}'
    assert render("3", "") == '{"answer": ["3"], "scale": ""}'


@given(answer=st.lists(st.text(), min_size=1, max_size=4), scale=st.sampled_from(data.SCALES))
def test_what_is_rendered_is_parsed_back(answer: list[str], scale: str) -> None:
    reply = parse(render(answer, scale))
    assert reply.scale == scale
    doubled = scale and any(scale in item.lower() for item in answer)
    markers = any(mark in item for item in answer for mark in ("<think>", "</think>", "<|"))
    assert doubled or markers or reply == Reply(answer, scale, parsed=True, strict=True)


PIECES = st.sampled_from(
    [
        '{"answer": ',
        '["a"]',
        '"',
        "'",
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "answer",
        "scale",
        "million",
        "12.5",
        "\\",
        "\n",
    ]
    + [
        "<think>",
        "</think>",
        "Question:",
        "```",
        " ",
        "null",
        "NaN",
        "-",
        "9" * 20,
        "Answer: ",
        "é",
    ]
)


@given(reply=st.one_of(st.text(), st.lists(PIECES, max_size=40).map("".join)))
def test_never_raises_and_gives_texts(reply: str) -> None:
    found = parse(reply)
    assert found.scale in data.SCALES
    assert all(type(item) is str for item in found.answer)


HOSTILE = [
    "{",
    "[",
    '{"',
    "{ ",
    "'",
    "(",
    "%",
    "\\",
    "}",
    "9",
    "9 ",
    "1.",
    "*",
    "\n ",
    "\nQuestion:",
    "<think>",
]
HOSTILE += [
    '{"answer": ',
    '{"answer": [',
    '{"a":{"a":',
    '{"answer": "',
    "{'answer': ['",
    '{"answer":["{',
    "scale:",
]
HOSTILE += [' "  ,', "</think>", "answer: ", "answer:\n", "answer : : \n ", "answer\t"]


DOUBLED = re.compile(r".*\d (thousand|million|billion)|[−–].*")


@pytest.mark.real
@pytest.mark.parametrize("split", data.FILES)
def test_real_gold_answers_come_back(shared_data: Path, split: str) -> None:
    """All but those that state their scale twice, or whose minus is a typographic one."""
    for context in data.load(split, str(shared_data / "tatqa")):
        for q in context.questions:
            if not (q.scale and any(DOUBLED.fullmatch(item) for item in q.gold_items)):
                assert parse(render(q.answer, q.scale))[:3] == (q.gold_items, q.scale, True)
