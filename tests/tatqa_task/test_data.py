"""Where the data comes from, and the one line a user gets when it cannot be used."""

import json
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tatqa_task import data, download, synthetic


def write(folder: Path, contexts: Any, split: str = "validation") -> Path:
    path = folder / data.FILES[split][0]
    path.write_text(contexts if isinstance(contexts, str) else json.dumps(contexts))
    return path


def test_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, synthetic.generate("validation", 3))
    monkeypatch.setenv("TATQA_DATA", str(tmp_path))
    contexts = data.load("validation")
    assert (
        contexts
        == data.load("validation", str(tmp_path))
        == data.load("validation", "synthetic")[:3]
    )
    assert contexts[0].questions[0].uid == "synthetic-validation-0-0-q1"


def test_paragraphs_come_in_their_order(tmp_path: Path) -> None:
    context = synthetic.generate("validation", 1)[0]
    texts = [paragraph["text"] for paragraph in context["paragraphs"]]
    context["paragraphs"].reverse()
    write(tmp_path, [context])
    assert data.load("validation", str(tmp_path))[0].paragraphs == texts


def _set(**fields: Any) -> Callable[[list[Any]], None]:
    return lambda contexts: contexts[1]["questions"][2].update(fields)


MALFORMED: list[tuple[Callable[[list[Any]], Any], str]] = [
    (_set(scale="dozen"), "question synthetic-validation-0-1-q3: scale: Input should be ''"),
    (
        _set(answer_type="spam"),
        "question synthetic-validation-0-1-q3: answer_type: Input should be 'span'",
    ),
    (
        _set(answer_from="image"),
        "question synthetic-validation-0-1-q3: answer_from: Input should be 'table'",
    ),
    (
        _set(question=None),
        "question synthetic-validation-0-1-q3: question: Input should be a valid string",
    ),
    (
        _set(answer=[], answer_type="span"),
        "question synthetic-validation-0-1-q3: answer of type span must be a list",
    ),
    (
        _set(answer="two", answer_type="count"),
        "q3: answer of type count must be a whole number, found 'two'",
    ),
    (
        _set(answer=["1"], answer_type="arithmetic"),
        "q3: answer of type arithmetic must be a number, found ['1']",
    ),
    (
        lambda c: c[1]["questions"][2].pop("answer"),
        "question synthetic-validation-0-1-q3: answer: Field required",
    ),
    (lambda c: c[1]["questions"][2].pop("uid"), "context 1: question 2: uid: Field required"),
    (
        lambda c: c[1]["questions"].append(4),
        "context 1: questions: 6: Input should be a valid dictionary",
    ),
    (lambda c: c[1].pop("table"), "context 1: table: Field required"),
    (lambda c: c[1]["table"]["table"].append([4]), "Input should be a valid string"),
    (
        lambda c: c[1]["questions"].append(c[0]["questions"][0]),
        "uid synthetic-validation-0-0-q1 appears 2 times",
    ),
]


@pytest.mark.parametrize(("spoil", "expected"), MALFORMED)
def test_malformed_question(
    tmp_path: Path, spoil: Callable[[list[Any]], Any], expected: str
) -> None:
    contexts = synthetic.generate("validation", 2)
    spoil(contexts)
    path = write(tmp_path, contexts)
    with pytest.raises(data.DataError) as error:
        data.load("validation", str(tmp_path))
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert expected in message
    assert "\n" not in message


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(
        data.DataError, match=r"TATQA_DATA=.*nowhere is no folder; name one with the official files"
    ):
        data.load("validation", str(tmp_path / "nowhere"))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(
        data.DataError,
        match=r"tatqa_dataset_test_gold.json is missing; put the official file there",
    ):
        data.load("test", str(tmp_path))


@pytest.mark.parametrize("text", ['[{"table": ', "", "[" * 100_000])
def test_truncated_file(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(
        data.DataError, match=r"is not complete JSON .*; fetch the file again"
    ) as error:
        data.load("validation", str(tmp_path))
    assert str(path) in str(error.value)


def test_file_of_another_shape(tmp_path: Path) -> None:
    write(tmp_path, {"data": []})
    with pytest.raises(data.DataError, match="expected a list of contexts, found dict"):
        data.load("validation", str(tmp_path))


def test_unknown_split() -> None:
    with pytest.raises(data.DataError, match="unknown split 'dev': one of train, validation, test"):
        data.load("dev", "synthetic")


# --- the download, from a real server on 127.0.0.1 ---


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def official(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder in place of the official repository, with a dev file of the expected blob id."""
    folder, name = tmp_path / "served", data.FILES["validation"][0]
    folder.mkdir()
    path = write(folder, synthetic.generate("validation", 5))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setitem(
        data.FILES,
        "validation",
        download.OfficialFile(name, download.git_blob_id(path.read_bytes())),
    )
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(download, "URL", f"http://127.0.0.1:{server.server_port}/")
    yield path
    server.shutdown()


def test_download_once_then_from_the_cache(official: Path) -> None:
    contexts = data.load("validation")
    assert len(contexts) == 5
    official.unlink()
    assert data.load("validation") == contexts


def test_a_damaged_cache_is_fetched_again(official: Path) -> None:
    cached = download.official_file("validation")
    cached.write_text("[]")
    assert len(data.load("validation")) == 5


def test_altered_download_is_refused_and_not_kept(official: Path, tmp_path: Path) -> None:
    official.write_text(official.read_text().replace("2019", "2018"))
    with pytest.raises(data.DataError, match=r"has git blob id [0-9a-f]{40}, not [0-9a-f]{40}"):
        data.load("validation")
    assert not list((tmp_path / "cache").rglob("*"))


def test_download_that_is_not_there(official: Path) -> None:
    official.unlink()
    with pytest.raises(
        data.DataError, match=r"cannot download http://127.*\(File not found\); without network"
    ):
        data.load("validation")


def test_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(
        download, "URL", "http://127.0.0.1:9/"
    )  # nothing listens on the discard port
    with pytest.raises(
        data.DataError, match=r"cannot download .*refused.*; without network set TATQA_DATA to"
    ):
        data.load("test")


def test_git_blob_id() -> None:
    assert (
        download.git_blob_id(b"") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
    )  # git hash-object of an empty file


@pytest.mark.real
@pytest.mark.parametrize(
    ("split", "contexts", "questions"), [("validation", 278, 1668), ("test", 277, 1663)]
)
def test_official_files_have_their_ids_and_sizes(
    shared_data: Path, split: str, contexts: int, questions: int
) -> None:
    name, blob_id = data.FILES[split]
    assert download.git_blob_id((shared_data / "tatqa" / name).read_bytes()) == blob_id
    loaded = data.load(split, str(shared_data / "tatqa"))
    assert (len(loaded), sum(len(context.questions) for context in loaded)) == (contexts, questions)


def test_a_folder_that_may_not_be_looked_into_is_a_data_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may look into every folder, so the refusal is made up."""
    real = Path.is_file

    def is_file(path: Path) -> bool:
        if path.name.startswith("tatqa_dataset"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(Path, "is_file", is_file)
    with pytest.raises(data.DataError, match=r"tatqa_dataset_train.json: Permission denied"):
        data.load("train", str(tmp_path))
