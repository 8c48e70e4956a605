"""What the task files in `tasks/` name: documents, prompts, examples and results for lm-eval.

A thin edge over the pure core. Unusable data or settings end the program with one line and exit
code 2, since lm-eval would show a traceback.
"""

import difflib
import json
import logging
import os
import random
from collections.abc import Sequence
from dataclasses import asdict, fields
from functools import lru_cache
from typing import Any, NoReturn

from lm_eval.api.samplers import ContextSampler

from tatqa_task import answer, budget, data, errata, metric, prompt, sampling, task_files
from tatqa_task.command_line import say_error
from tatqa_task.log_rule import lenient_match
from tatqa_task.types import Form

Doc = dict[str, Any]
LOG = logging.getLogger("lm-eval")
SWITCHES = ("verified", "thinking", "allow_cut")
SETTINGS = (*SWITCHES, "contexts", "seed", "context_budget")


def dataset(split: str, answer_type: str, form: Form = "direct", **settings: Any) -> dict[str, Any]:
    """The `datasets.Dataset` of one answer type's questions, under the split's name.

    Of the settings, which lm-eval gathers from task file, `--metadata` and `--model_args`, these
    count: `verified` (leave out questions whose gold does not stand), `contexts` and `seed` (so
    many whole contexts, typical of the split), `context_budget` (tokens of the user turn by the
    model's own tokenizer; paragraphs of longer prompts are dropped), `allow_cut` (run although
    prompts are longer than the model's context), `thinking` (the chat template opens a think
    block), and the names and length of the model.
    """
    from datasets import Dataset

    try:
        _check_settings(settings)
        docs = [doc for doc in _chosen(split, settings) if doc["answer_type"] == answer_type]
        docs = _with(docs, form=form)
        if not docs:
            _stop(_none_of(answer_type, split, settings.get("contexts")))
        if settings.get("context_budget") is not None:
            docs = _within(docs, settings["context_budget"], settings)
        if not settings.get("allow_cut"):
            _check_room(docs, form, settings)
    except data.DataError as error:
        _stop(str(error))
    if settings.get("thinking"):
        docs = _with(docs, thinking=True)
    return {split: Dataset.from_list(docs)}


def _with(docs: Sequence[Doc], **fields: Any) -> list[Doc]:
    """The documents with further fields."""
    return [doc | fields for doc in docs]


def _none_of(answer_type: str, split: str, drawn: int | None) -> str:
    """That a split, or so many contexts drawn of it, has no question of a type; what to do."""
    none = f"no question of type {answer_type}"
    if drawn is None:
        return f"the {split} data has {none}; leave this subtask out"
    return (
        f"the {drawn} {split} contexts drawn have {none}; draw more contexts or leave this subtask "
        "out"
    )


def _check_settings(settings: dict[str, Any]) -> None:
    """Refuse a misspelt setting and a switch that is neither on nor off. Raises DataError."""
    for name in settings:
        near = difflib.get_close_matches(name, SETTINGS, n=1, cutoff=0.85)
        if near and name not in SETTINGS:
            raise data.DataError(f"no setting is called {name!r}; did you mean {near[0]!r}?")
    for name in SWITCHES:
        if settings.get(name) not in (None, False, True):
            raise data.DataError(f"{name} must be true or false, found {settings[name]!r}")


def _chosen(split: str, settings: dict[str, Any]) -> list[Doc]:
    """The documents of a split that the settings ask for."""
    docs = documents(split)
    if settings.get("verified"):
        docs = [doc for doc in docs if doc["uid"] not in errata.listed()]
    if settings.get("contexts") is not None:
        seed = settings.get("seed", 0)
        drawn = sampling.typical(data.load(split), settings["contexts"], seed)
        uids = {context.uid for context in drawn}
        docs = [doc for doc in docs if doc["context_uid"] in uids]
    return docs


def documents(split: str) -> list[Doc]:
    """All questions of a split as flat documents; the mixed-type gold answer is a JSON string."""
    try:
        return _documents(split, os.environ.get("TATQA_DATA"))
    except data.DataError as error:
        _stop(str(error))


@lru_cache(maxsize=4)
def _documents(split: str, source: str | None) -> list[Doc]:
    """The same of the data that $TATQA_DATA names, read once."""
    docs = []
    for context in data.load(split, source):
        for question in context.questions:
            doc = asdict(question)
            doc["answer"] = json.dumps(question.answer, ensure_ascii=False)
            doc["context_uid"] = context.uid
            doc["table"] = context.table
            doc["paragraphs"] = context.paragraphs
            docs.append(doc)
    return docs


def _stop(message: str) -> NoReturn:
    """End the program with one line."""
    say_error(message)
    raise SystemExit(2)


def _within(docs: Sequence[Doc], tokens: Any, settings: dict[str, Any]) -> list[Doc]:
    """The documents with so few paragraphs that their prompts are within the budget."""
    count = budget.token_counter(settings)
    fitted = []
    dropped = shortened = over = 0
    for doc in docs:
        context = budget.fitted(_context(doc), doc["question"], _form(doc), tokens, count)
        shorter = doc | {"paragraphs": context.paragraphs}
        fitted.append(shorter)
        gone = len(doc["paragraphs"]) - len(context.paragraphs)
        dropped += gone
        shortened += gone > 0
        over += count is not None and count(doc_to_text(shorter)) > tokens
    LOG.warning(
        "context budget of %d tokens: %d paragraphs dropped from %d of %d prompts; "
        "%d are longer even without text",
        tokens,
        dropped,
        shortened,
        len(docs),
        over,
    )
    return fitted


def _check_room(docs: Sequence[Doc], form: Form, settings: dict[str, Any]) -> None:
    """Refuse a run in which lm-eval would cut prompts. Raises DataError."""
    length = budget.context_length(settings)
    if length is None:
        return
    room = length - task_files.MAX_GEN_TOKS[form] - budget.TEMPLATE
    if room >= budget.LONGEST_PROMPT:
        return
    count = budget.token_counter(settings)
    if count is not None:
        prompts = list(map(doc_to_text, docs))
        without_text = list(map(doc_to_text, _with(docs, paragraphs=[])))
        budget.check_room(prompts, without_text, room, count)


def _context(doc: Doc) -> data.Context:
    """The report that a document asks about, without its questions."""
    return data.Context(doc["context_uid"], doc["table"], doc["paragraphs"], [])


def _question(doc: Doc) -> data.Question:
    """The question of a document, with its gold answer."""
    gold = {field.name: doc[field.name] for field in fields(data.Question)}
    gold["answer"] = json.loads(doc["answer"])
    return data.Question(**gold)


def _form(doc: Doc) -> Form:
    """The form of reply that a document asks for."""
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
    reply = answer.parse(results[0], form, thinking=bool(doc.get("thinking")))
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


class Examples(ContextSampler):  # type: ignore[misc]
    """Few-shot examples from the training split, of all answer types.

    None is from the context that is asked about. They depend on the few-shot seed and the question
    alone, so that runs of one and of several processes see the same.
    """

    seed: int | None = None

    def set_rnd(self, rnd: int | None) -> "Examples":
        """Take lm-eval's few-shot seed."""
        self.seed = rnd
        return self

    def sample(self, n: int, eval_doc: Doc, **kwargs: Any) -> list[Doc]:
        """n training questions for the document that is asked about."""
        pool = documents("train")
        rng = random.Random(f"{self.seed}-{eval_doc['uid']}")
        drawn = rng.sample(pool, min(len(pool), n + 50))
        others = [doc for doc in drawn if doc["context_uid"] != eval_doc["context_uid"]]
        if len(others) < n:
            _stop(
                f"the train data has {len(others)} questions of other contexts, "
                f"fewer than the {n} examples asked"
            )
        return _with(others[:n], form=_form(eval_doc))


def no_documents(docs: Any) -> list[Doc]:
    """Nothing up front: `Examples` reads the training split when it is asked for examples."""
    return []
