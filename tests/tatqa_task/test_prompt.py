"""The user turn, whole and within a budget."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tatqa_task import data
from tatqa_task.data import Context, Question
from tatqa_task.prompt import INSTRUCTION, REASONING, fit, user_message

TABLE = [["", "2019", "2018"], ["Net sales ", "$1,496.5", "$1,202.9"]]
TEXTS = ["The table shows net sales (in millions).", "Our pension plan is closed."]
TEXTS += ["Net sales of gadgets grew in 2019."]
CONTEXT = Context("c", TABLE, TEXTS, [])


def words(text: str) -> int:
    return len(text.split())


def test_instruction_and_report_first_question_last() -> None:
    assert user_message(CONTEXT, "How much were net sales in 2019?\n") == (
        f"{INSTRUCTION}\n\n | 2019 | 2018\nNet sales | $1,496.5 | $1,202.9\n\n"
        "The table shows net sales (in millions).\nOur pension plan is closed.\n"
        "Net sales of gadgets grew in 2019.\n\n"
        "Question: How much were net sales in 2019?\nAnswer:"
    )


def test_questions_of_a_context_share_everything_up_to_the_question() -> None:
    question = Question("u", "B?", "3", "count", None, "", "", 1)
    a, b = user_message(CONTEXT, "A?"), user_message(CONTEXT, question)
    assert a.removesuffix("A?\nAnswer:") == b.removesuffix("B?\nAnswer:")


def test_reasoning() -> None:
    text = user_message(CONTEXT, "A?", form="cot")
    assert REASONING in text
    assert text.endswith("Question: A?\nReasoning:")


def test_a_report_without_text_and_cells_with_line_breaks() -> None:
    assert "\n\na b | c\n\nQuestion:" in user_message(Context("c", [["a\nb", " c"]], [], []), "?")


def test_budget_drops_the_least_related_paragraph_first() -> None:
    question = "What drove net sales of gadgets in 2019?"
    whole = words(user_message(CONTEXT, question))
    assert fit(CONTEXT, question, whole, words) == CONTEXT
    assert fit(CONTEXT, question, whole - 1, words).paragraphs == [TEXTS[0], TEXTS[2]]
    assert fit(CONTEXT, question, whole - 6, words).paragraphs == [TEXTS[2]]
    nothing = fit(CONTEXT, question, 1, words)
    assert (nothing.paragraphs, nothing.table) == ([], TABLE)  # table rows never go


@given(
    texts=st.lists(st.sampled_from([*TEXTS, "Net sales."]), max_size=6), budget=st.integers(0, 150)
)
def test_budget_keeps_order_and_is_met_or_nothing_is_left(texts: list[str], budget: int) -> None:
    context = Context("c", TABLE, texts, [])
    fitted = fit(context, "Net sales?", budget, words)
    rest = iter(texts)
    assert all(text in rest for text in fitted.paragraphs)  # a subsequence
    assert words(user_message(fitted, "Net sales?")) <= budget or not fitted.paragraphs


@pytest.mark.real
def test_real_prompts_hold_the_whole_context(shared_data: Path) -> None:
    for context in data.load("validation", str(shared_data / "tatqa")):
        text = user_message(context, context.questions[0])
        assert all(cell.strip() in text for row in context.table for cell in row)
        assert all(
            line.strip() in text
            for paragraph in context.paragraphs
            for line in paragraph.splitlines()
        )
