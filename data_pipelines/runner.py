"""Runs units of work, several at a time, and keeps the end of each in the ledger."""

import asyncio
from collections.abc import Awaitable, Callable, Collection

from data_pipelines.progress import Progress
from staged.jobs.budget import BudgetError
from staged.jobs.ledger import Ledger
from staged.jobs.records import Result
from staged.roles import RoleError

Work = Callable[[int], Awaitable[Result]]
"""Does one unit. What it returns must depend on the unit and the settings alone, never on what
runs beside it; a `RoleError` is a service that failed."""


async def run(
    units: Collection[int], work: Work, ledger: Ledger, *, concurrency: int, progress: Progress
) -> BudgetError | None:
    """Finish every unit that no process has finished.

    Args:
        units: Numbers of this process's units; they are begun in order.
        work: Does one.
        ledger: Where the ends are kept.
        concurrency: Units in flight.
        progress: Told of every end.

    Returns:
        The budget's limit that stopped the job; None when all units are finished.
    """
    waiting = iter(sorted(ledger.left(units)))
    stopped: BudgetError | None = None

    async def worker() -> None:
        nonlocal stopped
        for unit in waiting:
            if stopped is not None:
                return
            try:
                result = await work(unit)
            except BudgetError as error:
                # The unit is not finished: more budget takes it up where it is.
                stopped = error
                return
            except RoleError as error:
                result = Result(status="failed", stage="service", reason=error.reason)
            await ledger.finish(unit, result)
            progress.add(result, ledger.spent, usd_here=ledger.usd_here)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(worker())
    except* Exception as errors:
        # The first of them is the cause; the group cancelled the rest.
        raise errors.exceptions[0] from None
    finally:
        progress.close()
    return stopped
