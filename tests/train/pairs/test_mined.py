"""On-policy pairs: which replies of a model are chosen and which rejected."""

import json
from collections import Counter
from pathlib import Path

import pytest

from tatqa_task import answer, data, prompt
from tatqa_task.types import Context, Question
from train.pairs import mined
from train.pairs.build import build
from train.pairs.mined import Mined, balanced, judge
from train.pairs.pair import Counts, Pair
from train.pairs.samples import Replies
from train.pairs.strategies import NOT_RIGHT
from train.recipe import Recipe, RecipeError

QUESTION = Question("q", "?", 25.0, "arithmetic", "table", "percent", "(1,500 - 1,200) / 1,200", 1)
CONTEXT = Context("c", [["1,500", "1,200"]], [], [QUESTION])
EXPRESSION = '{"answer": ["(1,500 - 1,200) / 1,200 * 100"], "scale": "percent"}'
OTHER_EXPRESSION = '{"answer": ["(1,500/1,200 - 1) * 100"], "scale": "percent"}'
NUMBER = '{"answer": ["25"], "scale": "percent"}'
WRONG = '{"answer": ["(1,500 - 1,200)"], "scale": "percent"}'
AS_TEXT = '{"answer": "(1,500 - 1,200) / 1,200 * 100", "scale": "percent"}'


def replies(*texts: str) -> Replies:
    given = Replies()
    for text in texts:
        given.add(text)
    return given


def pairs_of(*texts: str, limit: int | None = None) -> Mined:
    found = mined.mined(CONTEXT, QUESTION, replies(*texts), "calc", limit)
    assert isinstance(found, Mined)
    return found


def test_a_right_reply_is_chosen_and_a_wrong_one_rejected() -> None:
    found = pairs_of(WRONG, OTHER_EXPRESSION)
    assert not found.gold_chosen
    assert [(p.chosen, p.rejected, p.kind) for p in found.pairs] == [
        (OTHER_EXPRESSION, WRONG, "mined")
    ]
    assert found.pairs[0].prompt == prompt.user_message(CONTEXT, QUESTION, "calc")


def test_the_gold_reply_is_chosen_where_no_reply_is_right() -> None:
    found = pairs_of(WRONG)
    assert found.gold_chosen
    assert [(pair.chosen, pair.rejected) for pair in found.pairs] == [(EXPRESSION, WRONG)]


def test_a_reply_in_another_format_is_rejected_even_if_it_says_the_right_thing() -> None:
    found = pairs_of(EXPRESSION, AS_TEXT, "Hm")
    assert [(pair.rejected, pair.kind) for pair in found.pairs] == [
        (AS_TEXT, "mined_format"),
        ("Hm", "mined_format"),
    ]


def test_the_most_frequent_replies_come_first() -> None:
    other = WRONG.replace("-", "+")
    found = pairs_of(other, WRONG, WRONG, NUMBER, OTHER_EXPRESSION)
    assert [pair.rejected for pair in found.pairs] == [WRONG, other]


def test_replies_that_say_the_same_count_once() -> None:
    spaced = WRONG.replace(" - ", "-")
    judged = judge(QUESTION, replies(WRONG, spaced, EXPRESSION, OTHER_EXPRESSION), "calc")
    assert judged.wrong == [("mined", WRONG)]
    assert judged.right == [EXPRESSION]


def test_a_right_number_in_place_of_an_expression_is_neither() -> None:
    judged = judge(QUESTION, replies(NUMBER), "calc")
    assert (judged.right, judged.wrong) == ([], [])
    assert judge(QUESTION, replies(NUMBER), "direct").right == [NUMBER]


def test_words_around_a_right_reply_keep_it_from_being_chosen() -> None:
    judged = judge(QUESTION, replies(f"Sure: {EXPRESSION}"), "calc")
    assert (judged.right, judged.wrong) == ([], [])


def test_reasons_for_no_pair() -> None:
    assert mined.mined(CONTEXT, QUESTION, None, "calc") == mined.NO_REPLY
    assert mined.mined(CONTEXT, QUESTION, replies(EXPRESSION), "calc") == mined.ALL_RIGHT
    span = Question("q", "?", ["12 - 5"], "span", "table", "", "", 1)
    assert mined.mined(CONTEXT, span, replies("no"), "calc") == NOT_RIGHT


def pair(uid: str, answer_type: str) -> Pair:
    return Pair(uid, "c", answer_type, "mined", "", "", "")


def test_a_limit_keeps_the_most_frequent_mistakes() -> None:
    texts = ("Hm", WRONG, WRONG, EXPRESSION, OTHER_EXPRESSION)
    for limit, kept, beyond in ((None, [WRONG, "Hm"], 0), (1, [WRONG], 1), (2, [WRONG, "Hm"], 0)):
        found = pairs_of(*texts, limit=limit)
        assert [pair.rejected for pair in found.pairs] == kept
        assert found.beyond_limit == beyond


def test_right_replies_take_turns() -> None:
    span = Question("q", "?", ["the sea"], "span", "text", "", "", 1)
    said = [answer.render([text], "") for text in ("the sea", "Sea", "a", "b", "c")]
    found = mined.mined(CONTEXT, span, replies(*said), "direct")
    assert isinstance(found, Mined)
    assert [pair.chosen for pair in found.pairs] == [said[0], said[1], said[0]]


def test_no_answer_type_has_more_than_its_share() -> None:
    wrong_sums = [pair(f"a{i // 2}", "arithmetic") for i in range(16)]  # two each of 8 questions
    wrong_spans = [pair(f"s{i}", "span") for i in range(4)]
    asked = Counter({"arithmetic": 50, "span": 50})
    kept = balanced(wrong_sums + wrong_spans, asked, seed=0)
    types = Counter(p.answer_type for p in kept)
    assert types == {"arithmetic": 10, "span": 4}  # half of 20, and all there are
    per_question = Counter(p.uid for p in kept if p.answer_type == "arithmetic")
    assert len(per_question) == 8  # each question's first pair before any second one
    assert balanced(wrong_sums + wrong_spans, asked, seed=0) == kept
    assert balanced(wrong_sums, Counter(arithmetic=3), seed=0) == wrong_sums


def sample(uid: str, *given: str) -> str:
    return json.dumps({"doc": {"uid": uid}, "filtered_resps": [given[0]], "resps": [given]})


def test_the_strategy_on_a_split(small_data: Path, tmp_path: Path) -> None:
    questions = [question for context in data.load("train") for question in context.questions]
    wrong = answer.render(["no such thing"], "")
    lines = []
    for question in questions[:30]:
        right = answer.gold_reply(question)
        lines.append(sample(question.uid, wrong, right, wrong, "Hm", "Hm"))
    lines.append(sample(questions[30].uid, answer.gold_reply(questions[30])))
    lines.append(sample(questions[31].uid, wrong))
    (tmp_path / "samples_tatqa_train_1.jsonl").write_text("\n".join(lines) + "\n")
    counts = Counts()
    recipe = Recipe(
        model_name_or_path="x",
        strategy="mined",
        samples=[str(tmp_path / "samples_*.jsonl")],
        max_pairs_per_question=1,
    )
    found = list(build(recipe, counts))
    assert {p.rejected for p in found} == {wrong}  # as frequent as "Hm", and given before it
    assert counts.dropped[mined.ALL_RIGHT] == 1
    assert counts.dropped[mined.NO_REPLY] == len(questions) - 32
    assert counts.dropped[mined.BEYOND_LIMIT] == 30
    assert len(found) + counts.dropped[mined.BEYOND_SHARE] == 31
    assert counts.notes[mined.GOLD_CHOSEN] == sum(p.uid == questions[31].uid for p in found)
    assert "chosen is the gold reply" in counts.table() or not counts.notes.total()


def test_samples_without_a_wrong_reply_are_an_error(small_data: Path, tmp_path: Path) -> None:
    question = data.load("train")[0].questions[0]
    path = tmp_path / "samples_tatqa_train_1.jsonl"
    path.write_text(sample(question.uid, answer.gold_reply(question)) + "\n")
    recipe = Recipe(model_name_or_path="x", strategy="mined", samples=[str(path)])
    with pytest.raises(RecipeError, match=r"strategy mined gives no pair; dropped: no reply in"):
        list(build(recipe, Counts()))
