"""Files: whole or not at all, names that stay inside, and nothing of anybody else's touched."""

import errno
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from results import FailedError, InputError, files
from results.files import Manifest


def content(folder: Path) -> dict[str, str]:
    """Every file below a folder but the manifest."""
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in folder.rglob("*")
        if path.is_file() and path.name != files.MANIFEST
    }


def test_what_was_written_is_replaced_and_removed(tmp_path: Path) -> None:
    Manifest(tmp_path).write({"README.md": "one", "figures/a.svg": "a"})
    Manifest(tmp_path).write({"README.md": "two", "figures/b.svg": "b"})
    assert content(tmp_path) == {"README.md": "two", "figures/b.svg": "b"}


@pytest.mark.parametrize("name", ["README.md", "figures/a.svg", files.MANIFEST])
def test_a_users_file_in_the_way_is_named_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    (tmp_path / "figures").mkdir(exist_ok=True)
    (tmp_path / "figures" / "holiday.svg").write_text("also mine")
    with pytest.raises(InputError, match=name.replace(".", r"\.")):
        Manifest(tmp_path).write({"README.md": "ours", "figures/a.svg": "ours"})
    assert (tmp_path / name).read_text() == "mine"
    assert (tmp_path / "figures" / "holiday.svg").read_text() == "also mine"
    assert "ours" not in content(tmp_path).values()


def test_files_beside_ours_stay(tmp_path: Path) -> None:
    Manifest(tmp_path).write({"figures/a.svg": "a", "figures/b.svg": "b"})
    (tmp_path / "figures" / "holiday.svg").write_text("mine")
    Manifest(tmp_path).write({"figures/a.svg": "a"})
    assert content(tmp_path) == {"figures/a.svg": "a", "figures/holiday.svg": "mine"}


def test_a_file_of_ours_that_was_edited_is_the_users(tmp_path: Path) -> None:
    Manifest(tmp_path).write({"README.md": "one", "notes.md": "n"})
    (tmp_path / "README.md").write_text("one, and my remarks")
    with pytest.raises(InputError, match="in the way"):
        Manifest(tmp_path).write({"README.md": "two"})
    (tmp_path / "notes.md").write_text("edited")
    (tmp_path / "README.md").unlink()
    Manifest(tmp_path).write({"README.md": "two"})
    assert content(tmp_path) == {"README.md": "two", "notes.md": "edited"}


def test_a_lost_manifest_loses_nothing(tmp_path: Path) -> None:
    Manifest(tmp_path).write({"README.md": "one"})
    (tmp_path / files.MANIFEST).unlink()
    with pytest.raises(InputError):
        Manifest(tmp_path).write({"README.md": "two"})
    Manifest(tmp_path).write({"README.md": "one"})  # the same content is no loss
    Manifest(tmp_path).write({"README.md": "two"})
    assert content(tmp_path) == {"README.md": "two"}


def test_a_kill_between_two_files_leaves_them_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = files.write_whole
    calls: list[Path] = []
    Manifest(tmp_path).write({"a": "1", "b": "1", "c": "1"})
    for last in range(1, 4):  # killed before the first file, the second, and the last manifest

        def dies(path: Path, text: str, last: int = last) -> None:
            if len(calls) == last:
                raise KeyboardInterrupt
            calls.append(path)
            whole(path, text)

        calls.clear()
        monkeypatch.setattr(files, "write_whole", dies)
        with pytest.raises(KeyboardInterrupt):
            Manifest(tmp_path).write({"a": f"{last + 1}", "b": f"{last + 1}"})
        monkeypatch.setattr(files, "write_whole", whole)
    Manifest(tmp_path).write({"a": "9", "b": "9"})
    assert content(tmp_path) == {"a": "9", "b": "9"}


@pytest.mark.parametrize("name", ["../out.md", "/tmp/out.md", "a/../../out.md", "", "."])
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "report"
    folder.mkdir()
    with pytest.raises(InputError):
        Manifest(folder).write({name: "x"})
    assert [p.name for p in tmp_path.iterdir()] == ["report"]
    assert not list(folder.iterdir())


def write_manifest(folder: Path, listed: dict[str, list[str]], seal: str) -> None:
    content = {"written by": files.WRITTEN_BY, files.SEAL: seal, "files": listed}
    (folder / files.MANIFEST).write_text(json.dumps(content))


def test_a_manifest_that_lists_names_outside_removes_nothing(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    folder = tmp_path / "report"
    folder.mkdir()
    listed = {"../mine": [files.text_hash("mine")]}
    write_manifest(folder, listed, files.seal(listed))
    Manifest(folder).write({"README.md": "x"})
    assert (tmp_path / "mine").read_text() == "mine"


def test_a_manifest_that_somebody_edited_proves_nothing(tmp_path: Path) -> None:
    """A file that it listed by its hash was removed."""
    Manifest(tmp_path).write({"README.md": "one"})
    (tmp_path / "notes.txt").write_text("mine")
    listed = dict(Manifest(tmp_path).hashes)
    before = files.seal(listed)
    write_manifest(tmp_path, {**listed, "notes.txt": [files.text_hash("mine")]}, before)
    with pytest.raises(InputError, match=r"README.md, .*report.manifest.json: in the way"):
        Manifest(tmp_path).write({"README.md": "two"})
    assert content(tmp_path) == {"README.md": "one", "notes.txt": "mine"}


@pytest.mark.parametrize("text", ["[]", "{}", "[" * 100_000, '{"written by": 1}', "", "\xff"])
def test_a_manifest_of_another_form_is_in_the_way(tmp_path: Path, text: str) -> None:
    (tmp_path / files.MANIFEST).write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match="report.manifest.json: in the way"):
        Manifest(tmp_path).write({"README.md": "one"})


def test_links_are_not_followed(tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "report"
    outside.mkdir()
    folder.mkdir()
    (outside / "a.svg").write_text("a")
    (folder / "figures").symlink_to(outside)
    with pytest.raises(InputError):
        Manifest(folder).write({"figures/a.svg": "ours"})
    (folder / "README.md").symlink_to(outside / "a.svg")
    with pytest.raises(InputError):
        Manifest(folder).write({"README.md": "ours"})
    assert content(outside) == {"a.svg": "a"}


@given(st.text(), st.text())
def test_file_names_stay_inside_and_differ(one: str, other: str) -> None:
    for title in (one, other):
        name = files.file_name(title)
        assert os.sep not in name
        assert name not in ("", ".", "..")
        assert not name.startswith(".")
        assert len(name.encode()) <= 100
    assert (files.file_name(one) == files.file_name(other)) == (one == other)


def test_file_names_worked_by_hand() -> None:
    assert files.file_name("beta_0.02-run") == "beta_0.02-run"
    assert files.file_name("a" * 80) == "a" * 80
    assert files.file_name("RUN").lower() != files.file_name("run")  # one file, to some systems
    digest = files.text_hash("a" * 81)[:8]
    assert files.file_name("a" * 81) == f"{'a' * 80}-{digest}"
    assert files.file_name("../../x") == f"-..-x-{files.text_hash('../../x')[:8]}"


def test_a_full_disk_is_work_that_failed_and_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> int:
        path.touch()  # a part of it
        raise OSError(errno.ENOSPC, "No space left on device")

    file = tmp_path / "record.json"
    file.write_text("before")
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(FailedError, match="cannot be written .No space left") as caught:
        files.write_whole(file, "after")
    assert caught.value.exit_code == 1
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]
    assert file.read_text() == "before"


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        files.write_whole(tmp_path / "file" / "under", "x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="cannot be written"):
        files.write_whole(tmp_path / "folder", "x")
    assert {p.name for p in tmp_path.iterdir()} == {"file", "folder"}


def test_a_sealed_page_is_ours_until_it_is_changed(tmp_path: Path) -> None:
    page = files.sealed("<p>one</p>\n")
    assert page.startswith("<p>one</p>\n<!-- tatqa-bench report, sha256 of all before: ")
    (tmp_path / "a.html").write_text(page)
    manifest = files.Manifest(tmp_path)  # a repository's, which does not keep the page
    assert manifest.owns("a.html")
    for changed in (page.replace("one", "two"), page + "<p>mine</p>", "<p>mine</p>", "", "\n"):
        (tmp_path / "a.html").write_text(changed)
        assert not manifest.owns("a.html")
    (tmp_path / "a.html").write_bytes(b"\xff\xfe")
    assert not manifest.owns("a.html")


def test_results_is_ours_in_the_checkout_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(files.PROJECT)
    assert files.in_checkout()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()
    assert not files.in_checkout()


def test_half_of_a_surrogate_pair_is_written_as_a_question_mark(tmp_path: Path) -> None:
    files.write_whole(tmp_path / "a", "x\ud800y")
    assert (tmp_path / "a").read_bytes() == b"x?y"
    manifest = files.Manifest(tmp_path)
    manifest.write({"b": "x\ud800y"})
    assert files.Manifest(tmp_path).owns("b")
    assert manifest.holds("b", "x\ud800y")
