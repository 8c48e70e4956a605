"""A preference pair, and the counts of what became of the questions that pairs are made of."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tatqa_task.types import Context, Question

Message = dict[str, str]  # role and content
THINKING_OFF = {"enable_thinking": False}


@dataclass(frozen=True)
class Pair:
    """One preference pair: a prompt, and the whole replies that are chosen and rejected.

    The prompt is a conversation, or a text: the one user turn, or (`plain_text`) what the reply
    continues without a chat template. `kind` says how the rejected reply came about; pairs with the
    same `context_uid` share a long prefix.
    """

    uid: str
    context_uid: str
    answer_type: str
    kind: str
    prompt: str | list[Message]
    chosen: str
    rejected: str
    plain_text: bool = False

    @property
    def turns(self) -> list[Message]:
        """The prompt as a conversation."""
        if isinstance(self.prompt, str):
            return [{"role": "user", "content": self.prompt}]
        return self.prompt

    def row(self) -> dict[str, Any]:
        """The pair in TRL's preference format: conversational, thinking off, or plain text."""
        facts = {name: getattr(self, name) for name in FACTS}
        if self.plain_text:
            replies = {"chosen": self.chosen, "rejected": self.rejected}
            return {**facts, "prompt": self.prompt, **replies}
        return {
            **facts,
            "prompt": self.turns,
            "chosen": [{"role": "assistant", "content": self.chosen}],
            "rejected": [{"role": "assistant", "content": self.rejected}],
            "chat_template_kwargs": THINKING_OFF,
        }


FACTS = ("uid", "context_uid", "answer_type", "kind")  # columns that TRL leaves alone


@dataclass
class Counts:
    """What became of the questions: pairs kept, by answer type and kind, and drops, by reason.

    `notes` counts what is said about pairs that were kept.
    """

    by_type: Counter[str] = field(default_factory=Counter)
    by_kind: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)

    def keep(self, pair: Pair) -> None:
        """Count a pair that is kept."""
        self.by_type[pair.answer_type] += 1
        self.by_kind[pair.kind] += 1

    def table(self) -> str:
        """The counts as text, one a line."""
        lines = [f"{self.by_type.total():>8,}  pairs kept"]
        for what, counter in (
            ("kept ", self.by_type),
            ("kept, made by ", self.by_kind),
            ("kept, ", self.notes),
            ("dropped: ", self.dropped),
        ):
            for name, n in counter.most_common():
                lines.append(f"{n:>8,}  {what}{name}")
        return "\n".join(lines)


def tatqa_pair(
    context: Context, question: Question, text: str, kind: str, chosen: str, rejected: str
) -> Pair:
    """The pair of a TAT-QA question; `text` is the prompt that scoring uses."""
    return Pair(question.uid, context.uid, question.answer_type, kind, text, chosen, rejected)
