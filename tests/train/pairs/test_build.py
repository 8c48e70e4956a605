"""Every strategy's pairs, and the corruptions one by one."""

import json
from collections import Counter
from pathlib import Path
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tatqa_task import answer, data, metric, synthetic
from tatqa_task.data import Context, Question
from train.pairs import build as pairs
from train.pairs import corruptions
from train.pairs.__main__ import main as pairs_main
from train.pairs.build import Counts, Pair
from train.pairs.corruptions import NAMES, Mistakes
from train.recipe import Recipe, RecipeError, parse

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


def made(kind: str, context: Context, question: Question) -> set[tuple[tuple[str, ...], str]]:
    """Everything that a kind makes over many draws."""
    results = (getattr(Mistakes(context, question, Random(seed)), kind)() for seed in range(60))
    return {(tuple(result[0]), result[1]) for result in results if result[0]}


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


def test_more_of_the_kinds() -> None:
    assert {scale for _, scale in made("wrong_scale", *MEAN)} == {
        "",
        "thousand",
        "billion",
        "percent",
    }
    assert not made("wrong_scale", *SPAN)
    assert all(
        "Asia and Africa" in items[0] and items[0] in TEXT
        for items, _ in made("overlong_span", *SPAN)
    )
    assert all(
        len(items) == 2 and len(set(items) & {"900", "800"}) == 1
        for items, _ in made("one_replaced", *LIST)
    )
    assert all(len(items) == 1 for items, _ in made("one_missing", *LIST))


@pytest.mark.parametrize("kind", ["swapped_operands", "wrong_operation", "wrong_cell"])
def test_derivation_that_does_not_give_the_gold_answer_is_not_used(kind: str) -> None:
    assert not made(kind, *ask("arithmetic", 26.0, "percent", "(1,500 - 1,200) / 1,200"))
    assert not made(kind, *ask("arithmetic", 26.0, "percent", "see note 3"))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("(44.1-56.7)/56.7", -12.6 / 56.7), ("$1,234 + [2,000 - 100]", 3134), ("007 * 2", 14),
        ("-5,637-(-3,990)", -1647),
        ("12.5%/0", None), ("__import__('os')", None), ("2 ** 99", None), ("", None), ("(" * 9999, None), (".5+.5", 1),
    ],
)  # fmt: skip
def test_evaluate(text: str, value: float | None) -> None:
    found = corruptions.evaluate(text)
    assert found == (None if value is None else pytest.approx(value))


@given(st.integers(0, 10_000), st.sampled_from(["train", "validation"]))
@example(311, "validation")  # the span "6 thousand" with the scale thousand
def test_corrupt_pairs_are_right_and_wrong_under_the_metric(seed: int, split: str) -> None:
    for context in data.parse_contexts(synthetic.generate(split, 1, seed), "synthetic"):
        for question in context.questions:
            pair = pairs.corrupt(context, question, {}, seed)
            if isinstance(pair, Pair):
                for reply, em in ((pair.chosen, 1), (pair.rejected, 0)):
                    read = answer.parse(reply)
                    assert read.parsed
                    assert metric.score(question, read.answer, read.scale).em == em


def test_every_question_of_the_synthetic_split_gives_a_pair(small_data: Path) -> None:
    counts = Counts()
    made_pairs = list(pairs.build(Recipe(model_name_or_path=""), counts))
    assert len(made_pairs) == sum(len(context.questions) for context in data.load("train"))
    assert not counts.dropped
    assert counts.by_kind.total() == counts.by_type.total() == len(made_pairs)
    assert len(counts.by_kind) > 8


def test_mix_of_corruptions(small_data: Path) -> None:
    counts = Counts()
    mix = {"wrong_sign": 1, "other_cell": 1, "wrong_scale": 0.001, "off_by_few": 0}
    list(pairs.build(Recipe(model_name_or_path="", corruptions=mix), counts))
    assert set(counts.by_kind) <= {"wrong_sign", "other_cell", "wrong_scale"}
    assert counts.dropped[pairs.NOT_WRONG] > 0
    assert counts.by_kind["wrong_sign"] > 5 * counts.by_kind["wrong_scale"]
    with pytest.raises(RecipeError, match="unknown kind `wrong_sing`; did you mean `wrong_sign`"):
        list(pairs.build(Recipe(model_name_or_path="", corruptions={"wrong_sing": 1}), counts))


def test_same_seed_same_pairs(small_data: Path) -> None:
    def build(seed: int) -> list[Pair]:
        return list(pairs.build(Recipe(model_name_or_path="", seed=seed), Counts()))

    assert build(1) == build(1) != build(2)


def test_stratified_keeps_proportions_and_contexts(small_data: Path) -> None:
    every = list(pairs.build(Recipe(model_name_or_path=""), Counts()))
    types = Counter(pair.answer_type for pair in every)
    for n in (1, 13, 40, len(every), 10_000):
        some = pairs.stratified(every, n, seed=3)
        assert len(some) == min(n, len(every))
        for name, number in Counter(pair.answer_type for pair in some).items():
            assert abs(number - types[name] * len(some) / len(every)) <= 1
    assert pairs.stratified(every, None, 3) == every
    per_context = 30 / len({pair.context_uid for pair in pairs.stratified(every, 30, 3)})
    assert per_context > 3  # of six


def test_no_evaluated_context_is_trained_on(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = json.loads((small_data / data.FILES["train"][0]).read_text())
    raw[3]["paragraphs"][0]["text"] = (
        raw[3]["paragraphs"][0]["text"].upper() + "  " + "a long paragraph " * 20
    )
    for split, change in (
        ("train", raw),
        ("test", json.loads((small_data / data.FILES["test"][0]).read_text())),
    ):
        (tmp_path / data.FILES[split][0]).write_text(json.dumps(change))
    stolen = json.loads((small_data / data.FILES["validation"][0]).read_text())
    stolen[0]["table"]["table"] = [
        [cell.upper() + " " for cell in row] for row in raw[5]["table"]["table"]
    ]
    stolen[1]["paragraphs"].append(
        {"uid": "p", "order": 9, "text": raw[3]["paragraphs"][0]["text"]}
    )
    (tmp_path / data.FILES["validation"][0]).write_text(json.dumps(stolen))
    monkeypatch.setenv("TATQA_DATA", str(tmp_path))
    counts = Counts()
    kept = {pair.context_uid for pair in pairs.build(Recipe(model_name_or_path=""), counts)}
    gone = {raw[i]["table"]["uid"] for i in (3, 5)}
    assert len(kept) == 10
    assert not kept & gone
    assert counts.dropped == {
        f"{pairs.LEAKED}: {raw[i]['table']['uid']}": len(raw[i]["questions"]) for i in (3, 5)
    }
    faithful = Counts()
    list(pairs.build(Recipe(model_name_or_path="", strategy="log"), faithful))
    assert not any(pairs.LEAKED in reason for reason in faithful.dropped)


def test_log_rule() -> None:
    context, question = ask("arithmetic", 12345.678, "million")
    for seed in range(50):
        pair = pairs.log_rule(context, question, seed)
        assert isinstance(pair, Pair)
        assert answer.parse(pair.chosen).answer == ["1.235e+04"]
        wrong = float(answer.parse(pair.rejected).answer[0])
        assert 0.099 < abs(wrong / 12345.678 - 1) < 0.351
    assert pairs.log_rule(*ask("arithmetic", 0.1), 0) == "chosen equals rejected"
    zeros = [pairs.log_rule(*ask("arithmetic", 0), seed) for seed in range(50)]
    values = [
        float(answer.parse(pair.rejected).answer[0]) for pair in zeros if isinstance(pair, Pair)
    ]
    assert all(1 <= abs(value) <= 10 for value in values)
    cells = [pairs.log_rule(*SPAN, seed) for seed in range(50)]
    assert {answer.parse(pair.rejected).answer[0] for pair in cells if isinstance(pair, Pair)} == {
        cell for row in TABLE for cell in row if cell
    }


@pytest.mark.real
@pytest.mark.parametrize(
    ("split", "low", "high"),
    [("validation", 1661, 1664), ("test", 1656, 1660), ("train", 12955, 12966)],
)
def test_log_rule_counts_on_the_real_files(
    split: str, low: int, high: int, shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TATQA_DATA", str(shared_data / "tatqa"))
    counts = Counts()
    recipe = parse({"model_name_or_path": "", "split": split, "strategy": "log"}, "test")
    assert low <= len(list(pairs.build(recipe, counts))) <= high
    assert set(counts.dropped) == {"chosen equals rejected"}


@pytest.mark.real
def test_corrupt_keeps_nearly_every_real_question(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TATQA_DATA", str(shared_data / "tatqa"))
    counts = Counts()
    kept = sum(1 for _ in pairs.build(Recipe(model_name_or_path="", split="validation"), counts))
    assert kept + counts.dropped.total() == 1668
    assert kept > 1600
    assert counts.dropped[pairs.NOT_WRONG] < 10
    assert not counts.dropped[pairs.NOT_RIGHT]
    assert set(counts.by_kind) == set(NAMES)


def sample(uid: str, reply: str) -> str:
    return json.dumps({"doc": {"uid": uid}, "filtered_resps": [reply], "resps": [[reply]]})


def test_mined_pairs_come_from_wrong_replies(small_data: Path, tmp_path: Path) -> None:
    first, second, third, fourth = data.load("train")[0].questions[:4]
    wrong = answer.render(["no such thing"], "")
    right = answer.render(second.answer, second.scale)
    lines = [
        sample(first.uid, wrong),
        sample(first.uid, wrong),
        sample(second.uid, right),
        sample(third.uid, "Hm"),
    ]
    lines.append(sample(fourth.uid, 'Sure: {"answer": ["1"], "scale": ""} Bye.'))
    (tmp_path / "samples_tatqa_train_1.jsonl").write_text("\n".join(lines) + "\n")
    counts = Counts()
    recipe = Recipe(
        model_name_or_path="", strategy="mined", samples=[str(tmp_path / "samples_*.jsonl")]
    )
    found = list(pairs.build(recipe, counts))
    assert [(pair.uid, pair.rejected) for pair in found] == [
        (first.uid, wrong), (fourth.uid, answer.render(["1"], "")),
    ]  # fmt: skip
    assert counts.dropped["reply is right"] == counts.dropped["reply not in the format"] == 1
    assert (
        counts.dropped["no reply in the samples"]
        == sum(len(c.questions) for c in data.load("train")) - 4
    )
    (tmp_path / "samples_tatqa_train_1.jsonl").write_text('{"doc": 3}\n')
    with pytest.raises(RecipeError, match=r"samples_tatqa_train_1.jsonl:1: not a sample"):
        list(pairs.build(recipe, counts))


def test_command_writes_pairs_and_a_table(
    small_data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "pairs.jsonl"
    assert pairs_main(["--split", "validation", "--out", str(out)]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    printed = capsys.readouterr().out
    assert f"{len(rows):,}  pairs kept" in printed
    assert {"prompt", "chosen", "rejected", "chat_template_kwargs"} <= set(rows[0])
    assert rows[0]["prompt"][0]["role"] == "user"
    monkeypatch.setenv("TATQA_DATA", str(tmp_path / "nowhere"))
    out.unlink()
    assert pairs_main(["--out", str(out)]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert not list(tmp_path.glob("pairs*"))
