"""Many chat completions at once from any OpenAI-compatible endpoint, each bounded in time, none invented."""

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from mtbench_runner.store import InputError

Call = tuple[list[dict[str, str]], dict[str, Any]]  # messages, and settings of chat.completions.create
RETRIES = 12  # the client's own, backing off 0.5 to 8 s or as Retry-After says; the deadline ends them
GIVE_UP = 16  # failures in a row, retries included, after which an endpoint counts as down
# settings that a model may refuse, and the word by which it says so
REFUSABLE = {name: name for name in ("temperature", "max_completion_tokens", "max_tokens", "seed")} | {
    "extra_body": "chat_template_kwargs"
}


@dataclass(frozen=True)
class Endpoint:
    """Where a chat model answers, and how hard it may be asked. Times in seconds."""

    model: str
    url: str | None = None
    key: str = field(default="", repr=False)
    parallel: int = 16
    timeout: float = 120.0
    deadline: float = 600.0
    requests_per_minute: float = 0.0


@dataclass(frozen=True)
class Reply:
    """The text, the tokens it took, and the settings that the model accepted."""

    text: str
    usage: dict[str, int]
    settings: dict[str, Any]


class CallError(Exception):
    """One call failed for good. `final`: every other call would fail too."""

    def __init__(self, message: str, final: bool = False) -> None:
        super().__init__(message)
        self.final = final


def key_for(url: str | None, variable: str = "OPENAI_API_KEY") -> str:
    """The key from the environment. Raises InputError when a remote endpoint needs one."""
    key = os.environ.get(variable, "")
    host = urlsplit(url or os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com").hostname
    if not key and host not in ("127.0.0.1", "localhost", "::1"):
        raise InputError(f"no {variable} in the environment for {host}; export it and run again")
    return key or "none"


class Caller:
    """Chat completions by the openai client. Settings that the model refuses are left out from then on."""

    def __init__(self, endpoint: Endpoint) -> None:
        from openai import AsyncOpenAI

        self.endpoint, self.refused, self.slot = endpoint, set[str](), 0.0
        self.client = AsyncOpenAI(
            api_key=endpoint.key, base_url=endpoint.url, timeout=endpoint.timeout, max_retries=RETRIES
        )

    async def check(self) -> None:
        """Raise InputError if nothing answers at the endpoint's address."""
        import openai

        try:
            await self.client.with_options(max_retries=1, timeout=10).models.list()
        except openai.APIConnectionError as error:
            if not isinstance(error, openai.APITimeoutError):  # slow is not unreachable
                raise InputError(f"nothing answers at {self.client.base_url}; start it, or give another URL") from None
        except (openai.OpenAIError, ValueError):
            pass  # it answers; not every endpoint lists its models

    async def complete(self, call: Call) -> Reply:
        """The model's reply. Raises CallError when there is none within the endpoint's deadline."""
        try:
            return await asyncio.wait_for(self._until_usable(*call), self.endpoint.deadline)
        except asyncio.TimeoutError:  # noqa: UP041 (in Python 3.10 these are two classes)
            raise CallError(f"no usable reply within {self.endpoint.deadline:g} s") from None

    async def _until_usable(self, messages: Any, settings: dict[str, Any]) -> Reply:
        for attempt in range(RETRIES):
            await self._pace()
            refused = len(self.refused)
            if reply := await self._attempt(messages, self._accepted(settings)):
                return reply
            if refused == len(self.refused):
                await asyncio.sleep(min(0.5 * 2**attempt, 8.0))
        raise CallError(f"no usable reply in {RETRIES} tries")

    async def _attempt(self, messages: Any, settings: dict[str, Any]) -> Reply | None:
        """One call; None for a reply without text, and after a setting was refused."""
        import openai

        try:
            answer = await self.client.chat.completions.create(model=self.endpoint.model, messages=messages, **settings)
            text, usage = answer.choices[0].message.content, answer.usage
        except openai.APIResponseValidationError:
            return None
        except openai.APIError as error:
            if isinstance(error, openai.BadRequestError) and self._refuses(f"{error.param} {error.message}", settings):
                return None
            raise self._failure(error) from None
        except (ValueError, TypeError, AttributeError, IndexError):
            return None  # not a chat completion: invalid JSON, an error body under status 200, no choices
        if not isinstance(text, str) or not text.strip():
            return None
        counts = {"prompt": usage.prompt_tokens, "completion": usage.completion_tokens} if usage else {}
        return Reply(text, counts, settings)

    def _failure(self, error: Any) -> CallError:
        status = getattr(error, "status_code", None)
        if status in (401, 403):  # such replies may quote the key
            return CallError(f"the endpoint refused the key ({status})", final=True)
        message = " ".join(str(error).replace(self.endpoint.key, "***").split())[:300]
        return CallError(message, final=status == 404 or error.code == "insufficient_quota")

    def _accepted(self, settings: dict[str, Any]) -> dict[str, Any]:
        given = dict(settings)
        if "max_tokens" in self.refused and "max_tokens" in settings:
            given["max_completion_tokens"] = settings["max_tokens"]  # newer models know it by this name
        return {name: value for name, value in given.items() if name not in self.refused}

    def _refuses(self, complaint: str, sent: dict[str, Any]) -> bool:
        named = [name for name, word in REFUSABLE.items() if name in sent and word in complaint]
        self.refused.update(named[:1])
        return bool(named)

    async def _pace(self) -> None:
        if self.endpoint.requests_per_minute:
            now = asyncio.get_running_loop().time()
            self.slot = max(now, self.slot + 60 / self.endpoint.requests_per_minute)
            await asyncio.sleep(self.slot - now)


Ended = tuple[int, list[Reply] | CallError]


async def complete_all(caller: Caller, jobs: Sequence[list[Call]]) -> AsyncIterator[Ended]:
    """(index, replies or error) of each job as it ends. A job is one or more calls; `parallel` jobs run at once.

    After a final error, or GIVE_UP failures in a row, the jobs not yet begun are never yielded.
    """
    await caller.check()
    waiting, ended, failures = deque(range(len(jobs))), asyncio.Queue[Ended | None](), 0

    async def work() -> None:
        try:
            while waiting:
                index = waiting.popleft()
                try:
                    ended.put_nowait((index, [await caller.complete(call) for call in jobs[index]]))
                except CallError as error:
                    ended.put_nowait((index, error))
        finally:
            ended.put_nowait(None)

    workers = [asyncio.create_task(work()) for _ in range(caller.endpoint.parallel)]
    try:
        for _ in workers:
            while (item := await ended.get()) is not None:
                error = item[1] if isinstance(item[1], CallError) else None
                failures = failures + 1 if error else 0
                if error and (error.final or failures >= GIVE_UP):
                    waiting.clear()
                yield item
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
