"""Every reply of a chat server gets a name, and every name has a policy.

`of_response` names what came with status 200, `of_error` what came with another status or not at
all. Both read structured fields (finish_reason, refusal, error.code, error.param, detail.loc);
wording is consulted only where a server gives nothing else, by the patterns at the end of the file.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal
from urllib.parse import quote

from mtbench_runner import thinking
from mtbench_runner.rows import Usage
from mtbench_runner.store import replace_surrogates

Kind = Literal[
    # with status 200
    "text",
    "truncated",  # text, cut at the token limit
    "thinking",  # nothing but thoughts when the token limit came
    "empty",
    "refused",  # the model declines, by the field that says so
    "filtered",  # a content filter took the prompt or the reply
    "tool call",
    "wrong shape",  # not a chat completion
    "broken off",  # the reply began and did not end
    # otherwise
    "overflow",  # the prompt does not fit into the context
    "setting",  # the model does not take a setting that was sent
    "system role",  # the model does not take a system message
    "key",
    "forbidden",
    "model",
    "quota",
    "request",
    "busy",  # 408, 409, 429, 5xx
    "timeout",
    "unreachable",
    "spent",  # --max-cost is reached
    "not begun",  # another call had ended the run
]
Action = Literal[
    "accept", "retry", "raise the cap", "drop the limit", "leave it out", "fold the system message",
    "give up", "record", "stop",
]  # fmt: skip
Policy = dict[Kind, tuple[Action, ...]]

TRIES = 12  # attempts at one call, whatever was wrong with them; the deadline may end it sooner
ERRORS: Policy = {
    # what to do at the first, second, ... outcome of the kind in one call; the last one stays.
    # retry: up to TRIES; give up: this call failed, the next run tries it again; record: it is not
    # tried again unless asked to; stop: every other call would fail too
    "wrong shape": ("retry", "retry", "retry", "give up"),
    "broken off": ("retry", "retry", "retry", "give up"),
    "tool call": ("retry", "record"),
    "filtered": ("record",),
    "overflow": ("drop the limit", "record"),
    "setting": ("leave it out",),
    "system role": ("fold the system message", "give up"),
    "key": ("stop",),
    "forbidden": ("give up",),
    "model": ("stop",),
    "quota": ("stop",),
    "request": ("give up",),
    "busy": ("retry",),
    "timeout": ("retry",),
    "unreachable": ("retry",),
    "spent": ("stop",),
    "not begun": ("give up",),
}
# a reply was written, and billed; a filter, too, often acts after the model has written
BILLED: frozenset[Kind] = frozenset({"wrong shape", "tool call", "filtered"})
# it may have been written, and how much of it nobody knows
MAYBE_BILLED: frozenset[Kind] = frozenset({"broken off", "timeout"})
UNBILLED = frozenset(ERRORS) - BILLED - MAYBE_BILLED
JUDGING: Policy = ERRORS | {
    "text": ("accept",),
    "truncated": ("raise the cap", "accept"),
    "thinking": ("raise the cap", "record"),
    "empty": ("retry", "retry", "give up"),
    "refused": ("record",),
}
ANSWERING: Policy = ERRORS | {
    "text": ("accept",),
    "truncated": ("accept",),
    "thinking": ("accept",),
    "empty": ("retry", "accept"),
    "refused": ("accept",),
}
UNKNOWN_USAGE: Usage = {"prompt": None, "completion": None}
SHORTEST_KEY = 8
MOST_DIGITS = 4000
MOST_TOKENS = 10**12  # of one reply; what is more is no count
RAW_KEPT = 20_000  # characters of a reply that are kept for a person to look at


@dataclass(frozen=True)
class Outcome:
    """What one call came to.

    `text` is what the model said, thoughts included, `thoughts` what a server gave apart from it;
    `cause` is a short name for a histogram, `detail` the server's own words.
    """

    kind: Kind
    text: str = ""
    thoughts: str = ""
    finish: str | None = None
    usage: Usage = field(default_factory=UNKNOWN_USAGE.copy)
    cause: str = ""
    detail: str = ""
    raw: str = ""
    setting: str | None = None  # the one that the model does not take
    retry_after: float | None = None  # seconds
    choices_ignored: int = 0
    settings: dict[str, Any] = field(default_factory=dict)  # that were sent

    @property
    def full_text(self) -> str:
        """The text with the thoughts that a server gave in a field of their own."""
        return f"<think>{self.thoughts}</think>{self.text}" if self.thoughts else self.text


@dataclass(frozen=True)
class Failure:
    """A call or job that came to nothing. Permanent: asking again would not help."""

    outcome: Outcome
    permanent: bool = False

    @property
    def cause(self) -> str:
        return self.outcome.cause


def histogram(causes: Iterable[str]) -> str:
    """`3 timeout, 1 filtered`: most frequent first."""
    counted = Counter(causes).most_common()
    return ", ".join(f"{number} {cause}" for cause, number in counted)


def first_detail(failures: Iterable[Failure]) -> str:
    """The server's words on the first failure that has any."""
    for failure in failures:
        if failure.outcome.detail:
            return failure.outcome.detail
    return ""


def number_ignored(outcomes: Iterable[Outcome]) -> int:
    """How many choices beyond the first the replies had."""
    return sum(outcome.choices_ignored for outcome in outcomes)


# --- status 200

ERROR_TEXT = "$ERROR$"  # what FastChat, also as a server, says in place of a reply
# finish_reason in the words of other servers than OpenAI's, in lower case
FINISHES = {
    "length": (
        "length", "max_tokens", "max_output_tokens", "model_length", "max_length",
        "model_context_window_exceeded", "error_limit",
    ),
    "content_filter": (
        "content_filter", "content_filtered", "safety", "image_safety", "recitation", "blocklist",
        "spii", "prohibited_content", "guardrail_intervened", "sensitive", "error_toxic",
    ),
    "refusal": ("refusal",),
    "error": (
        "error", "abort", "aborted", "cancelled", "canceled", "timeout", "network_error",
        "insufficient_system_resource",
    ),
}  # fmt: skip
STREAM = re.compile(r"\s*(?:data|event|id|retry)?:")  # the first line of server-sent events
THINKING_PARTS = ("thinking", "reasoning", "reasoning_content", "redacted_thinking")


def of_response(text: str, key: str = "") -> Outcome:
    """The outcome of a response body that came with status 200, the key cut out. Never raises."""
    text = without_key(text, key)
    try:
        body, text = _read_body(text, key)
    except (ValueError, RecursionError):
        what = "an event stream" if STREAM.match(text) else "not JSON"
        return _wrong_shape(text, f"{what}: {_clean(text, limit=80)}")
    if not isinstance(body, dict):
        return _wrong_shape(text, "not a JSON object")
    choices = body.get("choices")
    if body.get("error") or (not choices and not isinstance(choices, list)):
        return _of_error_in_200(text, body)
    found = _first_choice(choices)
    if found is None:
        return _wrong_shape(text, "no choices")
    if found.get("error"):
        return _of_error_in_200(text, found)
    message = found.get("message")
    if not isinstance(message, dict):
        return _wrong_shape(text, "no message")
    ignored = len(body["choices"]) - 1
    return _of_choice(found, message, usage_of(body.get("usage")), text, ignored)


def _read_body(text: str, key: str) -> tuple[Any, str]:
    """A response's JSON, and its text; without the key also where that stood there in escapes."""
    body = json.loads(text.removeprefix("\ufeff"), parse_int=_whole, strict=False)
    spelled_out = json.dumps(body, ensure_ascii=False)
    if without_key(spelled_out, key) == spelled_out:
        return body, text
    text = without_key(spelled_out, key)
    return json.loads(text), text


def _whole(digits: str) -> int | float:
    """A whole number, or infinity in place of one of more digits than Python reads."""
    return int(digits) if len(digits) < MOST_DIGITS else float("inf")


def _first_choice(choices: object) -> dict[str, Any] | None:
    """The choice of the lowest index, wherever it stands; without indices the first."""
    if not isinstance(choices, list) or not choices:
        return None
    if not isinstance(choices[0], dict):
        return None
    found = [choice for choice in choices if isinstance(choice, dict)]
    return min(found, key=_index)


def _index(choice: dict[str, Any]) -> float:
    """The place that a choice says it has; behind all others if it says none."""
    index = choice.get("index")
    return index if isinstance(index, int | float) and index == index else float("inf")


def _of_error_in_200(text: str, body: dict[str, Any]) -> Outcome:
    """An error that came with status 200: by its own code, else not a chat completion."""
    facts = ErrorFacts.read(body)
    status = _status_of(body)
    found = _name_error(status, facts, set()) if status else _name_by_code(200, facts)
    if found is None:
        what = "an error under status 200" if body.get("error") else "no choices"
        return _wrong_shape(text, f"{what}: {facts.message}"[:300])
    kind, cause, _ = found
    return Outcome(kind, cause=cause, detail=f"200: {facts.message}", raw=text[:RAW_KEPT])


def _status_of(body: dict[str, Any]) -> int | None:
    """The error status in a body, as a number or in digits."""
    inner = body.get("error", body)
    code = str(inner.get("code")) if isinstance(inner, dict) else ""
    return int(code) if re.fullmatch("[45][0-9][0-9]", code) else None


def usage_of(value: object) -> Usage:
    """Token counts as a server gives them, or None for each that it does not give as a number."""
    counts = value if isinstance(value, dict) else {}
    return Usage(
        prompt=_count(counts.get("prompt_tokens", counts.get("input_tokens"))),
        completion=_count(counts.get("completion_tokens", counts.get("output_tokens"))),
    )


def _count(value: object) -> int | None:
    """A number of tokens; None for what is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if 0 <= value <= MOST_TOKENS else None


def _of_choice(
    choice: dict[str, Any], message: dict[str, Any], usage: Usage, raw: str, ignored: int
) -> Outcome:
    """The outcome of a reply by its one choice."""
    content = Content.read(message)
    if content is None:
        return _wrong_shape(raw, "content is neither text nor parts with text")
    found = Outcome(
        kind="text",
        text=content.text,
        thoughts=content.thoughts,
        finish=finish_of(choice.get("finish_reason")),
        usage=usage,
        raw=raw[:RAW_KEPT],
        choices_ignored=ignored,
    )
    calls_tool = bool(message.get("tool_calls") or message.get("function_call"))
    outcome = named(found, content.refusal, calls_tool)
    if outcome.kind == "refused" and not outcome.text:
        return replace(outcome, text=content.refusal)
    return outcome


def named(found: Outcome, refusal: str = "", calls_tool: bool = False) -> Outcome:
    """A reply under its name: by its finish reason, what it says, and what it does instead."""
    kind, cause, detail = _name(found, refusal, calls_tool)
    return replace(found, kind=kind, cause=cause, detail=detail)


def finish_of(value: object) -> str | None:
    """A finish_reason in OpenAI's words where it is one of `FINISHES`, else as it came."""
    if not isinstance(value, str):
        return None
    for name, words in FINISHES.items():
        if value.lower() in words:
            return name
    return value


def _name(found: Outcome, refusal: str, calls_tool: bool) -> tuple[Kind, str, str]:
    """Kind, cause and detail of a choice."""
    said = thinking.strip_thinking(found.text)
    if found.finish == "content_filter":
        return "filtered", "filtered", "finish_reason content_filter"
    if refusal or found.finish == "refusal":
        return "refused", "refused", refusal[:300]
    if found.finish == "error":
        return "broken off", "the reply was broken off by an error", "finish_reason error"
    if said == ERROR_TEXT:
        return "wrong shape", f"{ERROR_TEXT} in place of text", ""
    if not said:
        return _name_without_text(found, calls_tool)
    if found.finish == "length":
        return "truncated", "truncated at the token limit", ""
    return "text", "", ""


def _name_without_text(found: Outcome, calls_tool: bool) -> tuple[Kind, str, str]:
    """The same of a choice that says nothing."""
    if found.finish == "length":
        return "thinking", "no text within the token limit", _thinking_detail(found)
    if calls_tool or found.finish in ("tool_calls", "function_call"):
        return "tool call", "tool call in place of text", ""
    why = f"finish_reason {found.finish}" if found.finish not in (None, "", "stop") else ""
    if found.text.strip() or found.thoughts:
        return "empty", "empty reply after thinking", why
    return "empty", "empty reply", why


def _thinking_detail(found: Outcome) -> str:
    """What is said of a reply that never came to speak."""
    tokens = found.usage["completion"]
    spent = f"all {tokens} tokens" if tokens else "all tokens"
    return f"finish_reason length: {spent} went into thinking, or nothing was said"


@dataclass(frozen=True)
class Content:
    """What a message holds: text, thoughts that stand apart from it, and a refusal."""

    text: str = ""
    thoughts: str = ""
    refusal: str = ""

    @classmethod
    def read(cls, message: dict[str, Any]) -> "Content | None":
        """From a message whose content is text, a list of parts or nothing; None: it is neither."""
        content = message.get("content")
        said = cls()
        if content not in (None, "", []):
            said = cls._of_parts([content] if isinstance(content, str) else content)
            if said == cls():
                return None
        apart = message.get("reasoning_content") or message.get("reasoning")
        thoughts = said.thoughts + (apart if isinstance(apart, str) else "")
        refusal = said.refusal + _refusal(message.get("refusal"))
        return cls(
            replace_surrogates(said.text),
            replace_surrogates(thoughts),
            replace_surrogates(refusal),
        )

    @classmethod
    def _of_parts(cls, parts: object) -> "Content":
        """From the parts of a content, which is empty if these are no list."""
        texts, thoughts, refusals = "", "", ""
        for part in parts if isinstance(parts, list) else []:
            kind, text = _part(part)
            if kind in THINKING_PARTS:
                thoughts += text
            elif kind == "refusal":
                refusals += text
            else:
                texts += text
        return cls(texts, thoughts, refusals)


def _part(part: object) -> tuple[str, str]:
    """Type and text of one part of a content, whichever of the usual shapes it has."""
    if isinstance(part, str):
        return "text", part
    if not isinstance(part, dict):
        return "", ""
    kind = str(part.get("type", "text"))
    found = part.get(kind) or part.get("text")
    if isinstance(found, dict):
        found = found.get("value")
    if isinstance(found, list):
        found = "".join(_part(inner)[1] for inner in found)
    return kind, found if isinstance(found, str) else ""


def _refusal(value: object) -> str:
    """The refusal in a message, which may be of any type, as text."""
    if isinstance(value, str):
        return value.strip()
    return json.dumps(value) if value else ""


def _wrong_shape(text: str, what: str) -> Outcome:
    """The outcome of a body that is no chat completion."""
    return Outcome(
        kind="wrong shape",
        cause="not a chat completion",
        detail=what,
        raw=text[:RAW_KEPT],
    )


# --- any other status

KEY_CODES = {
    "invalid_api_key",
    "api_key_invalid",
    "incorrect_api_key",
    "authentication_error",
    "invalid_authentication",
    "permission_error",
    "permission_denied",
    "account_deactivated",
}
MODEL_CODES = {"model_not_found", "deployment_not_found", "deploymentnotfound"}
QUOTA_CODES = {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"}
FILTER_CODES = {
    "content_filter",
    "content_policy_violation",
    "responsibleaipolicyviolation",
    "moderation_blocked",
    "flagged",
    "data_inspection_failed",
}
OVERFLOW_CODES = {"context_length_exceeded", "string_above_max_length", "exceed_context_size_error"}
SETTING_CODES = {
    "unsupported_parameter",
    "unsupported_value",
    "unknown_parameter",
    "invalid_parameter",
    "extra_forbidden",
    "value_error.extra",
}
# sentences of servers that give no code
OVERFLOW = re.compile(
    r"maximum context length|context (?:length|window|size)|prompt is too long"
    r"|exceeds? the (?:available|model'?s|maximum) context|input is too long|too many tokens"
    r"|must have less than \d+ tokens",
    re.IGNORECASE,
)
REFUSED_SETTING = re.compile(
    r"(?:unsupported|unrecognized|unknown|unexpected|unpermitted|extra)\s+(?:request\s+)?"
    r"(?:parameter|argument|keyword argument|field|input|value|property)s?(?:\s+supplied)?"
    r"\W+(?P<after>\w+)"
    r"|['\"`](?P<before>\w+)['\"`]\W+(?:is |are )?(?:not|un)\s?(?:supported|permitted|allowed)"
    r"|extra_forbidden\W+loc\W+body\W+(?P<inside>\w+)",
    re.IGNORECASE,
)
SYSTEM_ROLE = re.compile(
    r"system (?:role|message|prompt)s?\b[^.]{0,40}\bnot (?:be )?(?:supported|allowed|permitted)"
    r"|(?:does not|doesn't|not) support[^.]{0,30}\bsystem\b",
    re.IGNORECASE,
)


def of_error(status: int, body: object, sent: Iterable[str], key: str = "") -> Outcome:
    """The outcome of a response with an error status; `sent` names the settings of the request."""
    facts = ErrorFacts.read(body, key)
    kind, cause, setting = _name_error(status, facts, set(sent))
    return Outcome(
        kind=kind,
        cause=cause,
        detail=f"{status}: {facts.message}" if facts.message else str(status),
        raw=facts.raw,
        setting=setting,
    )


@dataclass(frozen=True)
class ErrorFacts:
    """What an error body says, whichever of the usual shapes it has."""

    message: str
    codes: frozenset[str]  # error.code, error.type and the like, in lower case
    params: tuple[str, ...]  # the settings that it names in a field
    flagged: bool  # it carries what a moderation found
    raw: str

    @classmethod
    def read(cls, body: object, key: str = "") -> "ErrorFacts":
        """From a body as JSON, or as text where it is none; the key is cut out."""
        if isinstance(body, list) and len(body) == 1:  # Google's
            body = body[0]
        outer = body if isinstance(body, dict) else {}
        inner = outer.get("error", outer)
        error = inner if isinstance(inner, dict) else {}
        written = body if isinstance(body, str) else json.dumps(body)
        return cls(
            message=_clean(_error_message(body), key),
            codes=_codes(outer, error),
            params=_params(outer, error),
            flagged=_is_flagged(error),
            raw=_clean(written, key, RAW_KEPT),
        )


def _codes(outer: dict[str, Any], error: dict[str, Any]) -> frozenset[str]:
    """Every code and type in an error body, in lower case."""
    found = [error.get("code"), error.get("type")]
    found += [detail.get("type") for detail in _details(outer.get("detail"))]
    found += [detail.get("reason") for detail in _details(error.get("details"))]
    innermost = error.get("innererror")
    if isinstance(innermost, dict):
        found.append(innermost.get("code"))
    return frozenset(code.lower() for code in found if isinstance(code, str))


def _params(outer: dict[str, Any], error: dict[str, Any]) -> tuple[str, ...]:
    """Every setting that an error body names in a field."""
    found = [error.get("param")]
    found += [_last(detail.get("loc")) for detail in _details(outer.get("detail"))]
    return tuple(param for param in found if isinstance(param, str))


def _is_flagged(error: dict[str, Any]) -> bool:
    """Whether a moderation's findings are in the error."""
    metadata = error.get("metadata")
    if not isinstance(metadata, dict):
        return False
    return bool(metadata.get("flagged_input") or metadata.get("reasons"))


def _details(detail: object) -> list[dict[str, Any]]:
    """FastAPI's list of validation errors."""
    if not isinstance(detail, list):
        return []
    return [entry for entry in detail if isinstance(entry, dict)]


def _last(loc: object) -> object:
    return loc[-1] if isinstance(loc, list) and loc else None


def _error_message(body: object) -> str:
    """The server's sentence; where no field has one, all that it said."""
    error = body.get("error") or body if isinstance(body, dict) else body
    if isinstance(error, str):
        return error
    if not isinstance(error, dict):
        return json.dumps(error) if error else ""
    for name in ("message", "detail", "msg"):
        if error.get(name):
            found = error[name]
            return found if isinstance(found, str) else json.dumps(found)
    return json.dumps(error) if error else ""


def _clean(text: str, key: str = "", limit: int = 300) -> str:
    """One line without the key."""
    return " ".join(without_key(text, key).split())[:limit]


def without_key(text: str, key: str) -> str:
    """The text with *** in place of the key, if it is one: some are placeholders such as `none`.

    Also as JSON or a URL writes it.
    """
    if len(key) < SHORTEST_KEY:
        return text
    in_json = json.dumps(key)[1:-1]
    in_url = quote(key, safe="")
    for written in (key, in_json, in_url):
        text = text.replace(written, "***")
    return text


Named = tuple[Kind, str, str | None]  # kind, cause, the setting that is refused
NEVER = (501, 505)  # not implemented, version not supported: asking again would not help
BUSY = {408: "timeout", 409: "conflict", 425: "too early", 429: "rate limit"}


def _name_error(status: int, facts: ErrorFacts, sent: set[str]) -> Named:
    """By status where that decides, then by the codes of the body, then by its sentence."""
    if status in BUSY or (status >= 500 and status not in NEVER):
        return _name_busy(status, facts)
    if status < 400:
        return "request", f"redirected to nowhere ({status})", None
    if status == 401:
        return "key", "the endpoint refused the key (401)", None
    return _name_by_code(status, facts) or _name_by_sentence(status, facts, sent)


def _name_by_code(status: int, facts: ErrorFacts) -> Named | None:
    """The name of an error by its codes; None where they tell nothing."""
    if facts.flagged or facts.codes & FILTER_CODES:
        return "filtered", f"filtered ({status})", None
    if status == 413 or facts.codes & OVERFLOW_CODES:
        return "overflow", "the prompt exceeds the context", None
    if status == 402 or facts.codes & QUOTA_CODES:
        return "quota", f"the quota is used up ({status})", None
    if facts.codes & MODEL_CODES:
        return "model", f"no such model ({status})", None
    if facts.codes & KEY_CODES:
        return "key", f"the endpoint refused the key ({status})", None
    return None


def _name_by_sentence(status: int, facts: ErrorFacts, sent: set[str]) -> Named:
    """The name of an error by its sentence and status."""
    if OVERFLOW.search(facts.message):
        return "overflow", "the prompt exceeds the context", None
    if status == 404:
        return "model", "no such model or address (404)", None
    if status == 403:
        return "forbidden", "forbidden (403)", None
    if SYSTEM_ROLE.search(facts.message):
        return "system role", "a system message is not supported", None
    if setting := refused_setting(facts, sent):
        return "setting", f"{setting} is not supported", setting
    return "request", f"bad request ({status})", None


def _name_busy(status: int, facts: ErrorFacts) -> Named:
    """The name of an error that may pass, and of a used-up quota, which comes under 429 too."""
    if facts.codes & QUOTA_CODES:
        return "quota", f"the quota is used up ({status})", None
    return "busy", f"{BUSY.get(status, 'server error')} ({status})", None


def refused_setting(facts: ErrorFacts, sent: set[str]) -> str | None:
    """The setting that was sent and is refused: by a field of the error, else by its sentence."""
    says_so = facts.codes & SETTING_CODES or REFUSED_SETTING.search(facts.message)
    if says_so:
        for param in facts.params:
            if param in sent:
                return param
    for match in REFUSED_SETTING.finditer(facts.message):
        name = match["after"] or match["before"] or match["inside"]
        if name in sent:
            return name
    return None
