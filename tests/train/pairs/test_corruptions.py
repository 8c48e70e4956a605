"""The mistakes one by one: what each kind makes of a question, in both forms."""

from random import Random

import pytest

from tatqa_task.types import Context, Form, Question
from train.pairs.corruptions import KINDS, NAMES, Mistakes, misformatted, neighbour_cells

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


def made(
    kind: str, context: Context, question: Question, form: Form = "direct"
) -> set[tuple[tuple[str, ...], str]]:
    """Everything that a kind makes over many draws."""
    results = set()
    for seed in range(60):
        items, scale = getattr(Mistakes(context, question, Random(seed), form), kind)()
        if items:
            results.add((tuple(items), scale))
    return results


CHANGE = ask("arithmetic", 25.0, "percent", "(1,500 - 1,200) / 1,200")
MEAN = ask("arithmetic", 850, "million", "(900+800)/2")
SPAN = ask("span", ["Asia and Africa"])
CELL = ask("span", ["900"], "million")
LIST = ask("multi-span", ["900", "800"], "million")


@pytest.mark.parametrize(
    ("kind", "case", "expected"),
    [
        ("other_cell", CELL, {"800", "600", "$1,500"}),
        ("neighbouring_span", SPAN, {"Europe, followed by", "Costs rose by", "Costs rose"}),
        ("cut_span", SPAN, {"and Africa", "Asia and"}),
        ("one_missing", LIST, {"900", "800"}),
        ("one_extra", LIST, {f"900|800|{cell}" for cell in ("1,200", "$1,500", "400", "600")}),
        ("swapped_operands", CHANGE, {"-20.0"}),
        ("wrong_operation", CHANGE, {"300.0", "225.0", "400.0"}),
        ("wrong_operation", MEAN, {"1700", "0", "50"}),
        ("wrong_cell", MEAN, {"800", "700", "1150", "900", "1050", "650"}),
        ("lost_hundred", CHANGE, {"0.2500"}),
        ("wrong_sign", MEAN, {"-850"}),
        ("off_by_few", ask("count", 1), {"0", "2", "3"}),
        ("listed_items", ask("count", 2, "", "2019## 2018"), {"2019|2018"}),
    ],
)
def test_each_kind_makes_its_mistake(
    kind: str, case: tuple[Context, Question], expected: set[str]
) -> None:
    results = made(kind, *case)
    assert {"|".join(items) for items, _ in results} <= expected
    assert results
    assert {scale for _, scale in results} == {case[1].scale}


@pytest.mark.parametrize(
    ("kind", "case", "expected"),
    [
        ("swapped_operands", CHANGE, {"(1,200 - 1,500) / 1,500 * 100"}),
        (
            "wrong_operation",
            CHANGE,
            {
                "(1,500 + 1,200) / 1,200 * 100",
                "1,500 - 1,200",
                "1,200 / (1,500 - 1,200) * 100",
            },
        ),
        ("wrong_operation", MEAN, {"(900 - 800) / 2", "900 + 800", "2 / (900 + 800)"}),
        (
            "wrong_cell",
            MEAN,
            {f"({n} + 800) / 2" for n in ("1,500", "600", "800")}
            | {f"(900 + {n}) / 2" for n in ("1,200", "400", "900")},
        ),
        ("lost_hundred", CHANGE, {"(1,500 - 1,200) / 1,200"}),
    ],
)
def test_each_kind_makes_its_mistake_in_the_expression(
    kind: str, case: tuple[Context, Question], expected: set[str]
) -> None:
    results = made(kind, *case, form="calc")
    assert {items[0] for items, _ in results} == expected
    assert {scale for _, scale in results} == {case[1].scale}


def test_the_expression_is_kept_where_only_the_scale_is_wrong() -> None:
    results = made("wrong_scale", *CHANGE, form="calc")
    assert {items for items, _ in results} == {("(1,500 - 1,200) / 1,200 * 100",)}
    assert {scale for _, scale in results} == {"", "thousand", "million", "billion"}


@pytest.mark.parametrize("kind", ["wrong_sign", "lost_hundred"])
def test_an_expression_without_a_hundred_loses_none(kind: str) -> None:
    assert not made(kind, *MEAN, form="calc")


def test_a_number_without_an_expression_is_erred_about_as_a_number() -> None:
    case = ask("arithmetic", 26.0, "percent", "see note 3")
    assert made("wrong_sign", *case, form="calc") == {(("-26.0",), "percent")}
    assert made("lost_hundred", *case, form="calc") == {(("0.2600",), "percent")}
    assert {items for items, _ in made("wrong_scale", *case, form="calc")} == {("26.0",)}


def test_more_of_the_kinds() -> None:
    assert {scale for _, scale in made("wrong_scale", *MEAN)} == {
        "",
        "thousand",
        "billion",
        "percent",
    }
    assert not made("wrong_scale", *SPAN)
    longer = made("overlong_span", *SPAN)
    assert longer
    assert all("Asia and Africa" in items[0] and items[0] in TEXT for items, _ in longer)
    replaced = made("one_replaced", *LIST)
    assert replaced
    assert all(len(items) == 2 for items, _ in replaced)
    assert all(len(set(items) & {"900", "800"}) == 1 for items, _ in replaced)
    assert all(len(items) == 1 for items, _ in made("one_missing", *LIST))


def test_what_is_not_in_the_text_has_no_neighbours() -> None:
    nowhere = ask("span", ["the Moon"])
    for kind in ("other_cell", "neighbouring_span", "overlong_span"):
        assert not made(kind, *nowhere)


@pytest.mark.parametrize("form", ["direct", "calc"])
@pytest.mark.parametrize("kind", ["swapped_operands", "wrong_operation", "wrong_cell"])
def test_derivation_that_does_not_give_the_gold_answer_is_not_used(kind: str, form: Form) -> None:
    other = ask("arithmetic", 26.0, "percent", "(1,500 - 1,200) / 1,200")
    assert not made(kind, *other, form=form)
    assert not made(kind, *ask("arithmetic", 26.0, "percent", "see note 3"), form=form)


def test_a_division_by_zero_is_no_answer() -> None:
    zero = ask("arithmetic", 0, "", "(800 - 800) / 400")
    assert ("400 / (800 - 800)",) not in {
        items for items, _ in made("wrong_operation", *zero, form="calc")
    }


def test_neighbours_are_of_the_same_kind_and_labels_are_no_neighbours_of_numbers() -> None:
    context = SPAN[0]
    assert neighbour_cells(context, "2018") == ["2019"]
    assert neighbour_cells(context, "Costs") == ["Profit", "Revenue"]
    assert neighbour_cells(context, "800") == ["1,200", "400", "900"]
    assert neighbour_cells(context, "Moon") == []


def test_misformatted_replies() -> None:
    assert misformatted(["a", "b"], "million") == [
        '{"answer": "a, b", "scale": "million"}',
        '{"answer": ["a", "b"]}',
        "{'answer': ['a', 'b'], 'scale': 'million'}",
        '{"answer": ["a", "b"], "scale": "million"',
        "Answer: a, b million",
    ]
    assert misformatted(["a"], "")[-1] == "Answer: a"


def test_every_kind_but_the_format_is_a_method() -> None:
    assert {kind for kinds in KINDS.values() for kind in kinds} == set(NAMES)
    assert [name for name in NAMES if not hasattr(Mistakes, name)] == ["format"]


def test_a_label_is_no_neighbour_of_a_number_even_if_it_holds_one() -> None:
    context = Context("c", [["Level 1", "900", "800"]], [], [])
    assert neighbour_cells(context, "900") == ["800"]
