"""Anyone's preference data: `pairs: FILE.jsonl`, a dataset folder or a Hub id, in TRL's formats.

| | prompt | chosen, rejected |
|---|---|---|
| explicit | a text, or messages | texts, or a list with the assistant's message |
| implicit | none | whole texts or conversations that begin alike: that is the prompt |

Texts are trained on without a chat template, conversations with it, thinking off. What
`python -m train.pairs` writes is one of these formats.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from os.path import commonprefix
from pathlib import Path
from typing import Any

from train.pairs.pair import FACTS, THINKING_OFF, Message, Pair
from train.recipe import RecipeError, one_line

SUFFIXES = (".jsonl", ".json")  # which no Hub id has
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
Side = str | list[Message]
ASKING = ("user", "tool")  # roles that the assistant answers


class _Unusable(Exception):
    """A row that is no preference pair; the message says why."""


def read(source: str) -> list[Pair]:
    """The pairs of a JSON Lines file, a dataset folder or a Hub id, in their order.

    Rows whose prompts share a long beginning get one context. Raises RecipeError with the row.
    """
    pairs = []
    for n, row in enumerate(_rows(source), 1):
        try:
            pairs.append(_pair(row, n))
        except _Unusable as error:
            raise RecipeError(f"pairs: {source}, row {n}: {error}") from None
    if not pairs:
        raise RecipeError(f"pairs: {source} has no row")
    return in_contexts(pairs)


def check_file(source: str) -> None:
    """Read the rows where they are in a file: a mistake is said before anything is loaded."""
    if Path(source).is_file() or Path(source).suffix in SUFFIXES:
        read(source)


def _rows(source: str) -> Iterator[Any]:
    path = Path(source)
    if path.is_file():
        return _lines(path)
    if path.suffix in SUFFIXES or not (path.is_dir() or HUB_ID.fullmatch(source)):
        raise RecipeError(f"pairs: {source} is no file, dataset folder or Hub id")
    return _dataset(source)


def _lines(path: Path) -> Iterator[Any]:
    """The rows of a JSON Lines file; empty lines are none."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError:  # Parquet, say, or a packed file
        wanted = "JSON Lines are wanted, or a folder with such files"
        raise RecipeError(f"pairs: {path} is no text in UTF-8: {wanted}") from None
    except OSError as error:
        raise RecipeError(f"pairs: cannot read {path} ({one_line(error)})") from None
    for number, line in enumerate(lines, 1):
        try:
            if line.strip():
                yield json.loads(line, object_pairs_hook=_object)
        except (ValueError, RecursionError) as error:
            raise RecipeError(f"pairs: {path}:{number}: not JSON ({one_line(error)})") from None


def _object(items: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; of a key that stands twice nobody can say which value is meant."""
    found: dict[str, Any] = {}
    for key, value in items:
        if key in found:
            raise ValueError(f"the key {key} stands twice")
        found[key] = value
    return found


def _dataset(source: str) -> Iterator[Any]:
    """The rows of a dataset's train split."""
    from datasets import load_dataset, load_from_disk

    folder = Path(source)
    if (folder / "dataset_dict.json").is_file():
        folder = folder / "train"
    try:
        if (folder / "state.json").is_file():  # written by save_to_disk
            yield from load_from_disk(str(folder))
        else:
            yield from load_dataset(source, split="train")
    except Exception as error:  # the Hub's, pyarrow's and datasets' own
        raise RecipeError(f"pairs: cannot load {source}: {one_line(error)}") from None


def _pair(row: Any, n: int) -> Pair:
    """One row as a pair, whose facts it may state (uid, answer_type, kind). Raises _Unusable."""
    _refuse_other_formats(row)
    chosen, rejected = _side(row, "chosen"), _side(row, "rejected")
    if chosen == rejected:
        raise _Unusable("chosen equals rejected")
    if isinstance(chosen, str) != isinstance(rejected, str):
        raise _Unusable("chosen and rejected are of two formats")
    prompt = _side(row, "prompt") if row.get("prompt") is not None else None
    if prompt is None or isinstance(prompt, str) != isinstance(chosen, str):
        prompt, chosen, rejected = _extracted(chosen, rejected)
    _refuse_prompt(prompt)
    chosen_reply, rejected_reply = _reply(chosen, "chosen"), _reply(rejected, "rejected")
    if not chosen_reply.strip():
        raise _Unusable("chosen is empty: silence would be learned")
    facts = {"uid": str(n), "context_uid": "", "answer_type": "any", "kind": "given"}
    for name in FACTS:
        if isinstance(row.get(name), str):
            facts[name] = row[name]
    return Pair(
        **facts,
        prompt=prompt,
        chosen=chosen_reply,
        rejected=rejected_reply,
        plain_text=isinstance(prompt, str),
    )


def _refuse_other_formats(row: Any) -> None:
    """Raise _Unusable for what is no row, or has columns that are not supported."""
    if isinstance(row, list):
        raise _Unusable("one object a line is wanted, not one array")
    if not isinstance(row, dict):
        raise _Unusable("not an object with prompt, chosen and rejected")
    if row.get("chat_template_kwargs") not in (None, THINKING_OFF):
        raise _Unusable("chat_template_kwargs other than enable_thinking: false are not supported")
    for name in ("tools", "image", "images"):
        if row.get(name):
            raise _Unusable(f"{name} are not supported")
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # of "\ud800" without its other half, which no tokenizer takes
        raise _Unusable("a text has half a character (a lone surrogate)") from None
    except TypeError:
        pass  # a dataset's own types in columns that nobody reads


def _side(row: dict[str, Any], name: str) -> Side:
    """A column as a text or as messages."""
    if name not in row:
        raise _Unusable(f"no `{name}` among its keys: {', '.join(map(str, row)) or 'none'}")
    value = row[name]
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not value:
        raise _Unusable(f"{name} is neither a text nor a list of messages")
    return [_message(item, name) for item in value]


def _message(item: Any, name: str) -> Message:
    """A message of a column: a role and a text, and nothing else that has a value."""
    plain = isinstance(item, dict) and isinstance(item.get("role"), str)
    if not plain or not isinstance(item.get("content"), str):
        raise _Unusable(f"{name} has a message without a role and a text as its content")
    for key, value in item.items():
        if key not in ("role", "content") and value:
            raise _Unusable(f"{name} has a message with {key}, which is not supported")
    return {"role": item["role"], "content": item["content"]}


def _refuse_prompt(prompt: Side) -> None:
    """Raise _Unusable for a prompt that no reply of the assistant begins after."""
    if isinstance(prompt, str):
        if not prompt.strip():
            raise _Unusable("prompt is empty: a reply's first token follows nothing")
        return
    last = prompt[-1]["role"]
    if last not in ASKING:
        wanted = "one of the user or a tool is wanted"
        raise _Unusable(f"prompt ends with a message of the role {last!r}; {wanted}")


def _extracted(chosen: Side, rejected: Side) -> tuple[Side, Side, Side]:
    """The prompt that both sides begin with, and what is left of each, as TRL's extract_prompt.

    In texts the prompt ends before a last space, which the replies keep: tokens begin with it.
    """
    n = 0
    for one, other in zip(chosen, rejected, strict=False):
        if one != other:
            break
        n += 1
    if n and chosen[n - 1] == " ":
        n -= 1
    if not n:
        raise _Unusable("there is no prompt, and chosen and rejected do not begin alike")
    return chosen[:n], chosen[n:], rejected[n:]


def _reply(side: Side, name: str) -> str:
    """The text of a side: itself, or the content of the one message of the assistant."""
    if isinstance(side, str):
        return side
    if len(side) != 1 or side[0]["role"] != "assistant":
        raise _Unusable(f"{name} is not one message of the assistant after the prompt")
    return side[0]["content"]


def in_contexts(pairs: list[Pair]) -> list[Pair]:
    """The pairs, those whose prompts share at least half of the shorter one in one context.

    Half, so that a system prompt that all rows share makes no context. Contexts that the rows state
    themselves stay.
    """
    texts = [_as_text(pair) for pair in pairs]
    found = list(pairs)
    before, context = "", ""
    for i in sorted(range(len(pairs)), key=lambda i: texts[i]):
        shared = len(commonprefix([before, texts[i]]))
        if not before or 2 * shared < min(len(before), len(texts[i])):
            context = pairs[i].uid
        if not pairs[i].context_uid:
            found[i] = replace(pairs[i], context_uid=context)
        before = texts[i]
    return found


def _as_text(pair: Pair) -> str:
    if isinstance(pair.prompt, str):
        return pair.prompt
    lines = [f"{message['role']}: {message['content']}" for message in pair.prompt]
    return "\n".join(lines)
