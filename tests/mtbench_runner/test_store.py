"""JSON-lines files: what a kill tore is mended, what a user wrote is not."""

from pathlib import Path

import pytest

from mtbench_runner import store
from mtbench_runner.store import InputError


@pytest.mark.parametrize(
    ("content", "mended"),
    [
        (b"", b""),
        (b'{"a": 1}\n', b'{"a": 1}\n'),
        (b'{"a": 1}', b'{"a": 1}\n'),
        (b'{"a": 1}\n{"b', b'{"a": 1}\n'),
        (b'{"b', b""),
    ],
)
def test_a_torn_last_line_is_ended_or_cut_off(
    content: bytes, mended: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    store.mend(path)
    assert path.read_bytes() == mended


@pytest.mark.parametrize("content", [b"my notes", b'{"a": 1}\nmy notes', b'[{"a": 1}', b"\xff\xfe"])
def test_what_no_run_of_ours_tore_is_refused_and_stays(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match="no JSON object; move the file away"):
        store.mend(path)
    assert path.read_bytes() == content
