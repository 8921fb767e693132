"""Runs units of work, several at a time, and keeps the end of each in the ledger."""

from collections import Counter
from collections.abc import Awaitable, Callable, Collection

from staged.jobs.budget import BudgetError
from staged.jobs.ledger import Ledger
from staged.jobs.progress import Progress
from staged.jobs.results import UnitResult
from staged.jobs.runner import in_turn
from staged.roles import RoleError

Work = Callable[[int], Awaitable[UnitResult]]
"""Does one unit. What it returns must depend on the unit and the settings alone, never on what
runs beside it; a `RoleError` is a service that failed."""


async def run(
    units: Collection[int], work: Work, ledger: Ledger, *, concurrency: int, label: str
) -> BudgetError | None:
    """Finish every unit that no process has finished.

    Args:
        units: Numbers of this process's units; they are begun in order.
        work: Does one.
        ledger: Where the ends are kept.
        concurrency: Units in flight.
        label: What a unit is, for the progress that is shown.

    Returns:
        The budget's limit that stopped the job; None when all units are finished.

    Raises:
        ServiceError: a service refuses whatever is asked; what was being drawn is kept.
    """
    left = sorted(ledger.left(units))
    progress = Progress(label, len(units), done=len(units) - len(left))
    ends: Counter[str] = Counter()

    async def one(unit: int) -> None:
        try:
            # What stops it leaves the unit unfinished: more budget, or another key, takes it up.
            result = await work(unit)
        except RoleError as error:
            result = UnitResult(status="failed", stage="service", reason=error.reason)
        await ledger.finish(unit, result)
        ends[result.status] += 1
        progress.advance(note=_note(ends, ledger))

    try:
        await in_turn(left, one, workers=concurrency)
    except BudgetError as stop:
        return stop
    finally:
        progress.close()
    return None


def _note(ends: Counter[str], ledger: Ledger) -> str:
    """Say what share is accepted here, and what the job has cost in all its processes."""
    accepted, spent = ends["accepted"], ledger.spent
    words = [f"{accepted / ends.total():.0%} accepted"]
    words.append(f"{spent.requests} requests, {spent.images} images")
    if spent.usd:
        each = f", ${ledger.usd_here / accepted:.4f} per accepted sample" if accepted else ""
        words.append(f"${spent.usd:.2f}{each}")
    return " · ".join(words)
