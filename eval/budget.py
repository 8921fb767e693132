"""What a command says that a budget stopped, and how it ends: alike in all of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from staged.command_line import exit_codes
from staged.jobs.budget import BudgetError

Main = Callable[[Sequence[str] | None], int]


def stopped_by_budget(way_out: str) -> Callable[[Callable[..., int]], Main]:
    """Make a command end with status 3 and a line where its budget is spent.

    Args:
        way_out: How the same command goes on, such as "raise --budget-usd".
    """

    def decorated(main: Callable[..., int]) -> Main:
        @functools.wraps(main)
        def stoppable(argv: Sequence[str] | None = None) -> int:
            try:
                return main(argv)
            except BudgetError as stop:
                print(f"stopped: {stop}; {way_out}, and the same command goes on")
                return exit_codes.STOPPED

        return stoppable

    return decorated
