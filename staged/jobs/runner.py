"""Many things to do, several at a time, until something stops the job."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


class JobStopError(Exception):
    """Nothing further is to be begun; what is in flight may finish, for it is paid for."""


async def in_turn(
    items: Iterable[T], work: Callable[[T], Awaitable[None]], *, workers: int
) -> None:
    """Work on items, several at a time, until something stops the job.

    Args:
        items: Taken when their turn comes: what they carry is not all in memory at once.
        work: Done for each.
        workers: Most items at a time.

    Raises:
        JobStopError: `work` raised it: a budget that is spent, a service that refuses us. No
            further item is begun; those in flight finish, or are stopped as well.
        Exception: whatever else `work` raises; the others are cancelled.
    """
    waiting = iter(items)
    stopped: JobStopError | None = None

    async def worker() -> None:
        nonlocal stopped
        for item in waiting:
            if stopped is not None:
                return
            try:
                await work(item)
            except JobStopError as stop:
                stopped = stopped or stop
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
