"""Prompts and the length of a model's context: fitted to it, or refused.

lm-eval cuts a prompt that is too long from the left, so that the instruction goes first: such
a score measures the cut, not the model.
"""

from collections.abc import Callable, Sequence
from typing import Any

from tatqa_task import prompt
from tatqa_task.files import DataError
from tatqa_task.types import Context, Form

CountTokens = Callable[[str], int]
TEMPLATE = 32  # tokens that a chat template may put around the user turn
ALLOW = '"allow_cut": true'
LONGEST_PROMPT = 3_000  # tokens; no prompt of TAT-QA is longer, so there is nothing to count


def token_counter(model_args: dict[str, Any]) -> CountTokens | None:
    """Counts tokens by the model's own tokenizer; None where lm-eval names none."""
    name = model_args.get("tokenizer") or model_args.get("pretrained") or model_args.get("model")
    if not name:
        return None
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(name)
    return lambda text: len(tokenizer(text)["input_ids"])


def fitted(
    context: Context, question: str, form: Form, budget: Any, count: CountTokens | None
) -> Context:
    """The context without the paragraphs that keep the user turn above the budget.

    Raises DataError.
    """
    if type(budget) is not int or budget < 1:
        raise DataError(f"context_budget must be a number of tokens, found {budget!r}")
    if count is None:
        raise DataError(
            "context_budget needs a tokenizer: give tokenizer= or pretrained= in --model_args"
        )
    return prompt.fit(context, question, budget, count, form)


def context_length(model_args: dict[str, Any]) -> int | None:
    """Tokens that the model reads, prompt and reply together; None where that is not known."""
    if model_args.get("max_length"):
        return int(model_args["max_length"])
    if not model_args.get("pretrained"):
        return None
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(model_args["pretrained"])
    except (OSError, ValueError):
        return None  # the model itself will say what is wrong
    length = getattr(config, "max_position_embeddings", None)
    return int(length) if length else None


def check_room(
    prompts: Sequence[str], without_text: Sequence[str], room: int, count: CountTokens
) -> None:
    """Raise DataError if prompts are longer than the room there is for them.

    `without_text`: the same prompts without any paragraph, the shortest that a budget makes.
    """
    if room < 1:
        raise DataError(
            "this model has no room for a prompt beside a reply; take one of longer context"
        )
    longer = _number_longer(prompts, room, count)
    if not longer:
        return
    told = (
        f"{longer} of {len(prompts)} prompts are longer than the {room} tokens"
        " that this model has for them"
    )
    budget = f'"context_budget": {room}'
    never = _number_longer(without_text, room, count)
    if never:
        raise DataError(
            f"{told}, {never} even without text; take a model of longer context, or let lm-eval cut"
            f" off the instruction of these: {_metadata(budget, ALLOW)}"
        )
    raise DataError(
        f"{told}; drop paragraphs with {_metadata(budget)},"
        f" or let lm-eval cut off the instruction with {_metadata(ALLOW)}"
    )


def _number_longer(prompts: Sequence[str], room: int, count: CountTokens) -> int:
    """How many prompts are longer than the room."""
    return sum(count(text) > room for text in prompts)


def _metadata(*settings: str) -> str:
    """The option of lm-eval that carries the settings."""
    return f"--metadata '{{{', '.join(settings)}}}'"
