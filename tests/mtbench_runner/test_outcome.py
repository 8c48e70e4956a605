"""Names of replies: what servers really send, each in the words of one of them."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtbench_runner.outcome import (
    ANSWERING,
    ERRORS,
    JUDGING,
    RAW_KEPT,
    histogram,
    of_error,
    of_response,
    usage_of,
)

SENT = ["temperature", "max_tokens", "seed", "extra_body", "chat_template_kwargs"]


def body(finish: str | None = "stop", usage: Any = None, **message: Any) -> str:
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", **message}}
    return json.dumps({"choices": [choice], "usage": usage})


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (body(content="Rating: [[7]]"), "text"),
        (body(content=[{"type": "text", "text": "Rating: [[7]]"}]), "text"),
        (body("length", content="Rating"), "truncated"),
        (body("length", content=""), "thinking"),
        (body("length", content=None, reasoning_content="hm"), "thinking"),
        (body("length", content="<think>hm, [[3]]"), "thinking"),
        (body("length", content="<think>hm</think>so"), "truncated"),
        (body(content=""), "empty"),
        (body(content=None), "empty"),
        (body(content="  \n"), "empty"),
        (body(content="<think>hm</think>"), "empty"),
        (body(content=None, refusal="I cannot judge this."), "refused"),
        (body("content_filter", content=""), "filtered"),
        (body("content_filter", content="Rat"), "filtered"),
        (body("tool_calls", content=None, tool_calls=[{"id": "1"}]), "tool call"),
        (body("function_call", content=None), "tool call"),
        (body(content="Rating: [[7]]", tool_calls=[]), "text"),
        ("<html>Rating: [[10]]</html>", "wrong shape"),
        ("[1]", "wrong shape"),
        ('{"choices": []}', "wrong shape"),
        ('{"choices": [null]}', "wrong shape"),
        ('{"choices": [{"message": "x"}]}', "wrong shape"),
        ('{"error": {"message": "overloaded", "code": 529}}', "busy"),
        ('{"error": "overloaded"}', "wrong shape"),
        ('{"error": ["overloaded"]}', "wrong shape"),
        ('{"error": {"code": "context_length_exceeded"}}', "overflow"),
        ('{"error": {"code": "insufficient_quota"}}', "quota"),
        ('{"error": {"message": "bad key", "code": 401}}', "key"),
        ('{"object": "error", "code": 400, "message": "maximum context length is 9"}', "overflow"),
        ('{"choices": [{"error": {"code": 502}, "message": {"content": "[[7]]"}}]}', "busy"),
        ('{"detail": "not found"}', "wrong shape"),
        # finish_reason in other servers' words
        (body("MAX_TOKENS", content="Rating: [[7]]"), "truncated"),
        (body("model_length", content=""), "thinking"),
        (body("SAFETY", content="Rating: [[7]]"), "filtered"),
        (body("guardrail_intervened", content=""), "filtered"),
        (body("refusal", content="No."), "refused"),
        (body("error", content="Rating: [[7]]"), "broken off"),
        (body("network_error", content="Rating: [[7]]"), "broken off"),
        (body("IMAGE_SAFETY", content=""), "filtered"),
        (body("ERROR_TOXIC", content="Rating: [[7]]"), "filtered"),
        (body("model_context_window_exceeded", content=""), "thinking"),
        (body("ERROR_LIMIT", content="Rating: [[7]]"), "truncated"),
        ('{"error": {"message": "slow", "code": "429"}}', "busy"),
        (body("end_turn", content="Rating: [[7]]"), "text"),
        (body(None, content="Rating: [[7]]"), "text"),
        (body({"type": "stop"}, content="Rating: [[7]]"), "text"),  # type: ignore[arg-type]
        # contents of other shapes: none of them is an empty answer
        (body(content={"text": "Rating: [[7]]"}), "wrong shape"),
        (body(content=7), "wrong shape"),
        (body(content=[{"type": "image_url", "image_url": {"url": "x"}}]), "wrong shape"),
        (body(content=["Rating: ", "[[7]]"]), "text"),
        (body(content=[{"type": "text", "text": {"value": "Rating: [[7]]"}}]), "text"),
        (body(content=[{"type": "refusal", "refusal": "No."}]), "refused"),
        (body(content=None, refusal=["No."]), "refused"),
        (body(content=[]), "empty"),
        (body(content=None, reasoning="Rating: [[2]]"), "empty"),
        (body(content=[{"type": "reasoning", "text": "Rating: [[2]]"}]), "empty"),
        (body(content=None, function_call={"name": "f"}), "tool call"),
        (body(content="$ERROR$"), "wrong shape"),
        ("[" * 100_000, "wrong shape"),
        ('{"choices": [{"message": {"content": "x"}}], "n": 1' + "0" * 5000 + "}", "text"),
        ('{"choices": [{"message": {"content": "two\nlines"}}]}', "text"),  # a raw newline in it
        ("data: {}\n\ndata: [DONE]\n", "wrong shape"),
        ("", "wrong shape"),
        ('{"choices": [{"text": "a completion, not a chat"}]}', "wrong shape"),
    ],
)
def test_every_reply_has_a_name(text: str, kind: str) -> None:
    outcome = of_response(text)
    assert outcome.kind == kind
    assert (outcome.cause == "") == (kind == "text")
    assert outcome.raw == text[:RAW_KEPT]


def test_thoughts_in_a_part_of_their_own_are_no_text() -> None:
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "Maybe [[2]]."}]}
    reasoning = {"type": "reasoning", "text": "Or [[3]]."}
    found = of_response(body(content=[thinking, reasoning, {"type": "text", "text": "[[7]]"}]))
    assert (found.text, found.thoughts) == ("[[7]]", "Maybe [[2]].Or [[3]].")


def test_the_choice_of_the_lowest_index_is_the_first_wherever_it_stands() -> None:
    choices = [{"index": i, "message": {"content": f"[[{i}]]"}} for i in (1, 0)]
    found = of_response(json.dumps({"choices": choices}))
    assert (found.text, found.choices_ignored) == ("[[0]]", 1)


def test_without_a_choice_zero_the_lowest_index_counts() -> None:
    choices = []
    for index, text in ((3, "[[3]]"), (1, "[[1]]"), (None, "[[9]]")):
        choices.append({"index": index, "message": {"content": text}})
    assert of_response(json.dumps({"choices": choices})).text == "[[1]]"


def test_a_key_in_escapes_is_cut_out_all_the_same() -> None:
    """As JSON may write any letter, and as a URL writes some."""
    key = "sk-+abc/def="
    spelled = "".join(f"\\u{ord(letter):04x}" for letter in key)
    for text in (spelled, key, "sk-%2Babc%2Fdef%3D"):
        found = of_response(body(content="[[7]] X").replace("X", text), key)
        assert found.text == "[[7]] ***"
        assert spelled not in found.raw
        assert "abc" not in found.raw
        error = of_error(400, json.loads(f'{{"error": {{"message": "{text}"}}}}'), [], key)
        assert error.detail == "400: ***"


@pytest.mark.parametrize("said", [{"error": ["boom"]}, {"error": {"no": "boom"}}, ["boom"], "boom"])
def test_what_a_server_said_is_told_whatever_its_shape(said: Any) -> None:
    assert "boom" in of_error(400, said, []).detail


def test_an_empty_reply_tells_why_it_ended() -> None:
    assert of_response(body("MALFORMED_FUNCTION_CALL", content="")).detail == (
        "finish_reason MALFORMED_FUNCTION_CALL"
    )
    assert of_response(body(content="")).detail == ""


def test_a_stream_is_called_one() -> None:
    assert of_response('data: {"choices": []}\n\n').detail.startswith("an event stream")
    assert of_response('{"output": []}').detail.startswith("no choices: ")


def test_a_byte_order_mark_and_half_a_surrogate_pair_do_no_harm() -> None:
    found = of_response("\ufeff" + body(content="a\ud800b\U0001f600 [[7]]"))
    assert found.text == "a\ufffdb\U0001f600 [[7]]"


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 3, "completion_tokens": 4}, (3, 4)),
        ({"prompt_tokens": 3.0, "completion_tokens": 0}, (3, 0)),
        ({"input_tokens": 3, "output_tokens": 4}, (3, 4)),
        ({"prompt_tokens": float("inf"), "completion_tokens": float("nan")}, (None, None)),
        ({}, (None, None)),
        (None, (None, None)),
        ({"prompt_tokens": None, "completion_tokens": "4"}, (None, None)),
        ({"prompt_tokens": True, "completion_tokens": -1}, (None, None)),
        ({"prompt_tokens": 10**400, "completion_tokens": 1e300}, (None, None)),
        (5, (None, None)),
        ("many", (None, None)),
        ([1, 2], (None, None)),
    ],
)
def test_token_counts_of_any_shape(usage: Any, expected: tuple[Any, Any]) -> None:
    counts = usage_of(usage)
    assert (counts["prompt"], counts["completion"]) == expected
    assert of_response(body(content="x", usage=usage)).usage == counts


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "message", "content", "usage", "error", "detail", "loc"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


@given(value=JSON)
def test_no_body_is_a_traceback(value: Any) -> None:
    assert of_response(json.dumps(value)).kind in JUDGING
    assert of_error(400, value, SENT).kind in ERRORS


def error(message: str, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, **more}}


OVERFLOW = "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens"


@pytest.mark.parametrize(
    ("status", "content", "kind", "setting"),
    [
        # OpenAI
        (401, error("Incorrect API key provided: sk-x", code="invalid_api_key"), "key", None),
        (400, error(OVERFLOW, code="context_length_exceeded", param="messages"), "overflow", None),
        (
            400,
            error(
                "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
                "'max_completion_tokens' instead.",
                code="unsupported_parameter",
                param="max_tokens",
            ),
            "setting",
            "max_tokens",
        ),
        (
            400,
            error(
                "Unsupported value: 'temperature' does not support 0 with this model.",
                code="unsupported_value",
                param="temperature",
            ),
            "setting",
            "temperature",
        ),
        (400, error("Unrecognized request argument supplied: seed"), "setting", "seed"),
        (
            400,
            error("Invalid prompt: flagged as violating our policy.", code="invalid_prompt"),
            "request",
            None,
        ),
        (404, error("The model `x` does not exist", code="model_not_found"), "model", None),
        (403, error("Project has no access", code="model_not_found"), "model", None),
        (429, error("Rate limit reached", code="rate_limit_exceeded"), "busy", None),
        (429, error("You exceeded your quota", code="insufficient_quota"), "quota", None),
        (500, error("The server had an error"), "busy", None),
        (501, error("Not implemented"), "request", None),
        (400, {"message": "invalid request: too many tokens"}, "overflow", None),
        (422, error("`inputs` must have less than 1024 tokens"), "overflow", None),
        (400, error("temperature must be below 2", param="temperature"), "request", None),
        # Azure
        (
            400,
            error(
                "The response was filtered",
                code="content_filter",
                innererror={"code": "ResponsibleAIPolicyViolation"},
            ),
            "filtered",
            None,
        ),
        # OpenRouter
        (
            403,
            error("Your input was flagged", code=403, metadata={"reasons": ["violence"]}),
            "filtered",
            None,
        ),
        (402, error("Insufficient credits", code=402), "quota", None),
        (403, error("Forbidden"), "forbidden", None),
        (403, error("no", type="permission_error"), "key", None),
        # vLLM
        (400, {"object": "error", "message": OVERFLOW, "code": 400}, "overflow", None),
        (
            400,
            error(
                "'max_tokens' or 'max_completion_tokens' is too large: 2048. This model's maximum "
                "context length is 2048 tokens",
                code=400,
            ),
            "overflow",
            None,
        ),
        (
            400,
            error(
                "[{'type': 'extra_forbidden', 'loc': ('body', 'seed'), 'msg': 'Extra inputs are "
                "not permitted'}]",
                code=400,
            ),
            "setting",
            "seed",
        ),
        (400, error("System role not supported", code=400), "system role", None),
        # FastAPI
        (
            422,
            {"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra"}]},
            "setting",
            "seed",
        ),
        (
            422,
            {"detail": [{"type": "missing", "loc": ["body", "seed"], "msg": "Field required"}]},
            "request",
            None,
        ),
        # llama.cpp
        (
            400,
            error(
                "the request exceeds the available context size, try increasing it",
                type="exceed_context_size_error",
            ),
            "overflow",
            None,
        ),
        # others
        (400, error("unexpected keyword argument 'chat_template_kwargs'"), "setting", SENT[4]),
        (400, "Bad Request", "request", None),
        (400, None, "request", None),
        (404, "<html>", "model", None),
    ],
)
def test_every_error_has_a_name(status: int, content: Any, kind: str, setting: str | None) -> None:
    outcome = of_error(status, content, SENT)
    assert (outcome.kind, outcome.setting) == (kind, setting)
    assert outcome.cause
    assert "\n" not in outcome.cause + outcome.detail


def test_a_setting_that_was_not_sent_is_not_left_out() -> None:
    complaint = error("Unsupported parameter: 'top_k'", param="top_k", code="unsupported_parameter")
    assert of_error(400, complaint, SENT).kind == "request"


def test_the_key_is_cut_out() -> None:
    outcome = of_error(400, error("bad key sk-secret"), SENT, key="sk-secret")
    assert "sk-secret" not in outcome.detail + outcome.raw
    assert "***" in outcome.detail


def test_raw_text_is_bounded() -> None:
    assert len(of_response(body(content="x" * 2 * RAW_KEPT)).raw) == RAW_KEPT


def test_every_kind_has_a_policy_in_every_stage() -> None:
    from typing import get_args

    from mtbench_runner.outcome import Action, Kind

    for policy in (JUDGING, ANSWERING):
        assert set(policy) == set(get_args(Kind))
        assert {action for actions in policy.values() for action in actions} <= set(
            get_args(Action)
        )
        assert all(actions for actions in policy.values())


def test_histogram() -> None:
    assert histogram(["a", "b", "b"]) == "2 b, 1 a"
    assert histogram([]) == ""
