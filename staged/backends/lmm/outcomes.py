"""How an attempt can end, and which ends are paid for or tried again."""

from typing import Literal

FailureKind = Literal[
    "refusal",
    "content_filter",
    "truncated",
    "invalid_output",
    "rate_limit",
    "timeout",
    "connection",
    "server_error",
    "bad_request",
    "unsupported",
]
"""Why there is no answer. The first four were answered, and paid for; the last one is a field of
the request that the endpoint does not take, and that is then left out."""

PAID: frozenset[FailureKind] = frozenset(
    ("refusal", "content_filter", "truncated", "invalid_output")
)

UNANSWERED: frozenset[FailureKind] = frozenset(
    ("rate_limit", "timeout", "connection", "server_error")
)
"""Nothing came back, or a word that it would not now."""

RETRIED: frozenset[FailureKind] = UNANSWERED | {"invalid_output", "unsupported"}
"""Another attempt may end differently; the others would be answered the same way again."""
