"""Two judges compared: FastChat's own compute_agreement, scipy's Spearman, and by hand."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from mtbench_runner import bench as benches
from mtbench_runner import store
from mtbench_runner.__main__ import main
from mtbench_runner.agreement import (
    agreed,
    compare,
    spearman,
    votes_from_people,
    votes_from_ratings,
)
from mtbench_runner.jury import Ratings

from .conftest import write_answers


@given(st.lists(st.tuples(st.integers(1, 10), st.integers(1, 10)), min_size=3, max_size=30))
def test_spearman_is_scipys(pairs: list[tuple[int, int]]) -> None:
    first, second = [float(a) for a, _ in pairs], [float(b) for _, b in pairs]
    found = spearman(first, second)
    if len(set(first)) == 1 or len(set(second)) == 1:
        assert found is None
    else:
        assert found == pytest.approx(spearmanr(first, second).statistic)


def made_up_votes(rng: random.Random, judge: Any, number: int) -> list[dict[str, Any]]:
    votes = []
    for _ in range(number):
        one, other = rng.sample(["m1", "m2", "m3"], 2)
        winner = rng.choice(["model_a", "model_b", "tie", "tie (inconsistent)"])
        row = {"question_id": rng.randint(81, 84), "model_a": one, "model_b": other}
        votes.append(row | {"winner": winner, "judge": judge, "turn": rng.randint(1, 2)})
    return votes


def test_agreement_is_fastchats() -> None:
    from fastchat.llm_judge.compute_agreement import (
        get_mt_bench_agreement,
        get_mt_bench_votes_data,
    )

    rng = random.Random(0)
    people = made_up_votes(rng, "expert_1", 80)
    judged: dict[Any, dict[str, Any]] = {}
    for row in made_up_votes(rng, ["gpt-4", "pair-v2"], 80):  # one vote on each pair of answers
        models = frozenset((row["model_a"], row["model_b"]))
        judged[row["question_id"], row["turn"], models] = row
    machine = list(judged.values())
    theirs = get_mt_bench_votes_data([machine, people])
    ours = votes_from_people(machine), votes_from_people(people)
    for turn in (1, 2):
        for ban in ([], ["tie"]):
            args = (ours[0][turn], ours[1][turn], False, bool(ban))
            found = agreed(*args)
            equal, total = get_mt_bench_agreement(theirs[turn - 1], "gpt4-pair", "human", ban)
            assert found["total"] == total > 0
            assert found["ratio"] == equal / total
            equal, total = get_mt_bench_agreement(theirs[turn - 1], "human", "human", ban)
            among_people = agreed(ours[1][turn], ours[1][turn], True, bool(ban))
            assert (among_people["total"], among_people["ratio"]) == (total, equal / total)


def test_votes_from_ratings_by_fastchats_tie() -> None:
    ratings: dict[str, Ratings] = {
        "x": {(1, 1): [5.0], (2, 1): [5.0]},
        "a": {(1, 1): [5.1], (2, 1): [5.2]},
    }
    assert votes_from_ratings(ratings) == {
        1: {("1", "a", "x"): ["tie"], ("2", "a", "x"): ["model_a"]}
    }


def rate(bench: Path, judge: str, model: str, ratings: dict[tuple[int, int], float]) -> None:
    path = bench / "model_judgment" / f"{judge}_single.jsonl"
    path.parent.mkdir(exist_ok=True)
    for (question, turn), score in ratings.items():
        answer = f"An answer. {question}.1 An answer. {question}.2"
        row = {"question_id": question, "model": model, "judge": [judge, "single-v1"]}
        shown = {"user_prompt": answer, "judgment": f"[[{score}]]", "score": score}
        store.append(path, row | shown | {"turn": turn})


def test_two_judges_by_hand(bench: Path, capsys: Any) -> None:
    write_answers(bench, "n")
    rate(bench, "gpt-4", "m", {(1, 1): 4, (2, 1): 6, (3, 1): 8})
    rate(bench, "gpt-4", "n", {(1, 1): 5, (2, 1): 6, (4, 1): 1})
    rate(bench, "org", "m", {(1, 1): 5, (2, 1): 6, (3, 1): 10})
    rate(bench, "org", "n", {(1, 1): 9, (2, 1): 2, (3, 1): -1})
    found = compare(benches.load(str(bench)), "gpt-4", "org")
    ratings = found["ratings"]
    assert ratings is not None
    assert (ratings["n"], ratings["n_first"], ratings["n_second"]) == (5, 6, 5)
    assert ratings["difference"] == pytest.approx((1 + 0 + 2 + 4 - 4) / 5)
    assert ratings["absolute_difference"] == pytest.approx(11 / 5)
    assert ratings["near"] == pytest.approx(2 / 5)
    assert ratings["models"] == {"m": (6, 7), "n": (5.5, 5.5)}
    # question 1: n wins for both; question 2: a tie for gpt-4, m for the other
    assert found["votes"] == {
        "1": {
            "with ties": {"total": 2, "ratio": 0.5},
            "without ties": {"total": 1, "ratio": 1.0},
        }
    }
    assert main(["agreement", "gpt-4", "org", "--data", str(bench)]) == 0
    assert "| turn 1 | 50.0% | 2 | 100.0% | 1 |" in capsys.readouterr().out


def test_a_judge_against_people_in_a_json_array(bench: Path, tmp_path: Path, capsys: Any) -> None:
    write_answers(bench, "n")
    rate(bench, "j", "m", {(1, 1): 4})
    rate(bench, "j", "n", {(1, 1): 5})
    vote = {"question_id": 1, "model_a": "n", "model_b": "m", "turn": 1, "judge": "expert_0"}
    people = tmp_path / "people.json"
    people.write_text(json.dumps([vote | {"winner": "model_a"}, vote | {"winner": "tie"}]))
    arguments = ["agreement", "j", str(people), "--data", str(bench), "--json", "-"]
    assert main(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ratings"] is None
    assert found["votes"]["1"]["with ties"] == {"total": 2, "ratio": 0.5}
    people.write_text(json.dumps([{"question_id": 1, "model_a": "n", "turn": 1}]))
    assert main(arguments) == 2
    assert "people.json, row 1: no model_b" in capsys.readouterr().err
    people.write_text("[broken")
    assert main(arguments) == 2


def test_nothing_in_common(bench: Path, capsys: Any) -> None:
    rate(bench, "j", "m", {(1, 1): 4})
    rate(bench, "k", "m", {(2, 1): 4})
    assert main(["agreement", "j", "k", "--data", str(bench)]) == 2
    assert "have judged nothing in common" in capsys.readouterr().err
    assert main(["agreement", "j", "nobody", "--data", str(bench)]) == 2
    assert "no judgments of nobody" in capsys.readouterr().err


@pytest.mark.real
def test_gpt_4_agrees_with_itself(shared_data: Path) -> None:
    bench = benches.load(str(shared_data / "mt_bench"))
    ratings = compare(bench, "gpt-4", "gpt-4")["ratings"]
    assert ratings is not None
    assert (ratings["n"], ratings["difference"]) == (480, 0)
    assert ratings["spearman"] == pytest.approx(1)
    means = [round(mean, 2) for mean, _ in ratings["models"].values()]
    assert means == [7.31, 7.03, 6.58]
