"""What a job may spend, and what it has spent."""

from dataclasses import dataclass
from typing import Final, Literal

from staged.jobs.runner import JobStopError
from staged.ranges import check_range

Meter = Literal["requests", "images"]
"""What is counted."""

_ROUNDING: Final = 1e-9
"""Sums of prices are not exact; three calls of 0.1 fit into 0.3."""


class BudgetError(JobStopError, RuntimeError):
    """The job's budget does not allow the next call; what is done stays done.

    Attributes:
        may_pass: Whether calls in flight may turn out to cost less than they were counted with, so
            that the next one fits once they have ended.
    """

    def __init__(self, message: str, *, may_pass: bool = False) -> None:
        """Say which limit it is."""
        super().__init__(message)
        self.may_pass = may_pass


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Hard limits over the life of a job, for all its processes and runs; null for none.

    A call counts from before it is made, so one whose answer a kill took counts too. What an
    answer of a language model costs is known when it is there: until then its request counts with
    the most that it can cost, and one that does not fit waits until others have cost less. So no
    job ends above its limit of money, and one of which a kill took requests ends below it.
    """

    usd: float | None = None
    """Money for language models and image editors."""
    requests: int | None = None
    """Calls of language models, retries included."""
    images: int | None = None
    """Images drawn."""

    def __post_init__(self) -> None:
        """Check the limits: NaN would be reached by nothing.

        Raises:
            ValueError: One is negative or no number.
        """
        check_range(self, "usd", "requests", "images", minimum=0)


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What calls have cost."""

    usd: float = 0.0
    requests: int = 0
    images: int = 0


def check(budget: Budget, spent: Spent, meter: Meter, usd: float) -> None:
    """Allow one more call.

    Args:
        budget: The limits.
        spent: By all processes of the job.
        meter: What the call is.
        usd: Its price, where it is known before.

    Raises:
        BudgetError: it does not fit.
    """
    limit: int | None = getattr(budget, meter)
    used: int = getattr(spent, meter)
    if limit is not None and used >= limit:
        raise BudgetError(f"budget.{meter}: {used} of {limit} are used up")
    if budget.usd is None:
        return
    if spent.usd >= budget.usd * (1 - _ROUNDING):
        raise BudgetError(f"budget.usd: {spent.usd:g} of {budget.usd:g} are used up", may_pass=True)
    if spent.usd + usd > budget.usd * (1 + _ROUNDING):
        raise BudgetError(
            f"budget.usd: {spent.usd:g} of {budget.usd:g} are used up, and the next call may cost "
            f"{usd:g}",
            may_pass=True,
        )
