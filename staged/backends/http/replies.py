"""What comes back over HTTP, from anybody: nothing in it is trusted to be what it should be.

Services that speak OpenAI's API differ most in how they fail: errors under status 200, as text, as
a list, with the status inside; `usage` absent or full of nulls; an exhausted account called a rate
limit. All of that is read here, once, into one of two things: a body to interpret, or a refusal
with its kind and the service's own sentence.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal

MAX_DETAIL_CHARS = 500
"""How much of an answer that is no good is kept."""
_MAX_TOKENS = 10**9

RefusalKind = Literal[
    "refused",
    "content_filter",
    "bad_request",
    "rate_limit",
    "server_error",
    "timeout",
    "connection",
    "invalid_output",
]
"""`refused` is about us and not about the request: every other one would end the same way."""


@dataclass(frozen=True, kw_only=True)
class Received:
    """A body that is no error; what is in it is not looked at yet.

    Attributes:
        body: A JSON object.
        usage: Tokens sent and answered, as the service counted; 0 where it did not.
    """

    body: Mapping[str, Any]
    usage: tuple[int, int] = (0, 0)


@dataclass(frozen=True, kw_only=True)
class Refused:
    """No answer.

    Attributes:
        kind: Why, by what there is to do about it.
        text: The service's sentence, with its status; shortened.
        status: HTTP's, or the one that the body names under 200; 0 where nothing came back.
        param: Field of the request that the service names as the cause; mostly empty.
        retry_after_s: How long the service asks to wait; 0 where it does not say.
        usage: As of `Received`; some services charge for errors.
    """

    kind: RefusalKind
    text: str
    status: int = 0
    param: str = ""
    retry_after_s: float = 0.0
    usage: tuple[int, int] = (0, 0)


_MODERATED = {
    "content_filter",
    "content_policy_violation",
    "moderation_blocked",
    "responsibleaipolicyviolation",
}
_STATUS_OF_WORDS = (
    (re.compile(r"insufficient_(quota|balance|credits?)|billing|payment|quota_exceeded"), 402),
    (re.compile(r"api_key|authenticat|unauthori[sz]ed"), 401),
    (re.compile(r"permission|forbidden"), 403),
    (re.compile(r"rate_?limit|too_?many|throttl"), 429),
    (re.compile(r"not_?found"), 404),
    (re.compile(r"invalid_?request|bad_?request|unsupported|unknown_param|invalid_arg"), 400),
)
"""What codes and types of errors mean where they are all there is. Accounts come first: OpenAI
calls an exhausted one 429, which no waiting cures."""


def understand(status: int, headers: Mapping[str, str], content: bytes) -> Received | Refused:
    """Read one reply.

    Args:
        status: Of HTTP.
        headers: Names in any case, as httpx gives them.
        content: The body, bounded by the caller.
    """
    body = _json(content)
    counted = usage(body)
    error = _error(body, failed=status >= 300)
    if error is None and status < 300:
        if isinstance(body, dict):
            return Received(body=body, usage=counted)
        text = _shortened(content.decode("utf-8", "replace"))
        return Refused(kind="server_error", text=f"no JSON object: {text}", status=status)
    error = error or {}
    words = " ".join(str(error.get(key) or "").lower() for key in ("code", "type", "status"))
    if status < 300:
        status = _status_inside(error, words)
    elif _STATUS_OF_WORDS[0][0].search(words):
        status = 402
    sentence = _sentence(error) or _shortened(content.decode("utf-8", "replace")) or "no reason"
    kind = _kind(status, error, words)
    return Refused(
        kind=kind,
        text=f"{status}: {sentence}",
        status=status,
        param=clean(error.get("param")) if isinstance(error.get("param"), str) else "",
        retry_after_s=(
            retry_after_s(headers, datetime.now(UTC))
            if kind in ("rate_limit", "server_error")
            else 0.0
        ),
        usage=counted,
    )


def usage(body: Any) -> tuple[int, int]:
    """Return tokens sent and answered; whatever is absent or no count is 0."""
    counts = body.get("usage") if isinstance(body, dict) else None
    if not isinstance(counts, dict):
        return 0, 0
    sent = _count(counts, "prompt_tokens", "input_tokens")
    return sent, _count(counts, "completion_tokens", "output_tokens")


def retry_after_s(headers: Mapping[str, str], now: datetime) -> float:
    """Read how long the service asks to wait, in seconds or as a date; 0 where it does not say.

    Args:
        headers: Of the reply.
        now: With a time zone; a date is measured against the service's own clock where it is told.
    """
    for name, scale in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) * scale
        except ValueError:
            continue
        if seconds > 0:
            return seconds
    until = _date(headers.get("retry-after", ""))
    if until is None:
        return 0.0
    return max((until - (_date(headers.get("date", "")) or now)).total_seconds(), 0.0)


def clean(text: Any) -> str:
    """Return text that files and databases take: half a surrogate pair is in many answers."""
    return text.encode("utf-8", "replace").decode() if isinstance(text, str) else ""


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):  # no JSON, no Unicode, numbers without end, depth
        return None


def _count(counts: Mapping[str, Any], *names: str) -> int:
    for name in names:
        value = counts.get(name)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if type(value) is int and 0 < value <= _MAX_TOKENS:
            return value
    return 0


def _date(text: str) -> datetime | None:
    try:
        found = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _error(body: Any, *, failed: bool) -> dict[str, Any] | None:
    """Find the error in a body, in any of the forms that services give it."""
    if isinstance(body, list) and body:
        return _error(body[0], failed=failed)  # Google's
    if not isinstance(body, dict):
        return None
    if not failed and (body.get("choices") or body.get("data") or body.get("object") == "batch"):
        return None  # what a batch calls its errors is about its requests, and not this one
    found = body.get("error") or body.get("errors")
    if isinstance(found, list):
        found = found[0] if found else None
    if isinstance(found, str):
        return {**body, "message": found}
    if isinstance(found, dict):
        return found
    says = any(body.get(key) for key in ("message", "detail", "msg"))
    return body if failed or body.get("object") == "error" or says else None


def _sentence(error: Mapping[str, Any]) -> str:
    for key in ("message", "detail", "msg", "title"):
        value = error.get(key)
        if isinstance(value, list | dict) and value:  # pydantic's list of what is wrong where
            value = json.dumps(value)
        if isinstance(value, str) and value.strip():
            return _shortened(value)
    return ""


def _status_inside(error: Mapping[str, Any], words: str) -> int:
    for key in ("code", "status", "status_code"):
        value = error.get(key)
        if isinstance(value, str) and value.isascii() and value.isdigit():
            value = int(value[:4])
        if type(value) is int and 400 <= value <= 599:
            return 402 if _STATUS_OF_WORDS[0][0].search(words) else value
    return next((status for known, status in _STATUS_OF_WORDS if known.search(words)), 500)


def _kind(status: int, error: Mapping[str, Any], words: str) -> RefusalKind:
    metadata = error.get("metadata")
    flagged = isinstance(metadata, dict) and ("flagged_input" in metadata or "reasons" in metadata)
    if flagged or not _MODERATED.isdisjoint(words.split()):
        return "content_filter"  # also under 403, as some routers have it
    if status in (401, 402, 403, 404, 407):
        return "refused"
    if status == 429:
        return "rate_limit"
    return "server_error" if status in (408, 409, 425) or status >= 500 else "bad_request"


def _shortened(text: str) -> str:
    return clean(" ".join(text[: 4 * MAX_DETAIL_CHARS].split()))[:MAX_DETAIL_CHARS]
