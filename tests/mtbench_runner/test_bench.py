"""Bench folders, the pinned download, the store, the command line."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtbench_runner import bench as benches
from mtbench_runner import store
from mtbench_runner.__main__ import main
from mtbench_runner.options import STAGES
from mtbench_runner.store import InputError

NEEDED = {"single-v1", "single-math-v1", "single-v1-multi-turn", "single-math-v1-multi-turn"} | {
    "pair-v2", "pair-math-v1", "pair-v2-multi-turn", "pair-math-v1-multi-turn"
}  # fmt: skip


@pytest.mark.parametrize(("name", "questions", "turns"), [("demo", 8, 2), ("instruct", 25, 1)])
def test_the_shipped_benches_are_whole(name: str, questions: int, turns: int) -> None:
    from fastchat.llm_judge.common import NEED_REF_CATS

    bench = benches.load(name)
    assert len(bench.questions) == questions
    assert {len(q["turns"]) for q in bench.questions} == {turns}
    assert set(bench.prompts) == NEEDED
    need = {q["question_id"] for q in bench.questions if q["category"] in NEED_REF_CATS}
    assert set(bench.references) == need
    assert all(len(r["choices"][0]["turns"]) == turns for r in bench.references.values())
    assert bench.out == Path("data") / name  # not into the installed package
    assert bench.known_wrong == ()


def test_prompts_may_lie_beside_the_folder(bench: Path) -> None:
    (bench / "judge_prompts.jsonl").rename(bench.parent / "judge_prompts.jsonl")
    assert set(benches.load(str(bench)).prompts) == NEEDED


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            '{"question_id": 1.5, "category": "a", "turns": ["x"]}',
            "question 1.5: needs a question_id (a whole number or text)",
        ),
        (
            '{"question_id": 9, "turns": ["x"]}',
            "question 9: needs a question_id (a whole number or text) and a category",
        ),
        (
            '{"question_id": 9, "category": "a", "turns": []}',
            "question 9: turns must be one or more texts",
        ),
        (
            '{"question_id": 9, "category": "a", "turns": ["x", 2]}',
            "question 9: turns must be one or more texts",
        ),
        ('{"question_id": 8, "category": "a", "turns": ["x"]}', "a question_id occurs twice"),
        ("[1]", "line 9: not a JSON object"),
    ],
)
def test_a_malformed_question_is_named(line: str, message: str, bench: Path, capsys: Any) -> None:
    with (bench / "question.jsonl").open("a") as file:
        file.write(line + "\n")
    assert main(["score", "--data", str(bench), "--model-id", "m"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {bench / 'question.jsonl'}")
    assert message in error
    assert error.count("\n") == 1


def test_no_such_folder(tmp_path: Path, capsys: Any) -> None:
    assert main(["score", "--data", str(tmp_path / "none"), "--model-id", "m"]) == 2
    assert capsys.readouterr().err.startswith(
        f"error: no file {tmp_path / 'none' / 'question.jsonl'}"
    )


def test_without_a_network_the_download_says_what_to_do(
    tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(benches, "SOURCE", "http://127.0.0.1:9/")
    assert main(["score", "--model-id", "m"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: cannot download http://127.0.0.1:9/mt_bench/question.jsonl (")
    assert "pass --data FOLDER" in error
    assert list(tmp_path.rglob("*.jsonl")) == []


def test_another_file_than_the_pinned_one_is_refused_and_not_kept(
    tmp_path: Path, monkeypatch: Any
) -> None:
    (tmp_path / "served" / "mt_bench").mkdir(parents=True)
    (tmp_path / "served" / "mt_bench" / "question.jsonl").write_text("{}\n")
    monkeypatch.setattr(benches, "SOURCE", f"file://{tmp_path}/served/")
    with pytest.raises(InputError, match="sha256 differs"):
        benches.download(tmp_path / "here")
    assert not (tmp_path / "here").exists()
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "question.jsonl").write_text("{}\n")
    with pytest.raises(InputError, match="delete it or pass --data"):
        benches.download(tmp_path / "here")


@pytest.mark.real
def test_a_download_that_breaks_off_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that promises more than it sends: no OSError, but http.client's IncompleteRead."""
    reply = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nshort"
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(reply)

        threading.Thread(target=serve, daemon=True).start()
        monkeypatch.setattr(benches, "SOURCE", f"http://127.0.0.1:{listening.getsockname()[1]}/")
        with pytest.raises(InputError, match=r"cannot download http://127.*IncompleteRead"):
            benches.download(tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_download_keeps_what_has_the_pinned_hashes(
    shared_data: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    source, served = shared_data / "mt_bench", tmp_path / "served"
    (served / "mt_bench").mkdir(parents=True)
    shutil.copytree(source / "reference_answer", served / "mt_bench" / "reference_answer")
    shutil.copy(source / "question.jsonl", served / "mt_bench")
    shutil.copy(source / "judge_prompts.jsonl", served)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(benches, "SOURCE", f"file://{served}/")
    assert len(benches.load().questions) == 80
    shutil.rmtree(served)
    bench = benches.load()  # the second time without it
    assert (bench.name, len(bench.references), len(bench.known_wrong)) == ("mt_bench", 30, 13)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.dictionaries(st.text(max_size=5), st.text(max_size=20)), min_size=1, max_size=5
    ),
    data=st.data(),
)
def test_a_store_cut_at_any_byte_keeps_every_whole_row_and_goes_on(
    rows: list[dict[str, str]], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("store") / "x.jsonl"
    for row in rows:
        store.append(path, row)
    content = path.read_bytes()
    cut = data.draw(st.integers(0, len(content)))
    path.write_bytes(content[:cut])
    whole = content[:cut].count(b"\n") + (
        cut > 0 and content[cut : cut + 1] == b"\n"
    )  # a whole last row may lack its \n
    assert store.read(path) == rows[:whole]
    with store.locked(path):
        store.append(path, {"new": 1})
    assert store.read(path) == [*rows[:whole], {"new": 1}]


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: Any) -> None:
    path = tmp_path / "a" / "x.json"
    store.write_whole(path, b"old")
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk")))
    with pytest.raises(OSError, match="disk"):
        store.write_whole(path, b"new")
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["show", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    look = (
        "import runpy, sys\n"
        "sys.argv[0] = 'mtbench_runner'\n"
        "try:\n"
        "    runpy.run_module('mtbench_runner', run_name='__main__')\n"
        "finally:\n"
        "    heavy = {'torch', 'transformers', 'fastchat', 'openai', 'matplotlib', 'scipy'}\n"
        "    print(sorted(heavy & sys.modules.keys()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", look, *arguments], capture_output=True, text=True, check=True
    )
    assert "usage: python -m mtbench_runner" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_names_every_stage(capsys: Any) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    out = capsys.readouterr().out
    assert all(stage in out for stage in STAGES)


def test_a_wrong_call_exits_with_2(capsys: Any) -> None:
    for arguments in (["--nonsense"], [], ["score", "--rating", "x"]):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 2
    assert main(["score", "--data", "demo"]) == 2
    assert "give the model a name with --model-id" in capsys.readouterr().err


def test_the_stand_in_runs_a_command_and_keeps_its_exit_code(
    tmp_path: Path, tiny_base: Path
) -> None:
    stand_in = [sys.executable, "-m", "mtbench_runner.stand_in_judge"]
    look = "import os, sys; print(os.environ['OPENAI_BASE_URL']); sys.exit(7)"
    done = subprocess.run(
        [*stand_in, sys.executable, "-c", look], capture_output=True, text=True, check=False
    )
    assert done.returncode == 7
    assert done.stdout.startswith("http://127.0.0.1:")
    assert (
        subprocess.run([*stand_in, "no-such-command"], capture_output=True, check=False).returncode
        == 2
    )
    command = [
        sys.executable,
        "-m",
        "mtbench_runner",
        "--model",
        str(tiny_base),
        "--data",
        "demo",
        "--out",
        str(tmp_path),
    ]
    whole = [
        *stand_in,
        *command,
        "--judge-model",
        "stand-in-judge",
        "--max-new-tokens",
        "16",
        "--json",
        "-",
    ]
    done = subprocess.run(
        whole,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["missing"], result["unparsable"], result["stand_in"]) == (0, 0, True)
    assert len(result["categories"]) == 8
