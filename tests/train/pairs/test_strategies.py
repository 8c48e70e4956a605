"""Pairs made by rule: chosen is right, rejected wrong, under the official metric."""

from collections import Counter
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tatqa_task import answer, data, metric, synthetic
from tatqa_task.types import Context, Form, Question
from train.pairs.pair import Pair
from train.pairs.strategies import NOT_RIGHT, NOT_WRONG, corrupt, drawn_order, is_right, log_rule

TABLE = [
    ["", "2019", "2018"],
    ["Revenue", "$1,500", "1,200"],
    ["Costs", "900", "800"],
    ["Profit", "600", "400"],
]
TEXT = "The Company earned most in Europe, followed by Asia and Africa. Costs rose by 100 in 2019."


def ask(
    answer_type: str, gold: object, scale: str = "", derivation: str = ""
) -> tuple[Context, Question]:
    question = Question("q", "?", gold, answer_type, "table", scale, derivation, 1)  # type: ignore[arg-type]
    return Context("c", TABLE, [TEXT], [question]), question


CHANGE = ask("arithmetic", 25.0, "percent", "(1,500 - 1,200) / 1,200")
SPAN = ask("span", ["Asia and Africa"])


@given(st.integers(0, 10_000), st.sampled_from(["train", "validation"]))
@example(311, "validation")  # the span "6 thousand" with the scale thousand
@pytest.mark.parametrize("form", ["direct", "calc"])
def test_corrupt_pairs_are_right_and_wrong_under_the_metric(
    form: Form, seed: int, split: str
) -> None:
    for context in data.parse_contexts(synthetic.generate(split, 1, seed), "synthetic"):
        for question in context.questions:
            pair = corrupt(context, question, {}, seed, form)
            assert isinstance(pair, Pair)
            right, wrong = answer.parse(pair.chosen, form), answer.parse(pair.rejected, form)
            assert right.strict
            assert metric.score(question, right.answer, right.scale).em == 1
            assert pair.rejected != pair.chosen
            if pair.kind == "format":
                assert not wrong.parsed
            else:
                assert wrong.parsed
                assert metric.score(question, wrong.answer, wrong.scale).em == 0


def test_a_calculated_answer_is_chosen_as_its_expression() -> None:
    pair = corrupt(*CHANGE, {"lost_hundred": 1}, 0, "calc")
    assert isinstance(pair, Pair)
    assert pair.chosen == '{"answer": ["(1,500 - 1,200) / 1,200 * 100"], "scale": "percent"}'
    assert pair.rejected == '{"answer": ["(1,500 - 1,200) / 1,200"], "scale": "percent"}'
    assert "write the calculation" in pair.prompt
    direct = corrupt(*CHANGE, {"lost_hundred": 1}, 0)
    assert isinstance(direct, Pair)
    assert direct.chosen == '{"answer": ["25.0"], "scale": "percent"}'
    assert "write the calculation" not in direct.prompt


@pytest.mark.parametrize("form", ["direct", "calc"])
def test_a_format_mistake_says_the_right_thing(form: Form) -> None:
    said = set()
    for seed in range(40):
        pair = corrupt(*CHANGE, {"format": 1}, seed, form)
        assert isinstance(pair, Pair)
        assert not answer.parse(pair.rejected, form).parsed
        said.add(pair.rejected)
    items = "(1,500 - 1,200) / 1,200 * 100" if form == "calc" else "25.0"
    assert f'{{"answer": "{items}", "scale": "percent"}}' in said
    assert f"Answer: {items} percent" in said
    assert len(said) == 5


def test_what_cannot_be_had_is_a_reason() -> None:
    assert corrupt(*SPAN, {"wrong_scale": 1}, 0) == NOT_WRONG
    assert corrupt(*ask("span", ["12 - 5"]), {}, 0, "calc") == NOT_RIGHT  # read as 7


def test_a_right_reply_is_nothing_but_the_line() -> None:
    question = CHANGE[1]
    line = answer.gold_reply(question)
    assert is_right(question, line, "direct")
    assert not is_right(question, f"Sure: {line}", "direct")
    assert not is_right(question, line.replace("25", "26"), "direct")


def test_kinds_are_drawn_by_weight() -> None:
    first = Counter(
        drawn_order(("a", "b", "c"), {"a": 3, "b": 1}, Random(i))[0] for i in range(4000)
    )
    assert set(first) == {"a", "b"}
    assert 0.72 < first["a"] / 4000 < 0.78
    usual = Counter(drawn_order(("a", "format"), {}, Random(i))[0] for i in range(4000))
    assert 0.17 < usual["format"] / 4000 < 0.23  # 0.25 of 1.25


def test_log_rule() -> None:
    context, question = ask("arithmetic", 12345.678, "million")
    for seed in range(50):
        pair = log_rule(context, question, seed)
        assert isinstance(pair, Pair)
        assert answer.parse(pair.chosen).answer == ["1.235e+04"]
        wrong = float(answer.parse(pair.rejected).answer[0])
        assert 0.099 < abs(wrong / 12345.678 - 1) < 0.351
    assert log_rule(*ask("arithmetic", 0.1), 0) == "chosen equals rejected"
    for seed in range(50):
        zero = log_rule(*ask("arithmetic", 0), seed)
        if isinstance(zero, Pair):
            assert 1 <= abs(float(answer.parse(zero.rejected).answer[0])) <= 10
    cells = [log_rule(*SPAN, seed) for seed in range(50)]
    rejected = {answer.parse(pair.rejected).answer[0] for pair in cells if isinstance(pair, Pair)}
    assert rejected == {cell for row in TABLE for cell in row if cell}
