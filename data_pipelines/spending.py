"""What a job has cost so far, by what it paid for, and what so many more samples would cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from data_pipelines.job import LEDGER
from data_pipelines.shards import acceptance
from staged.jobs.records import Records


@dataclass(frozen=True, kw_only=True)
class Spending:
    """What a job has spent.

    Attributes:
        calls: Purpose -> number of answers, those of rejected samples included.
        usd: Purpose -> money.
        accepted: Samples.
        ended: Units that came to an end, in whatever way.
        counted_usd: Money by the budget's count, with calls whose answers were lost.
    """

    calls: Mapping[str, int]
    usd: Mapping[str, float]
    accepted: int
    ended: int
    counted_usd: float

    @property
    def usd_in_all(self) -> float:
        """Money for everything."""
        return sum(self.usd.values())

    def for_samples(self, number: int) -> tuple[dict[str, float], float] | None:
        """What so many accepted samples would take, in the proportion of those there are.

        Returns:
            Purpose -> calls, and money; None where nothing was accepted yet.
        """
        if not self.accepted:
            return None
        factor = number / self.accepted
        calls = {purpose: factor * made for purpose, made in self.calls.items()}
        return calls, factor * self.usd_in_all


def read_spending(folder: Path) -> Spending:
    """Read a job's ledger, whether the job is finished, running or stopped.

    Raises:
        FileNotFoundError: the folder has no ledger.
        ValueError: its records are damaged.
    """
    ledger = folder / LEDGER
    if not ledger.is_dir():
        raise FileNotFoundError(f"{folder} has no {LEDGER}: no job has begun there")
    records = Records(ledger)
    costs = records.costs()
    ends = acceptance(records)["samples"]
    return Spending(
        calls={purpose: int(cost["calls"]) for purpose, cost in costs.items()},
        usd={purpose: cost["usd"] for purpose, cost in costs.items()},
        accepted=ends.get("accepted", 0),
        ended=sum(ends.values()),
        counted_usd=records.spent.usd,
    )
