"""Judging over real HTTP: faults, resumption, keys, and FastChat's show_result on the files."""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mtbench_runner import store
from mtbench_runner.__main__ import main

Rows = Callable[..., list[dict[str, Any]]]
TRANSIENT = (
    "429 429-with-retry-after 500 reset cut hang empty null error-body no-choices not-json".split()
)
FINAL = ["wrong-key", "unknown-model"]
N = 16  # turns of the demo bench


def run(stage: str, bench: Path, *more: str) -> int:
    return main([stage, "--data", str(bench), "--model-id", "m", "--judge-model", "j", *more])


def judge_all(bench: Path, *more: str) -> int:
    return run("judge", bench, *more)


def limits(fault: str) -> list[str]:
    """Of a judge that hangs; others get the minutes that are the default."""
    return ["--timeout", "2"] if fault == "hang" else []


def turns(rows: list[dict[str, Any]]) -> Counter[tuple[int, int]]:
    return Counter((row["question_id"], row["turn"]) for row in rows)


@pytest.mark.parametrize("fault", TRANSIENT)
def test_a_judge_that_recovers_ends_in_a_complete_run(
    fault: str, judge: Any, bench: Path, rows: Rows
) -> None:
    judge.fault = lambda number, request: fault if number <= 3 else None
    assert judge_all(bench, *limits(fault)) == 0
    assert len(judge.requests) > N
    assert set(turns(rows(bench)).values()) == {1}
    assert [row["score"] for row in rows(bench)] == [7] * N


@pytest.mark.parametrize("fault", [*TRANSIENT, *FINAL])
def test_a_judge_that_does_not_invents_nothing_and_the_next_run_makes_it_good(
    fault: str, judge: Any, bench: Path, rows: Rows, capsys: pytest.CaptureFixture[str]
) -> None:
    judge.fault = lambda number, request: fault
    assert run("judge", bench, "--timeout", "0.5", "--deadline", "1.5") == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"error: {N} of {N} judgments are missing (")
    assert "\x1b" not in error
    assert rows(bench) == []
    judge.fault = lambda number, request: None
    assert judge_all(bench) == 0
    assert [row["score"] for row in rows(bench)] == [7] * N


def test_only_the_failed_calls_are_made_again(
    judge: Any, bench: Path, rows: Rows, capsys: Any
) -> None:
    def ice(number: int, request: dict[str, Any]) -> str | None:
        return "500" if "ice float" in request["messages"][-1]["content"] else None

    judge.fault = ice
    assert run("judge", bench) == 1
    assert f"error: 2 of {N} judgments are missing" in capsys.readouterr().err
    assert run("score", bench) == 1
    assert "missing: 2" in capsys.readouterr().out
    judge.fault = lambda number, request: None
    judge.requests.clear()
    assert judge_all(bench) == 0
    assert len(judge.requests) == 2
    assert len(rows(bench)) == N
    assert judge_all(bench) == 0
    assert len(judge.requests) == 2


def test_a_dead_judge_is_given_up_on(judge: Any, bench: Path, capsys: Any) -> None:
    judge.fault = lambda number, request: "wrong-key"
    assert judge_all(bench, "--parallel", "2") == 1
    assert len(judge.requests) <= 3
    assert "refused the key (401)" in capsys.readouterr().err


def test_nothing_at_the_address(bench: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    assert judge_all(bench) == 2
    assert (
        capsys.readouterr()
        .err.splitlines()[-1]
        .startswith("error: nothing answers at http://127.0.0.1:9/v1")
    )


def test_no_key_for_a_remote_judge(bench: Path, capsys: Any) -> None:
    assert judge_all(bench) == 2
    assert capsys.readouterr().err == (
        "error: no OPENAI_API_KEY in the environment for api.openai.com; export it and run again\n"
    )


def test_settings_that_a_judge_refuses_are_left_out(judge: Any, bench: Path, rows: Rows) -> None:
    def picky(number: int, request: dict[str, Any]) -> str | None:
        named = (
            name
            for name in ("temperature", "max_tokens", "max_completion_tokens")
            if name in request
        )
        return next((f"refuse-{name}" for name in named), None)

    judge.fault = picky
    assert judge_all(bench, "--parallel", "1") == 0
    assert [row["settings"] for row in rows(bench)] == [{}] * N
    assert len(judge.requests) == N + 3


def test_a_judge_that_wants_max_completion_tokens_gets_them(
    judge: Any, bench: Path, rows: Rows
) -> None:
    judge.fault = lambda number, request: "refuse-max_tokens" if "max_tokens" in request else None
    assert judge_all(bench) == 0
    assert rows(bench)[0]["settings"] == {"temperature": 0, "max_completion_tokens": 2048}


def test_calls_are_concurrent_up_to_parallel(judge: Any, bench: Path) -> None:
    """No call is answered until eight are there."""
    eight = threading.Barrier(8)

    def meet(number: int, request: dict[str, Any]) -> None:
        eight.wait(timeout=600)

    judge.fault = meet
    assert judge_all(bench, "--parallel", "8") == 0
    assert judge.most_under_way == 8


def test_a_changed_answer_is_judged_again_and_an_unchanged_one_never(
    judge: Any, bench: Path, rows: Rows, capsys: Any
) -> None:
    assert judge_all(bench) == 0
    path = bench / "model_answer" / "m.jsonl"
    original = path.read_text()
    path.write_text(original.replace("An answer. 8.2", "Another answer."))
    assert run("score", bench) == 1
    assert (
        "missing: 1" in capsys.readouterr().out
    )  # turn 2 of question 8; turn 1 is the same answer
    judge.requests.clear()
    assert judge_all(bench) == 0
    assert len(judge.requests) == 1
    assert set(turns(rows(bench)).values()) == {1}
    assert len(rows(bench)) == N
    path.write_text(original)
    judge.requests.clear()
    assert judge_all(bench) == 0
    assert (
        judge.requests == []
    )  # the first judgment of the first answer came back from the superseded ones
    assert len(rows(bench)) == N


def test_another_judge_prompt_is_another_judgment(judge: Any, bench: Path) -> None:
    assert judge_all(bench) == 0
    judge.requests.clear()
    path = bench / "judge_prompts.jsonl"
    path.write_text(path.read_text().replace("You grade what", "You sternly grade what"))
    assert judge_all(bench) == 0
    assert len(judge.requests) == N


def test_fastchats_own_rows_are_kept_and_its_error_rows_judged_again(
    judge: Any, bench: Path, rows: Rows
) -> None:
    assert judge_all(bench) == 0
    path = bench / "model_judgment" / "j_single.jsonl"
    foreign = [
        {k: v for k, v in row.items() if k not in ("key", "answer_sha256", "usage", "settings")}
        for row in rows(bench)
    ]
    foreign[0] |= {"judgment": "$ERROR$", "score": -1}
    path.write_text(
        "".join(json.dumps(row) + "\n" for row in [*foreign, foreign[1]])
    )  # one of them twice
    judge.requests.clear()
    assert judge_all(bench) == 0
    assert len(judge.requests) == 1
    assert set(turns(rows(bench)).values()) == {1}
    assert len(rows(bench)) == N


def test_kill_9_loses_only_what_was_under_way(judge: Any, bench: Path, rows: Rows) -> None:
    """The process dies when its ninth call comes in, four at a time."""
    command = [sys.executable, "-m", "mtbench_runner", "judge", "--data", str(bench)]
    command += ["--model-id", "m", "--judge-model", "j", "--parallel", "4"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)

    def kill_at_9(number: int, request: dict[str, Any]) -> None:
        if number == 9:
            os.kill(process.pid, signal.SIGKILL)

    judge.fault = kill_at_9
    process.wait()
    kept = len(rows(bench))
    assert 5 <= kept <= 8
    judge.fault = lambda number, request: None
    judge.requests.clear()
    assert judge_all(bench) == 0
    assert len(judge.requests) == N - kept
    assert set(turns(rows(bench)).values()) == {1}
    assert len(rows(bench)) == N


class Watched:
    """Standard error that sets an event when the second run says that it waits."""

    def __init__(self) -> None:
        self.waits = threading.Event()

    def write(self, text: str) -> int:
        if "another run is writing" in text:
            self.waits.set()
        return len(text)

    def flush(self) -> None:
        pass


def test_a_second_run_waits_and_then_finds_nothing_to_do(
    judge: Any, bench: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first run's calls are answered only when the second run waits for it."""
    watched = Watched()
    begun = threading.Event()
    monkeypatch.setattr(sys, "stderr", watched)

    def hold(number: int, request: dict[str, Any]) -> None:
        begun.set()
        watched.waits.wait(timeout=600)

    judge.fault = hold
    codes: list[int] = []
    first = threading.Thread(target=lambda: codes.append(judge_all(bench)))
    first.start()
    assert begun.wait(timeout=600)
    codes.append(judge_all(bench))
    first.join()
    assert codes == [0, 0]
    assert len(judge.requests) == len(rows(bench)) == N


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ("Rating: [[8.5]]", 8.5),
        ("no rating at all", -1),
        ("[[08]]", -1),  # FastChat crashes on it
        ("[[10/10]]", -1),
        ("The matrix [[1]] is right. Rating: [[9]]", 1),  # FastChat's rule: the first
        ("<think>maybe [[3]]</think>Rating: [[6]]", 6),
    ],
)
def test_ratings_are_fastchats(
    reply: str, score: float, judge: Any, bench: Path, rows: Rows, capsys: Any
) -> None:
    judge.reply = reply
    assert judge_all(bench) == 0
    assert [row["score"] for row in rows(bench)] == [score] * N
    assert run("score", bench, "--json", "-") == (1 if score == -1 else 0)
    result = json.loads(capsys.readouterr().out)
    assert result["unparsable"] == (N if score == -1 else 0)
    assert result["overall"] == (None if score == -1 else score)
    assert judge_all(bench) == 0
    assert len(judge.requests) == N  # a judgment without a rating is a judgment


def test_the_reference_answers_reach_the_judge(judge: Any, bench: Path, tmp_path: Path) -> None:
    assert judge_all(bench) == 0
    assert sum("Cleo is the shortest." in r["messages"][-1]["content"] for r in judge.requests) == 2
    corrected = tmp_path / "corrected.jsonl"
    corrected.write_text(
        (bench / "reference_answer" / "reference.jsonl")
        .read_text()
        .replace("Cleo is", "It is Cleo who is")
    )
    judge.requests.clear()
    assert judge_all(bench, "--references", str(corrected)) == 0
    assert (
        sum(
            "It is Cleo who is the shortest." in r["messages"][-1]["content"]
            for r in judge.requests
        )
        == 2
    )
    assert len(judge.requests) == 2


def test_a_missing_reference_or_answer_is_named(judge: Any, bench: Path, capsys: Any) -> None:
    (bench / "reference_answer" / "reference.jsonl").write_text("")
    assert judge_all(bench) == 2
    assert (
        capsys.readouterr().err == "error: no reference answer to question 3 of demo (3 lack one)\n"
    )
    (bench / "model_answer" / "m.jsonl").write_text("")
    assert judge_all(bench) == 2
    assert "error: m has no answer to 8 questions in " in capsys.readouterr().err


def test_a_judge_prompt_of_a_kind_that_fastchat_does_not_know(
    judge: Any, bench: Path, capsys: Any
) -> None:
    path = bench / "judge_prompts.jsonl"
    path.write_text(path.read_text().replace("[[rating]]", "stars"))
    assert judge_all(bench) == 2
    assert (
        capsys.readouterr().err == "error: judge prompt single-v1: invalid output format: stars\n"
    )


def test_the_key_is_nowhere(judge: Any, bench: Path, capsys: Any, monkeypatch: Any) -> None:
    key = os.environ["OPENAI_API_KEY"]
    monkeypatch.setenv("OPENAI_LOG", "debug")
    judge.fault = lambda number, request: ["echo-key", "wrong-key", "500", None][number % 4]
    assert run("judge", bench, "--parallel", "2") == 1
    judge.fault = lambda number, request: "echo-key"
    assert run("judge", bench) == 1
    captured = capsys.readouterr()
    assert "***" in captured.err
    assert "\x1b" not in captured.err + captured.out
    judge.fault = lambda number, request: None
    assert judge_all(bench) == 0
    assert run("score", bench, "--json", str(bench / "score.json")) == 0
    captured = capsys.readouterr()
    assert key not in captured.out + captured.err
    files = [path for path in bench.rglob("*") if path.is_file()]
    assert len(files) >= 7
    assert not [path for path in files if key.encode() in path.read_bytes()]


def fastchats_averages(path: Path, capsys: Any) -> dict[str, Any]:
    """model -> [first turn, second turn, average], read off what FastChat's show_result prints."""
    import pandas
    from fastchat.llm_judge.show_result import display_result_single

    capsys.readouterr()
    with pandas.option_context("display.precision", 17):
        display_result_single(
            argparse.Namespace(input_file=str(path), model_list=None, bench_name="mt_bench")
        )
    found: dict[str, list[float]] = {}
    for line in capsys.readouterr().out.splitlines():
        words = line.split()
        if (
            len(words) in (2, 3)
            and words[-1].replace(".", "", 1).isdigit()
            and not line.startswith("#")
        ):
            found.setdefault(words[0], []).append(float(words[-1]))
    return found


def test_fastchats_show_result_gives_our_averages(
    judge: Any, bench: Path, answers: Any, capsys: Any
) -> None:
    answers(bench, "other", "Something else.")
    judge.reply = lambda request: ["[[10]]", "[[7]]", "none", "[[3.5]]", "[[1]]"][
        len(request["messages"][-1]["content"]) % 5
    ]
    for model in ("m", "other"):
        assert main(["judge", "--data", str(bench), "--model-id", model, "--judge-model", "j"]) == 0
    theirs = fastchats_averages(bench / "model_judgment" / "j_single.jsonl", capsys)
    assert set(theirs) == {"m", "other"}
    for model in theirs:
        assert (
            main(
                [
                    "score",
                    "--data",
                    str(bench),
                    "--model-id",
                    model,
                    "--judge-model",
                    "j",
                    "--json",
                    "-",
                ]
            )
            == 0
        )
        ours = json.loads(capsys.readouterr().out)
        assert [ours["turns"]["1"], ours["turns"]["2"], ours["overall"]] == pytest.approx(
            theirs[model], rel=1e-14
        )


@pytest.mark.real
def test_the_published_scores_of_three_models(shared_data: Path, capsys: Any) -> None:
    data = shared_data / "mt_bench"
    theirs = fastchats_averages(data / "model_judgment" / "gpt-4_single.jsonl", capsys)
    for model, published in {
        "mamba_0_5_dpo_ep3": 7.31,
        "mamba_0_75_dpo_ep1": 7.03,
        "mamba_0_75_dpo_ep3": 6.58,
    }.items():
        assert main(["score", "--data", str(data), "--model-id", model, "--json", "-"]) == 0
        ours = json.loads(capsys.readouterr().out)
        assert round(ours["overall"], 2) == round(theirs[model][2], 2) == published
        assert [ours["turns"]["1"], ours["turns"]["2"], ours["overall"]] == pytest.approx(
            theirs[model], rel=1e-14
        )
        assert ours["known_wrong_references"] == [
            104,
            105,
            109,
            111,
            113,
            114,
            120,
            122,
            124,
            125,
            126,
            128,
            130,
        ]


@pytest.mark.real
def test_gpt4s_published_judgments_need_no_judge(
    shared_data: Path, tmp_path: Path, judge: Any
) -> None:
    """FastChat's own judge asked, word for word, what this one would ask."""
    import shutil

    for name in ("model_answer", "model_judgment"):
        shutil.copytree(shared_data / "mt_bench" / name, tmp_path / name)
    arguments = [
        "--data",
        str(shared_data / "mt_bench"),
        "--out",
        str(tmp_path),
        "--model-id",
        "mamba_0_5_dpo_ep3",
    ]
    assert main(["judge", *arguments]) == 0
    assert judge.requests == []


def test_pairwise_asks_in_both_orders_and_keeps_fastchats_rule(
    judge: Any, bench: Path, answers: Any, rows: Rows, capsys: Any
) -> None:
    answers(bench, "base", "A poor answer.")

    def prefer_an_answer(request: dict[str, Any]) -> str:
        text = request["messages"][-1]["content"]
        last = text[text.rindex("<answer A>") :]
        if "8.2" in last:
            return "[[A]]"  # always the first: inconsistent, so a tie
        return "[[A]]" if last.index("An answer.") < last.index("A poor answer.") else "[[B]]"

    judge.reply = prefer_an_answer
    arguments = [
        "--data",
        str(bench),
        "--model-id",
        "m",
        "--baseline",
        "base",
        "--judge-model",
        "j",
    ]
    assert main(["pairwise", *arguments, "--json", "-", "--prices", "10", "30"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["win"], result["tie"], result["loss"], result["missing"]) == (15, 1, 0, 0)
    assert result["overall"] == 15.5 / 16
    low, high = result["interval"]
    assert low < result["overall"] <= high
    assert len(judge.requests) == 2 * N
    assert result["usage"] == {"prompt": 2 * N * 100, "completion": 2 * N * 10}
    assert result["cost_usd"] == pytest.approx(2 * N * (100 * 10 + 10 * 30) / 1e6)
    assert main(["pairwise", *arguments]) == 0
    assert len(judge.requests) == 2 * N
    assert fastchats_win_rate(bench / "model_judgment" / "j_pair.jsonl", capsys) == pytest.approx(
        result["overall"]
    )
    judge.reply = "I cannot decide."
    answers(bench, "base", "Another poor answer.")
    assert main(["pairwise", *arguments]) == 1
    assert "win 0, tie 0, loss 0" in (out := capsys.readouterr().out)
    assert "missing: 0, without a rating: 16" in out


def fastchats_win_rate(path: Path, capsys: Any) -> float:
    from fastchat.llm_judge.show_result import display_result_pairwise

    capsys.readouterr()
    display_result_pairwise(
        argparse.Namespace(input_file=str(path), model_list=None, baseline_model="base")
    )
    return float(
        next(
            line for line in capsys.readouterr().out.splitlines() if line.startswith("m ")
        ).split()[-1]
    )


def test_fastchat_is_left_as_it_was(judge: Any, bench: Path) -> None:
    from fastchat.llm_judge import common

    before = dict(vars(common))
    assert judge_all(bench) == 0
    assert vars(common) == before


def test_a_damaged_store_is_an_error_that_names_the_line(
    judge: Any, bench: Path, capsys: Any
) -> None:
    assert judge_all(bench) == 0
    path = bench / "model_judgment" / "j_single.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:2], "{broken", *lines[2:]]) + "\n")
    assert run("score", bench) == 2
    assert f"error: {path}, line 3: not a JSON object" in capsys.readouterr().err
    assert store.read(bench / "model_answer" / "m.jsonl")
