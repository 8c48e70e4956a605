"""Where training data and base model come from, in the words of a card."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tatqa_task.download import COMMIT, FILES, git_blob_id
from train.recipe import Recipe

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
LICENCE = re.compile(r"^license:\s*(\S+)\s*$", re.MULTILINE)
HOMEPAGE = "https://nextplusplus.github.io/TAT-QA/"
TATQA = f"[TAT-QA]({HOMEPAGE}) (Zhu et al., ACL 2021) at commit {COMMIT[:7]}"


def data_source(recipe: Recipe) -> dict[str, str]:
    """What the pairs of a recipe are made of, for train.json.

    `kind` is `official` (the verified files), `synthetic`, `other` (files in TAT-QA's format) or
    `given` (the user's own pairs, with their `name`).
    """
    if recipe.pairs:
        path = Path(recipe.pairs)
        return {"kind": "given", "name": path.name if path.exists() else recipe.pairs}
    source = os.environ.get("TATQA_DATA")
    if not source:
        return {"kind": "official"}
    if source == "synthetic":
        return {"kind": "synthetic"}
    return {"kind": _kind_of_file(Path(source), recipe.split)}


def _kind_of_file(folder: Path, split: str) -> str:
    """Whether a split's file is the official one, or generated; after training it may be gone."""
    official = FILES[split]
    try:
        content = (folder / official.name).read_bytes()
    except OSError:
        return "other"
    if git_blob_id(content) == official.blob_id:
        return "official"
    return "synthetic" if b'"synthetic-' in content else "other"


def sentence(data: Mapping[str, Any], split: str) -> str:
    """The source as it follows "pairs made from"."""
    kind = data["kind"]
    if kind == "official":
        return f"the {split} split of {TATQA}"
    if kind == "synthetic":
        return "synthetic questions that the project generates; nothing of TAT-QA is in them"
    if kind == "given":
        return f"`{data['name']}`"
    return f"a {split} file in TAT-QA's format that is not the official one"


def licence_of(base: str) -> str | None:
    """The licence that a base's folder states in its README.md; None if there is none."""
    readme = Path(base) / "README.md"
    if not readme.is_file():
        return None
    found = LICENCE.search(readme.read_text(encoding="utf-8", errors="replace"))
    return found.group(1) if found else None
