"""Answers of a language model, kept in a file so that none is paid for twice, and a budget."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from staged import strict_json
from staged.backends.lmm_types import Attempt

T = TypeVar("T")
_MAX_LINE_BYTES = 16 * 1024 * 1024
_REQUIRED = {"key": str, "purpose": str, "outcome": str, "text": str}
_COUNTS = {"input_tokens": int, "output_tokens": int, "usd": float}


class BudgetSpent(RuntimeError):
    """The budget allows no further request; what is answered stays."""


class FileLog:
    """An attempt log (`staged.backends.lmm_types.AttemptLog`) in a file of JSON lines.

    What was answered, refusals included, is never asked again. What failed on the way (the
    network, limits, servers) is asked again by the next run.

    Args:
        path: The file; made if need be.
        usd: Most money over the life of the file; None for no limit. Requests in flight when it
            is spent still count.

    Raises:
        ValueError: a line is not as it must be.
        OSError: the file cannot be read or written.
    """

    def __init__(self, path: Path, *, usd: float | None = None) -> None:
        """Read what is there; half a line at the end, of a killed process, is taken off."""
        self.path, self.limit_usd, self.spent_usd = path, usd, 0.0
        self._by_key: dict[str, list[Attempt]] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        content = path.read_bytes() if path.is_file() else b""
        whole = content[: content.rfind(b"\n") + 1]
        for number, line in enumerate(whole.splitlines(), start=1):
            key, attempt = _parse(line, f"{path}:{number}")
            self.spent_usd += attempt.usd
            if attempt.paid:
                self._by_key.setdefault(key, []).append(attempt)
        self._file = path.open("ab")
        self._file.truncate(len(whole))

    def __enter__(self) -> Self:
        """Return the log."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Close the file."""
        self._file.close()

    def claim(self, key: str) -> AbstractAsyncContextManager[None]:
        """Allow everything: one process writes the file."""
        return nullcontext()

    def admit(self, purpose: str) -> None:
        """Allow one more request.

        Raises:
            BudgetSpent: the money is spent.
        """
        if self.limit_usd is not None and self.spent_usd >= self.limit_usd:
            raise BudgetSpent(
                f"{self.spent_usd:.2f} of {self.limit_usd:.2f} USD are spent before {purpose}; "
                "raise the budget, and the same command goes on"
            )

    def attempts(self, key: str) -> Sequence[Attempt]:
        """Return what was tried for a request in this run, or answered in an earlier one."""
        return self._by_key.get(key, [])

    async def record(self, key: str, purpose: str, attempt: Attempt) -> None:
        """Keep an attempt; it is on disk when this returns."""
        line = strict_json.dumps({"key": key, "purpose": purpose, **vars(attempt)})
        self._file.write(line.encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self.spent_usd += attempt.usd
        self._by_key.setdefault(key, []).append(attempt)


async def in_turn(
    items: Iterable[T], work: Callable[[T], Awaitable[None]], *, workers: int
) -> None:
    """Work on items, several at a time, until the budget is spent.

    Args:
        items: Taken when their turn comes: what they carry is not all in memory at once.
        work: Done for each.
        workers: Most items at a time.

    Raises:
        BudgetSpent: `work` raised it. No further item is begun; those in flight finish, for they
            are paid for.
        Exception: whatever else `work` raises; the others are cancelled.
    """
    waiting = iter(items)
    stopped: BudgetSpent | None = None

    async def worker() -> None:
        nonlocal stopped
        for item in waiting:
            if stopped is not None:
                return
            try:
                await work(item)
            except BudgetSpent as stop:
                stopped = stop
                return

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(worker())
    except* Exception as errors:
        # The first is the cause; the group cancelled the rest.
        raise errors.exceptions[0] from None
    if stopped is not None:
        raise stopped


def _parse(line: bytes, place: str) -> tuple[str, Attempt]:
    record: dict[str, Any] = strict_json.record(
        strict_json.loads(line, place=place, max_bytes=_MAX_LINE_BYTES),
        place,
        {**_REQUIRED, **_COUNTS},
    )
    record.pop("purpose")
    key = record.pop("key")
    return key, Attempt(**record)
