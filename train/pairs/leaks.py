"""Which training contexts also occur in an evaluated split: those are not trained on."""

from collections.abc import Iterable, Iterator
from itertools import chain

from tatqa_task.types import Context

LONG = 200  # characters; shorter paragraphs ("The following table shows:") recur between reports


class Evaluated:
    """The documents of evaluated contexts: tables, whole texts and long paragraphs."""

    def __init__(self, contexts: Iterable[Context]) -> None:
        self._known: set[str] = set()
        for context in contexts:
            self._known.update(documents(context))

    def hold(self, context: Context) -> bool:
        """Whether a document of this context is one of theirs."""
        return any(document in self._known for document in documents(context))


def documents(context: Context) -> Iterator[str]:
    """A context's table, its whole text and its long paragraphs, lower-cased and spaced alike."""
    table = " ".join(chain.from_iterable(context.table))
    long = [paragraph for paragraph in context.paragraphs if len(paragraph) >= LONG]
    for text in (table, " ".join(context.paragraphs), *long):
        plain = " ".join(text.lower().split())
        if plain:
            yield plain
