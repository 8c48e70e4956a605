"""The base model of a run: its tokenizer, and a hash of the weights that would be loaded."""

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer

from train.recipe import RecipeError, one_line

WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth")
CODE = ("*.py",)  # a base that brings its own architecture


def open_base(path: str) -> tuple[Any, str]:
    """The base's tokenizer, and a sha256 of its files or of the Hub's commit.
    Raises RecipeError.
    """
    try:
        commit = getattr(AutoConfig.from_pretrained(path), "_commit_hash", None)
        tokenizer = AutoTokenizer.from_pretrained(path)
        if commit:
            return tokenizer, hashlib.sha256(commit.encode()).hexdigest()
        return tokenizer, hash_of(files_of(Path(path)))
    except (OSError, ValueError) as error:
        raise RecipeError(f"model_name_or_path: cannot load {path}: {one_line(error)}") from None


def files_of(folder: Path) -> list[Path]:
    """All files that decide what is computed: config, weights in any format, code."""
    found = [folder / "config.json"]
    for pattern in (*WEIGHTS, *CODE):
        found += sorted(folder.glob(pattern))
    if len(found) == 1:
        raise OSError("the folder holds no weights")
    return found


def hash_of(files: Iterable[Path]) -> str:
    """One sha256 of several files' names and contents."""
    known = Known()
    whole = hashlib.sha256()
    for file in files:
        whole.update(f"{file.name} {known.sha256(file)} ".encode())
    known.keep()
    return whole.hexdigest()


class Known:
    """Hashes of large files, kept in the cache folder as long as the file is not written to.

    A file is known by its path, inode, size and times of change; the last are set by the system.
    """

    def __init__(self) -> None:
        self.path = cache_folder() / "hashes.json"
        self.hashes: dict[str, str] = {}
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
            self.hashes = {str(key): str(value) for key, value in found.items()}
        except (OSError, ValueError, AttributeError):
            pass  # none yet, or damaged: they are made anew

    def sha256(self, file: Path) -> str:
        """The file's hash, read from the file where it is not known."""
        facts = file.stat()
        times = (facts.st_size, facts.st_ino, facts.st_mtime_ns, facts.st_ctime_ns)
        key = f"{file.resolve()} {times}"
        if key not in self.hashes:
            with file.open("rb") as content:
                self.hashes[key] = hashlib.file_digest(content, "sha256").hexdigest()
        return self.hashes[key]

    def keep(self) -> None:
        """Write them down; a cache folder that cannot be written costs time alone."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            whole = self.path.with_name(f".{os.getpid()}.json")
            whole.write_text(json.dumps(self.hashes, indent=1), encoding="utf-8")
            whole.replace(self.path)
        except OSError:
            pass


def cache_folder() -> Path:
    """Where this program keeps what it can make anew: $XDG_CACHE_HOME/tatqa-bench."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tatqa-bench"
