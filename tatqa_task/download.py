"""TAT-QA's official files: fetched once from the project's repository, verified, and kept."""

import hashlib
import io
import os
import shutil
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple

from tatqa_task.files import DataError, write_whole

COMMIT = "870accc41953dcde885aabeb963d94aabdc0fbc3"
URL = f"https://raw.githubusercontent.com/NExTplusplus/TAT-QA/{COMMIT}/dataset_raw/"


class OfficialFile(NamedTuple):
    """A file of the repository: its name, and its git blob id at that commit."""

    name: str
    blob_id: str


FILES = {  # by split
    "train": OfficialFile("tatqa_dataset_train.json", "ec6a61be61ea7bb92c3278877e46e8488cc5203c"),
    "validation": OfficialFile(
        "tatqa_dataset_dev.json", "48075c812af3fe6698b1d5cb50d9dbf358d52784"
    ),
    "test": OfficialFile(
        "tatqa_dataset_test_gold.json", "3d5d3b691af572646ba9b1ac4d8f78c5dca09732"
    ),
}


def official_file(split: str) -> Path:
    """The official file of a split, fetched once and verified by its git blob id. Raises DataError.

    It is kept in $XDG_CACHE_HOME/tatqa or ~/.cache/tatqa.
    """
    name, blob_id = FILES[split]
    path = cache() / name
    if path.is_file() and git_blob_id(path.read_bytes()) == blob_id:
        return path
    content = _fetch(URL + name)
    found = git_blob_id(content)
    if found != blob_id:
        raise DataError(f"{URL}{name} has git blob id {found}, not {blob_id}: altered on the way")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, content)
    return path


def cache() -> Path:
    """The folder that downloads are kept in."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tatqa"


def git_blob_id(content: bytes) -> str:
    """The id git gives a file with this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _fetch(url: str) -> bytes:
    """The content at an address, with a bar. Raises DataError."""
    from tqdm import tqdm

    content = io.BytesIO()
    name = url.rsplit("/", 1)[1]
    try:
        with urllib.request.urlopen(url, timeout=60) as response:
            with tqdm.wrapattr(response, "read", total=response.length, desc=name) as body:
                shutil.copyfileobj(body, content)
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        hint = "without network set TATQA_DATA to a folder that has it, or to 'synthetic'"
        raise DataError(f"cannot download {url} ({reason}); {hint}") from error
    return content.getvalue()
