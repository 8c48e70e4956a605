"""What of a stage's output a person sees, and what goes to the file."""

import io
import os
import sys
from pathlib import Path

import pytest

from results.sweep import terminal

NOISY = """
import sys
print("a table of raw means")
print("a line of the log", file=sys.stderr)
for percent in (0, 50, 100):
    sys.stderr.write(f"\\rRequests: {percent}%|##| {percent}/100")
    sys.stderr.flush()
sys.stderr.write("\\nthe end\\n")
sys.exit(int(sys.argv[1]))
"""
REFUSING = "import sys; print('noise'); sys.exit('error: no data')"


def run(code: str, log: Path, *words: str) -> int:
    process = terminal.LoggedProcess([sys.executable, "-c", code, *words], os.environ, log)
    if process.wait():
        sys.stderr.write(process.failure())
    return process.returncode


def test_bars_are_shown_and_the_rest_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "new" / "lm_eval.log"
    assert run(NOISY, log, "0") == 0
    shown = capsys.readouterr().err
    assert shown == "== new: lm_eval: 50/100\n== new: lm_eval: 100/100\n"
    kept = log.read_text().split("\n")
    assert {"a table of raw means", "a line of the log", "the end"} <= set(kept)
    assert "50%" not in log.read_text()


def test_a_key_that_a_server_repeats_is_in_no_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret-key")
    refused = "print('WARNING: wrong key secret-key'); raise SystemExit('error: no secret-key')"
    assert run(refused, tmp_path / "log") == 1
    assert sorted((tmp_path / "log").read_text().splitlines()) == [
        "WARNING: wrong key (key)",
        "error: no (key)",
    ]
    assert capsys.readouterr().err == "error: no (key)\n"


def test_a_word_in_place_of_a_key_is_left_in_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    assert terminal.without_key(b"extra text") == b"extra text"


def test_on_a_terminal_every_state_of_a_bar_is_drawn_over_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = io.StringIO()
    monkeypatch.setattr(drawn, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", drawn)
    assert run(NOISY, tmp_path / "log", "0") == 0
    states = [f"\rRequests: {percent}%|##| {percent}/100" for percent in (0, 50, 100)]
    assert drawn.getvalue() == "".join(states) + "\n"


def test_a_second_attempt_is_written_below_the_first(tmp_path: Path) -> None:
    log = tmp_path / "log"
    run(NOISY, log, "0")
    run(NOISY, log, "0")
    assert log.read_text().count("the end") == 2


def test_a_failure_shows_its_error_line_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(REFUSING, tmp_path / "log") == 1
    assert capsys.readouterr().err == "error: no data\n"


def test_a_failure_without_an_error_line_shows_its_last_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    many = "for i in range(100): print('line', i)\nraise SystemExit(3)"
    assert run(many, tmp_path / "log") == 3
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"line {i}" for i in range(80, 100)]


def test_errors_of_an_earlier_attempt_are_not_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(REFUSING, tmp_path / "log")
    capsys.readouterr()
    run("print('other'); raise SystemExit(1)", tmp_path / "log")
    assert capsys.readouterr().err == "other\n"


@pytest.mark.parametrize(
    ("states", "said"),
    [
        ([0, 10, 24, 25, 26, 49, 60, 99, 100], ["25/100", "60/100", "99/100", "100/100"]),
        ([0, 100], []),  # over at once
        ([0, 100, 0, 30, 100, 0, 30], ["30/100", "100/100", "30/100"]),  # one bar after another
        ([80, 100], ["80/100", "100/100"]),  # a run that goes on
    ],
)
def test_in_a_file_a_bar_says_its_quarters(
    states: list[int], said: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    quarters = terminal.Quarters("demo: tatqa")
    for percent in states:
        found = terminal.BAR.search(f"Replies: {percent:3}%|## | {percent}/100 [00:20<01".encode())
        assert found
        quarters.see(found)
    assert capsys.readouterr().err.splitlines() == [f"== demo: tatqa: {text}" for text in said]


def test_two_commands_at_once_do_not_draw_over_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = io.StringIO()
    monkeypatch.setattr(drawn, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", drawn)
    process = terminal.LoggedProcess(
        [sys.executable, "-c", NOISY, "0"], os.environ, tmp_path / "log", bars=False
    )
    process.wait()
    assert "\r" not in drawn.getvalue()
    assert drawn.getvalue().count("50/100") == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"", []),
        (b"a\nb", [b"a\n", b"b"]),
        (b"1%|\r2%|\r\n", [b"1%|\r", b"2%|\r", b"\n"]),
    ],
)
def test_pieces(text: bytes, expected: list[bytes]) -> None:
    assert list(terminal.pieces(io.BytesIO(text))) == expected
