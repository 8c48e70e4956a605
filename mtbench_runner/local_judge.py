"""A judge without a server: a model on this machine, through the batch decoder of candidates."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mtbench_runner.endpoint import Call
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
        order = sorted(range(len(tasks)), key=lambda index: -_characters(tasks[index]))
        size = min(BATCH, default_batch_size(BATCH))
        for start in range(0, len(order), size):
            batch = order[start : start + size]
            replies = self._decode([tasks[index] for index in batch])
            for index, said in zip(batch, replies, strict=True):
                take(index, said)

    def _decode(self, tasks: Sequence[Task]) -> list[list[Outcome]]:
        assert self.model is not None
        calls: list[Call] = []
        for task in tasks:
            calls += task.calls
        conversations = [call.messages for call in calls]
        temperatures = [float(call.settings["temperature"]) for call in calls]
        outcomes = self.model.reply(conversations, temperatures)
        replies = []
        for task in tasks:
            number = len(task.calls)
            own, outcomes = outcomes[:number], outcomes[number:]
            pairs = zip(own, task.calls, strict=True)
            replies.append([replace(outcome, settings=call.settings) for outcome, call in pairs])
        return replies


def _characters(task: Task) -> int:
    return sum(len(message["content"]) for call in task.calls for message in call.messages)
