"""The attempts that were made, and where they are kept."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal, Protocol

from staged.backends.lmm.outcomes import PAID, FailureKind


@dataclass(frozen=True, kw_only=True)
class CallAttempt:
    """One call that was made, as the log keeps it.

    Attributes:
        outcome: `ok`, or why it failed.
        text: The answer's text; for a failure what is known of it, shortened.
        input_tokens: As the endpoint counted.
        output_tokens: As the endpoint counted.
        usd: Price by the settings.
    """

    outcome: Literal["ok"] | FailureKind
    text: str
    input_tokens: int = 0
    output_tokens: int = 0
    usd: float = 0.0

    @property
    def paid(self) -> bool:
        """Whether an answer came back: such an attempt is never repeated."""
        return self.outcome == "ok" or self.outcome in PAID


@dataclass(frozen=True, kw_only=True)
class SentBatch:
    """A batch with a request that has no answer yet.

    Attributes:
        name: What we call it.
        number: What the endpoint calls it; None where that is not known, and it may not be there.
        price: What a token costs in it, as a share of its price; None where it is not known.
    """

    name: str
    number: str | None
    price: float | None = None


class AttemptLog(Protocol):
    """Where attempts are kept: in memory here, in a ledger for jobs."""

    def claim(self, key: str) -> AbstractAsyncContextManager[None]:
        """Let nobody else who keeps attempts here send a request meanwhile."""

    def admit(self, purpose: str, *, usd: float = 0.0, key: str | None = None) -> None:
        """Allow one more attempt, or raise what stops the job (a budget that is used up).

        Args:
            purpose: What it is for.
            usd: The most that it can cost.
            key: Of the request, where it is to go in a batch.
        """

    def held(self, key: str) -> float | None:
        """Return what the newest attempt was admitted with, where it was to go in a batch.

        None where it was not, and once the attempt is recorded or withdrawn.
        """

    def withdraw(self, usd: float, *, key: str | None = None) -> None:
        """Take back an attempt that was admitted, with these, and never sent."""

    def free(self, usd: float) -> None:
        """Give back what an attempt was admitted with that nothing can have been paid for."""

    def attempts(self, key: str) -> Sequence[CallAttempt]:
        """Return the attempts made for a request, in order."""

    async def record(
        self, key: str, purpose: str, attempt: CallAttempt, *, reserved_usd: float = 0.0
    ) -> None:
        """Keep an attempt, which was admitted with so much; durable when it returns."""

    def sent(self, key: str) -> Sequence[SentBatch]:
        """Return the batches that may hold the newest attempt; those that are known for sure first.

        None once the attempt is recorded.
        """

    async def sending(self, name: str, keys: Sequence[str], *, price: float) -> None:
        """Keep that requests are going to be sent as a batch; durable when it returns.

        Args:
            name: What we call it.
            keys: Of the requests, claimed.
            price: What a token costs in it, as a share of its price.
        """

    async def sent_as(self, name: str, number: str) -> None:
        """Keep what the endpoint calls a batch; durable when it returns."""


class MemoryLog:
    """An attempt log that lasts as long as the process."""

    def __init__(self) -> None:
        """Start empty."""
        self.by_key: dict[str, list[CallAttempt]] = {}

    def claim(self, key: str) -> AbstractAsyncContextManager[None]:
        """Allow everything: the client itself sends equal requests once."""
        return nullcontext()

    def admit(self, purpose: str, *, usd: float = 0.0, key: str | None = None) -> None:
        """Allow everything."""

    def held(self, key: str) -> float | None:
        """Hold nothing."""
        return None

    def withdraw(self, usd: float, *, key: str | None = None) -> None:
        """Hold nothing."""

    def free(self, usd: float) -> None:
        """Hold nothing."""

    def attempts(self, key: str) -> Sequence[CallAttempt]:
        """Return the attempts made for a request, in order."""
        return self.by_key.get(key, [])

    async def record(
        self, key: str, purpose: str, attempt: CallAttempt, *, reserved_usd: float = 0.0
    ) -> None:
        """Keep an attempt."""
        self.by_key.setdefault(key, []).append(attempt)

    def sent(self, key: str) -> Sequence[SentBatch]:
        """Know of none: what is in flight ends with the process."""
        return ()

    async def sending(self, name: str, keys: Sequence[str], *, price: float) -> None:
        """Keep nothing."""

    async def sent_as(self, name: str, number: str) -> None:
        """Keep nothing."""
