"""Replies of services that are anything at all: never an exception, always one of the outcomes."""

import json
import math
from typing import Any, get_args

from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from staged.backends.http.replies import MAX_DETAIL_CHARS, Received, Refused, understand
from staged.backends.lmm.outcomes import FailureKind
from staged.backends.lmm.request import FirstToken
from staged.backends.lmm.wire import first_token, outcome


class Colour(BaseModel):
    colour: str


WORDS = st.sampled_from(
    ["", "error", "stop", "length", "429", "insufficient_quota", "content_filter", "</think>",
     "```json\n{\"colour\": \"x\"}\n```", "\ud800", "json_object", "Infinity", "temperature"]
)  # fmt: skip
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.just(10**400)
    | st.floats()
    | st.text(max_size=20)
    | WORDS
)
KEYS = st.sampled_from(
    ["error", "errors", "message", "code", "status", "type", "detail", "metadata", "choices",
     "usage", "prompt_tokens", "content", "text", "logprobs", "top_logprobs", "token", "logprob",
     "finish_reason", "refusal", "reasoning_content", "param", "data", "object"]
)  # fmt: skip
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=20,
)
REPLY: dict[str, Any] = {
    "id": "1",
    "choices": [
        {
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": '{"colour": "blue"}', "refusal": None},
            "logprobs": {
                "content": [{"token": "a", "top_logprobs": [{"token": "a", "logprob": 0}]}]
            },
        }
    ],
    "usage": {"prompt_tokens": 3, "completion_tokens": 4},
}


@st.composite
def replies(draw: st.DrawFn) -> Any:
    """A good reply in which one part, at any depth, is something else, or is missing."""
    reply = json.loads(json.dumps(REPLY))
    node: Any = reply
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        key = draw(st.sampled_from(keys))
        inner = node[key]
        if isinstance(inner, dict | list) and inner and draw(st.booleans()):
            node = inner
            continue
        if draw(st.booleans()):
            node[key] = draw(JSON)
        else:
            del node[key]
        return reply


def check(status: int, content: bytes) -> None:
    got = understand(status, {"retry-after": "1e999"}, content)
    assert all(type(count) is int and 0 <= count <= 10**9 for count in got.usage)
    if isinstance(got, Refused):
        got.text.encode()
        assert len(got.text) <= MAX_DETAIL_CHARS + 20 and got.text
        assert got.kind in (*get_args(FailureKind), "refused") and got.retry_after_s >= 0
        return
    assert isinstance(got, Received) and status < 300
    for kind, text in (outcome(got.body, Colour), first_token(got.body, 5)):
        assert kind == "ok" or kind in get_args(FailureKind)
        text.encode()
    kind, text = outcome(got.body, Colour)
    if kind == "ok":
        Colour.model_validate_json(text)
    kind, text = first_token(got.body, 5)
    if kind == "ok":
        pairs = FirstToken.model_validate_json(text).log_probs
        assert all(math.isfinite(log_prob) for _, log_prob in pairs)


STATUSES = st.sampled_from([200, 201, 204, 301, 400, 401, 402, 403, 404, 408, 422, 429, 500, 599])


@settings(max_examples=100)
@given(replies() | JSON, STATUSES)
def test_any_json_is_read(reply: Any, status: int) -> None:
    check(status, json.dumps(reply).encode())


@settings(max_examples=100)
@given(st.binary(max_size=200) | st.text(max_size=100).map(lambda text: text.encode("utf-16")))
def test_any_bytes_are_read(content: bytes) -> None:
    for status in (200, 400, 500):
        check(status, content)


def test_the_good_reply_is_good() -> None:
    got = understand(200, {}, json.dumps(REPLY).encode())
    assert isinstance(got, Received) and got.usage == (3, 4)
    assert outcome(got.body, Colour) == ("ok", '{"colour": "blue"}')
    assert first_token(got.body, 5)[0] == "ok"
