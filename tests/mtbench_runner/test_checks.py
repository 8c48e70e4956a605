"""Wrong calls: exit code 2, one line that names what is wrong, before torch is imported."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mtbench_runner.__main__ import main

HEAVY = ("torch", "transformers", "fastchat", "matplotlib")
DEAD = "http://127.0.0.1:9/v1"
M = ["--model-id", "m"]
A = ["answer", "--model", "served", "--answers-from"]

# what a person may get wrong, and what the one line must name; {here} is a folder with a bench
WRONG = [
    (["answer", "--modle", "x"], "no option --modle; did you mean --model?"),
    (["jugde"], "no stage 'jugde'; did you mean judge?"),
    (["score", "--rating", "strickt"], "strickt"),
    (["judge", *M, "--votes", "0"], "--votes"),
    (["judge", *M, "--data", "dmeo"], "dmeo"),
    (["judge", *M, "--data", "{here}", "--questions", "999"], "999"),
    (["judge", *M, "--data", "{here}", "--judge-file", "nofile"], "nofile"),
    (["judge", *M, "--data", "{here}", "--references", "nofile"], "nofile"),
    (["judge", *M, "--data", "{here}", "--rating-pattern", "("], "--rating-pattern"),
    (["judge", *M, "--data", "{here}", "--rating-pattern", "x"], "needs one group"),
    (
        ["judge", *M, "--data", "{here}", "--judge-url", "localhost:8000"],
        "localhost:8000 is no URL",
    ),
    (["judge", *M, "--data", "{here}", "--judge-url", "https://x.example/v1"], "OPENAI_API_KEY"),
    (["judge", *M, "--data", "{here}", "--judge-url", DEAD], "nothing answers at"),
    (["judge", "--model-id", "nobody", "--data", "{here}", "--judge-url", DEAD], "nobody"),
    (["judge", *M, "--data", "{here}", "--judge-model", ""], "a judge without a name"),
    (["judge", *M, "--data", "{here}", "--judge-model", "local:nofolder"], "nofolder"),
    (["judge", *M, "--data", "{here}", "--judge-model", "local:{here}"], "no config.json"),
    (["judge", *M, "--data", "{here}", "--max-cost", "1"], "--prices"),
    (["judge", *M, "--data", "{here}", "--out", "{here}/question.jsonl"], "is a file"),
    (["pairwise", *M, "--data", "{here}", "--baseline", "m"], "m itself"),
    (["pairwise", *M, "--data", "{here}", "--baseline", "other", "--judge-url", DEAD], "other"),
    (["pairwise", *M, "--data", "{here}", "--baseline", "b", "--json", "{here}"], "--json"),
    (["score", *M, "--data", "{here}", "--json", "{here}"], "is a folder"),
    (["score", *M, "--data", "{here}"], "judge first"),
    (["show", *M, "--data", "{here}", "--question", "999"], "it has 1 to 8"),
    (["show", *M, "--data", "{here}", "--question", "1", "--figure", "{here}"], "--figure"),
    (["agreement", "a", "b", "--data", "{here}"], "a"),
    (["agreement", "x" * 300, "b", "--data", "{here}"], "xxx"),
    (["score", *M, "--data", "x" * 300], "xxx"),
    ([*A, "127.0.0.1:8765", "--data", "{here}"], "127.0.0.1:8765 is no URL"),
    ([*A, "https://x.example/v1", "--data", "{here}"], "ANSWERS_API_KEY"),
    ([*A, DEAD, "--data", "{here}"], "nothing answers at"),
    ([*A, DEAD, "--data", "dmeo"], "dmeo"),
    ([*A, DEAD, "--data", "{here}", "--adapter", "{here}"], "a server applies its own"),
    (["answer", "--model", "{here}", "--data", "{here}"], "no config.json"),
    (["answer", "--model", "no/such/model", "--data", "{here}"], "no/such/model"),
    (["answer", "--model", "org/nothing-of-this-name", "--data", "{here}"], "nothing-of-this"),
    (["answer", "--model", "toy", "--data", "demo"], "toy"),
]

EACH = """
import io, contextlib, json, sys
from mtbench_runner.__main__ import main
for line in sys.stdin:
    out = io.StringIO()
    with contextlib.redirect_stderr(out), contextlib.redirect_stdout(out):
        try:
            code = main(json.loads(line))
        except SystemExit as stopped:
            code = stopped.code
    heavy = [name for name in {heavy} if name in sys.modules]
    print(json.dumps([code, out.getvalue(), heavy]), flush=True)
"""


def test_a_wrong_call_is_told_in_one_line_before_anything_heavy_is_imported(bench: Path) -> None:
    """All in one process, so that the first that imports torch shows."""
    calls = []
    for arguments, _ in WRONG:
        calls.append(json.dumps([word.replace("{here}", str(bench)) for word in arguments]))
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "ANSWERS_API_KEY"):
        environment.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-c", EACH.replace("{heavy}", repr(HEAVY))],
        input="\n".join(calls),
        capture_output=True,
        text=True,
        check=True,
        cwd=bench.parent,
        env=environment,
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == len(WRONG)
    for (arguments, named), (code, said, heavy) in zip(WRONG, found, strict=True):
        assert (code, heavy) == (2, []), (arguments, said)
        assert said.startswith("error: "), arguments
        assert said.count("\n") == 1, arguments
        assert named in said, (arguments, said)


def test_a_dry_run_needs_no_key_and_no_server(
    bench: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "ANSWERS_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    far = ["--judge-url", "https://x.example/v1", "--dry-run"]
    assert main(["judge", "--data", str(bench), *M, *far]) == 0
    assert "nothing was asked or written" in capsys.readouterr().out


def test_abbreviated_options_stay_allowed(bench: Path) -> None:
    assert main(["judge", "--data", str(bench), *M, "--dry", "--judge-mo=j"]) == 0


def test_a_name_of_two_lines_is_told_in_one(bench: Path, capsys: Any) -> None:
    assert main(["score", "--data", str(bench), "--model-id", "a\nb"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("batch", [[], ["--batch", "submit"]])
def test_a_proxy_that_is_none_is_one_line_without_its_password(
    batch: list[str], bench: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://me:secret@::::")
    assert main(["judge", "--data", str(bench), *M, "--judge-url", DEAD, *batch]) == 2
    said = capsys.readouterr().err
    assert "a proxy in HTTP_PROXY" in said
    assert "secret" not in said
    assert said.count("\n") == 1
