"""Calls over real HTTP: what follows each outcome, within one budget of tries."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from mtbench_runner import endpoint as endpoints
from mtbench_runner.endpoint import (
    Call,
    Caller,
    CallFailed,
    Endpoint,
    address,
    fold_system,
    key_for,
    run_jobs,
)
from mtbench_runner.outcome import ANSWERING, JUDGING, TRIES, Failure, Outcome, Policy
from mtbench_runner.spending import Prices, Spending
from mtbench_runner.store import InputError

from .conftest import KEY, Handler, chat_completion, reply_with

SYSTEM = [{"role": "system", "content": "Be fair."}, {"role": "user", "content": "Rate it."}]
USER = [{"role": "user", "content": "Rate it."}]
SETTINGS = {"temperature": 0, "max_tokens": 100}
Results = dict[int, Outcome | Failure]


def ask(
    judge: Any,
    number: int = 1,
    policy: Policy = JUDGING,
    messages: list[dict[str, str]] = USER,
    spending: Spending | None = None,
    **limits: Any,
) -> Results:
    """The result of each of several calls."""
    found: Results = {}

    async def job(caller: Caller) -> Outcome:
        return await caller.complete(Call(messages, SETTINGS))

    def take(index: int, result: Outcome | Failure) -> None:
        found[index] = result

    limits = {"url": judge.url, "key": KEY, "parallel": 1, **limits}
    served = Endpoint("j", **limits)
    run_jobs(served, [job] * number, policy, take, spending)
    return found


def first_then_well(fault: Any) -> Callable[[int, Any], Any]:
    return lambda number, request: fault if number == 1 else None


def always(fault: Any) -> Callable[[int, Any], Any]:
    return lambda number, request: fault


def failure(results: Results) -> Failure:
    found = results[0]
    assert isinstance(found, Failure)
    return found


OVERFLOW = (400, {"error": {"message": "too long", "code": "context_length_exceeded"}})
FLAGGED = (403, {"error": {"message": "flagged", "metadata": {"reasons": ["violence"]}}})


def test_a_servers_address_without_a_path_gets_its_version(
    judge: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM prints http://0.0.0.0:8000, which is what people pass; /chat/completions is a 404."""
    judge.fault = lambda number, request: None
    assert isinstance(ask(judge, url=judge.url.removesuffix("/v1"))[0], Outcome)
    monkeypatch.setenv("OPENAI_BASE_URL", judge.url.removesuffix("v1"))
    assert isinstance(ask(judge, url=None)[0], Outcome)
    assert address("https://x.example/api/openai") == "https://x.example/api/openai"
    assert set(judge.paths) == {"/v1/chat/completions"}


def test_a_reply_that_is_cut_is_asked_again_with_more_room_once_for_all(judge: Any) -> None:
    judge.fault = lambda number, request: (
        reply_with("So far", "length") if request["max_tokens"] == 100 else None
    )
    results = ask(judge, number=3)
    assert [r.kind for r in results.values() if isinstance(r, Outcome)] == ["text"] * 3
    assert [r["max_tokens"] for r in judge.requests] == [100, 400, 400, 400]


def test_a_reply_that_is_cut_twice_is_taken_as_it_is(judge: Any) -> None:
    judge.fault = always(reply_with("So far [[4]]", "length"))
    found = ask(judge)[0]
    assert isinstance(found, Outcome)
    assert (found.kind, found.finish, found.text) == ("truncated", "length", "So far [[4]]")
    assert len(judge.requests) == 2
    judge.requests.clear()
    assert isinstance(ask(judge, policy=ANSWERING)[0], Outcome)
    assert len(judge.requests) == 1


def test_a_judge_that_only_thinks_is_given_up_on_at_the_second_reply(judge: Any) -> None:
    judge.fault = always(reply_with("", "length", {"completion_tokens": 400}))
    results = ask(judge, number=20)
    assert len(judge.requests) <= 4
    assert [r.cause for r in results.values() if isinstance(r, Failure)].count("not begun") == 18
    assert failure(results).permanent
    assert "all 400 tokens went into thinking" in failure(results).outcome.detail


@pytest.mark.parametrize(
    ("fault", "kind", "permanent", "tries"),
    [
        (OVERFLOW, "overflow", True, 2),  # the second time without a token limit
        (FLAGGED, "filtered", True, 1),
        (reply_with("", "content_filter"), "filtered", True, 1),
        (reply_with(None, refusal="No."), "refused", True, 1),
        (reply_with(None, "tool_calls", tool_calls=[{}]), "tool call", True, 2),
        (reply_with(""), "empty", False, 3),
        (reply_with("", "length"), "thinking", True, 2),
        ((200, b"<html>"), "wrong shape", False, 4),
        ((200, {"choices": []}), "wrong shape", False, 4),
        ((400, {"error": "no"}), "request", False, 1),
        ((403, {"error": "no"}), "forbidden", False, 1),
        ((422, {"detail": "no"}), "request", False, 1),
        ((429, {"error": "slow"}), "busy", False, TRIES),
        ((425, {}), "busy", False, TRIES),
        ((429, [{"error": {"message": "slow"}}]), "busy", False, TRIES),
        ((413, {"error": "large"}), "overflow", True, 2),
        ((400, [{"error": {"details": [{"reason": "API_KEY_INVALID"}]}}]), "key", False, 1),
        ((400, b"[" * 100_000), "request", False, 1),
        ((301, b""), "request", False, 1),
        ((307, b"", {"Location": "/v1/chat/completions"}), "request", False, 4),  # in a circle
        ((200, b"no gzip", {"Content-Encoding": "gzip"}), "wrong shape", False, 4),
        ((200, {"error": {"code": "context_length_exceeded"}}), "overflow", True, 2),
        (reply_with("$ERROR$"), "wrong shape", False, 4),
        ((503, b""), "busy", False, TRIES),
        ("reset", "unreachable", False, TRIES),
        ("cut", "broken off", False, 4),
        ("reset-midway", "broken off", False, 4),
        ((200, b"x", {"Content-Type": "application/json; charset=hex"}), "wrong shape", False, 4),
        ((501, b""), "request", False, 1),
        ("wrong-key", "key", False, 1),
        ("unknown-model", "model", False, 1),
    ],
)
def test_no_fault_costs_more_than_one_budget_and_its_cause_is_told(
    fault: Any, kind: str, permanent: bool, tries: int, judge: Any
) -> None:
    judge.fault = always(fault)
    found = failure(ask(judge))
    assert (found.outcome.kind, found.permanent) == (kind, permanent)
    assert found.cause
    assert len(judge.requests) == tries
    judge.fault = lambda number, request: None
    assert isinstance(ask(judge)[0], Outcome)


def test_faults_of_several_kinds_share_one_budget(judge: Any) -> None:
    judge.fault = lambda number, request: [(429, {}), (503, {}), "reset"][number % 3]
    failure(ask(judge))
    assert len(judge.requests) == TRIES


def test_an_overflow_of_one_prompt_keeps_the_limit_for_all_others(judge: Any) -> None:
    judge.fault = lambda number, request: OVERFLOW if number <= 2 else None
    results = ask(judge, number=3)
    assert isinstance(results[0], Failure)
    assert isinstance(results[1], Outcome)
    assert [r.get("max_tokens") for r in judge.requests] == [100, None, 100, 100]


def test_one_flagged_prompt_does_not_stop_the_others(judge: Any) -> None:
    judge.fault = first_then_well(FLAGGED)
    results = ask(judge, number=3)
    assert [isinstance(results[i], Failure) for i in range(3)] == [True, False, False]


def test_a_refused_key_stops_all(judge: Any) -> None:
    judge.fault = always("wrong-key")
    results = ask(judge, number=5)
    assert len(judge.requests) == 1
    causes = [result.cause for result in results.values() if isinstance(result, Failure)]
    assert causes == ["the endpoint refused the key (401)", *["not begun"] * 4]


def test_sixteen_failures_in_a_row_stop_all(judge: Any) -> None:
    judge.fault = always((403, {"error": "no"}))
    results = ask(judge, number=30)
    assert len(judge.requests) == endpoints.GIVE_UP
    assert len(results) == 30


def test_a_model_without_a_system_role_gets_it_folded_in(judge: Any) -> None:
    judge.fault = lambda number, request: (
        (400, {"error": {"message": "System role not supported"}})
        if request["messages"][0]["role"] == "system"
        else None
    )
    results = ask(judge, number=2, messages=SYSTEM)
    assert all(isinstance(result, Outcome) for result in results.values())
    assert len(judge.requests) == 3
    assert judge.requests[-1]["messages"] == [{"role": "user", "content": "Be fair.\n\nRate it."}]
    assert fold_system(USER) == USER


def test_an_empty_answer_is_an_answer_at_the_second_time(judge: Any) -> None:
    judge.fault = always(reply_with(""))
    found = ask(judge, policy=ANSWERING)[0]
    assert isinstance(found, Outcome)
    assert (found.kind, found.text, len(judge.requests)) == ("empty", "", 2)


def test_a_timeout_names_its_option(judge: Any) -> None:
    judge.fault = always("hang")
    found = failure(ask(judge, timeout=0.02))
    assert found.cause == "no reply within --timeout 0.02 s"
    assert found.outcome.kind == "timeout"


def test_a_deadline_names_its_option_and_what_was_last(judge: Any) -> None:
    judge.fault = always("hang")
    found = failure(ask(judge, deadline=0.1))
    assert found.cause == "no usable reply within --deadline 0.1 s"
    assert found.outcome.kind == "timeout"
    caller = Caller(Endpoint("j", judge.url, KEY, deadline=0.1), JUDGING)
    last = caller._too_late([Outcome("empty"), Outcome("busy", cause="server error (500)")])
    assert last.cause == f"{found.cause} after: server error (500)"
    assert last.kind == "timeout"


@pytest.fixture
def out_of_time_when_answering(monkeypatch: pytest.MonkeyPatch) -> None:
    """--timeout is over as soon as the head of a reply is read, and no clock says when that is."""
    limits: list[asyncio.Timeout] = []
    limit_of, note_response = asyncio.timeout, endpoints._note_response

    def limit(seconds: float | None) -> asyncio.Timeout:
        limits.append(limit_of(seconds))
        return limits[-1]

    async def note(response: object) -> None:
        await note_response(response)
        if limits:  # none while it is asked for its models
            limits[-1].reschedule(asyncio.get_running_loop().time())

    monkeypatch.setattr(asyncio, "timeout", limit)
    monkeypatch.setattr(endpoints, "_note_response", note)


@pytest.mark.usefixtures("out_of_time_when_answering")
@pytest.mark.parametrize("fault", ["stall", "drip"])
def test_a_reply_that_does_not_end_is_bounded_and_says_so(fault: str, judge: Any) -> None:
    """One that stops midway, and one of which a byte comes now and then, within any read timeout.

    The server has begun to answer, so that each attempt may be billed: four, as for other replies
    that are no use.
    """
    judge.fault = always(fault)
    found = failure(ask(judge, timeout=120.0))
    assert found.outcome.kind == "broken off"
    assert found.cause == "the reply did not end within --timeout 120 s"
    assert len(judge.requests) == 4


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "utf-8-sig"])
def test_json_in_any_unicode_encoding_is_read(encoding: str, judge: Any) -> None:
    judge.fault = always((200, json.dumps(chat_completion("[[7]] é")).encode(encoding)))
    found = ask(judge)[0]
    assert isinstance(found, Outcome)
    assert found.text == "[[7]] é"


@pytest.mark.parametrize("charset", ["iso-8859-1", "klingon", "hex", "idna"])
def test_a_charset_is_followed_where_it_is_one(charset: str, judge: Any) -> None:
    reply = json.dumps(chat_completion("[[7]] é"), ensure_ascii=False)
    content = reply.encode("iso-8859-1" if charset == "iso-8859-1" else "utf-8")
    headers = {"Content-Type": f"application/json; charset={charset}"}
    judge.fault = always((200, content, headers))
    found = ask(judge)[0]
    assert isinstance(found, Outcome)
    assert found.text == "[[7]] é"
    judge.fault = always((400, b'{"error": "no"}', headers))
    assert failure(ask(judge)).outcome.kind in ("request", "wrong shape")


def test_retry_after_is_followed_up_to_a_minute() -> None:
    assert endpoints._wait(Outcome("busy", retry_after=3.0), 5) == 3.0
    assert endpoints._wait(Outcome("busy", retry_after=999.0), 1) == endpoints.LONGEST_WAIT
    assert endpoints._retry_after({"retry-after-ms": "500"}) == 0.5
    assert endpoints._retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0
    until_2100 = endpoints._retry_after({"retry-after": "Fri, 01 Jan 2100 00:00:00 GMT"})
    assert endpoints._wait(Outcome("busy", retry_after=until_2100), 1) == endpoints.LONGEST_WAIT
    assert endpoints._retry_after({"retry-after": "soon"}) is None
    assert endpoints._retry_after({"retry-after": "nan"}) is None


@pytest.mark.parametrize(
    "fault",
    [
        (200, f"<html>Bearer {KEY}</html>".encode()),
        reply_with(f"Your key is {KEY}: [[7]]"),
        reply_with(None, refusal=f"Not with {KEY}."),
        reply_with(f"So far {KEY}", "content_filter"),
        (400, {"error": {"message": f"bad {KEY}"}}),
    ],
)
def test_a_server_that_echoes_the_key_does_not_get_it_into_any_outcome(
    fault: Any, judge: Any
) -> None:
    judge.fault = always(fault)
    assert KEY not in repr(ask(judge)[0])


def test_a_placeholder_for_a_key_is_an_ordinary_word_of_a_reply(judge: Any) -> None:
    judge.fault = always(reply_with("There is none. [[7]]"))
    found = ask(judge, key="none")[0]
    assert isinstance(found, Outcome)
    assert found.text == "There is none. [[7]]"


@pytest.mark.parametrize("usage", [{}, {"prompt_tokens": None}, 5, "x", None])
def test_odd_token_counts_do_no_harm(usage: Any, judge: Any) -> None:
    judge.fault = always(reply_with("[[7]]", usage=usage))
    found = ask(judge)[0]
    assert isinstance(found, Outcome)
    assert found.usage == {"prompt": None, "completion": None}


def test_choices_beyond_the_first_are_counted(judge: Any) -> None:
    body = chat_completion("[[7]]")
    body["choices"] *= 3
    judge.fault = always((200, body))
    found = ask(judge)[0]
    assert isinstance(found, Outcome)
    assert (found.text, found.choices_ignored) == ("[[7]]", 2)


def test_the_limit_of_costs_stops_before_it_is_passed(judge: Any) -> None:
    """100 tokens in and 10 out a call: 0.13 USD each at 1,000 and 3,000 USD a million."""
    spending = Spending(Prices(1000.0, 3000.0), limit=1.5)
    results = ask(judge, number=20, spending=spending)
    assert spending.spent == pytest.approx(0.13 * len(judge.requests))
    assert 0.6 < spending.spent <= 1.5
    causes = {result.cause for result in results.values() if isinstance(result, Failure)}
    assert causes == {"stopped by --max-cost", "not begun"}


@pytest.mark.usefixtures("out_of_time_when_answering")
def test_what_may_have_been_billed_counts_as_the_longest_reply(judge: Any) -> None:
    """100 tokens out at 3,000 USD a million are 0.30: a third attempt could pass 0.70."""
    judge.fault = always("stall")
    spending = Spending(Prices(0.0, 3000.0), limit=0.7)
    found = failure(ask(judge, spending=spending))
    assert found.cause == "stopped by --max-cost"
    assert len(judge.requests) == 2
    assert spending.spent == pytest.approx(0.6)


def test_a_call_that_its_deadline_ends_is_counted_and_keeps_none_waiting(judge: Any) -> None:
    """What was set aside for it no longer is: others would wait, each to its own deadline."""
    judge.fault = always("stall")
    spending = Spending(Prices(0.0, 3000.0), limit=0.7)
    results = ask(judge, number=3, deadline=0.5, spending=spending)
    assert failure(results).outcome.kind == "timeout"
    assert [r.cause for r in results.values() if isinstance(r, Failure)][2] == (
        "stopped by --max-cost"
    )
    assert spending.reserved == 0


def test_a_result_is_taken_before_the_slot_is_free(judge: Any) -> None:
    """A kill between two calls then loses neither: the first is on disk when the second begins."""
    seen: list[tuple[int, int]] = []

    async def job(caller: Caller) -> Outcome:
        return await caller.complete(Call(USER, SETTINGS))

    def take(index: int, result: Outcome | Failure) -> None:
        seen.append((index, len(judge.requests)))

    run_jobs(Endpoint("j", judge.url, KEY, parallel=1), [job] * 3, JUDGING, take)
    assert seen == [(0, 1), (1, 2), (2, 3)]


def test_an_error_while_a_result_is_taken_is_raised_as_it_is(judge: Any) -> None:
    async def job(caller: Caller) -> Outcome:
        return await caller.complete(Call(USER, SETTINGS))

    def take(index: int, result: Outcome | Failure) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        run_jobs(Endpoint("j", judge.url, KEY), [job], JUDGING, take)


def test_a_rate_limit_budget_spaces_calls_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    """600 a minute: each call begins a tenth of a second after the one before, or later."""

    async def at_once(seconds: float) -> None:
        pass

    async def slots() -> list[float]:
        caller = Caller(Endpoint("j", "http://127.0.0.1:9", KEY, requests_per_minute=600), JUDGING)
        found = []
        for _ in range(5):
            await caller._pace()
            found.append(caller.slot)
        return found

    monkeypatch.setattr("mtbench_runner.endpoint.asyncio.sleep", at_once)
    found = asyncio.run(slots())
    gaps = [after - before for before, after in zip(found, found[1:], strict=False)]
    assert all(gap >= 0.1 - 1e-9 for gap in gaps)


def test_connections_are_closed_before_their_event_loop_is(
    judge: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Left to the garbage collector they end in a traceback on standard error."""
    made: list[Caller] = []
    begin = Caller.__init__

    def remember(self: Caller, *args: Any) -> None:
        begin(self, *args)
        made.append(self)

    monkeypatch.setattr(Caller, "__init__", remember)
    ask(judge)
    endpoints.check(Endpoint("j", judge.url, KEY))
    assert [caller.client.is_closed() for caller in made] == [True, True]


def test_a_failed_call_says_its_cause() -> None:
    failed = CallFailed(Failure(Outcome("busy", cause="server error (500)")))
    assert str(failed) == "server error (500)"
    assert json.dumps(failed.failure.cause)


@pytest.mark.parametrize(
    "url", ["localhost:8000", "ftp://x/v1", "http://", "http://[::1/v1", "http://x:99999/v1", "//x"]
)
def test_what_is_no_url_is_a_wrong_call(url: str) -> None:
    with pytest.raises(InputError, match="is no URL of a server"):
        address(url)


def test_why_there_is_no_connection_is_told(judge: Any) -> None:
    """Plain HTTP where TLS is expected, and a port at which nothing listens."""
    with pytest.raises(InputError, match=r"nothing answers at https://.*SSL"):
        endpoints.check(Endpoint("j", judge.url.replace("http", "https", 1), KEY))
    with pytest.raises(InputError, match=r"nothing answers at http://127.0.0.1:9/v1/ \(.*failed\)"):
        endpoints.check(Endpoint("j", "http://127.0.0.1:9/v1", KEY))


def test_a_server_that_hangs_up_on_the_list_of_models_may_chat_all_the_same(
    judge: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Handler, "do_GET", lambda self: self.fault_reset())
    endpoints.check(Endpoint("j", judge.url, KEY))
    assert isinstance(ask(judge)[0], Outcome)


def test_a_web_page_is_no_endpoint(judge: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def page(self: Handler) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", "6")
        self.end_headers()
        self.wfile.write(b"<html>")

    monkeypatch.setattr(Handler, "do_GET", page)
    with pytest.raises(InputError, match="answers with a text in place of JSON"):
        endpoints.check(Endpoint("j", judge.url, KEY))


def test_no_secret_in_a_url_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "")  # set to nothing is not set
    assert address(None) == "https://api.openai.com/v1"
    url = "http://me:secret-1@127.0.0.1:9/v1?api-key=secret-2&x=secret-3"
    with pytest.raises(InputError, match="nothing answers at") as raised:
        endpoints.check(Endpoint("j", url, KEY))
    assert "secret" not in str(raised.value)
    assert "127.0.0.1:9/v1" in str(raised.value)


@pytest.mark.parametrize("key", [f"{KEY}\x00", f"sk\u2026{KEY}", f"{KEY}\n{KEY}"])
def test_a_key_that_no_header_can_hold_is_not_printed(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection's error would hold it: Illegal header value b'Bearer ...'."""
    monkeypatch.setattr("mtbench_runner.endpoint.os.environ", {"OPENAI_API_KEY": key})
    with pytest.raises(InputError, match="holds characters that no key has") as raised:
        key_for(None)
    assert KEY not in str(raised.value)
    monkeypatch.setattr("mtbench_runner.endpoint.os.environ", {"OPENAI_API_KEY": f" {KEY}\n"})
    assert key_for(None) == KEY
