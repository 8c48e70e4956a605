"""Many chat completions at once from any OpenAI-compatible endpoint, each bounded in time, none invented."""

import asyncio
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import openai

from mtbench_runner.store import InputError

Call = tuple[
    list[dict[str, str]], dict[str, Any]
]  # messages, and settings of chat.completions.create
RETRIES = (
    12  # the client's own, backing off 0.5 to 8 s or as Retry-After says; the deadline ends them
)
GIVE_UP = 16  # failures in a row, retries included, after which an endpoint counts as down
# settings that a model may refuse; it names extra_body by what is in it, chat_template_kwargs
REFUSABLE = ("temperature", "max_completion_tokens", "max_tokens", "seed", "extra_body")


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
    """One call failed for good."""


class FinalError(CallError):
    """Every other call would fail too."""


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
        self.endpoint, self.refused, self.slot = endpoint, set[str](), 0.0
        self.client = openai.AsyncOpenAI(
            api_key=endpoint.key,
            base_url=endpoint.url,
            timeout=endpoint.timeout,
            max_retries=RETRIES,
        )

    async def check(self) -> None:
        """Raise InputError if nothing answers at the endpoint's address."""
        try:
            await self.client.with_options(max_retries=1, timeout=10).models.list()
        except openai.APITimeoutError:
            pass  # slow is not unreachable
        except openai.APIConnectionError:
            raise InputError(
                f"nothing answers at {self.client.base_url}; start it, or give another URL"
            ) from None
        except (openai.OpenAIError, ValueError):
            pass  # it answers; not every endpoint lists its models

    async def complete(self, call: Call) -> Reply:
        """The model's reply. Raises CallError when there is none within the endpoint's deadline."""
        try:
            async with asyncio.timeout(self.endpoint.deadline):
                for attempt in range(RETRIES):
                    if reply := await self._attempt(*call):
                        return reply
                    await asyncio.sleep(min(0.5 * 2**attempt, 8.0))
        except TimeoutError:
            raise CallError(f"no usable reply within {self.endpoint.deadline:g} s") from None
        raise CallError(f"no usable reply in {RETRIES} tries")

    async def _attempt(self, messages: Any, settings: dict[str, Any]) -> Reply | None:
        """One call, made again without a setting that the model refuses; None for a reply without text."""
        await self._pace()
        sent = self._accepted(settings)
        try:
            answer = await self.client.chat.completions.create(
                model=self.endpoint.model, messages=messages, **sent
            )
            text, usage = answer.choices[0].message.content, answer.usage
        except (
            openai.APIResponseValidationError,
            ValueError,
            TypeError,
            AttributeError,
            IndexError,
        ):
            return None  # not a chat completion: invalid JSON, an error body under status 200, no choices
        except openai.BadRequestError as error:
            if not self._refuses(f"{error.param} {error.message}", sent):
                raise self._failure(error) from None
            return await self._attempt(messages, settings)
        except openai.APIError as error:
            raise self._failure(error) from None
        if not isinstance(text, str) or not text.strip():
            return None
        counts = (
            {"prompt": usage.prompt_tokens, "completion": usage.completion_tokens} if usage else {}
        )
        return Reply(text, counts, sent)

    def _failure(self, error: Any) -> CallError:
        status = getattr(error, "status_code", None)
        if status in (401, 403):  # such replies may quote the key
            return FinalError(f"the endpoint refused the key ({status})")
        message = " ".join(str(error).replace(self.endpoint.key, "***").split())[:300]
        return (
            FinalError(message)
            if status == 404 or error.code == "insufficient_quota"
            else CallError(message)
        )

    def _accepted(self, settings: dict[str, Any]) -> dict[str, Any]:
        if "max_tokens" in self.refused:  # newer models know it by another name
            settings = settings | {"max_completion_tokens": settings["max_tokens"]}
        return {name: value for name, value in settings.items() if name not in self.refused}

    def _refuses(self, complaint: str, sent: dict[str, Any]) -> bool:
        complaint = complaint.replace("chat_template_kwargs", "extra_body")
        named = [name for name in REFUSABLE if name in sent and name in complaint]
        self.refused.update(named[:1])
        return bool(named)

    async def _pace(self) -> None:
        if self.endpoint.requests_per_minute:
            now = asyncio.get_running_loop().time()
            self.slot = max(now, self.slot + 60 / self.endpoint.requests_per_minute)
            await asyncio.sleep(self.slot - now)


Outcome = list[Reply] | CallError


def complete_all(endpoint: Endpoint, jobs: list[list[Call]]) -> Iterator[tuple[int, Outcome]]:
    """(index, replies or error) of each job as it ends. A job is one or more calls; `parallel` jobs run at once.

    After a final error, or GIVE_UP failures in a row, the jobs not yet begun end with the same error.
    """
    caller, free, failures = (
        Caller(endpoint),
        asyncio.Semaphore(endpoint.parallel),
        list[CallError](),
    )

    async def work(index: int) -> tuple[int, Outcome]:
        async with free:
            if len(failures) >= GIVE_UP:
                return index, failures[-1]
            try:
                replies = [await caller.complete(call) for call in jobs[index]]
            except CallError as error:
                failures.extend([error] * (GIVE_UP if isinstance(error, FinalError) else 1))
                return index, error
            failures.clear()
            return index, replies

    with asyncio.Runner() as runner:
        runner.run(caller.check())
        unfinished = {runner.get_loop().create_task(work(index)) for index in range(len(jobs))}
        while unfinished:
            finished, unfinished = runner.run(
                asyncio.wait(unfinished, return_when=asyncio.FIRST_COMPLETED)
            )
            yield from (task.result() for task in finished)
