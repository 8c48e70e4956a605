"""Token ids of pairs: what the chat template makes of a reply, or that it cannot be said."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tokenizers import normalizers
from transformers import AutoTokenizer

from train.pairs.pair import Pair
from train.pairs.tokens import TokenPair, tokenize
from train.recipe import RecipeError

PAIR = Pair("q", "c", "span", "x", "How?", '{"answer": ["so"]}', '{"answer": ["not"]}')
TURNS = "{% for m in messages %}[{{ m.role }}]{{ m.content }}<|im_end|>{% endfor %}"


@pytest.fixture
def tokenizer(tiny_base: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_base)


def one(tokenizer: Any, template: str | None, pair: Pair = PAIR) -> TokenPair:
    tokenizer.chat_template = template
    (row,) = tokenize([pair], tokenizer, None, None, Counter())
    return row


def texts(tokenizer: Any, row: TokenPair) -> list[str]:
    return [tokenizer.decode(ids) for ids in (row.prompt_ids, row.chosen_ids, row.rejected_ids)]


PLAIN = TURNS + "{% if add_generation_prompt %}[assistant]{% endif %}"
SPACE = (  # as Llama 2's
    "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }} <|im_end|>{% endif %}{% endfor %}"
)
CHANNEL = TURNS.replace(
    "]{{ m.content }}", "]{% if m.role == 'assistant' %}<final>{% endif %}{{ m.content }}"
)
CHANNEL += "{% if add_generation_prompt %}[assistant]{% endif %}"
EMPTY_THOUGHT = PLAIN.replace("[assistant]{% endif", "[assistant]<think></think>{% endif")
OPEN_THOUGHT = PLAIN.replace("[assistant]{% endif", "[assistant]<think>{% endif")
OTHER_PROMPT = PLAIN.replace("[assistant]{% endif", "(now answer){% endif")


@pytest.mark.parametrize(
    ("template", "prompt", "before", "after"),
    [
        (PLAIN, "[user]How?<|im_end|>[assistant]", "", "<|im_end|>"),
        (SPACE, "[INST] How? [/INST]", " ", " <|im_end|>"),
        (CHANNEL, "[user]How?<|im_end|>[assistant]", "<final>", "<|im_end|>"),
        (EMPTY_THOUGHT, "[user]How?<|im_end|>[assistant]<think></think>", "", "<|im_end|>"),
        (None, "How?", " ", "<|im_end|>"),
    ],
)
def test_a_reply_continues_the_prompt_as_the_template_writes_it(
    template: str | None, prompt: str, before: str, after: str, tokenizer: Any
) -> None:
    row = one(tokenizer, template)
    sides = [f"{before}{reply}{after}" for reply in (PAIR.chosen, PAIR.rejected)]
    assert texts(tokenizer, row) == [prompt, *sides]


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (OPEN_THOUGHT, "ends a prompt with '<think>', and one with its reply goes on"),
        (
            OTHER_PROMPT,
            r"ends a prompt with '\(now answer\)', and one with its reply goes on '\[ass",
        ),
        (PLAIN.replace("]{{ m.content }}", "]{{ m.content | upper }}"), "changes a reply"),
        (
            PLAIN.replace("<|im_end|>", "{% if 'so' in m.content %}!{% endif %}<|im_end|>"),
            "writes two replies in two ways",
        ),
    ],
)  # fmt: skip
def test_templates_that_train_something_else_than_they_generate_are_refused(
    template: str, message: str, tokenizer: Any
) -> None:
    with pytest.raises(RecipeError, match=f"the base's chat template {message}"):
        one(tokenizer, template)


def test_an_empty_reply_is_the_end_of_the_turn(tokenizer: Any) -> None:
    pair = Pair("q", "c", "span", "x", "How?", "so", "")
    assert texts(tokenizer, one(tokenizer, PLAIN, pair))[2] == "<|im_end|>"


def test_conversations_need_a_chat_template(tokenizer: Any) -> None:
    pair = Pair("q", "c", "span", "x", [{"role": "user", "content": "How?"}], "so", "not")
    assert texts(tokenizer, one(tokenizer, PLAIN, pair))[0] == "[user]How?<|im_end|>[assistant]"
    with pytest.raises(RecipeError, match="no chat template, and the pairs are conversations"):
        one(tokenizer, None, pair)


def test_plain_text_takes_no_template_even_where_there_is_one(tokenizer: Any) -> None:
    pair = Pair("q", "c", "any", "x", "Sky is", " blue", " red<|im_end|>", plain_text=True)
    ends = [" blue<|im_end|>", " red<|im_end|>"]
    assert texts(tokenizer, one(tokenizer, PLAIN, pair)) == ["Sky is", *ends]


def test_prompts_keep_their_last_tokens_and_long_pairs_are_counted(tokenizer: Any) -> None:
    tokenizer.chat_template = PLAIN
    dropped: Counter[str] = Counter()
    (whole,) = tokenize([PAIR], tokenizer, None, None, dropped)
    (cut,) = tokenize([PAIR], tokenizer, 3, None, dropped)
    assert cut.prompt_ids == whole.prompt_ids[-3:]
    assert (cut.chosen_ids, cut.rejected_ids) == (whole.chosen_ids, whole.rejected_ids)
    longer = max(len(whole.chosen_ids), len(whole.rejected_ids))
    assert whole.length == len(whole.prompt_ids) + longer
    assert len(tokenize([PAIR], tokenizer, None, whole.length, dropped)) == 1
    assert not dropped
    assert tokenize([PAIR], tokenizer, None, whole.length - 1, dropped) == []
    assert dropped == {"longer than max_length": 1}


TRIMMED = PLAIN.replace("m.content", "m.content | trim")


@pytest.mark.parametrize(
    ("template", "reply", "written"),
    [
        (TRIMMED, " 42\n", "42"),  # as Llama 3's and Gemma's
        (PLAIN, " 42\n", " 42\n"),
        (TRIMMED, "<b>42</b>", "<b>42</b>"),
        (PLAIN, " ", " "),
    ],
)
def test_spaces_around_a_reply_are_what_the_template_makes_of_them(
    template: str, reply: str, written: str, tokenizer: Any
) -> None:
    """The first pair has none: each reply with some is tried in the template."""
    odd = replace(PAIR, uid="odd", rejected=reply)
    tokenizer.chat_template = template
    _, row = tokenize([PAIR, odd], tokenizer, None, None, Counter())
    assert tokenizer.decode(row.rejected_ids) == f"{written}<|im_end|>"


def test_conversations_of_other_courses_are_tried_in_the_template_too(tokenizer: Any) -> None:
    """Here the second question of a conversation is answered after a mark of its own."""
    template = TURNS.replace(
        "]{{", "]{% if loop.index > 2 and m.role == 'assistant' %}~{% endif %}{{"
    )
    template += "{% if add_generation_prompt %}[assistant]{% endif %}"
    tokenizer.chat_template = template
    turns = [("user", "How?"), ("assistant", "So."), ("user", "Really?")]
    longer = replace(PAIR, prompt=[{"role": role, "content": text} for role, text in turns])
    first, second = tokenize([PAIR, longer], tokenizer, None, None, Counter())
    assert tokenizer.decode(first.chosen_ids) == f"{PAIR.chosen}<|im_end|>"
    assert tokenizer.decode(second.chosen_ids) == f"~{PAIR.chosen}<|im_end|>"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (
            "{{ raise_exception('system first') }}",
            "fails on a conversation .user, assistant.: system",
        ),
        ("{% for m in messages %}{{ m.content }", "fails on a conversation"),
        ("{{ messages[5].content.x }}", "fails on a conversation"),
        ({"rag": PLAIN}, "fails on a conversation"),
    ],
)
def test_templates_that_take_no_such_conversation_are_refused(
    template: Any, message: str, tokenizer: Any
) -> None:
    with pytest.raises(RecipeError, match=message) as error:
        one(tokenizer, template)
    assert "\n" not in str(error.value)


def test_texts_and_conversations_are_not_mixed(tokenizer: Any) -> None:
    """The first row would decide for all."""
    with pytest.raises(RecipeError, match="some rows are texts and some conversations"):
        tokenize([PAIR, replace(PAIR, plain_text=True)], tokenizer, None, None, Counter())


def test_a_message_that_the_template_passes_over_is_refused(tokenizer: Any) -> None:
    """Such as a tool's answer, where it knows two roles alone."""
    two_roles = PLAIN.replace(
        "{% for m in messages %}", "{% for m in messages if m.role != 'tool' %}"
    )
    turns = [{"role": "user", "content": "How?"}, {"role": "tool", "content": "42"}]
    assert one(tokenizer, PLAIN, replace(PAIR, prompt=turns))
    with pytest.raises(
        RecipeError, match="leaves out, or changes, a message of the role 'tool': '42'"
    ):
        one(tokenizer, two_roles, replace(PAIR, prompt=turns))


def test_what_was_thought_before_an_earlier_reply_may_be_left_out(tokenizer: Any) -> None:
    """As Qwen3's and DeepSeek's templates do."""
    thoughtless = PLAIN.replace("m.content", "m.content.split('</think>')[-1]")
    texts_of_turns = [("user", "How?"), ("assistant", "<think>Hm.</think>So."), ("user", "Really?")]
    turns = [{"role": role, "content": text} for role, text in texts_of_turns]
    row = one(tokenizer, thoughtless, replace(PAIR, prompt=turns))
    assert "Hm." not in texts(tokenizer, row)[0]


@pytest.mark.parametrize(
    ("prompt", "chosen", "rejected", "reason"),
    [
        ("Caf", "\u00e9", "e\u0301", "chosen and rejected are the same tokens"),
        ("", "so", "not", "no token of the prompt stands before the reply"),
    ],
)
def test_pairs_that_teach_nothing_are_counted(
    prompt: str, chosen: str, rejected: str, reason: str, tokenizer: Any
) -> None:
    """Two spellings of a letter are one for a tokenizer that normalizes, such as Qwen's."""
    tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    dropped: Counter[str] = Counter()
    pair = replace(PAIR, prompt=prompt, chosen=chosen, rejected=rejected, plain_text=True)
    assert tokenize([pair], tokenizer, None, None, dropped) == []
    assert dropped == {reason: 1}
