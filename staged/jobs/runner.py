"""Many things to do, several at a time, until the budget is spent."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from staged.jobs.budget import BudgetError

T = TypeVar("T")


async def in_turn(
    items: Iterable[T], work: Callable[[T], Awaitable[None]], *, workers: int
) -> None:
    """Work on items, several at a time, until the budget is spent.

    Args:
        items: Taken when their turn comes: what they carry is not all in memory at once.
        work: Done for each.
        workers: Most items at a time.

    Raises:
        BudgetError: `work` raised it. No further item is begun; those in flight finish, for they
            are paid for.
        Exception: whatever else `work` raises; the others are cancelled.
    """
    waiting = iter(items)
    stopped: BudgetError | None = None

    async def worker() -> None:
        nonlocal stopped
        for item in waiting:
            if stopped is not None:
                return
            try:
                await work(item)
            except BudgetError as stop:
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
