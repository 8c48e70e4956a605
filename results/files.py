"""Files: written whole or not at all, and never over what somebody else wrote.

Every file that this room writes goes through `write_whole`. A folder of generated files carries a
manifest, which says what this program wrote there: only that is ever replaced or removed. A file
that no repository keeps, though its manifest is kept there, says so itself by a seal.
"""

import hashlib
import json
import re
import secrets
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath

from results import FailedError, InputError
from results.command_line import code_of

MANIFEST = "report.manifest.json"
WRITTEN_BY = "tatqa-bench report"
SEAL = "sha256 of the files"  # in a manifest: tells one that somebody has edited
PROJECT = Path(__file__).resolve().parents[1]
LONGEST_NAME = 80  # characters of a file name made from a title; file systems take 255 bytes


def in_checkout() -> bool:
    """Whether the working folder is the project's own, whose `results/` holds its records.

    Anywhere else `results` may be somebody's, and a folder to write to is asked for.
    """
    return Path.cwd() == PROJECT


def write_whole(path: Path, text: str) -> None:
    """Write a file so that a reader sees all of it or none: temporary file beside it, then rename.

    Raises:
        InputError: The file cannot be written there.
        FailedError: It could be, but a disk is full or fails.
    """
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(encoded(text))
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        kind = InputError if code_of(error) == InputError.exit_code else FailedError
        raise kind(f"{path}: cannot be written ({error.strerror})") from None


def encoded(text: str) -> bytes:
    """A text as it is written to a file: UTF-8, with `?` for half of a surrogate pair."""
    return text.encode(errors="replace")


def text_hash(text: str) -> str:
    """SHA-256 of a text as it is written to a file."""
    return hashlib.sha256(encoded(text)).hexdigest()


def sealed(text: str) -> str:
    """An HTML page with a last line that tells it from one that somebody has changed."""
    text = text.rstrip()
    return f"{text}\n<!-- {WRITTEN_BY}, sha256 of all before: {text_hash(text)} -->\n"


def is_sealed(content: bytes) -> bool:
    """Is this a page that this program sealed, as it was then?"""
    text, _, last = content.decode(errors="replace").rstrip("\n").rpartition("\n")
    return bool(last) and sealed(text).endswith(f"\n{last}\n")


def seal(listed: Mapping[str, Iterable[str]]) -> str:
    """SHA-256 of the names and hashes that a manifest lists."""
    return text_hash(json.dumps(listed, sort_keys=True))


def file_name(title: str) -> str:
    """A file name made from any title: inside its folder, and another one for every other title.

    Small letters, digits, `.`, `_` and `-` stay; a title that has anything else, begins with a dot
    or is long is cut and ends with eight digits of its hash: capitals too, since some file systems
    take them for small ones.
    """
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", title).lstrip(".")[:LONGEST_NAME]
    return name if name and name == title.lower() else f"{name}-{text_hash(title)[:8]}"


class Manifest:
    """What this program wrote into one folder: names and SHA-256 of their contents.

    While a name is being rewritten both its old and its new hash stand here, so that a kill at any
    moment leaves a file that is still known as ours. A file that was changed since is not ours, and
    a manifest that was edited proves nothing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hashes = self._read()

    def _read(self) -> dict[str, list[str]]:
        found = {}
        try:
            content = json.loads((self.folder / MANIFEST).read_text(encoding="utf-8"))
            if content["written by"] != WRITTEN_BY or content[SEAL] != seal(content["files"]):
                return {}
            for name, hashes in content["files"].items():
                found[str(name)] = list(hashes)
        except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
            return {}
        return found

    def owns(self, name: str) -> bool:
        """Is this file there, and as this program wrote it?"""
        if not self._is_plain_file(name):
            return False
        content = (self.folder / name).read_bytes()
        known = self.hashes.get(name, ())
        return hashlib.sha256(content).hexdigest() in known or is_sealed(content)

    def in_the_way(self, names: Iterable[str]) -> list[Path]:
        """Files, folders and links at these names that this program did not write."""
        found = [self.folder / name for name in names if self._taken(name)]
        manifest = self.folder / MANIFEST
        if _there(manifest) and not self.hashes:
            found.append(manifest)
        return found

    def _taken(self, name: str) -> bool:
        if leads_out(name) or self._through_link(name):
            return True
        return _there(self.folder / name) and not self.owns(name)

    def _through_link(self, name: str) -> bool:
        """Is a folder on the way to this name a link, or no folder?"""
        folder = self.folder
        for part in PurePosixPath(name).parts[:-1]:
            folder = folder / part
            if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
                return True
        return False

    def refuse(self, names: Iterable[str]) -> None:
        """Raise InputError if anything that is not ours stands at one of these names."""
        if _there(self.folder) and not self.folder.is_dir():
            raise InputError(f"{self.folder}: no folder; give another one for the report")
        taken = ", ".join(map(str, self.in_the_way(names)))
        if taken:
            raise InputError(
                f"{taken}: in the way, not written (or changed since) by this program; "
                "move it away, or give another folder for the report"
            )

    def write(self, files: Mapping[str, str]) -> None:
        """Make the folder hold these texts by name; what was ours and is not among them goes.

        Raises:
            InputError: Something in the way; then nothing was written.
        """
        changed: dict[str, str] = {}
        new: dict[str, list[str]] = {}
        for name, text in files.items():
            new[name] = [text_hash(text)]
            if not self.holds(name, text):
                changed[name] = text
        self.refuse(changed)
        gone = self._left_over(files)
        if not changed and not gone and new == self.hashes:
            return
        self._save(self._with_old_hashes(new, gone))
        for name, text in changed.items():
            write_whole(self.folder / name, text)
        for name in gone:
            (self.folder / name).unlink()
        self._save(new)

    def _left_over(self, files: Mapping[str, str]) -> list[str]:
        """Names of files that are ours and not among these."""
        return [name for name in self.hashes if name not in files and self.owns(name)]

    def _with_old_hashes(
        self, new: Mapping[str, list[str]], gone: Iterable[str]
    ) -> dict[str, list[str]]:
        """What may be there while the folder is rewritten: old contents and new ones."""
        both = {name: list(self.hashes[name]) for name in gone}
        for name, hashes in new.items():
            both[name] = [*self.hashes.get(name, []), *hashes]
        return both

    def holds(self, name: str, text: str) -> bool:
        return self._is_plain_file(name) and (self.folder / name).read_bytes() == encoded(text)

    def _is_plain_file(self, name: str) -> bool:
        path = self.folder / name
        if leads_out(name) or self._through_link(name):
            return False
        return path.is_file() and not path.is_symlink()

    def _save(self, hashes: Mapping[str, list[str]]) -> None:
        listed = {name: list(known) for name, known in sorted(hashes.items())}
        content = {"written by": WRITTEN_BY, SEAL: seal(listed), "files": listed}
        write_whole(self.folder / MANIFEST, json.dumps(content, indent=1) + "\n")
        self.hashes = dict(hashes)


def leads_out(name: str) -> bool:
    """Does this relative name lead out of its folder?"""
    path = PurePosixPath(name)
    return path.is_absolute() or ".." in path.parts or not path.parts


def _there(path: Path) -> bool:
    """Is anything at this path, a broken link included?"""
    return path.exists() or path.is_symlink()
