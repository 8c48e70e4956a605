"""The command as a user meets it: nothing hidden, nothing paid lost, no question that blocks."""

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mtbench_runner import store
from mtbench_runner.__main__ import main
from mtbench_runner.terminal import printable

from .conftest import judgments, reply_with, write_answers

N = 16  # turns of the demo bench
OVERFLOW = (400, {"error": {"message": "too long", "code": "context_length_exceeded"}})
SERVED = ("--model", "served", "--answers-from")


def run(stage: str, bench: Path, *more: str) -> int:
    named = ["--data", str(bench), "--model-id", "m"]
    judged = [] if "--judge-model" in more else ["--judge-model", "j"]
    return main([stage, *named, *judged, *more])


def result(stage: str, bench: Path, capsys: Any, *more: str, code: int = 0) -> dict[str, Any]:
    capsys.readouterr()
    assert run(stage, bench, *more, "--json", "-") == code
    return dict(json.loads(capsys.readouterr().out))


def only(text: str, fault: Any) -> Callable[[int, dict[str, Any]], Any]:
    """The fault for requests in which a text stands."""
    return lambda number, request: fault if text in json.dumps(request["messages"]) else None


# --- nothing blocks, everything is told


def test_one_overflow_leaves_a_pairwise_result_and_is_not_asked_again(
    judge: Any, bench: Path, capsys: Any
) -> None:
    write_answers(bench, "base", "Another answer.")
    judge.reply = "[[A]]"
    judge.fault = only("ice float", OVERFLOW)
    found = result("pairwise", bench, capsys, "--baseline", "base", code=1)
    assert (found["missing"], found["tie"]) == (2, 14)
    assert found["failures"] == {"the prompt exceeds the context": 2}
    judge.requests.clear()
    assert run("pairwise", bench, "--baseline", "base") == 1
    assert judge.requests == []
    captured = capsys.readouterr()
    assert "win 0, tie 14, loss 0" in captured.out
    assert "will not be had by asking again: 2 the prompt exceeds the context" in captured.out
    assert "2 of 2 judgments are missing (2 the prompt exceeds the context)" in captured.err
    assert "--again failed" in captured.err
    judge.fault = lambda number, request: None
    assert run("pairwise", bench, "--baseline", "base", "--again", "failed") == 0


def test_stored_pairs_are_scored_without_key_or_judge(
    judge: Any, bench: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_answers(bench, "base", "Another answer.")
    judge.reply = "[[A]]"
    assert run("pairwise", bench, "--baseline", "base") == 0
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.delenv("OPENAI_BASE_URL")
    found = result("score", bench, capsys, "--baseline", "base")
    assert (found["tie"], found["position_consistency"], found["first_position"]) == (16, 0, 1)


def test_an_endpoint_that_answers_nothing_is_judged_all_the_same(
    judge: Any, bench: Path, capsys: Any
) -> None:
    judge.fault = only("pens", reply_with(""))
    assert main(["answer", "--data", str(bench), *SERVED, judge.url]) == 0
    assert main(["judge", "--data", str(bench), "--model-id", "served", "--judge-model", "j"]) == 1
    judge.fault = lambda number, request: None
    more = ["--data", str(bench), "--model-id", "served", "--judge-model", "j"]
    assert main(["judge", *more]) == 0
    assert main(["score", *more]) == 0
    assert "note: 2 answers without text" in capsys.readouterr().out


def test_causes_of_missing_answers_are_told(judge: Any, bench: Path, capsys: Any) -> None:
    judge.fault = lambda number, request: "wrong-key"
    assert main(["answer", "--data", str(bench), "--parallel", "1", *SERVED, judge.url]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(
        "error: 8 of 8 questions have no answer "
        "(7 not begun, 1 the endpoint refused the key (401)): 401: Incorrect API key"
    )


def test_a_question_without_an_answer_keeps_no_other_from_being_judged(
    judge: Any, bench: Path, capsys: Any
) -> None:
    path = bench / "model_answer" / "m.jsonl"
    rows = store.read(path)
    rows[2]["choices"][0]["turns"] = ["$ERROR$", "$ERROR$"]
    store.write_rows(path, rows[:7])
    assert run("judge", bench) == 1
    assert "m has no answer to 2 questions" in capsys.readouterr().err
    assert len(judgments(bench)) == 12
    assert result("score", bench, capsys, code=1)["missing"] == 4


def test_a_judge_that_never_rates_is_a_failure_that_says_how_to_go_on(
    judge: Any, bench: Path, capsys: Any
) -> None:
    judge.reply = "I would rather not."
    assert run("judge", bench) == 0
    assert "note: 16 of 16 judgments have no rating" in capsys.readouterr().err
    assert run("score", bench) == 1
    captured = capsys.readouterr()
    assert "without a rating: 16" in captured.out
    assert "none of 16 judgments has a rating" in captured.err
    judge.reply = "[[5]]"
    assert run("judge", bench, "--again", "unrated") == 0
    assert result("score", bench, capsys)["overall"] == 5
    assert len(store.read(bench / "model_judgment" / "j_single.jsonl.superseded")) == N


def test_a_reasoning_judge_without_room_costs_little_and_is_told_what_helps(
    judge: Any, bench: Path, capsys: Any
) -> None:
    judge.fault = lambda number, request: reply_with(None, "length", reasoning_content="Hm")
    assert run("judge", bench, "--parallel", "1") == 1
    assert len(judge.requests) <= 4
    error = capsys.readouterr().err
    assert "2 no text within the token limit" in error
    assert "--judge-max-tokens" in error
    judge.fault = lambda number, request: (
        None if request.get("reasoning_effort") == "low" else reply_with("", "length")
    )
    assert run("judge", bench, "--judge-effort", "low", "--again", "failed") == 0


def test_a_cut_judgment_is_counted_and_can_be_made_again(
    judge: Any, bench: Path, capsys: Any
) -> None:
    judge.fault = only("ice float", reply_with("So far [[3]]", "length"))
    assert run("judge", bench) == 0
    found = result("score", bench, capsys)
    assert found["counts"]["truncated_judgments"] == 2
    judge.fault = lambda number, request: None
    assert run("judge", bench, "--again", "truncated") == 0
    found = result("score", bench, capsys)
    assert (found["counts"]["truncated_judgments"], found["overall"]) == (0, 7)


def test_what_a_model_thought_is_kept_and_counted(judge: Any, bench: Path, capsys: Any) -> None:
    judge.reply = "<think>never finished"
    judge.fault = only("pens", reply_with("Half an ans", "length"))
    assert main(["answer", "--data", str(bench), *SERVED, judge.url]) == 0
    row = store.read(bench / "model_answer" / "served.jsonl")[0]
    assert row["choices"][0]["turns"][0] in ("", "Half an ans")
    judge.reply = "[THINK]maybe [[2]][/THINK]Rating: [[7]]"
    judge.fault = lambda number, request: None
    more = ["--data", str(bench), "--model-id", "served", "--judge-model", "j"]
    assert main(["judge", *more]) == 0
    assert judgments(bench)[0]["raw"] == ["[THINK]maybe [[2]][/THINK]Rating: [[7]]"]
    assert main(["score", *more]) == 0
    out = capsys.readouterr().out
    assert "2 answers cut at the token limit, 14 answers that were all thinking" in out


# --- nothing paid is lost


def test_kill_9_keeps_every_answer_of_an_endpoint(judge: Any, bench: Path) -> None:
    """The server counts; the process dies when it has asked for the ninth reply, one at a time."""
    command = [sys.executable, "-m", "mtbench_runner", "answer", "--data", str(bench)]
    command += ["--parallel", "1", *SERVED, judge.url]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)

    def kill_at_9(number: int, request: dict[str, Any]) -> Any:
        if number == 9:
            os.kill(process.pid, signal.SIGKILL)
        return None

    judge.fault = kill_at_9
    process.wait()
    path = bench / "model_answer" / "served.jsonl"
    assert len(store.read(path)) == 4  # 8 replies
    judge.fault = lambda number, request: None
    judge.requests.clear()
    assert main(["answer", "--data", str(bench), *SERVED, judge.url]) == 0
    assert len(judge.requests) == 8
    assert len(store.read(path)) == 8
    assert not store.beside(path, "replies").exists()


def test_a_first_turn_or_order_that_was_paid_for_is_not_asked_again(
    judge: Any, bench: Path
) -> None:
    judge.fault = lambda number, request: (
        (400, {}) if len(request["messages"]) == 3 else None
    )  # turn 2
    assert main(["answer", "--data", str(bench), *SERVED, judge.url]) == 1
    judge.fault = lambda number, request: None
    judge.requests.clear()
    assert main(["answer", "--data", str(bench), *SERVED, judge.url]) == 0
    assert len(judge.requests) == 8
    write_answers(bench, "base", "Another answer.")
    judge.reply = "[[A]]"
    judge.fault = lambda number, request: None if number % 2 else (400, {})
    judge.requests.clear()
    assert run("pairwise", bench, "--baseline", "base", "--parallel", "1") == 1
    judge.fault = lambda number, request: None
    judge.requests.clear()
    assert run("pairwise", bench, "--baseline", "base", "--parallel", "1") == 0
    assert len(judge.requests) == N


# --- names


NAMES = ["../../j", "/srv/models/j", "org/j", "..", "j?x=1", "x" * 300, "判事/四", "j\n\x1b[31m"]


@pytest.mark.parametrize("name", NAMES)
def test_no_name_leads_out_of_its_folder(name: str, judge: Any, bench: Path, capsys: Any) -> None:
    before = {path for path in bench.parent.rglob("*") if bench not in path.parents}
    assert run("judge", bench, "--judge-model", name, "--questions", "1") == 0
    after = {path for path in bench.parent.rglob("*") if bench not in path.parents}
    assert after == before
    [path] = (bench / "model_judgment").glob("*.jsonl")
    assert path.parent == bench / "model_judgment"
    assert run("score", bench, "--judge-model", name, "--questions", "1") == 0
    assert f"judged by {printable(name)}" in capsys.readouterr().out
    assert run("show", bench, "--judge-model", name, "--question", "1") == 0
    shown = printable(name).replace("\n", "")
    assert f"[{shown[:20]}" in capsys.readouterr().out.replace("\n", "")


def test_a_name_of_bytes_that_are_no_text_is_a_wrong_call(
    judge: Any, bench: Path, capsys: Any
) -> None:
    assert run("judge", bench, "--judge-model", "j\udcff") == 2
    assert "--judge-model: j\\udcff is not UTF-8" in capsys.readouterr().err


def test_a_judge_named_twice_judges_once(judge: Any, bench: Path, capsys: Any) -> None:
    assert run("judge", bench, "--judge-model", "j", "j") == 0
    assert len(judge.requests) == N
    assert run("score", bench, "--judge-model", "j", "j") == 0
    folders = [f"local:{bench / parent / 'tuned'}" for parent in ("a", "b")]
    assert run("judge", bench, "--judge-model", *folders) == 2
    assert "two judges are called local:tuned" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [
        ("--max-cost", "nan", "--prices", "1", "1"),
        ("--max-cost", "-1", "--prices", "1", "1"),
        ("--max-cost", "1", "--prices", "inf", "1"),
        ("--timeout", "0"),
        ("--deadline", "nan"),
        ("--requests-per-minute", "-1"),
        ("--judge-temperature", "-0.1"),
        ("--votes", "0"),
        ("--judge-max-tokens", "0"),
    ],
)
def test_a_number_that_bounds_nothing_is_a_wrong_call(
    options: tuple[str, ...], judge: Any, bench: Path
) -> None:
    """Not-a-number is within every limit: --max-cost nan was no limit at all."""
    with pytest.raises(SystemExit) as ended:
        run("judge", bench, *options)
    assert ended.value.code == 2
    assert judge.requests == []


def test_two_names_never_share_a_file() -> None:
    names = ["a/b", "a%2Fb", "a_b", "a b", ".a", "%2Ea", "x" * 151, "x" * 152]
    assert len({store.file_name(name) for name in names}) == len(names)
    assert store.file_name("gpt-4") == "gpt-4"


def test_a_model_may_have_a_slash_in_its_name(judge: Any, bench: Path, capsys: Any) -> None:
    more = ["--data", str(bench), "--model-id", "org/served", *SERVED, judge.url]
    assert main(["run", *more, "--judge-model", "j"]) == 0
    assert "org/served, judged by j" in capsys.readouterr().out
    assert (bench / "model_answer" / "org%2Fserved.jsonl").exists()


# --- which rows count


def foreign(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows as FastChat writes them."""
    ours = ("key", "answer_sha256", "usage", "settings", "finish_reasons", "vote", "raw")
    return [{k: v for k, v in row.items() if k not in ours} for row in rows]


def test_rows_of_fastchat_count_by_the_answer_they_contain_in_any_order(
    judge: Any, bench: Path, capsys: Any
) -> None:
    judge.reply = "[[9]]"
    assert run("judge", bench) == 0
    of_now = foreign(judgments(bench))
    write_answers(bench, "m", "An older answer.")
    judge.reply = "[[1]]"
    assert run("judge", bench) == 0
    of_then = [row | {"tstamp": 9e9} for row in foreign(judgments(bench))]
    write_answers(bench, "m")
    path = bench / "model_judgment" / "j_single.jsonl"
    rows = [*of_now, *of_then]
    for order in (rows, rows[::-1], random.Random(0).sample(rows, len(rows))):
        store.write_rows(path, order)
        found = result("score", bench, capsys)
        assert (found["overall"], found["superseded"]) == (9, N)
    assert run("score", bench) == 0
    assert "16 superseded judgments are left out" in capsys.readouterr().out


def test_pairs_stored_the_other_way_round_count(judge: Any, bench: Path, capsys: Any) -> None:
    write_answers(bench, "base", "A poor answer.")
    judge.reply = lambda request: (
        "[[A]]"
        if request["messages"][-1]["content"].rindex("An answer.")
        < request["messages"][-1]["content"].rindex("A poor answer.")
        else "[[B]]"
    )
    assert run("pairwise", bench, "--baseline", "base") == 0
    judge.requests.clear()
    capsys.readouterr()
    reversed_ids = ["--data", str(bench), "--model-id", "base", "--baseline", "m"]
    assert main(["pairwise", *reversed_ids, "--judge-model", "j", "--json", "-"]) == 0
    assert judge.requests == []
    assert json.loads(capsys.readouterr().out)["loss"] == N


def test_question_ids_may_be_text(judge: Any, bench: Path, capsys: Any) -> None:
    for path in (bench / "question.jsonl", bench / "reference_answer" / "reference.jsonl"):
        rows = store.read(path)
        store.write_rows(path, [row | {"question_id": f"q-{row['question_id']}"} for row in rows])
    write_answers(bench, "m")
    assert run("judge", bench) == 0
    found = result("score", bench, capsys, "--questions", "q-3,stem")
    assert set(found["per_question"]) == {"q-3", "q-7"}
    assert run("show", bench, "--question", "q-3") == 0


def test_ratings_outside_the_scale_are_flagged(judge: Any, bench: Path, capsys: Any) -> None:
    judge.reply = "[[15]]"
    assert run("judge", bench) == 0
    assert run("score", bench) == 0
    assert "note: 16 ratings outside 1 to 10" in capsys.readouterr().out


# --- votes and juries


def test_votes_lie_beside_fastchats_file_and_tell_the_judges_noise(
    judge: Any, bench: Path, capsys: Any
) -> None:
    judge.reply = lambda request: ["[[6]]", "[[8]]"][len(judge.requests) % 2]
    assert run("judge", bench, "--votes", "4", "--parallel", "1") == 0
    assert len(judgments(bench)) == N
    assert len(store.read(bench / "model_judgment" / "j_single.jsonl.votes")) == 3 * N
    found = result("score", bench, capsys)
    assert found["judges"]["j"]["votes"] == 4
    assert found["overall"] == 7
    assert 0.9 < found["noise"]["within"] < 1.3
    assert found["noise"]["within_stderr"] == pytest.approx(
        found["noise"]["within"] / (4 * N) ** 0.5
    )
    judge.requests.clear()
    assert run("judge", bench, "--votes", "5") == 0
    assert len(judge.requests) == N
    assert run("score", bench) == 0
    assert "judged again, the mean would move by" in capsys.readouterr().out


def test_a_jury_widens_the_interval_by_what_judges_differ(
    judge: Any, bench: Path, capsys: Any
) -> None:
    judge.reply = lambda request: {"a": "[[4]]", "b/c": "[[8]]"}[request["model"]]
    jury = ("--judge-model", "a", "b/c")
    assert run("judge", bench, *jury) == 0
    found = result("score", bench, capsys, *jury)
    assert found["overall"] == 6
    assert {name: part["overall"] for name, part in found["judges"].items()} == {"a": 4, "b/c": 8}
    assert found["noise"]["between"] == pytest.approx(8**0.5)
    assert found["noise"]["between_stderr"] == pytest.approx(2)
    low, high = found["interval"]
    assert (6 - low, high - 6) == (pytest.approx(12.7062 * 2, abs=1e-3),) * 2  # t of two judges
    assert run("score", bench, *jury) == 0
    assert "by other judges, the mean would move by ± 2.00 besides" in capsys.readouterr().out


# --- before paying


def test_a_dry_run_counts_and_asks_and_writes_nothing(
    judge: Any, bench: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sorted(bench.rglob("*"))
    more = ["--data", str(bench), *SERVED, judge.url, "--dry-run", "--prices", "10", "30"]
    assert main(["run", *more, "--judge-model", "j"]) == 0
    out = capsys.readouterr().out
    assert "answers of served: 16 calls" in out
    assert "judgments by j: 16 calls" in out
    assert " USD (at most " in out
    assert judge.requests == []
    assert sorted(bench.rglob("*")) == before
    assert run("pairwise", bench, "--baseline", "base", "--votes", "2", "--dry-run") == 0
    assert "judgments by j: 64 calls" in capsys.readouterr().out
    assert run("pairwise", bench, "--baseline", "m", "--dry-run") == 2


def test_the_cost_stays_below_its_limit(judge: Any, bench: Path, capsys: Any) -> None:
    assert run("judge", bench, "--max-cost", "1") == 2
    assert "--max-cost needs --prices" in capsys.readouterr().err
    limits = ("--prices", "1000", "3000", "--max-cost", "1.5", "--parallel", "2")
    assert run("judge", bench, *limits, "--judge-max-tokens", "10") == 1
    assert 4 <= len(judgments(bench)) <= 11  # 0.13 USD each
    assert "stopped by --max-cost" in capsys.readouterr().err


def test_a_limit_that_one_long_reply_could_pass_lets_no_call_be_made(
    judge: Any, bench: Path, capsys: Any
) -> None:
    """2,048 tokens at 3,000 USD a million: the first 16 calls could have cost 98 USD."""
    judge.fault = lambda number, request: reply_with("[[7]]", usage={"completion_tokens": 2048})
    assert run("judge", bench, "--prices", "1", "3000", "--max-cost", "6") == 1
    assert judge.requests == []
    error = capsys.readouterr().err
    assert "stopped by --max-cost" in error
    assert "the next call may cost 6.14" in error
    assert run("judge", bench, "--prices", "1", "3000", "--max-cost", "20") == 1
    assert len(judge.requests) == 3


def test_the_prices_of_a_whole_run_are_the_judges(judge: Any, bench: Path) -> None:
    """Answers of a server of one's own are not paid for at GPT-4's prices."""
    more = ("--prices", "1", "1", "--max-cost", "0.001")
    served = ["--data", str(bench), *SERVED, judge.url, *more]
    assert main(["answer", *served]) == 1
    assert len(judge.requests) == 0
    assert main(["run", *served, "--judge-model", "j"]) == 1
    assert len(judge.requests) == N


def test_fewer_votes_later_take_none_away_and_more_are_added(
    judge: Any, bench: Path, capsys: Any
) -> None:
    assert run("judge", bench, "--votes", "3") == 0
    assert run("judge", bench, "--votes", "2") == 0
    assert len(judge.requests) == 3 * N
    assert result("score", bench, capsys)["judges"]["j"]["votes"] == 3
    assert run("judge", bench, "--votes", "4") == 0
    assert len(judge.requests) == 4 * N
    assert result("score", bench, capsys)["judges"]["j"]["votes"] == 4


def test_a_cost_that_is_not_known_is_said_to_be_unknown(
    judge: Any, bench: Path, capsys: Any
) -> None:
    judge.fault = only("ice float", reply_with("[[7]]", usage={}))
    assert run("judge", bench) == 0
    found = result("score", bench, capsys, "--prices", "10", "30")
    assert (found["cost_usd"], found["usage_unknown"]) == (None, 2)
    assert run("score", bench, "--prices", "10", "30") == 0
    assert "unknown for 2 judgments" in capsys.readouterr().out


# --- other benches


def test_what_another_pattern_reads_is_not_asked_again_as_unrated(
    judge: Any, bench: Path, capsys: Any
) -> None:
    judge.reply = "Points: 6"
    assert run("judge", bench) == 0
    more = ("--again", "unrated", "--rating-pattern", r"Points: (\d+)")
    assert run("judge", bench, *more) == 0
    assert len(judge.requests) == N


def test_another_pattern_rates_what_is_stored(judge: Any, bench: Path, capsys: Any) -> None:
    judge.reply = "Score: 4 of 5"
    pattern = ("--rating-pattern", r"Score: (\d)")
    assert run("judge", bench, *pattern) == 0
    assert {row["score"] for row in judgments(bench)} == {4}
    assert result("score", bench, capsys, *pattern)["overall"] == 4
    assert result("score", bench, capsys, "--rating-pattern", r"of (\d)")["overall"] == 5
    assert run("score", bench, "--rating-pattern", "no group") == 2
    assert run("score", bench, "--rating-pattern", "(") == 2


def test_other_prompts_and_some_questions(judge: Any, bench: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    text = (bench / "judge_prompts.jsonl").read_text()
    prompts.write_text(text.replace("You grade what", "You sternly grade what"))
    more = ("--judge-file", str(prompts), "--questions", "1-2,math")
    assert run("judge", bench, *more) == 0
    assert len(judge.requests) == 6
    assert "You sternly grade" in judge.requests[0]["messages"][0]["content"]
    assert run("judge", bench, "--questions", "77") == 2


def test_a_system_prompt_reaches_the_candidate_and_makes_other_answers(
    judge: Any, bench: Path
) -> None:
    more = ["answer", "--data", str(bench), *SERVED, judge.url]
    assert main([*more, "--system", "Be brief."]) == 0
    assert judge.requests[0]["messages"][0] == {"role": "system", "content": "Be brief."}
    judge.requests.clear()
    assert main(more) == 0
    assert len(judge.requests) == N
