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
# a setting -> the word by which a 400 complains about it; what is refused once is left out from then on
REFUSABLE = {
    "temperature": "temperature",
    "max_completion_tokens": "max_completion_tokens",
    "max_tokens": "max_tokens",
    "seed": "seed",
    "extra_body": "chat_template_kwargs",
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
    """Chat completions by the openai client (AzureOpenAI where AZURE_OPENAI_ENDPOINT is set)."""

    def __init__(self, endpoint: Endpoint) -> None:
        from openai import AsyncAzureOpenAI, AsyncOpenAI

        self.endpoint = endpoint
        limits: dict[str, Any] = {"timeout": endpoint.timeout, "max_retries": RETRIES}
        if os.environ.get("AZURE_OPENAI_ENDPOINT") and not endpoint.url:
            self.client: AsyncOpenAI = AsyncAzureOpenAI(**limits)
        else:
            self.client = AsyncOpenAI(api_key=endpoint.key, base_url=endpoint.url, **limits)
        self.refused: set[str] = set()
        self._slot = 0.0

    async def check(self) -> None:
        """Raise InputError if nothing answers at the endpoint's address."""
        import openai

        try:
            await self.client.with_options(max_retries=1, timeout=10).models.list()
        except openai.APITimeoutError:
            pass  # slow is not unreachable
        except openai.APIConnectionError:
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
            reply = await self._attempt(messages, self._accepted(settings))
            if reply:
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
        except openai.BadRequestError as error:
            if self._refuses(f"{error.param} {error.message}", settings):
                return None
            raise CallError(self._clean(error)) from None
        except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
            raise CallError(f"the endpoint refused the key ({error.status_code})", final=True) from None
        except openai.APIResponseValidationError:
            return None
        except openai.APIError as error:
            final = isinstance(error, openai.NotFoundError) or error.code == "insufficient_quota"
            raise CallError(self._clean(error), final) from None
        except (ValueError, TypeError, AttributeError, IndexError):
            return None  # not a chat completion: invalid JSON, an error body under status 200, no choices
        if not isinstance(text, str) or not text.strip():
            return None
        return Reply(
            text, {"prompt": usage.prompt_tokens, "completion": usage.completion_tokens} if usage else {}, settings
        )

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
            self._slot = max(now, self._slot + 60 / self.endpoint.requests_per_minute)
            await asyncio.sleep(self._slot - now)

    def _clean(self, error: Exception) -> str:
        return " ".join(str(error).replace(self.endpoint.key, "***").split())[:300]


async def complete_all(
    caller: Caller, jobs: Sequence[list[Call]]
) -> AsyncIterator[tuple[int, list[Reply] | CallError]]:
    """(index, replies or error) of each job as it ends. A job is one or more calls; `parallel` jobs run at once.

    After a final error, or GIVE_UP failures in a row, the jobs not yet begun are never yielded.
    """
    await caller.check()
    waiting = deque(range(len(jobs)))
    ended: asyncio.Queue[tuple[int, list[Reply] | CallError] | None] = asyncio.Queue()

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
    failures = 0
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
