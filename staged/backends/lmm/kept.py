"""Answers of a language model beside what is made from them: none is paid for twice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from staged.backends.lmm.ledger import LedgerLog
from staged.jobs.budget import Budget
from staged.jobs.ledger import Ledger
from staged.jobs.rank import Rank

_ALONE = Rank()


@contextmanager
def kept_answers(out: Path, *, usd: float | None, rank: Rank = _ALONE) -> Iterator[LedgerLog]:
    """Open the answers of a command, and say in the end what they cost.

    What was answered, refusals included, is never asked again. What failed on the way (the
    network, limits, servers) is asked again by the next run.

    Args:
        out: What is made from them; they are kept in the folder `out`.attempts.
        usd: Most money over all runs and processes; None for no limit.
        rank: Which of the processes that share the work this is.

    Raises:
        ValueError: answers are damaged, or were kept by an older version.
        OSError: they cannot be read or written.
    """
    folder = out.with_name(f"{out.name}.attempts")
    if folder.is_file():
        raise ValueError(
            f"{folder} is a file that an older version of staged kept its answers in; move it "
            "away, and they are asked for anew, or finish with that version"
        )
    # What the answers depend on is in the key of each.
    budget = Budget(usd=usd)
    with Ledger(folder, fingerprint="", rank=rank, budget=budget) as ledger:
        ledger.begin_round()
        try:
            yield LedgerLog(ledger)
        finally:
            ledger.refresh()
            print(f"spent {ledger.spent.usd:.2f} USD in all; answers are in {folder}")
