"""What comes of a call and of a unit of work, as a ledger keeps it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Status = Literal["accepted", "rejected", "failed"]


@dataclass(frozen=True, kw_only=True)
class CallResult:
    """What came of a call.

    Attributes:
        purpose: What it was for; costs are added up by it.
        paid: Whether it was answered, so that it is never made again.
        usd: What it cost.
        data: The answer, as plain JSON.
        sha256: Of the bytes that came with it, if any did.
        beside: SHA-256 of further bytes that came with those.
    """

    purpose: str
    paid: bool
    usd: float
    data: Mapping[str, Any]
    sha256: str | None = None
    beside: str | None = None


@dataclass(frozen=True, kw_only=True)
class UnitResult:
    """The end of one unit of work.

    Attributes:
        status: Whether it became a sample.
        stage: The stage that decided.
        reason: Why it did not; empty for accepted ones.
        detail: What is known of that, such as a service's own sentence; reasons are counted, and
            this is shown.
        sample: What is needed to write the sample, as JSON; None unless there is something.
    """

    status: Status
    stage: str = ""
    reason: str = ""
    detail: str = ""
    sample: dict[str, Any] | None = None
