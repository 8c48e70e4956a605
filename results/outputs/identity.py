"""What was asked, and how: names, clusters and hashes of an output's questions.

Two outputs of equal identity asked the same questions in the same way; where only circumstances
differ, they can be compared, with a warning.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from results.outputs.folders import Row


def is_tatqa(row: Row) -> bool:
    """Is this a question of TAT-QA? Others may have an entry of one of these names."""
    return {"uid", "context_uid", "answer_type", "answer_from", "scale"} <= {*row["doc"]}


def item_name(row: Row) -> str:
    """What names a question: TAT-QA's uid, else task and document."""
    return str(row["doc"]["uid"]) if is_tatqa(row) else f"{row['task']}/{row['doc_id']}"


def free_name(name: str, taken: dict[str, Row]) -> str:
    """The name, numbered where a question was asked before (repeats)."""
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name} #{number}"
    return free


def clusters(rows: dict[str, Row], key: str | None) -> list[str]:
    """The cluster of each row: what its document has under the key, if there is one and it does.

    Else it is TAT-QA's context, or the document.
    """
    found = []
    for name, row in rows.items():
        value = None if key is None else row["doc"].get(key)
        if value is None:
            found.append(own_cluster(name, row))
        else:
            found.append(json.dumps(value, sort_keys=True))
    return found


def own_cluster(name: str, row: Row) -> str:
    """What a question shares with others where nobody has said it: TAT-QA's context, or itself."""
    if is_tatqa(row):
        return str(row["doc"]["context_uid"])
    return name.partition(" #")[0]


def with_copies(cluster: list[str], rows: list[Row]) -> list[str]:
    """The clusters, joined where a row of one asks the same as a row of another.

    Rows ask the same if they have the same document, or sent the same requests to the model.
    """
    joined_to = {name: name for name in cluster}

    def root(name: str) -> str:
        while joined_to[name] != name:
            name = joined_to[name]
        return name

    first_to_ask: dict[str, str] = {}
    for name, row in zip(cluster, rows, strict=True):
        asked = [hash_of(row, "doc_hash", "doc")]
        if row.get("arguments"):
            asked.append(json.dumps(row["arguments"], sort_keys=True))
        for key in asked:
            joined_to[root(name)] = root(first_to_ask.setdefault(key, name))
    return [root(name) for name in cluster]


def identity(results: dict[str, Any], rows: Sequence[Row]) -> dict[str, Any]:
    """What must be equal for two runs to have answered the same questions in the same way."""
    tasks: set[str] = set()
    docs, prompts, targets = [], [], []
    for row in rows:
        tasks.add(row["task"])
        docs.append(hash_of(row, "doc_hash", "doc"))
        prompts.append(hash_of(row, "prompt_hash", "arguments"))
        targets.append(hash_of(row, "target_hash", "target"))
    examples_shown = results.get("n-shot") or {}
    versions, settings, few_shot = {}, {}, {}
    for task in sorted(tasks):
        versions[task] = results["versions"].get(task)
        settings[task] = results["configs"][task].get("generation_kwargs")
        few_shot[task] = examples_shown.get(task)
    asked = {
        "docs": joint_hash(docs),
        "prompts": joint_hash(prompts),
        "targets": joint_hash(targets),
        "task version": versions,
        "generation settings": settings,
        "overridden generation settings": results["config"].get("gen_kwargs"),
        "few-shot": few_shot,
        "chat template": results.get("chat_template_sha"),
    }
    return asked | numbering(rows)


def numbering(rows: Sequence[Row]) -> dict[str, str]:
    """Which document has which number, where numbers name the questions."""
    if all(is_tatqa(row) for row in rows):
        return {}
    numbered = []
    for row in rows:
        document = hash_of(row, "doc_hash", "doc")
        numbered.append(f"{item_name(row)} {document}")
    return {"numbers of the documents": joint_hash(numbered)}


def joint_hash(hashes: Iterable[str]) -> str:
    """One hash of many, in whatever order the rows were logged."""
    return text_hash("".join(sorted(hashes)))


def hash_of(row: Row, logged: str, field: str) -> str:
    """lm-eval's hash of a part of a sample; older versions log none, then it is made as theirs."""
    if row.get(logged):
        return str(row[logged])
    value = row.get(field)
    if field == "doc":
        text = json.dumps(value, indent=2, ensure_ascii=False)
    elif field == "arguments":
        text = first_prompt(row)
    else:
        text = str(value)
    return text_hash(text)


def text_hash(text: str) -> str:
    """SHA-256 of any text, of one with half of a surrogate pair too."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def first_prompt(row: Row) -> str:
    """The text that a sample's first request sent to the model."""
    found = row.get("arguments")
    while isinstance(found, dict | list) and found:
        values = found.values() if isinstance(found, dict) else found
        found = next(iter(values))
    return str(found)


def circumstances(results: dict[str, Any]) -> dict[str, Any]:
    """What may differ between two comparable runs, but is better the same."""
    config = results["config"]
    given = model_arguments(config)
    return {
        "backend": config.get("model"),
        "base": given.get("pretrained") or given.get("model"),
        "dtype": config.get("model_dtype"),
        "batch size": str(config.get("batch_size")),
        "lm_eval": results.get("lm_eval_version"),
        "transformers": results.get("transformers_version"),
        "device": device(str(results.get("pretty_env_info"))),
    }


def model_arguments(config: dict[str, Any]) -> dict[str, Any]:
    """What --model_args said: lm-eval logs it as it was given, "name=value,..." or a dictionary."""
    given: Any = config.get("model_args") or {}
    if not isinstance(given, str):
        return given  # type: ignore[no-any-return]
    found = {}
    for part in given.split(","):
        name, equals, value = part.partition("=")
        if equals:
            found[name] = value
    return found


def device(environment: str) -> str:
    """The GPU's name in PyTorch's description of a machine, else the CPU's."""
    found = re.search(r"(?:GPU 0: |^Model name: +)(.+)$", environment, re.M)
    return found[1] if found else "unknown"
