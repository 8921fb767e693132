"""The import as a job: rows of others in, checked trajectories out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from data_pipelines import job
from data_pipelines.asking import UnitEndError
from data_pipelines.imports.settings import FORMS, ImportJobSettings
from data_pipelines.imports.source import Samples
from data_pipelines.kept_images import named_image
from data_pipelines.runner import Work
from data_pipelines.summary import JobSummary
from staged import images
from staged.jobs.ledger import Ledger
from staged.jobs.rank import Rank
from staged.jobs.records import Records
from staged.jobs.results import UnitResult
from staged.tables import BadRowError
from staged.trajectory import Trajectory

_ALONE = Rank()


def run_job(
    settings: ImportJobSettings,
    folder: Path,
    *,
    rank: Rank = _ALONE,
    retry_failed: bool = False,
) -> JobSummary:
    """Do what is left of a job, and write the shards once nothing is; see `data_pipelines.job`.

    Every row is read twice: first to check it, image by image, and then into the shards. What is
    recorded in between names images by their hashes, so that nothing is kept twice, and a source
    that has changed meanwhile is noticed.

    Raises:
        ValueError: As there; or no source is named, one is damaged, or it has changed.
    """
    if not settings.sources:
        raise ValueError(
            "sources: none; name what to import, as sources=[{path: …, format: …}] with one of "
            f"{', '.join(FORMS)}"
        )
    samples = Samples(settings.sources, settings.seed)
    if not len(samples):
        raise ValueError("sources: there are no rows in them")
    if settings.count not in (None, len(samples)):
        raise ValueError(
            f"count is {settings.count}, but the sources have {len(samples)}; leave it out, or "
            "name the most of each source (most)"
        )
    return job.run_job(
        replace(settings, count=len(samples)),
        folder,
        working=partial(_working, samples),
        prompt_of=None,
        loaded=partial(_loaded, samples),
        rank=rank,
        retry_failed=retry_failed,
    )


@asynccontextmanager
async def _working(samples: Samples, ledger: Ledger) -> AsyncIterator[Work]:
    async def work(unit: int) -> UnitResult:
        try:
            # Here and not in a thread: rows are read fastest in their order.
            read = samples[unit]
            trajectory = await asyncio.to_thread(_checked, read)
        except BadRowError as error:
            return UnitEndError("rejected", "import", error.reason, str(error)).result
        return UnitResult(status="accepted", sample=trajectory.to_dict())

    yield work


def _checked(trajectory: Trajectory) -> Trajectory:
    """Decode every image, and name them by their hashes.

    Raises:
        BadRowError: One does not decode.
    """
    for number, ref in enumerate(trajectory.images):
        try:
            images.decode(ref.loaded)
        except ValueError as error:
            place = str(trajectory.provenance["source"])
            raise BadRowError("bad image", place, f"image {number}: {error}") from None
    return _named(trajectory)


def _named(trajectory: Trajectory) -> Trajectory:
    return trajectory.with_images([named_image(ref.loaded) for ref in trajectory.images])


def _loaded(samples: Samples, records: Records, unit: int, trajectory: Trajectory) -> Trajectory:
    """Read a sample again.

    Raises:
        ValueError: It is another one now.
    """
    read = _named(samples[unit])
    if read.to_dict() != trajectory.to_dict():
        raise ValueError(
            f"{read.provenance['source']} has changed since it was imported; import into another "
            "folder"
        )
    return read
