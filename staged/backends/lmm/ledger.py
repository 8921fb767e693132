"""Attempts at a language model's requests in the ledger of a job."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

from staged import strict_json
from staged.backends.lmm.attempts import CallAttempt, SentBatch
from staged.jobs.ledger import Ledger

_ATTEMPT = {"outcome": str, "text": str, "input_tokens": int, "output_tokens": int, "usd": float}


class LedgerLog:
    """An attempt log (`AttemptLog`) that all processes of a job share.

    Args:
        ledger: Of the job, open for writing.
    """

    def __init__(self, ledger: Ledger) -> None:
        """Write there."""
        self._ledger = ledger

    def claim(self, key: str) -> AbstractAsyncContextManager[None]:
        """Let nobody else, in no process of the job, send a request meanwhile."""
        return self._ledger.claim(key)

    def admit(self, purpose: str, *, usd: float = 0.0, key: str | None = None) -> None:
        """Allow one more attempt, and count the most that it can cost.

        Raises:
            BudgetError: the job's money or requests are used up.
        """
        self._ledger.admit("requests", usd=usd, key=key)

    def held(self, key: str) -> float | None:
        """Return what the newest attempt was admitted with, where it was to go in a batch."""
        return self._ledger.held(key)

    def withdraw(self, usd: float, *, key: str | None = None) -> None:
        """Take back an attempt that was admitted and never sent: it counts as nothing."""
        self._ledger.withdraw("requests", usd=usd, key=key)

    def free(self, usd: float) -> None:
        """Give back what an attempt was admitted with; the attempt itself stays counted."""
        self._ledger.free("requests", usd=usd)

    def attempts(self, key: str) -> Sequence[CallAttempt]:
        """Return the attempts at a request: all that were paid for, and this round's others."""
        answers = self._ledger.answers(key)
        return [
            CallAttempt(**strict_json.record(dict(answer.data), f"request {key}", _ATTEMPT))
            for answer in answers
        ]

    async def record(
        self, key: str, purpose: str, attempt: CallAttempt, *, reserved_usd: float = 0.0
    ) -> None:
        """Keep an attempt, and count what it cost in place of what it was admitted with.

        On the disk when this returns.
        """
        await self._ledger.record(
            key,
            "requests",
            purpose,
            paid=attempt.paid,
            usd=attempt.usd,
            reserved_usd=reserved_usd,
            data=vars(attempt),
        )

    def sent(self, key: str) -> Sequence[SentBatch]:
        """Return the batches, of whichever process, that may hold the newest attempt."""
        return [SentBatch(**sent._asdict()) for sent in self._ledger.sent(key)]

    async def sending(self, name: str, keys: Sequence[str], *, price: float) -> None:
        """Keep that requests are going to be sent as a batch; on the disk when this returns."""
        await self._ledger.sending(name, keys, price=price)

    async def sent_as(self, name: str, number: str) -> None:
        """Keep what the endpoint calls a batch; on the disk when this returns."""
        await self._ledger.sent_as(name, number)
