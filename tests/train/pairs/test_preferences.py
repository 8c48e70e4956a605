"""Preference data in TRL's formats: read as TRL reads it, grouped by shared beginnings."""

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from train.pairs import preferences
from train.pairs.__main__ import main
from train.pairs.build import build
from train.pairs.pair import Counts, Pair
from train.pairs.tokens import tokenize
from train.recipe import Recipe, RecipeError

Row = dict[str, Any]


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


EXPLICIT = {"prompt": "The sky is", "chosen": " blue.", "rejected": " green."}
IMPLICIT = {"chosen": "The sky is blue.", "rejected": "The sky is green."}
CHAT = {"prompt": [user("Sky?")], "chosen": [assistant("Blue.")], "rejected": [assistant("Green.")]}
WHOLE_CHAT = {
    "chosen": [user("Sky?"), assistant("Blue.")],
    "rejected": [user("Sky?"), assistant("Green.")],
}
LONG_CHAT = {
    "prompt": [
        {"role": "system", "content": "Be brief."},
        user("Hi"),
        assistant("Hm"),
        user("Sky?"),
    ],
    "chosen": [assistant("Blue.")],
    "rejected": [assistant("Green.")],
}


def write(path: Path, *rows: Row) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.parametrize("row", [EXPLICIT, IMPLICIT, CHAT, WHOLE_CHAT, LONG_CHAT])
def test_ids_are_what_trl_makes_of_the_same_file(row: Row, tiny_base: Path, tmp_path: Path) -> None:
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import DPOTrainer

    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    pairs = preferences.read(write(tmp_path / "pairs.jsonl", row))
    (ours,) = tokenize(pairs, tokenizer, None, None, Counter())
    trainer, args = (
        SimpleNamespace(_tokenizer=tokenizer),
        SimpleNamespace(dataset_num_proc=None, max_length=None),
    )
    rows = Dataset.from_list([row | {"chat_template_kwargs": {"enable_thinking": False}}])
    (theirs,) = DPOTrainer._prepare_dataset(trainer, rows, tokenizer, args, "train")
    for name in ("prompt_ids", "chosen_ids", "rejected_ids"):
        assert getattr(ours, name) == theirs[name]


def test_a_text_prompt_ends_before_the_space_that_replies_begin_with(tmp_path: Path) -> None:
    (pair,) = preferences.read(write(tmp_path / "p.jsonl", IMPLICIT))
    assert (pair.prompt, pair.chosen, pair.rejected) == ("The sky is", " blue.", " green.")


def test_a_prompt_beside_whole_conversations_is_not_used_twice(tmp_path: Path) -> None:
    row = {"prompt": "Sky?", **WHOLE_CHAT}
    (pair,) = preferences.read(write(tmp_path / "p.jsonl", row))
    assert (pair.prompt, pair.chosen, pair.rejected) == ([user("Sky?")], "Blue.", "Green.")


def test_what_the_command_writes_can_be_trained_on(small_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "pairs.jsonl"
    assert main(["--out", str(out)]) == 0
    counts = Counts()
    read = list(build(Recipe(model_name_or_path="x", pairs=str(out)), counts))
    made = list(build(Recipe(model_name_or_path="x"), Counts()))
    assert [pair.row() for pair in read] == [pair.row() for pair in made]
    assert counts.by_type.total() == len(made)
    assert set(counts.by_type) == {"span", "multi-span", "arithmetic", "count"}


def test_a_row_that_is_read_and_written_stays_the_same(tmp_path: Path) -> None:
    rows: list[Row] = [EXPLICIT, CHAT, LONG_CHAT]
    pairs = preferences.read(write(tmp_path / "a.jsonl", *rows))
    again = preferences.read(write(tmp_path / "b.jsonl", *[pair.row() for pair in pairs]))
    assert again == pairs
    assert [pair.plain_text for pair in pairs] == [True, False, False]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (3, "not an object"),
        ([], "one object a line is wanted, not one array"),
        ({"prompt": "a", "chosen": "b"}, "no `rejected` among its keys: prompt, chosen"),
        ({**EXPLICIT, "chosen": " "}, "chosen is empty"),
        ({**EXPLICIT, "chosen": 3}, "chosen is neither a text nor a list of messages"),
        ({**EXPLICIT, "chosen": []}, "chosen is neither a text nor a list of messages"),
        ({**EXPLICIT, "chosen": EXPLICIT["rejected"]}, "chosen equals rejected"),
        ({**CHAT, "chosen": "Blue."}, "chosen and rejected are of two formats"),
        ({**CHAT, "chosen": [{"role": "assistant"}]}, "chosen has a message without a role"),
        ({**CHAT, "chosen": [{"role": "assistant", "content": [{}]}]}, "chosen has a message"),
        ({**CHAT, "chosen": [user("Blue.")]}, "chosen is not one message of the assistant"),
        ({**CHAT, "chosen": [assistant("a"), assistant("b")]}, "chosen is not one message"),
        ({"chosen": "a", "rejected": "b"}, "there is no prompt, and chosen and rejected"),
        ({**CHAT, "tools": ["t"]}, "tools are not supported"),
        ({**EXPLICIT, "chosen": "\ud800"}, "a text has half a character"),
        ({**CHAT, "images": ["i"]}, "images are not supported"),
        ({"chosen": "Blue.", "rejected": "Blue."}, "chosen equals rejected"),
        ({**EXPLICIT, "prompt": " "}, "prompt is empty"),
        ({**CHAT, "prompt": [assistant("Hi.")]}, "prompt ends with a message of"),
        ({**CHAT, "prompt": [{"role": "system", "content": "Hi."}]}, "prompt ends with a message"),
        ({**CHAT, "chosen": [{**assistant("Blue."), "tool_calls": [{}]}]}, "chosen has a message"),
        ({**CHAT, "prompt": [{**user("Sky?"), "thinking": "Hm."}]}, "prompt has a message with th"),
        ({**CHAT, "chat_template_kwargs": {"enable_thinking": True}}, "chat_template_kwargs other"),
    ],
)  # fmt: skip
def test_a_row_that_is_no_pair_is_named(row: Any, message: str, tmp_path: Path) -> None:
    source = write(tmp_path / "p.jsonl", EXPLICIT, row)
    with pytest.raises(RecipeError) as caught:
        preferences.read(source)
    assert str(caught.value).startswith(f"pairs: {source}, row 2: {message}")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.jsonl", "", "has no row"),
        ("p.jsonl", "\n{", "p.jsonl:2: not JSON"),
        ("p.jsonl", '{"chosen": "a", "chosen": "b"}', "p.jsonl:1: not JSON (the key chosen stands"),
        ("p.jsonl", None, "is no file, dataset folder or Hub id"),
        ("a/b/c", None, "is no file, dataset folder or Hub id"),
        ("folder", "folder", "cannot load"),
    ],
)
def test_unusable_sources(name: str, content: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_text(content)
    with pytest.raises(RecipeError) as caught:
        preferences.read(str(path))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_tools_answer_is_replied_to_and_keys_without_a_value_are_none(tmp_path: Path) -> None:
    """As datasets fills them in where another row has them."""
    tool = {"role": "tool", "content": "42", "tool_calls": None, "name": ""}
    (pair,) = preferences.read(
        write(tmp_path / "p.jsonl", {**CHAT, "prompt": [user("Sky?"), tool]})
    )
    assert pair.turns == [user("Sky?"), {"role": "tool", "content": "42"}]


def test_a_byte_order_mark_is_no_row(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps(EXPLICIT), encoding="utf-8-sig")
    assert preferences.read(str(path))[0].prompt == "The sky is"


def test_a_dataset_folder_is_read_by_datasets(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", CHAT)
    (pair,) = preferences.read(str(tmp_path))
    assert pair.turns == [user("Sky?")]


def test_what_datasets_saved_is_read(tmp_path: Path) -> None:
    """With save_to_disk, a split or all of them; as Parquet it is read by its folder alone."""
    from datasets import Dataset, DatasetDict

    rows = Dataset.from_list([EXPLICIT])
    rows.save_to_disk(tmp_path / "one")
    DatasetDict(train=rows, test=rows).save_to_disk(tmp_path / "splits")
    (tmp_path / "parquet").mkdir()
    parquet = tmp_path / "parquet" / "train.parquet"
    rows.to_parquet(parquet)
    for source in ("one", "splits", "parquet"):
        (pair,) = preferences.read(str(tmp_path / source))
        assert pair.prompt == "The sky is"
    with pytest.raises(RecipeError, match="is no text in UTF-8: JSON Lines are wanted"):
        preferences.read(str(parquet))


def pair(uid: str, prompt: str, context: str = "") -> Pair:
    return Pair(uid, context, "any", "given", prompt, "a", "b", plain_text=True)


def test_prompts_that_share_half_of_the_shorter_one_are_one_context() -> None:
    long = "x" * 20
    given = [
        pair("1", long + "What?"),
        pair("2", "system What else?"),
        pair("3", long + "How much, and since when exactly?"),
        pair("4", "system prompt and something else"),
    ]
    contexts = [p.context_uid for p in preferences.in_contexts(given)]
    assert contexts[0] == contexts[2]
    assert len({contexts[1], contexts[0], contexts[3]}) == 3


def test_half_is_enough_and_less_is_not() -> None:
    def together(shared: int) -> bool:
        one, other = preferences.in_contexts(
            [pair("1", "x" * shared + "a" * (10 - shared)), pair("2", "x" * shared + "b" * 30)]
        )
        return one.context_uid == other.context_uid

    assert together(5)
    assert not together(4)


def test_contexts_that_rows_state_stay() -> None:
    given = [pair("1", "same", "c"), pair("2", "same", "d"), pair("3", "same")]
    assert [p.context_uid for p in preferences.in_contexts(given)] == ["c", "d", "1"]
