"""The pipeline as a job: its prompts, its language model and its editor."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from data_pipelines import job
from data_pipelines.claim import SETTINGS
from data_pipelines.drawing import priced
from data_pipelines.editors import OWN, Editors
from data_pipelines.plan_sketch.build import TrajectoryBuilder
from data_pipelines.plan_sketch.settings import PlanSketchSettings
from data_pipelines.prompts import Allowed, PromptOf, shown_in
from data_pipelines.reader import open_lmm
from data_pipelines.runner import Work
from data_pipelines.services import Services
from data_pipelines.summary import JobSummary
from data_pipelines.wording import Wording
from staged.jobs.ledger import Ledger
from staged.jobs.rank import Rank
from staged.jobs.results import UnitResult
from staged.settings import load

_ALONE = Rank()
_ASKED = ("scene_graph", "plan_steps", "judge_step", "judge_plan", "judge_sketch")


def run_job(
    settings: PlanSketchSettings,
    folder: Path,
    *,
    rank: Rank = _ALONE,
    retry_failed: bool = False,
    editors: Editors = OWN,
) -> JobSummary:
    """Do what is left of a job, and write the shards once nothing is; see `data_pipelines.job`."""
    wording = Wording(settings.wording)
    settings = replace(settled(settings, folder, editors), words=wording.versions(*_ASKED))
    prompt_of = settings.prompts.of_units(settings.seed)
    return job.run_job(
        settings,
        folder,
        working=partial(_working, settings, editors, wording, prompt_of),
        prompt_of=prompt_of,
        rank=rank,
        retry_failed=retry_failed,
    )


def settled(
    settings: PlanSketchSettings, folder: Path, editors: Editors = OWN
) -> PlanSketchSettings:
    """Say what `auto` stands for where a pipeline draws; a job that goes on keeps its precision.

    Raises:
        ValueError: There is no such device, or the folder's settings cannot be read.
    """
    path = folder / SETTINGS
    begun = load(PlanSketchSettings, path).drawing if path.is_file() else None
    return replace(settings, drawing=editors.settled(settings.drawing, begun=begun))


@asynccontextmanager
async def _working(
    settings: PlanSketchSettings,
    editors: Editors,
    wording: Wording,
    prompt_of: PromptOf,
    ledger: Ledger,
) -> AsyncIterator[Work]:
    allowed = _allowed(settings)
    async with open_lmm(settings.lmm, settings.misbehaviour, ledger) as lmm:
        # After the key has been looked for: this may take minutes.
        editor = editors.open(settings.drawing)
        drawing = priced(editor, settings.drawing)
        provenance = {
            "models": {"lmm": lmm.settings.model, "editor": editor.name},
            "prompt_versions": settings.words,
            "fingerprint": settings.fingerprint,
            "licence": editor.licence,
        }

        async def work(unit: int) -> UnitResult:
            services = Services(lmm=lmm, drawing=drawing, ledger=ledger)
            builder = TrajectoryBuilder(
                settings, wording, services, prompt_of(unit), provenance, allowed
            )
            return await builder.build()

        yield work


def _allowed(settings: PlanSketchSettings) -> Allowed:
    if settings.prompts.file is not None:
        return lambda graph: True
    return shown_in(settings.prompts.split)
