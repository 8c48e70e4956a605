"""The reply: rendered from gold answers, read from whatever a model writes, as README.md has it."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import tatqa_task
from tatqa_task import answer, data, metric, objects, task_files
from tatqa_task.answer import NOTHING, Reply, gold_reply, parse, render
from tatqa_task.types import FORMS, Form, Question

GOOD = '{"answer": ["12.5"], "scale": "million"}'
README = Path(tatqa_task.__file__).with_name("README.md")


# --- the table of the specification ---


def specification() -> list[tuple[str, list[str], str]]:
    """Replies, answers and scales of the table in README.md."""
    rows = []
    text = README.read_text(encoding="utf-8").partition(
        "| reply | answer | scale |\n|---|---|---|\n"
    )
    for line in text[2].partition("\n\n")[0].splitlines():
        reply, items, scale = re.split(r" \|(?: |$)", line.removeprefix("| "))[:3]
        rows.append(
            (reply[1:-1].replace("⏎", "\n"), re.findall(r"`(.*?)`", items), scale.strip(" |"))
        )
    return rows


def test_the_table_is_found() -> None:
    assert len(specification()) == 57


@pytest.mark.parametrize(("reply", "items", "scale"), specification())
def test_specification(reply: str, items: list[str], scale: str) -> None:
    assert parse(reply)[:2] == (items, scale)


FOLLOWS_THE_FORMAT = [
    (GOOD, ["12.5"], "million"),
    (f"```json\n{GOOD}\n```", ["12.5"], "million"),
    (f"{GOOD}\n\nQuestion: And 2018?\nAnswer: {GOOD[:-2]}", ["12.5"], "million"),
    (f'{GOOD} or {{"answer": ["13', ["12.5"], "million"),
    (f"Question: restated first.\n\nQuestion: again\n{GOOD}", ["12.5"], "million"),
    ('{"result": {"scale": "", "answer": ["a", "b"]}}', ["a", "b"], ""),
    ('{"reasoning": "1 + 1", "answer": ["2"], "scale": ""}', ["2"], ""),
    ('{"answer": ["a {b} \\"c\\" d"], "scale": ""}', ['a {b} "c" d'], ""),
    ('{"answer": ["$53.1 million"], "scale": ""}', ["$53.1 million"], ""),
    ('{"answer": ["..."], "scale": "million"}', ["..."], "million"),  # there is nothing else
    ('{"scale": "", "index": ["2"]} {"answer": ["5"], "scale": ""}', ["5"], ""),
    ('{"answer": [], "scale": ""}', [], ""),
]

MENDED = [
    ("{'answer': ['the company's plan', 'b'], 'scale': ''}", ["the company's plan", "b"], ""),
    ('{"answer": ["a", "b",], "scale": "",}', ["a", "b"], ""),
    ('{"answer": [12.50], "scale": "percent"}', ["12.50"], "percent"),  # as it was written
    ('{"answer": 12.5, "scale": "percent"}', ["12.5"], "percent"),
    ('{"answer": 1e5, "scale": ""}', ["100000.0"], ""),  # the metric reads 1e5 as 1
    ('{"answer": [73,260, 57,768], "scale": ""}', ["73,260", "57,768"], ""),
    ('{"answer": [12, 345], "scale": ""}', ["12", "345"], ""),
    ('{"answer": "a b", "scale": ""}', ["a b"], ""),
    ('{"answer": [["a"], "b"], "scale": ""}', ["a", "b"], ""),
    ('{"answer": ["12.5 million"], "scale": "million"}', ["12.5"], "million"),
    ('{"answer": ["12.5 percent"], "scale": "percent"}', ["12.5"], "percent"),
    ('{"answer": ["12.5%"], "scale": "percentage"}', ["12.5%"], "percent"),
    ('{"answer": ["3"], "scale": "hundred"}', ["300.0000"], ""),  # as the official script
    ('{"answer": ["12.5"], "scale": "dozen"}', ["12.5"], ""),
    ('{"answer": ["Europe"], "scale": "none"}', ["Europe"], ""),
    ('{"answer": ["12.5"], "scale": null}', ["12.5"], ""),
    ('{"answer": ["12.5"]}', ["12.5"], ""),
    ('{"answer": ["12.5"], "scale": "mil', ["12.5"], ""),  # cut off
    ('{"answer": ["12.5", "13', ["12.5", "13"], ""),
    ('{"answer": ["12.5", "scale": "million"}', ["12.5"], "million"),  # the list is not closed
    ('{"answer": ["a\nb"], "scale": ""}', ["a\nb"], ""),  # JSON has no line breaks in a text
    ("{'answer': ['1'], 'scale': ''} {'answer': ['2", ["1"], ""),
    ('{"answer": ("a", "b"), "scale": ""}', ["a", "b"], ""),
    ('{/* sum */ "answer": ["5"], # total\n"scale": ""}', ["5"], ""),
    ('{"answer": null, "scale": ""}', [], ""),
    ('{"value": "5", "unit": "million"}', ["5"], "million"),
    ("Answer: 12.5 million", ["12.5"], "million"),
    ('{"answer": ["..."], "scale": "..."}\nAnswer: 12.5 million', ["12.5"], "million"),
    ("12.5 million\n\nQuestion: And 2018?\nAnswer: 9", ["12.5"], "million"),
    ("Answer: 5\nAnswer: 6", ["5"], ""),  # the first
    ("Answer: first try\nFinal answer: Europe", ["Europe"], ""),
    ('Answer: ["a", "b"]\nScale: thousand', ["a", "b"], "thousand"),
    ("Answer: economies of scale and scope", ["economies of scale and scope"], ""),
    ("The answer is 5 and 6.", ["5 and 6"], ""),
    ("It fell from 7 to 5.", ["It fell from 7 to 5"], ""),  # two numbers
    ("In 2019 it was 2,018 thousand.", ["2,018"], "thousand"),
    ("A: 2019", ["2019"], ""),
    ("answer: about 5 million dollars", ["5"], "million"),
]


@pytest.mark.parametrize(("reply", "items", "scale"), FOLLOWS_THE_FORMAT)
def test_replies_that_follow_the_format(reply: str, items: list[str], scale: str) -> None:
    assert parse(reply)[:3] == (items, scale, True)


@pytest.mark.parametrize(("reply", "items", "scale"), MENDED)
def test_replies_that_are_mended(reply: str, items: list[str], scale: str) -> None:
    assert parse(reply) == Reply(items, scale, parsed=False)


@pytest.mark.parametrize(
    "reply", ["", " \n", "<think>\n" + GOOD, "</think>", "```", "[THINK]" + GOOD]
)
def test_replies_that_say_nothing(reply: str) -> None:
    assert parse(reply) == NOTHING


def test_a_think_block_that_the_template_opened() -> None:
    draft = f"Maybe {GOOD}? Let me check"
    assert parse(draft)[0] == ["12.5"]
    assert parse(draft, thinking=True) == NOTHING
    closed = f'{draft}</think>{{"answer": ["5"], "scale": ""}}'
    assert parse(closed, thinking=True) == Reply(["5"], "", parsed=True, strict=True)


DRAFT = '{"answer": ["1"], "scale": ""}'
THOUGHTS = [
    *("think", "Thinking", "THOUGHT", "thoughts", "thought process", "thinking_process"),
    *("reason", "reasoning", "reflection", "scratchpad", "scratch-pad", "scratch pad", "analysis"),
    *("rationale", "chain-of-thought", "chain_of_thought", "monologue", "inner monologue"),
    *("ns:think", "longer1234:think"),
]
IN_ANGLE_BRACKETS = [
    *("cot", "internal", "deliberation", "working", "workings", "planning", "think content"),
    *("think_mode", "thinking-block", "reasoning_trace", "reasoning_step", "reasoning_steps"),
]


@pytest.mark.parametrize("name", [*THOUGHTS, *IN_ANGLE_BRACKETS])
def test_names_of_think_blocks(name: str) -> None:
    assert parse(f"<{name}>{DRAFT}") == NOTHING
    assert parse(f"{DRAFT}</{name}>{GOOD}")[0] == ["12.5"]
    if name in THOUGHTS:
        assert parse(f"[{name}]{DRAFT}") == NOTHING
        assert parse(f"{DRAFT}[/{name}]{GOOD}")[0] == ["12.5"]
        assert parse(f"```{name}\n{DRAFT}\n```\n{GOOD}")[0] == ["12.5"]
        assert parse(f"**{name}:** {DRAFT}\nAnswer: 12.5")[0] == ["12.5"]
    else:
        assert parse(f"[{name}]{DRAFT}")[0] == ["1"]


@pytest.mark.parametrize(
    "tag",
    [
        *("[ think ]", "<unused94>", "<|channel|>analysis", "<|channel|>commentary", "◁think▷"),
        *("&lt;think&gt;", "< think >", "<|think|>", "<| think |>", "<begin_think>"),
        *("<start_think>", "<|begin_of_thought|>", "<start_of_thought>", "<think_start>"),
        *("<think_begin>", "<think time=5>", f"<think {60 * '-'}>"),
    ],
)
def test_how_think_blocks_open(tag: str) -> None:
    assert parse(f"{tag}{DRAFT}") == NOTHING


@pytest.mark.parametrize(
    "tag",
    [
        *(
            "[/ think ]",
            "[ / think]",
            "[end_of_think]",
            "<unused95>",
            "<|channel|>final<|message|>",
        ),
        *("</ think >", "<end_think>", "<end_of_think>", "<|end_of_thought|>", "<think_end>"),
        *("◁/think▷", "&lt;/think&gt;", "<|/think|>"),
    ],
)
def test_how_think_blocks_close(tag: str) -> None:
    assert parse(f"{DRAFT}{tag}{GOOD}")[0] == ["12.5"]
    assert parse(f"{DRAFT}{tag}") == NOTHING


@pytest.mark.parametrize(
    "tag",
    [
        *("<thin>", "<thinker>", "<thoughtthinking process>", "<x y:think>", "<elevenchars:think>"),
        *(
            "<think/>",
            f"<think {61 * '-'}>",
            "<think a\nb>",
            "<a:b:think>",
            "< think",
            "think>",
            "[think",
            "<unused93>",
        ),
        *("<|channel|>final", "<begin think>", "<scratch--pad>", "<think_steps_>", "<inner>"),
    ],
)
def test_what_opens_no_think_block(tag: str) -> None:
    assert parse(f"{tag}{DRAFT}")[0] == ["1"]


@pytest.mark.parametrize(
    ("opening", "label"),
    [
        ("Thinking:", "Answer:"),
        ("  ## Analysis :", "## Final Answer:"),
        ("Reasoning：", "The answer:"),
        ("_Thought_:", "Response："),
        ("Rationale:", "**Answer**:\n"),
        ("Rationale:", "FINAL RESPONSE:"),
    ],
)
def test_thoughts_under_a_heading_end_at_the_answer(opening: str, label: str) -> None:
    assert parse(f"{opening} 1 or 2?\nMaybe {DRAFT}.\n{label} 12.5 million")[0] == ["12.5"]


def test_of_two_think_blocks_the_last_counts() -> None:
    first = '<think>a</think>{"answer": ["1"], "scale": ""}'
    assert parse(f"{first}<think>b</think>{GOOD}")[0] == ["12.5"]


def test_an_item_beside_a_placeholder_is_an_answer() -> None:
    assert parse(f'{{"answer": ["5", "..."], "scale": ""}} or {GOOD}')[0] == ["5", "..."]


def test_an_answer_before_a_think_block_that_is_cut() -> None:
    assert parse(GOOD + '<think>or {"answer": ["1"], "scale": ""}')[0] == ["12.5"]


LAST = f'First {{"answer": ["1"], "scale": ""}}, no: {GOOD} or {{"answer": ["13'


def test_after_reasoning_the_last_object_counts() -> None:
    assert parse(LAST, "direct")[:2] == (["1"], "")
    assert parse(LAST, "cot")[:2] == (["12.5"], "million")
    assert parse("The answer is 5. So the answer is 6.", "cot")[0] == ["6"]
    spans = '1 + 1\n{"answer": ["Europe"], "scale": ""}\n{"answer": ["Asia"], "scale": ""}'
    assert parse(spans, "cot")[0] == ["Europe", "Asia"]


ONE_EACH = [
    (["1,496.5", "1,202.9"], "million", True),
    (["9.4%", "11.2%"], "", True),
    (["1,496", "12,029"], "", True),  # of one digit more or less
    (["12.5", "125"], "", False),  # other decimals
    (["123", "12345"], "", False),
    (["12345", "5"], "", False),  # not of a size
    (["Europe", "5"], "", False),
    (["Europe", "Europe"], "", False),  # said twice
    (["Europe", "a sentence of more than six words"], "", False),
]


@pytest.mark.parametrize(("items", "scale", "together"), ONE_EACH)
def test_objects_of_one_span_each(items: list[str], scale: str, together: bool) -> None:
    lines = [render([item], scale) for item in items]
    expected = items if together else items[:1]
    assert parse("\n".join(lines))[0] == expected
    assert parse("\n".join(lines)).parsed is not together
    assert parse(f"[{', '.join(lines)}]")[0] == expected
    assert parse("\n\n".join(lines))[0] == items[:1]
    assert parse(f"[\n {', '.join(lines)} ]")[0] == expected
    assert parse(",".join(lines))[0] == items[:1]
    assert parse(f"{','.join(lines)}\nand no more")[0] == items[:1]
    assert parse(" or ".join(lines))[0] == items[:1]


def test_objects_of_several_items_are_answers_of_their_own() -> None:
    two, one = render(["Europe", "Asia"], ""), render(["Africa"], "")
    assert parse(f"{two}\n{one}")[0] == ["Europe", "Asia"]
    assert parse(f"{one}\n{two}")[0] == ["Africa"]


@pytest.mark.parametrize(
    ("scale", "items", "found"),
    [
        ('"million"', ["5"], "million"),
        ('""', ["5"], "million"),
        ("null", ["5"], "million"),
        ('"hundred"', ["5"], "million"),  # which is none of the five
        ('"thousand"', ["5", "Millions"], "thousand"),  # another scale: two items
    ],
)
def test_a_number_and_its_scale_in_one_list(scale: str, items: list[str], found: str) -> None:
    assert parse(f'{{"answer": ["5", "Millions"], "scale": {scale}}}')[:2] == (items, found)


def test_only_a_bare_number_is_taken_apart_from_its_scale() -> None:
    assert parse('{"answer": ["$12.5", " MILLION "]}')[:2] == (["$12.5"], "million")
    assert parse('{"answer": ["Q5", "million"]}')[0] == ["Q5", "million"]
    assert parse('{"answer": ["-", "million"]}')[0] == ["-", "million"]


def test_a_tag_inside_an_object_is_text() -> None:
    assert parse('\n{"answer": ["a </think> b"], "scale": ""} ')[0] == ["a </think> b"]


def test_objects_of_other_scales_are_not_one_answer() -> None:
    assert parse('{"answer": ["5"], "scale": ""}\n{"answer": ["6"], "scale": "million"}')[0] == [
        "5"
    ]


STRICT: list[tuple[str, Form, bool]] = [
    (GOOD, "direct", True),
    (f"\n{GOOD} ", "direct", True),
    (f"<think>5</think>\n{GOOD}", "direct", True),
    (f"```json\n{GOOD}\n```", "direct", False),
    (f"{GOOD} is it", "direct", False),
    (f"1 + 1 = 2\n{GOOD}", "direct", False),
    (f"1 + 1 = 2\n{GOOD}", "cot", True),
    (f"{GOOD}\nas said", "cot", False),
    ('{"answer": "12.5", "scale": "million"}', "direct", False),
    ('{"answer": ["12.5"], "scale": "millions"}', "direct", False),
    ('{"answer": ["5 + 6"], "scale": ""}', "calc", True),
    ('{"answer": ["5 + 6 = 11"], "scale": ""}', "calc", False),
]


@pytest.mark.parametrize(("reply", "form", "strict"), STRICT)
def test_strict(reply: str, form: Form, strict: bool) -> None:
    assert parse(reply, form).strict == strict


# --- expressions ---

EXPRESSIONS = [
    ('{"answer": ["6,148 + 5,974"], "scale": "million"}', "12122", "million"),
    ('{"answer": "6,148 + 5,974", "scale": "million"}', "12122", "million"),
    ('{"answer": ["6,148 + 5,974 = 12,138"], "scale": "million"}', "12122", "million"),
    ('{"answer": ["$6,148 million + $5,974 million"], "scale": "million"}', "12122", "million"),
    ('{"answer": [(1,496.5 - 1,202.9) / 1,202.9 * 100], "scale": "percent"}', "24.41", "percent"),
    ("Answer: (1,496.5 - 1,202.9) / 1,202.9 * 100\nScale: percent", "24.41", "percent"),
    ("Answer: 6,148 + 5,974 = 12,138 million", "12122", "million"),
    ('{"answer": ["6,148 + 5,974 ≈ 12,138"], "scale": "million"}', "12122", "million"),
    ('{"answer": ["= 6,148 + 5,974."], "scale": "million"}', "12122", "million"),
    ('{"answer": ["$6,148m + $5,974m"], "scale": "million"}', "12122", "million"),
    ('{"answer": ["6,148 + 5,974 (in millions)"], "scale": "million"}', "12122", "million"),
    ('{"answer": ["(6,148 million + 5,974 million) / 2"], "scale": ""}', "6061", "million"),
    ('{"answer": ["**6,148 + 5,974**"], "scale": "million"}', "12122", "million"),
    ('{"answer": ["$6,148 + 5,974$"], "scale": "million"}', "12122", "million"),
    ('{"answer": ["\\\\boxed{6,148 + 5,974}"], "scale": "million"}', "12122", "million"),
    ('{"answer": ["SUM(6,148, 5,974)"], "scale": "million"}', "12122", "million"),
    ('{"answer": ["51.9% - 45.8%"], "scale": "percent"}', "6.1", "percent"),
    ('{"answer": ["(12% + 8%) / 2"], "scale": "percent"}', "10", "percent"),
    ('{"answer": ["(12% + 8%) / 2 * 100"], "scale": "percent"}', "10", "percent"),
]


@pytest.mark.parametrize(("reply", "value", "scale"), EXPRESSIONS)
def test_expressions_are_worked_out_in_calc_alone(reply: str, value: str, scale: str) -> None:
    found = parse(reply, "calc")
    assert (found.answer, found.scale, found.calc_used) == ([value], scale, True)
    assert parse(reply, "direct").calc_used is False
    assert parse(reply, "direct").answer != [value]


@pytest.mark.parametrize(
    "item",
    [
        "2018/2019",
        "5-10%",
        "-5",
        "(5)",
        "1 / 0",
        "A - B",
        "Form 10-K",
        "5 - 10 years",
        "1" * 30 + "*10",
    ],
)
def test_answers_that_are_no_expression(item: str) -> None:
    reply = render([item], "")
    assert parse(reply, "calc") == Reply([item], "", parsed=True, strict=True)


def test_an_expression_that_is_mended_does_not_follow_the_format() -> None:
    assert parse(render(["5 + 6 = 12"], ""), "calc") == Reply(["11"], "", False, calc_used=True)


def test_a_scale_inside_that_is_not_the_one_beside() -> None:
    reply = render(["5 million + 6 million"], "thousand")
    assert parse(reply, "calc").answer == ["5 million + 6 million"]


def test_the_result_behind_a_calculation_counts_where_none_is_asked_for() -> None:
    """The model's own result, right or wrong."""
    assert parse(render(["6,148 + 5,974 = 12,138"], "million"))[:2] == (["12,138"], "million")
    assert parse("So 6,148 + 5,974 = $12,138 million.")[:2] == (["$12,138"], "million")
    assert parse(render(["€1 = $1.1213"], ""))[0] == ["€1 = $1.1213"]
    assert parse(render(["5 + 6 = eleven"], ""))[0] == ["5 + 6 = eleven"]


def test_several_items_are_no_expression() -> None:
    assert parse(render(["5 - 4", "6"], ""), "calc").answer == ["5 - 4", "6"]


# --- writing ---


def test_render() -> None:
    assert render(["€ 5", 'say "x"'], "") == '{"answer": ["€ 5", "say \\"x\\""], "scale": ""}'
    assert render(-12.6, "million") == '{"answer": ["-12.6"], "scale": "million"}'
    assert render("3", "") == '{"answer": ["3"], "scale": ""}'


def test_gold_replies() -> None:
    asked = Question("u", "?", 20, "arithmetic", None, "percent", "(12 - 10)/10", 1)
    line = '{"answer": ["20"], "scale": "percent"}'
    assert gold_reply(asked) == line
    assert gold_reply(asked, "cot") == f"(12 - 10)/10\n{line}"
    calc = '{"answer": ["(12 - 10) / 10 * 100"], "scale": "percent"}'
    assert gold_reply(asked, "calc") == calc
    span = Question("u", "?", ["a"], "span", None, "", "", 1)
    assert {gold_reply(span, form) for form in FORMS} == {'{"answer": ["a"], "scale": ""}'}


# --- properties ---

TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]))
SETTLED = re.compile(
    r"\d.*(thousand|million|billion|percent|per cent|%)|[−–‐‑‒―﹣~≈．\\]|\.$|USD|EUR", re.IGNORECASE
)


@given(items=st.lists(TEXTS, min_size=1, max_size=4), scale=st.sampled_from(data.SCALES))
def test_what_is_rendered_is_read_back(items: list[str], scale: str) -> None:
    assume(not any(SETTLED.search(item) for item in items))
    assume(not re.search(r"[<\[].*think|<\|?\w", " ".join(items)))
    reply = parse(render(items, scale))
    assert reply == Reply(items, scale, parsed=True, strict=True) or reply.scale == scale


WORDINGS = [
    "{}",
    "in {}s",
    "USD {}",
    "$ {}",
    "{}s of dollars",
    "({})",
    "{} US dollars",
    "{}age",
    " {} ",
]
OTHER_WORDINGS = [
    "",
    "none",
    "USD",
    "dollars",
    "hundred",
    "years",
    "hundred million",
    "n/a",
    "unit",
]
ITEMS = st.one_of(
    st.sampled_from(
        ["1,496.5", "$12", "(134)", "12%", "-3", "Europe", "the first of May", "0", ".5"]
    ),
    st.sampled_from(
        ["US$15.9 million", "$3.0 million", "RMB77", "2018/2019", "Form 10-K", "5 years"]
    ),
    st.sampled_from(
        ["approximately 7%", "about 100", "£59.1m", "€1 = $1.1213", "140 basis points", "10 - 4"]
    ),
    st.integers(-9999, 9999).map(str),
)


@given(
    items=st.lists(ITEMS, min_size=1, max_size=3),
    word=st.sampled_from(["thousand", "million", "billion", "percent"]),
    wording=st.sampled_from([*WORDINGS, *OTHER_WORDINGS]),
    gold=st.lists(ITEMS, min_size=1, max_size=3),
    same=st.booleans(),
    gold_scale=st.sampled_from(data.SCALES),
    listed=st.booleans(),
)
def test_never_worse_than_verbatim(
    items: list[str],
    word: str,
    wording: str,
    gold: list[str],
    same: bool,
    gold_scale: Any,
    listed: bool,
) -> None:
    """For a valid object the score is at least the official metric's on exactly its values."""
    said: Any = items if listed else items[0]
    scale = wording.format(word)
    question = Question("u", "?", items if same else gold, "span", None, gold_scale, "", 1)
    twice = any(word in item for item in items)  # a scale inside and beside counts once
    code = any(item.startswith(("US$", "RMB")) for item in items)  # beside a scale it is dropped
    around = any(item.startswith(("app", "about")) or item.endswith("m") for item in items)
    assume(not scale or not (twice or code or around))
    reply = parse(json.dumps({"answer": said, "scale": scale}))
    verbatim = metric.score(question, said, scale)
    found = metric.score(question, reply.answer, reply.scale)
    assert found.em >= verbatim.em
    assert found.f1 >= verbatim.f1 - (
        scale != ""
    )  # a wording that is no scale may be a word of the gold
    assert found.scale >= verbatim.scale


PIECES = st.sampled_from(
    [
        '{"answer": ',
        '["a"]',
        '"',
        "'",
        "“",
        "”",
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "answer",
        "scale",
        "million",
    ]
    + [
        "12.5",
        "\\",
        "\n",
        "<think>",
        "</think>",
        "Question:",
        "```",
        " ",
        "null",
        "NaN",
        "-",
        "9" * 20,
    ]
    + [
        "Answer: ",
        "é",
        "//",
        "/*",
        "=",
        "1e999",
        "\\boxed{",
        "$",
        "**",
        "final answer ",
        "- ",
        "…",
        "（",
    ]
)
REPLIES = st.one_of(st.text(), st.lists(PIECES, max_size=40).map("".join))


@given(reply=REPLIES, form=st.sampled_from(FORMS), thinking=st.booleans())
def test_never_raises_and_gives_texts(reply: str, form: Form, thinking: bool) -> None:
    found = parse(reply, form, thinking)
    assert found.scale in data.SCALES
    assert all(type(item) is str for item in found.answer)
    assert found.parsed or not found.strict


def test_the_gold_answer_is_not_known() -> None:
    """Nothing that reads a reply takes a question."""
    takes_questions = {"gold_reply", "expression", "_candidates"}
    for module in (
        answer,
        objects,
        sys.modules["tatqa_task.amounts"],
        sys.modules["tatqa_task.plain_text"],
    ):
        for name, thing in vars(module).items():
            if callable(thing) and getattr(thing, "__module__", "") == module.__name__:
                assert (
                    "Question" not in str(getattr(thing, "__annotations__", ""))
                    or name in takes_questions
                )


# --- cost ---

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
]
HOSTILE += [
    "scale:",
    ' "  ,',
    "</think>",
    "answer: ",
    "answer:\n",
    "answer : : \n ",
    "answer\t",
    '{a: "x\n',
]
HOSTILE += [
    '{"a": 1 /*',
    '{answer: "x\n',
    '{"answer": ["a"], "scale": ""}\n',
    '{"answer": ["..."]}\n',
    "$",
    "=",
    "5+",
]


def steps(run: Callable[[], object]) -> int:
    """How many lines of Python and calls of C functions a run takes."""
    count = 0

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal count
        count += 1

    sys.setprofile(profile)
    try:
        run()
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("unit", HOSTILE)
def test_steps_are_linear(unit: str) -> None:
    """Four times the text: at most five times the calls, and a bounded number a character."""
    short, long = (unit * (n // len(unit)) for n in (1_000, 4_000))
    few, many = (steps(lambda text=text: parse(text, "calc")) for text in (short, long))  # type: ignore[misc]
    assert many <= 5 * few + 500
    assert many <= 40 * len(long)


@pytest.mark.parametrize("unit", HOSTILE)
def test_characters_that_the_decoder_looks_at_are_linear(
    unit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at = 0
    decoded = objects.decoded

    def counted(text: str, start: int) -> tuple[Any, int]:
        nonlocal looked_at
        content, length = decoded(text, start)
        looked_at += length
        return content, length

    monkeypatch.setattr(objects, "decoded", counted)
    text = unit * (20_000 // len(unit))
    parse(text)
    assert looked_at <= (objects.WORK + 2) * len(text) + 2 * objects.LEAST_WORK


RUNS = [
    ("", "\n", "!"),
    ("", " ", ""),
    ("Thinking:", " ", "answer"),
    ("Thinking: ", "\n\n", "}"),
    ("\n# User", " ", "x"),
    ("\nQ", "*", "!"),
    ("answer:", "\n ", "x"),
    ("A", "\r\n", "!"),
    ("", "{//", "5"),
    ("x", "{\n#", "5"),
    ('{"answer": ["5', " ", '+ 6%"]}'),
    ('{"answer": ["5% -', " ", '6%"]}'),
]


@pytest.mark.parametrize(("before", "unit", "behind"), RUNS)
def test_long_runs_come_to_an_end(before: str, unit: str, behind: str) -> None:
    """What the regular expressions do is not counted above.

    One that tried a run again from each of its characters would take minutes or hours here.
    """
    text = before + unit * (100_000 // len(unit)) + behind
    assert parse(text, "calc").scale == ""


# --- real gold answers ---

EXCEPTIONS = re.compile(r".*\d (thousand|million|billion)|[−–].*")


def excepted(question: Question) -> bool:
    """A span that states its scale beside one, or a typographic minus."""
    return question.scale != "" and any(EXCEPTIONS.fullmatch(item) for item in question.gold_items)


@pytest.mark.real
@pytest.mark.parametrize("split", data.FILES)
def test_real_gold_replies_score_full_marks_in_every_form(shared_data: Path, split: str) -> None:
    """And no stop string cuts one."""
    for context in data.load(split, str(shared_data / "tatqa")):
        for question in context.questions:
            for form in FORMS:
                reply = gold_reply(question, form)
                assert not any(stop in reply for stop in task_files.UNTIL[form])
                read = parse(reply, form)
                if not excepted(question):
                    assert read.strict
                    assert read.answer == question.gold_items or read.calc_used
                    assert metric.score(question, read.answer, read.scale).em == 1


def test_an_expression_keeps_the_point_that_it_begins_with() -> None:
    reply = answer.parse('{"answer": [".5 + .5"], "scale": ""}', "calc")
    assert reply.answer == ["1"]
    assert reply.strict
