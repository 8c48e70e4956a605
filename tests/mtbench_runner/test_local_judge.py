"""A judge on this machine, through the batch decoder: rows, votes, resumption, names."""

from pathlib import Path
from typing import Any

import pytest

from mtbench_runner import store
from mtbench_runner.__main__ import main
from mtbench_runner.local import LocalModel
from mtbench_runner.outcome import Outcome

from .conftest import write_answers

FEW = ("--questions", "1,7")


def judge(bench: Path, model: Path, *more: str, stage: str = "judge") -> int:
    named = ["--data", str(bench), "--model-id", "m", "--judge-model", f"local:{model}"]
    return main([stage, *named, *FEW, *more])


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[list[dict[str, str]]]:
    """The conversations that the model was asked; it rates all 4 and says so in 9 tokens."""
    asked: list[list[dict[str, str]]] = []

    def reply(self: LocalModel, conversations: Any, temperatures: list[float]) -> list[Outcome]:
        asked.extend(conversations)
        usage: Any = {"prompt": 100, "completion": 9}
        return [Outcome("text", "[[4]] [[B]]", finish="stop", usage=usage) for _ in conversations]

    monkeypatch.setattr(LocalModel, "reply", reply)
    return asked


def test_a_real_model_judges_under_its_folders_name(tiny_base: Path, bench: Path) -> None:
    assert judge(bench, tiny_base, "--judge-max-tokens", "4") == 0
    rows = store.read(bench / "model_judgment" / "local%3Atiny-tatqa_single.jsonl")
    assert sorted((row["question_id"], row["turn"]) for row in rows) == [
        (1, 1), (1, 2), (7, 1), (7, 2)
    ]  # fmt: skip
    assert {row["judge"][0] for row in rows} == {"local:tiny-tatqa"}
    assert all(0 < row["usage"]["completion"] <= 4 for row in rows)


def test_votes_pairs_and_scores_need_no_server(
    tiny_base: Path, bench: Path, said: list[Any], capsys: Any
) -> None:
    assert judge(bench, tiny_base, "--votes", "2") == 0
    assert len(said) == 8
    assert judge(bench, tiny_base, "--votes", "2") == 0
    assert len(said) == 8
    assert judge(bench, tiny_base, stage="score") == 0
    assert "local:tiny-tatqa: 4.00 ± 0.00, votes 2, spread within 0.00" in capsys.readouterr().out
    write_answers(bench, "base", "Another answer.")
    assert judge(bench, tiny_base, "--baseline", "base", stage="pairwise") == 0
    assert "win 0, tie 4, loss 0" in capsys.readouterr().out


def test_a_judge_that_is_not_there(bench: Path, capsys: Any) -> None:
    assert judge(bench, bench / "nothing") == 2
    assert "no folder" in capsys.readouterr().err


def test_a_template_without_a_system_role_gets_it_folded_in(tiny_base: Path) -> None:
    from mtbench_runner.local import Candidate

    model = LocalModel(Candidate(str(tiny_base)))
    model.tokenizer.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'system' %}"
        "{{ raise_exception('System role not supported') }}{% endif %}"
        "{{ m['role'] }}: {{ m['content'] }};{% endfor %}"
    )
    conversation = [
        {"role": "system", "content": "Be fair."},
        {"role": "user", "content": "Rate it."},
    ]
    assert model.prompt(conversation) == "user: Be fair.\n\nRate it.;"
