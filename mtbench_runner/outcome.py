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

from mtbench_runner import thinking
from mtbench_runner.rows import Usage

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
    usage: Usage = field(default_factory=lambda: Usage(prompt=None, completion=None))
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


# --- status 200


def of_response(text: str) -> Outcome:
    """The outcome of a response body that came with status 200. Never raises."""
    try:
        body = json.loads(text)
    except ValueError:
        return _wrong_shape(text, "not JSON")
    if not isinstance(body, dict):
        return _wrong_shape(text, "not a JSON object")
    if body.get("error"):
        return _wrong_shape(text, f"an error under status 200: {_error_message(body)}")
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return _wrong_shape(text, "no choices")
    message = choices[0].get("message")
    if not isinstance(message, dict):
        return _wrong_shape(text, "no message")
    return _of_choice(choices[0], message, usage_of(body.get("usage")), text, len(choices) - 1)


def usage_of(value: object) -> Usage:
    """Token counts as a server gives them, or None for each that it does not give as a number."""
    counts = value if isinstance(value, dict) else {}
    return Usage(
        prompt=_count(counts.get("prompt_tokens")),
        completion=_count(counts.get("completion_tokens")),
    )


def _count(value: object) -> int | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return int(value) if is_number and value >= 0 else None  # type: ignore[operator, call-overload]


def _of_choice(
    choice: dict[str, Any], message: dict[str, Any], usage: Usage, raw: str, ignored: int
) -> Outcome:
    text = message_text(message.get("content"))
    thoughts = message.get("reasoning_content") or message.get("reasoning")
    finish = choice.get("finish_reason")
    refusal = message.get("refusal")
    found = Outcome(
        kind="text",
        text=text,
        thoughts=thoughts if isinstance(thoughts, str) else "",
        finish=finish if isinstance(finish, str) else None,
        usage=usage,
        raw=raw[:RAW_KEPT],
        choices_ignored=ignored,
    )
    kind, cause, detail = _name(found, refusal, bool(message.get("tool_calls")))
    if kind == "refused" and not text:
        text = str(refusal)
    return replace(found, kind=kind, cause=cause, detail=detail, text=text)


def _name(found: Outcome, refusal: object, calls_tool: bool) -> tuple[Kind, str, str]:
    """Kind, cause and detail of a choice."""
    said = thinking.strip_thinking(found.text)
    if found.finish == "content_filter":
        return "filtered", "filtered", "finish_reason content_filter"
    if isinstance(refusal, str) and refusal.strip():
        return "refused", "refused", refusal[:300]
    if found.finish == "length":
        if said:
            return "truncated", "truncated at the token limit", ""
        return "thinking", "no text within the token limit", _thinking_detail(found)
    if said:
        return "text", "", ""
    if calls_tool or found.finish in ("tool_calls", "function_call"):
        return "tool call", "tool call in place of text", ""
    if found.text.strip():
        return "empty", "empty reply after thinking", ""
    return "empty", "empty reply", ""


def _thinking_detail(found: Outcome) -> str:
    tokens = found.usage["completion"]
    spent = f"all {tokens} tokens" if tokens else "all tokens"
    return f"finish_reason length: {spent} went into thinking, or nothing was said"


def message_text(content: object) -> str:
    """The text of a message's content: a string, or a list of parts of which some are text."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    parts = []
    for part in content:
        if isinstance(part, dict) and isinstance(part.get("text"), str):
            parts.append(part["text"])
    return "".join(parts)


def _wrong_shape(text: str, what: str) -> Outcome:
    return Outcome(
        kind="wrong shape",
        cause="not a chat completion",
        detail=what,
        raw=text[:RAW_KEPT],
    )


# --- any other status

KEY_CODES = {
    "invalid_api_key",
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
    r"|exceeds? the (?:available|model'?s|maximum) context|input is too long",
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
        outer = body if isinstance(body, dict) else {}
        inner = outer.get("error", outer)
        error = inner if isinstance(inner, dict) else {}
        details = _details(outer.get("detail"))
        codes = [error.get("code"), error.get("type"), *(d.get("type") for d in details)]
        innermost = error.get("innererror")
        if isinstance(innermost, dict):
            codes.append(innermost.get("code"))
        metadata = error.get("metadata")
        flagged = isinstance(metadata, dict) and bool(
            metadata.get("flagged_input") or metadata.get("reasons")
        )
        params = [error.get("param"), *(_last(d.get("loc")) for d in details)]
        return cls(
            message=_clean(_error_message(body), key),
            codes=frozenset(code.lower() for code in codes if isinstance(code, str)),
            params=tuple(param for param in params if isinstance(param, str)),
            flagged=flagged,
            raw=_clean(json.dumps(body) if not isinstance(body, str) else body, key, RAW_KEPT),
        )


def _details(detail: object) -> list[dict[str, Any]]:
    """FastAPI's list of validation errors."""
    return [d for d in detail if isinstance(d, dict)] if isinstance(detail, list) else []


def _last(loc: object) -> object:
    return loc[-1] if isinstance(loc, list) and loc else None


def _error_message(body: object) -> str:
    if isinstance(body, str):
        return body
    if not isinstance(body, dict):
        return ""
    error = body.get("error", body)
    if isinstance(error, str):
        return error
    if not isinstance(error, dict):
        return ""
    for name in ("message", "detail", "msg"):
        if error.get(name):
            found = error[name]
            return found if isinstance(found, str) else json.dumps(found)
    return json.dumps(error) if error else ""


def _clean(text: str, key: str, limit: int = 300) -> str:
    """One line without the key."""
    if key:
        text = text.replace(key, "***")
    return " ".join(text.split())[:limit]


Named = tuple[Kind, str, str | None]  # kind, cause, the setting that is refused


def _name_error(status: int, facts: ErrorFacts, sent: set[str]) -> Named:
    """By status where that decides, then by the codes of the body, then by its sentence."""
    if status in (408, 409, 429) or status >= 500:
        return _name_busy(status, facts)
    if status == 401:
        return "key", "the endpoint refused the key (401)", None
    return _name_by_code(status, facts) or _name_by_sentence(status, facts, sent)


def _name_by_code(status: int, facts: ErrorFacts) -> Named | None:
    if facts.flagged or facts.codes & FILTER_CODES:
        return "filtered", f"filtered ({status})", None
    if facts.codes & OVERFLOW_CODES:
        return "overflow", "the prompt exceeds the context", None
    if status == 402 or facts.codes & QUOTA_CODES:
        return "quota", f"the quota is used up ({status})", None
    if facts.codes & MODEL_CODES:
        return "model", f"no such model ({status})", None
    if status == 403 and facts.codes & KEY_CODES:
        return "key", "the endpoint refused the key (403)", None
    return None


def _name_by_sentence(status: int, facts: ErrorFacts, sent: set[str]) -> Named:
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
    if facts.codes & QUOTA_CODES:
        return "quota", f"the quota is used up ({status})", None
    name = {408: "timeout", 409: "conflict", 429: "rate limit"}.get(status, "server error")
    return "busy", f"{name} ({status})", None


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
