"""Runs units of work, several at a time, and keeps the end of each in the ledger."""

from collections.abc import Awaitable, Callable, Collection

from data_pipelines.progress import Progress
from staged.jobs.budget import BudgetError
from staged.jobs.ledger import Ledger
from staged.jobs.records import Result
from staged.jobs.runner import in_turn
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

    Raises:
        ServiceError: a service refuses whatever is asked; what was being drawn is kept.
    """

    async def one(unit: int) -> None:
        try:
            # What stops it leaves the unit unfinished: more budget, or another key, takes it up.
            result = await work(unit)
        except RoleError as error:
            result = Result(status="failed", stage="service", reason=error.reason)
        await ledger.finish(unit, result)
        progress.add(result, ledger.spent, usd_here=ledger.usd_here)

    try:
        await in_turn(sorted(ledger.left(units)), one, workers=concurrency)
    except BudgetError as stop:
        return stop
    finally:
        progress.close()
    return None
