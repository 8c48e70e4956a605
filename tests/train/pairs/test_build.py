"""What becomes of a split's questions: pairs, and drops with their reasons."""

import json
from collections import Counter
from pathlib import Path

import pytest

from tatqa_task import data
from train.pairs.build import LEAKED, NO_MARKER, build, stratified
from train.pairs.corruptions import NAMES
from train.pairs.pair import Counts, Pair
from train.pairs.strategies import NOT_RIGHT, NOT_WRONG
from train.recipe import Recipe, RecipeError, parse


def test_every_question_of_the_synthetic_split_gives_a_pair(small_data: Path) -> None:
    counts = Counts()
    made_pairs = list(build(Recipe(model_name_or_path=""), counts))
    assert len(made_pairs) == sum(len(context.questions) for context in data.load("train"))
    assert not counts.dropped
    assert counts.by_kind.total() == counts.by_type.total() == len(made_pairs)
    assert len(counts.by_kind) > 8


def test_mix_of_corruptions(small_data: Path) -> None:
    counts = Counts()
    mix = {"wrong_sign": 1, "other_cell": 1, "wrong_scale": 0.001, "off_by_few": 0}
    list(build(Recipe(model_name_or_path="", corruptions=mix), counts))
    assert set(counts.by_kind) <= {"wrong_sign", "other_cell", "wrong_scale"}
    assert counts.dropped[NOT_WRONG] > 0
    assert counts.by_kind["wrong_sign"] > 5 * counts.by_kind["wrong_scale"]
    with pytest.raises(RecipeError, match="unknown kind `wrong_sing`; did you mean `wrong_sign`"):
        list(build(Recipe(model_name_or_path="", corruptions={"wrong_sing": 1}), counts))


def test_same_seed_same_pairs(small_data: Path) -> None:
    def pairs(seed: int) -> list[Pair]:
        return list(build(Recipe(model_name_or_path="", seed=seed), Counts()))

    assert pairs(1) == pairs(1) != pairs(2)


def test_stratified_keeps_proportions_and_contexts(small_data: Path) -> None:
    every = list(build(Recipe(model_name_or_path=""), Counts()))
    types = Counter(pair.answer_type for pair in every)
    for n in (1, 13, 40, len(every), 10_000):
        some = stratified(every, n, seed=3)
        assert len(some) == min(n, len(every))
        for name, number in Counter(pair.answer_type for pair in some).items():
            assert abs(number - types[name] * len(some) / len(every)) <= 1
    assert stratified(every, None, 3) == every
    per_context = 30 / len({pair.context_uid for pair in stratified(every, 30, 3)})
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
    kept = {pair.context_uid for pair in build(Recipe(model_name_or_path=""), counts)}
    gone = {raw[i]["table"]["uid"] for i in (3, 5)}
    assert len(kept) == 10
    assert not kept & gone
    assert counts.dropped == {
        f"{LEAKED}: {raw[i]['table']['uid']}": len(raw[i]["questions"]) for i in (3, 5)
    }
    faithful = Counts()
    list(build(Recipe(model_name_or_path="", strategy="log"), faithful))
    assert not any(LEAKED in reason for reason in faithful.dropped)


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
    assert low <= len(list(build(recipe, counts))) <= high
    assert set(counts.dropped) == {"chosen equals rejected"}


@pytest.mark.real
def test_corrupt_keeps_nearly_every_real_question(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TATQA_DATA", str(shared_data / "tatqa"))
    counts = Counts()
    kept = sum(1 for _ in build(Recipe(model_name_or_path="", split="validation"), counts))
    assert kept + counts.dropped.total() == 1668
    assert kept > 1600
    assert counts.dropped[NOT_WRONG] < 10
    assert counts.dropped[NOT_RIGHT] <= 2  # "$120 million" with the scale million beside it
    assert set(counts.by_kind) == set(NAMES)


def test_questions_whose_scale_stands_nowhere_are_dropped(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for split in ("validation", "test"):
        name = data.FILES[split][0]
        (tmp_path / name).write_text((small_data / name).read_text())
    text = (small_data / data.FILES["train"][0]).read_text()
    for marker in ("(in thousands)", "thousand"):
        text = text.replace(f" {marker}", "").replace(marker, "" if "(" in marker else marker)
    (tmp_path / data.FILES["train"][0]).write_text(text)
    monkeypatch.setenv("TATQA_DATA", str(tmp_path))
    every, marked = Counts(), Counts()
    list(build(Recipe(model_name_or_path=""), every))
    list(build(Recipe(model_name_or_path="", scale_markers=True), marked))
    assert not every.dropped[NO_MARKER]
    assert marked.dropped[NO_MARKER] > 0
    assert marked.by_type.total() + marked.dropped.total() == every.by_type.total()


def test_no_pair_at_all_is_an_error(small_data: Path) -> None:
    nothing = {"corruptions": {"one_extra": 0.0}}  # which no recipe file may say
    recipe = Recipe(model_name_or_path="").model_copy(update=nothing)
    with pytest.raises(
        RecipeError, match=r"corrupt gives no pair; dropped: no wrong answer found \("
    ):
        list(build(recipe, Counts()))
