"""A job that builds a data set: settings to a folder with a ledger and, at the end, shards."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path

from data_pipelines.claim import record_settings, refuse_other_settings
from data_pipelines.job_settings import JobSettings
from data_pipelines.prompts import PromptOf
from data_pipelines.runner import Work, run
from data_pipelines.shards import (
    Arranged,
    Loaded,
    acceptance,
    as_recorded,
    examples,
    from_records,
    write_shards,
)
from data_pipelines.summary import JobSummary
from staged.jobs.budget import BudgetError
from staged.jobs.ledger import Ledger
from staged.jobs.rank import Rank

LEDGER = "ledger"

Working = Callable[[Ledger], AbstractAsyncContextManager[Work]]
"""Opens what a pipeline asks and draws with, and gives what does one unit."""


def run_job(
    settings: JobSettings,
    folder: Path,
    *,
    working: Working,
    prompt_of: PromptOf | None,
    rank: Rank,
    retry_failed: bool,
    arranged: Arranged = as_recorded,
    loaded: Loaded = from_records,
) -> JobSummary:
    """Do what is left of a job, and write the shards once nothing is.

    Args:
        settings: Of the job; a folder takes one job's only.
        folder: Where everything is written.
        working: Opens the pipeline's services, which stay open while units are done.
        prompt_of: The prompt of each unit; None where `loaded` finds out what has changed.
        rank: Which of the processes that share the job this is.
        retry_failed: Try again what services failed at; give it to every process of a run.
        arranged: What of the accepted samples comes into the shards, seen together.
        loaded: Loads the images of an accepted sample for the shards.

    Raises:
        ValueError: the folder holds other settings, or the prompts of finished units changed.
    """
    refuse_other_settings(settings, folder)
    units = rank.share(range(settings.num_units))
    with Ledger(
        folder / LEDGER, fingerprint=settings.fingerprint, rank=rank, budget=settings.limits
    ) as ledger:
        record_settings(settings, folder, ledger)
        if retry_failed:
            ledger.retry_failed(units)
        stopped, new = None, 0
        # Another process may begin a round for what fails meanwhile; then this one joins it.
        while stopped is None and (left := ledger.left(units)):
            stopped = asyncio.run(_work(settings, working, ledger, units, rank.label("prompts")))
            new += len(left - ledger.left(left))
        report = replace(_report(ledger, settings, stopped), new=new)
        if not report.unfinished:
            write_shards(settings, ledger, folder, prompt_of, arranged, loaded)
    return report


async def _work(
    settings: JobSettings, working: Working, ledger: Ledger, units: Sequence[int], label: str
) -> BudgetError | None:
    # Edits wait for their turn in threads; asyncio's own has hardly more of them than cores.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(settings.concurrency))
    async with working(ledger) as work:
        return await run(units, work, ledger, concurrency=settings.concurrency, label=label)


def _report(ledger: Ledger, settings: JobSettings, stopped: BudgetError | None) -> JobSummary:
    unfinished = ledger.left(range(settings.num_units))
    reasons = acceptance(ledger)
    samples = reasons.pop("samples")
    return JobSummary(
        **samples,
        reasons=reasons,
        examples=examples(ledger),
        unfinished=len(unfinished),
        stopped=str(stopped or ""),
    )
