"""A judge without a server: a model on this machine, through the batch decoder of candidates."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mtbench_runner.judge import Take, Task
from mtbench_runner.ledger import Replies
from mtbench_runner.local import Candidate, LocalModel, default_batch_size
from mtbench_runner.outcome import Outcome
from mtbench_runner.store import InputError

BATCH = 96  # conversations of which all are stored before the next are begun, on a GPU


class LocalJudge:
    """`local:FOLDER`, under the folder's name. The model is loaded when the first call comes."""

    def __init__(self, folder: str, cap: int) -> None:
        if not Path(folder).is_dir():
            raise InputError(f"no folder {folder} with the judge's model")
        self.candidate = Candidate(folder, max_new_tokens=cap)
        self.model: LocalModel | None = None

    @property
    def name(self) -> str:
        return "local:" + Path(self.candidate.model).resolve().name

    def reply(self, tasks: Sequence[Task], kept: Replies, take: Take) -> None:
        """Hand the replies to each task to `take`, batch by batch, those of like length together.

        Nothing that a model said is a failure: what was cut or is empty is for the score to tell.
        """
        self.model = self.model or LocalModel(self.candidate)
        numbered = list(enumerate(tasks))
        longest_first = sorted(numbered, key=lambda one: -_characters(one[1]))
        size = min(BATCH, default_batch_size(BATCH))
        for start in range(0, len(tasks), size):
            batch = longest_first[start : start + size]
            replies = self._decode([task for _, task in batch])
            for (index, _), said in zip(batch, replies, strict=True):
                take(index, said)

    def _decode(self, tasks: Sequence[Task]) -> list[list[Outcome]]:
        """The replies to the calls of each task, all decoded in one batch."""
        assert self.model is not None
        conversations = []
        temperatures = []
        for task in tasks:
            for call in task.calls:
                conversations.append(call.messages)
                temperatures.append(float(call.settings["temperature"]))
        outcomes = iter(self.model.reply(conversations, temperatures))
        replies = []
        for task in tasks:
            own = [replace(next(outcomes), settings=call.settings) for call in task.calls]
            replies.append(own)
        return replies


def _characters(task: Task) -> int:
    """Characters of all that a task's calls send."""
    total = 0
    for call in task.calls:
        for message in call.messages:
            total += len(message["content"])
    return total
