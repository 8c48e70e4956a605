"""Many chat completions at once from an OpenAI-compatible endpoint, bounded in time and tries.

Every reply is named by `outcome`, and the policy of the stage says what follows: nothing is
invented, and what failed says why.
"""

import asyncio
import json
import os
import random
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from math import isnan
from typing import Any, TypeVar
from urllib.parse import urlsplit

import openai

from mtbench_runner import outcome as outcomes
from mtbench_runner.outcome import TRIES, Action, Failure, Outcome, Policy
from mtbench_runner.rows import Conversation
from mtbench_runner.spending import TYPICAL_REPLY, Spending
from mtbench_runner.store import InputError

T = TypeVar("T")
GIVE_UP = 16  # failures in a row, retries included, after which an endpoint counts as down
THINKING_GIVE_UP = 2  # calls that were all thinking, none other answered: the next would be too
CAP_FACTOR = 4  # of the token limit, where a judge's reply was cut
LONGEST_WAIT = 60.0  # seconds that a Retry-After is followed
BACK_OFF = 0.5  # seconds before the first retry, doubled up to BACK_OFF_MOST
BACK_OFF_MOST = 8.0
MOST_REDIRECTS = 3  # of one attempt
NO_CONNECTION = ("ConnectError", "UnsupportedProtocol", "ProxyError")  # of httpx
LIMITS = ("max_tokens", "max_completion_tokens")
OPENAI = "https://api.openai.com/v1"
LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")
# whether the attempt under way got the head of a response: from then on it may have been billed
answering: ContextVar[bool] = ContextVar("answering", default=False)


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
class Call:
    """Messages, and settings of chat.completions.create."""

    messages: Conversation
    settings: dict[str, Any]
    limited: bool = True  # whether the token limit is sent


class CallFailed(Exception):
    """A call came to nothing. Final: every other call would fail too."""

    def __init__(self, failure: Failure, final: bool = False) -> None:
        super().__init__(failure.cause)
        self.failure = failure
        self.final = final


def address(url: str | None) -> str:
    """A server's URL, or OPENAI_BASE_URL, or OpenAI's; without a path it gets /v1.

    Raises InputError for one that is none.
    """
    found = (url or os.environ.get("OPENAI_BASE_URL") or OPENAI).strip()
    try:
        parts = urlsplit(found)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # brackets that do not match, a port beyond 65535
        usable = False
    if not usable:
        raise InputError(f"{shown(found)} is no URL of a server; one begins with http://")
    if parts.path in ("", "/") and not parts.query:
        return found.rstrip("/") + "/v1"
    return found


def shown(url: str) -> str:
    """A URL as it may be printed: a password or key in it is left out."""
    without_user = re.sub(r"//[^/@]*@", "//***@", url)
    return re.sub(r"([?&][^=&]*=)[^&#/]*", r"\1***", without_user)


def key_for(url: str | None, variable: str = "OPENAI_API_KEY") -> str:
    """The key from the environment. Raises InputError for none, where a remote endpoint needs one.

    And for one that no header can hold: the error of the connection would print it.
    """
    key = os.environ.get(variable, "").strip()
    host = urlsplit(address(url)).hostname
    if not key and host not in LOCAL_HOSTS:
        raise InputError(f"no {variable} in the environment for {host}; export it and run again")
    if not key.isascii() or not key.isprintable():
        raise InputError(f"{variable} holds characters that no key has; export it anew")
    return key or "none"


@contextmanager
def usable_proxies() -> Iterator[None]:
    """Raise InputError where a client cannot be made for the proxies that the environment names.

    An address is not repeated: it may hold a password.
    """
    try:
        yield
    except Exception as error:  # httpx's types, and ImportError for a SOCKS proxy
        raise InputError(
            "a proxy in HTTP_PROXY, HTTPS_PROXY or ALL_PROXY cannot be used "
            f"({type(error).__name__}); export another address or none"
        ) from None


class Caller:
    """Chat completions by the openai client, which remembers what the model does not take."""

    def __init__(
        self, endpoint: Endpoint, policy: Policy, spending: Spending | None = None
    ) -> None:
        self.endpoint = endpoint
        self.policy = policy
        self.spending = spending or Spending()
        self.refused: set[str] = set()  # settings that the model does not take
        self.folds_system = False
        self.cap_raised = False
        self.slot = 0.0
        with usable_proxies():
            http_client = openai.DefaultAsyncHttpxClient(
                max_redirects=MOST_REDIRECTS, event_hooks={"response": [_note_response]}
            )
        self.client = openai.AsyncOpenAI(
            api_key=endpoint.key,
            base_url=address(endpoint.url),
            timeout=endpoint.timeout,
            max_retries=0,
            http_client=http_client,
        )

    async def __aenter__(self) -> "Caller":
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.client.close()  # while its event loop still runs

    async def check(self) -> None:
        """Raise InputError if nothing answers at the endpoint's address or it refuses the key."""
        try:
            await self.client.with_options(max_retries=1, timeout=10).models.list()
        except openai.APITimeoutError:
            pass  # slow is not unreachable
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            if type(cause).__name__ in NO_CONNECTION:  # else it answers, though not to this
                where = shown(str(self.client.base_url))
                why = outcomes.without_key(str(cause), self.endpoint.key)[:200]
                raise InputError(
                    f"nothing answers at {where} ({why}); start it, or give another URL"
                ) from None
        except openai.AuthenticationError:
            where = shown(str(self.client.base_url))
            raise InputError(
                f"the endpoint at {where} refused the key (401); export another"
            ) from None
        except (openai.OpenAIError, ValueError, TypeError):
            pass  # it answers; not every endpoint lists its models
        except AttributeError:  # the client's own, at a page of a web site
            where = shown(str(self.client.base_url))
            raise InputError(
                f"{where} answers with a text in place of JSON; is it the API's address (.../v1)?"
            ) from None

    async def complete(self, call: Call) -> Outcome:
        """The accepted outcome of a call. Raises CallFailed within the endpoint's deadline."""
        seen: list[Outcome] = []
        try:
            async with asyncio.timeout(self.endpoint.deadline):
                return await self._until_settled(call, seen)
        except TimeoutError:
            raise CallFailed(Failure(self._too_late(seen))) from None

    async def _until_settled(self, call: Call, seen: list[Outcome]) -> Outcome:
        """Attempt after attempt, as the policy says. Raises CallFailed where it says to end."""
        retries = 0
        while True:
            sent_at_cap = self.cap_raised
            found = await self._attempt(call)
            seen.append(found)
            times = sum(outcome.kind == found.kind for outcome in seen)
            action = self._action(found, times, sent_at_cap)
            if action == "retry":
                retries += 1
                action = action if retries < TRIES else "give up"
            if action == "accept":
                return found
            if action in ("give up", "record", "stop"):
                failure = Failure(found, permanent=action == "record")
                raise CallFailed(failure, final=action == "stop")
            if action == "retry":
                await asyncio.sleep(_wait(found, retries))
            call = self._adapt(call, action, found)

    def _action(self, found: Outcome, times: int, sent_at_cap: bool) -> Action:
        """What follows the outcome, the `times`-th of its kind in this call."""
        actions = self.policy[found.kind]
        action = actions[min(times, len(actions)) - 1]
        if action == "raise the cap" and sent_at_cap:
            return actions[-1]
        if action == "drop the limit" and not set(found.settings) & set(LIMITS):
            return actions[-1]
        return action

    def _adapt(self, call: Call, action: Action, found: Outcome) -> Call:
        """The call as it is made next; what a model never takes is remembered for other calls."""
        if action == "raise the cap":
            self.cap_raised = True
        elif action == "leave it out" and found.setting:
            self.refused.add(found.setting)
        elif action == "fold the system message":
            self.folds_system = True
        elif action == "drop the limit":
            return replace(call, limited=False)
        return call

    async def _attempt(self, call: Call) -> Outcome:
        """One attempt: wait for its turn, set its cost aside, send it, count what it cost."""
        await self._pace()
        messages = fold_system(call.messages) if self.folds_system else call.messages
        sent = self._accepted(call)
        most = _longest(sent, call)
        reserved = await self._reserve(messages, most)
        if reserved is None:
            detail = self.spending.what_lacks(messages, most)
            return Outcome(kind="spent", cause="stopped by --max-cost", detail=detail)
        found = Outcome(kind="timeout")  # where the deadline ends it
        try:
            found = await self._post(messages, sent)
        finally:
            self.spending.settle(reserved, found, messages)
        return replace(found, settings=sent)

    async def _reserve(self, messages: Conversation, most: int) -> float | None:
        """US dollars set aside for a call; None where it might pass the limit.

        While other calls are under way it waits: they may turn out cheaper than was set aside.
        """
        while (reserved := self.spending.reserve(messages, most)) is None:
            if not self.spending.reserved:
                return None
            await asyncio.sleep(BACK_OFF / 10)
        return reserved

    async def _post(self, messages: Conversation, sent: dict[str, Any]) -> Outcome:
        """What a request came to, whatever the client raises."""
        request: Any = self.client.chat.completions.with_raw_response
        extra = sent.get("extra_body") or {}
        answering.set(False)
        try:
            async with asyncio.timeout(self.endpoint.timeout):
                made = request.create(model=self.endpoint.model, messages=messages, **sent)
                response = await made
            return outcomes.of_response(text_of(response.http_response), self.endpoint.key)
        except (TimeoutError, openai.APITimeoutError):
            return self._timed_out()
        except openai.APIConnectionError as error:
            return _unreachable(error.__cause__ or error)
        except openai.APIStatusError as error:
            names = [*sent, *extra]
            body = _body(error)
            found = outcomes.of_error(error.status_code, body, names, self.endpoint.key)
            return replace(found, retry_after=_retry_after(error.response.headers))
        except Exception as error:  # noqa: BLE001  # whatever a body makes the client raise
            detail = type(error).__name__
            return Outcome(kind="wrong shape", cause="not a chat completion", detail=detail)

    def _timed_out(self) -> Outcome:
        """The outcome of an attempt that took longer than --timeout."""
        seconds = f"{self.endpoint.timeout:g}"
        if answering.get():
            cause = f"the reply did not end within --timeout {seconds} s"
            return Outcome(kind="broken off", cause=cause)
        return Outcome(kind="timeout", cause=f"no reply within --timeout {seconds} s")

    def _accepted(self, call: Call) -> dict[str, Any]:
        """The settings of a call without those that the model refused."""
        settings = dict(call.settings)
        if "max_tokens" in settings:
            if self.cap_raised:
                settings["max_tokens"] *= CAP_FACTOR
            if "max_tokens" in self.refused:
                settings["max_completion_tokens"] = settings.pop("max_tokens")  # newer models' name
        extra = _without(self.refused, settings.pop("extra_body", {}))
        kept = _without(self.refused, settings)
        if not call.limited:
            kept = _without(LIMITS, kept)
        if extra:
            kept["extra_body"] = extra
        return kept

    def _too_late(self, seen: list[Outcome]) -> Outcome:
        """The outcome of a call whose attempts took longer than --deadline."""
        seconds = f"{self.endpoint.deadline:g}"
        last = seen[-1] if seen else Outcome(kind="timeout")
        after = f" after: {last.cause}" if last.cause else ""
        cause = f"no usable reply within --deadline {seconds} s{after}"
        return replace(last, kind="timeout", cause=cause)

    async def _pace(self) -> None:
        """Wait for this call's turn under --requests-per-minute."""
        if self.endpoint.requests_per_minute:
            now = asyncio.get_running_loop().time()
            self.slot = max(now, self.slot + 60 / self.endpoint.requests_per_minute)
            await asyncio.sleep(self.slot - now)


def _longest(sent: dict[str, Any], call: Call) -> int:
    """Tokens of the longest reply to a request; where its limit is not sent, of one that was."""
    for settings in (sent, call.settings):
        for name in LIMITS:
            if settings.get(name):
                return int(settings[name])
    return TYPICAL_REPLY


def _without(names: Collection[str], settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that are not among those names."""
    return {name: value for name, value in settings.items() if name not in names}


def fold_system(messages: Conversation) -> Conversation:
    """The conversation with its system message at the head of the first user message."""
    if len(messages) < 2 or messages[0]["role"] != "system":
        return messages
    system, first, *rest = messages
    text = f"{system['content']}\n\n{first['content']}"
    return [{"role": first["role"], "content": text}, *rest]


def _wait(found: Outcome, retries: int) -> float:
    """Seconds before the next attempt: as Retry-After says, else doubling, with some jitter."""
    if found.retry_after is not None:
        return min(found.retry_after, LONGEST_WAIT)
    doubled: float = BACK_OFF * 2 ** (retries - 1)
    return min(doubled, BACK_OFF_MOST) * random.uniform(0.75, 1.0)  # noqa: S311


def _retry_after(headers: Any) -> float | None:
    """The seconds that a server asks to wait; None if it asks for none."""
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            said = float(headers[name]) / unit
        except (KeyError, ValueError):
            continue  # absent, or a date
        if not isnan(said):
            return max(0.0, said)
    return _until(headers.get("retry-after"))


def _until(date: str | None) -> float | None:
    """Seconds until an HTTP date; None where it is none."""
    try:
        return max(0.0, parsedate_to_datetime(date or "").timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def _unreachable(error: BaseException) -> Outcome:
    """No response that can be read: asked again, except where that would lead to the same.

    Errors are known by name, since openai brings its own edition of httpx.
    """
    name, detail = type(error).__name__, str(error)[:300]
    if name == "TooManyRedirects":
        return Outcome(kind="request", cause="redirected in a circle", detail=detail)
    if name == "DecodingError":
        return Outcome(kind="wrong shape", cause="not a chat completion", detail=detail)
    if answering.get():
        return Outcome(kind="broken off", cause="the reply broke off", detail=detail or name)
    return Outcome(kind="unreachable", cause="connection failed", detail=detail or name)


async def _note_response(response: object) -> None:
    """The client's hook: called when the head of a response has come, before its body is read."""
    answering.set(True)


def _body(error: openai.APIStatusError) -> object:
    """The whole error body: the client keeps only what is under `error`."""
    try:
        return json.loads(text_of(error.response), strict=False)
    except (ValueError, RecursionError):
        return text_of(error.response)


def text_of(response: Any) -> str:
    """The text of a body: JSON in UTF-16 or UTF-32 by its first bytes, else as its charset says."""
    content = bytes(response.content)
    encoding = json.detect_encoding(content)
    if encoding.startswith("utf-8"):
        encoding = response.charset_encoding or encoding
    try:
        return content.decode(encoding, "replace")
    except (LookupError, UnicodeError):  # no such charset, or one that is none of texts
        return content.decode("utf-8", "replace")


Job = Callable[[Caller], Awaitable[T]]
Take = Callable[[int, T | Failure], None]  # what is done with the result of a job


class Crew:
    """Jobs at work on one endpoint, and when they all stop."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        self.free = asyncio.Semaphore(caller.endpoint.parallel)
        self.in_a_row: list[Failure] = []
        self.counted: Counter[str] = Counter()
        self.stopped = False

    async def work(self, index: int, job: Job[T], take: Take[T]) -> None:
        """Do a job and hand its result over before the next one may begin."""
        async with self.free:
            if self.stopped:
                take(index, Failure(Outcome(kind="not begun", cause="not begun")))
                return
            try:
                result = await job(self.caller)
            except CallFailed as failed:
                self._note(failed)
                take(index, failed.failure)
                return
            self.in_a_row.clear()
            self.counted["done"] += 1
            take(index, result)

    def _note(self, failed: CallFailed) -> None:
        """Count a failure, and stop when the next calls would fail too."""
        kind = failed.failure.outcome.kind
        self.counted[kind] += 1
        if not failed.failure.permanent:
            self.in_a_row.append(failed.failure)
        all_thinking = kind == "thinking" and not self.counted["done"]
        if failed.final or len(self.in_a_row) >= GIVE_UP:
            self.stopped = True
        if all_thinking and self.counted["thinking"] >= THINKING_GIVE_UP:
            self.stopped = True


def run_jobs(
    endpoint: Endpoint,
    jobs: Sequence[Job[T]],
    policy: Policy,
    take: Take[T],
    spending: Spending | None = None,
) -> None:
    """Hand the result or failure of each job to `take` as it ends; `parallel` jobs run at once.

    A job's slot is free only when its result was taken: killed at any moment, no more than
    `parallel` calls are lost. After a final failure, or GIVE_UP failures in a row, the jobs not yet
    begun fail as not begun.
    """

    async def everything() -> None:
        async with Caller(endpoint, policy, spending) as caller:
            await caller.check()
            crew = Crew(caller)
            async with asyncio.TaskGroup() as group:
                for index, job in enumerate(jobs):
                    group.create_task(crew.work(index, job, take))

    try:
        asyncio.run(everything())
    except ExceptionGroup as errors:  # from `take`: a full disk
        raise errors.exceptions[0] from None


def check(endpoint: Endpoint) -> None:
    """Raise InputError if nothing answers at the endpoint's address or it refuses the key."""

    async def look() -> None:
        async with Caller(endpoint, {}) as caller:
            await caller.check()

    asyncio.run(look())
