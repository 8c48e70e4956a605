"""Files read and written whole, with errors of one line."""

import contextlib
import fnmatch
import json
import os
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any


class DataError(Exception):
    """Data that cannot be used; the message is the one line a user needs."""


def read_json(path: Path, remedy: str, **options: Any) -> Any:
    """What a JSON file holds, by json.loads with these options.

    UTF-8, or UTF-16 or 32 as its byte-order mark says. Raises DataError, which ends with the
    remedy.
    """
    if path.is_dir():
        raise DataError(f"{path} is a folder; name the file in it")
    try:
        return json.loads(path.read_bytes(), **options)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no text in UTF-8 (byte {error.start}); {remedy}") from error
    except json.JSONDecodeError as error:
        fault = (
            "JSON Lines, not one JSON value" if error.msg == "Extra data" else "not complete JSON"
        )
        raise DataError(f"{path} is {fault} ({error}); {remedy}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not complete JSON ({error}); {remedy}") from error


def below(folder: Path, pattern: str) -> list[Path]:
    """The files below a folder by their names. Raises DataError if one there cannot be read."""
    found = []
    for path, _, names in os.walk(folder, onerror=refuse_unreadable):
        found += [Path(path, name) for name in fnmatch.filter(names, pattern)]
    return sorted(found)


def refuse_unreadable(error: OSError) -> None:
    """Raise DataError for a folder that may hold what is looked for, but cannot be read."""
    if not isinstance(error, FileNotFoundError):
        raise DataError(f"{error.filename}: {error.strerror}")


def refuse_existing(path: Path) -> None:
    """Raise DataError if there is anything at the place of a file to be written, or no folder."""
    if path.exists() or path.is_symlink():
        raise DataError(f"{path} is there already; name another file")
    if not path.parent.is_dir():
        raise DataError(f"{path}: no folder {path.parent}")


def refuse_strangers(folder: Path, names: Container[str]) -> None:
    """Raise DataError if a folder holds anything but files of these names and hidden ones."""
    if folder.exists() or folder.is_symlink():
        for path in sorted(folder.iterdir()):
            if path.name not in names and not path.name.startswith("."):
                raise DataError(f"{folder}: {path.name} is in it; name a new folder")


def write_missing(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write those files of a folder that are not there yet: a killed run left some.

    Raises DataError, with nothing written, if something else is at the place of one, and OSError.
    """
    missing = {}
    for name, content in contents.items():
        path = folder / name
        if not holds(path, content):
            missing[path] = content
    for path in missing:
        if path.exists() or path.is_symlink():
            raise DataError(f"{path} is there already, with other content; name a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    for path, content in missing.items():
        write_whole(path, content)


def holds(path: Path, content: bytes) -> bool:
    """Whether a path is a file of this very content, and no link to one."""
    return path.is_file() and not path.is_symlink() and path.read_bytes() == content


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all. Raises OSError with its name."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise OSError(error.errno, error.strerror, str(path)) from None


def write_json(path: Path, content: Any, **options: Any) -> None:
    """Write a value as JSON, by json.dumps with these options, as `write_whole` does."""
    write_whole(path, json_bytes(content, **options))


def json_bytes(content: Any, **options: Any) -> bytes:
    """A value as JSON, as it is written to a file."""
    return (json.dumps(content, **options) + "\n").encode()
