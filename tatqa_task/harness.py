"""What the task YAMLs in `tasks/` name: documents, prompts, few-shot examples and results for lm-evaluation-harness.

A thin edge over the pure core; the only module here that imports lm_eval.
"""

import json
import logging
import os
import random
import sys
from collections.abc import Callable
from dataclasses import asdict, fields
from functools import lru_cache
from typing import Any, NoReturn

from lm_eval.api.samplers import ContextSampler

from tatqa_task import answer, data, metric, prompt
from tatqa_task.log_rule import lenient_match
from tatqa_task.types import Form

Doc = dict[str, Any]


def dataset(
    split: str,
    answer_type: str,
    form: Form = "direct",
    context_budget: int | None = None,
    **model_args: Any,
) -> dict[str, Any]:
    """The `datasets.Dataset` of one answer type's questions, one document each, under the name of their split.

    `context_budget` (tokens of the user turn by the model's own tokenizer; from `--metadata`) drops paragraphs of
    longer prompts. Unusable data ends the program with one line and exit code 2.
    """
    from datasets import Dataset

    docs = [doc | {"form": form} for doc in documents(split) if doc["answer_type"] == answer_type]
    if not docs:
        _stop(f"the {split} data has no question of type {answer_type}; leave this subtask out")
    if context_budget is not None:
        docs = _within(docs, context_budget, _token_counter(model_args))
    return {split: Dataset.from_list(docs)}


def documents(split: str) -> list[Doc]:
    """All questions of a split as flat documents; the mixed-type gold answer is a JSON string."""
    try:
        return _documents(split, os.environ.get("TATQA_DATA"))
    except data.DataError as error:
        _stop(str(error))


@lru_cache(maxsize=4)
def _documents(split: str, source: str | None) -> list[Doc]:
    return [
        asdict(question) | {
            "answer": json.dumps(question.answer, ensure_ascii=False),
            "context_uid": context.uid, "table": context.table, "paragraphs": context.paragraphs,
        }
        for context in data.load(split, source)
        for question in context.questions
    ]  # fmt: skip


def _stop(message: str) -> NoReturn:
    """End the program: lm-eval would show a traceback."""
    print(f"error: {message}", file=sys.stderr)  # noqa: T201
    raise SystemExit(2)


def _within(docs: list[Doc], budget: int, count_tokens: Callable[[str], int]) -> list[Doc]:
    if not isinstance(budget, int) or budget < 1:
        _stop(f"context_budget must be a number of tokens, found {budget!r}")
    kept = [
        prompt.fit(_context(doc), doc["question"], budget, count_tokens, _form(doc)).paragraphs
        for doc in docs
    ]
    dropped = [
        len(doc["paragraphs"]) - len(paragraphs) for doc, paragraphs in zip(docs, kept, strict=True)
    ]
    docs = [doc | {"paragraphs": paragraphs} for doc, paragraphs in zip(docs, kept, strict=True)]
    over = sum(count_tokens(doc_to_text(doc)) > budget for doc in docs)
    logging.getLogger("lm-eval").warning(
        "context budget of %d tokens: %d paragraphs dropped from %d of %d prompts; %d are longer even without text",
        budget, sum(dropped), sum(map(bool, dropped)), len(docs), over,
    )  # fmt: skip
    return docs


def _token_counter(model_args: dict[str, Any]) -> Callable[[str], int]:
    from transformers import AutoTokenizer

    name = model_args.get("tokenizer") or model_args.get("pretrained") or model_args.get("model")
    if not name:
        _stop("context_budget needs a tokenizer: give tokenizer= or pretrained= in --model_args")
    tokenizer = AutoTokenizer.from_pretrained(name)
    return lambda text: len(tokenizer(text)["input_ids"])


def _context(doc: Doc) -> data.Context:
    return data.Context(doc["context_uid"], doc["table"], doc["paragraphs"], [])


def _question(doc: Doc) -> data.Question:
    gold = {field.name: doc[field.name] for field in fields(data.Question)}
    return data.Question(**gold | {"answer": json.loads(doc["answer"])})


def _form(doc: Doc) -> Form:
    form: Form = doc.get("form", "direct")
    return form


def doc_to_text(doc: Doc) -> str:
    """The user turn that asks for the task's form of reply."""
    return prompt.user_message(_context(doc), doc["question"], _form(doc))


def doc_to_target(doc: Doc) -> str:
    """The gold reply in the task's form."""
    return answer.gold_reply(_question(doc), _form(doc))


def process_results(doc: Doc, results: list[str]) -> dict[str, float]:
    """The official metrics of one reply, how it was written, and the experiment log's own rule."""
    form = _form(doc)
    reply = answer.parse(results[0], form)
    score = metric.score(_question(doc), reply.answer, reply.scale)
    found = {
        "em": score.em,
        "em_strict": score.em if reply.strict else 0.0,
        "f1": score.f1,
        "scale_em": score.scale,
        "parsed": float(reply.parsed),
        "lenient_em": lenient_match(_question(doc), results[0]),
    }
    if form == "calc":
        found["calc_used"] = float(reply.calc_used)
    return found


class Examples(ContextSampler):
    """Few-shot examples from the training split, of all answer types, never from the context that is asked about.

    They depend on the few-shot seed and the question alone, so that runs of one and of several processes see the same.
    """

    seed: int | None = None

    def set_rnd(self, rnd: int | None) -> "Examples":
        """Take lm-eval's few-shot seed."""
        self.seed = rnd
        return self

    def sample(self, n: int, eval_doc: Doc, **kwargs: Any) -> list[Doc]:
        """n training questions for the document that is asked about."""
        pool = documents("train")
        drawn = random.Random(f"{self.seed}-{eval_doc['uid']}").sample(pool, min(len(pool), n + 50))
        others = [doc for doc in drawn if doc["context_uid"] != eval_doc["context_uid"]]
        if len(others) < n:
            _stop(
                f"the train data has {len(others)} questions of other contexts, fewer than the {n} examples asked"
            )
        return [doc | {"form": _form(eval_doc)} for doc in others[:n]]


def no_documents(docs: Any) -> list[Doc]:
    """Nothing up front: `Examples` reads the training split when it is asked for examples."""
    return []
