"""Many chat completions at once from any OpenAI-compatible endpoint, each bounded in time, none invented."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import urlsplit

from mtbench_runner.store import InputError

Messages = list[dict[str, str]]
RETRIES = 12  # the client's own, with its back-off of 0.5 to 8 s or what Retry-After says; the deadline ends them


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
    text: str
    usage: dict[str, int]
    settings: dict[str, Any]


class CallError(Exception):
    """One call failed for good. `final`: every other call would fail too."""

    def __init__(self, message: str, final: bool = False) -> None:
        super().__init__(message)
        self.final = final


def endpoint_key(url: str | None, variable: str = "OPENAI_API_KEY") -> str:
    """The key from the environment. Raises InputError when a remote endpoint needs one."""
    key = os.environ.get(variable, "")
    address = url or os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1"
    if not key and urlsplit(address).hostname not in ("127.0.0.1", "localhost", "::1"):
        raise InputError(f"no {variable} in the environment for {urlsplit(address).hostname}; export it and run again")
    return key or "none"


class Caller:
    """Chat completions with the current openai client. Settings that the model refuses are left out from then on."""

    def __init__(self, endpoint: Endpoint, settings: dict[str, Any]) -> None:
        from openai import AsyncOpenAI

        self.endpoint = endpoint
        self.settings = dict(settings)
        self.client = AsyncOpenAI(
            api_key=endpoint.key, base_url=endpoint.url, timeout=endpoint.timeout, max_retries=RETRIES
        )
        self._slot = 0.0

    async def complete(self, messages: Messages) -> Reply:
        """The model's reply. Raises CallError when there is none within the endpoint's deadline."""
        try:
            return await asyncio.wait_for(self._until_usable(messages), self.endpoint.deadline)
        except asyncio.TimeoutError:  # noqa: UP041 (in Python 3.10 these are two classes)
            raise CallError(f"no usable reply within {self.endpoint.deadline:g} s") from None

    async def _until_usable(self, messages: Messages) -> Reply:
        pause = 0.5
        for _ in range(RETRIES):
            await self._pace()
            settings = dict(self.settings)
            reply = await self._attempt(messages, settings)
            if reply:
                return reply
            if settings == self.settings:
                await asyncio.sleep(pause)
                pause = min(2 * pause, 8.0)
        raise CallError(f"the endpoint sent no usable reply in {RETRIES} tries")

    async def _attempt(self, messages: Messages, settings: dict[str, Any]) -> Reply | None:
        """One call; None for a reply without text, and after leaving out a setting that the model refused."""
        import openai

        try:
            answer = await self.client.chat.completions.create(
                model=self.endpoint.model,
                messages=cast(Any, messages),
                **settings,
            )
            text = answer.choices[0].message.content
        except openai.BadRequestError as error:
            if settings != self.settings or self._leave_out(f"{error.param} {error.message}"):
                return None
            raise CallError(self._clean(error)) from None
        except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
            raise CallError(f"the endpoint refused the key ({error.status_code})", final=True) from None
        except openai.NotFoundError as error:
            raise CallError(self._clean(error), final=True) from None
        except openai.APIError as error:
            raise CallError(self._clean(error), final=getattr(error, "code", "") == "insufficient_quota") from None
        except (ValueError, TypeError, AttributeError, IndexError):
            return None  # not a chat completion: invalid JSON, an error body under status 200, no choices
        if not isinstance(text, str) or not text.strip():
            return None
        usage = answer.usage
        counts = {"prompt": usage.prompt_tokens, "completion": usage.completion_tokens} if usage else {}
        return Reply(text, counts, settings)

    def _leave_out(self, complaint: str) -> bool:
        """Drop the setting that a 400 complains about (max_tokens first becomes max_completion_tokens)."""
        for name in ("temperature", "max_tokens", "max_completion_tokens"):
            if name in self.settings and name in complaint:
                value = self.settings.pop(name)
                if name == "max_tokens":
                    self.settings["max_completion_tokens"] = value
                return True
        return False

    async def _pace(self) -> None:
        if self.endpoint.requests_per_minute:
            now = asyncio.get_running_loop().time()
            self._slot = max(now, self._slot + 60 / self.endpoint.requests_per_minute)
            await asyncio.sleep(self._slot - now)

    def _clean(self, error: Exception) -> str:
        return " ".join(str(error).replace(self.endpoint.key, "***").split())[:300]


async def complete_all(
    caller: Caller, jobs: Iterable[list[Messages]]
) -> AsyncIterator[tuple[int, list[Reply] | CallError]]:
    """(index, replies or error) of each job in the order they end; a job is one or more calls, `parallel` jobs at once.

    After a final error the jobs not yet begun are given up and never yielded.
    """
    queue = iter(enumerate(jobs))
    ended: asyncio.Queue[tuple[int, list[Reply] | CallError] | None] = asyncio.Queue()

    async def work() -> None:
        for index, calls in queue:
            try:
                ended.put_nowait((index, [await caller.complete(messages) for messages in calls]))
            except CallError as error:
                ended.put_nowait((index, error))
                if error.final:
                    for _ in queue:
                        pass
        ended.put_nowait(None)

    workers = [asyncio.create_task(work()) for _ in range(caller.endpoint.parallel)]
    try:
        for _ in workers:
            while (item := await ended.get()) is not None:
                yield item
    finally:
        for worker in workers:
            worker.cancel()
