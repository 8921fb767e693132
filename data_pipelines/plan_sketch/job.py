"""The pipeline as a job: its prompts, its language model and its editor."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from data_pipelines import job
from data_pipelines.claim import SETTINGS
from data_pipelines.plan_sketch.build import TrajectoryBuilder
from data_pipelines.plan_sketch.requests import PROMPT_VERSION
from data_pipelines.plan_sketch.settings import NOT_DECIDING, DrawingSettings, PlanSketchSettings
from data_pipelines.prompts import Allowed, PromptOf, from_file, sampled, shown_in
from data_pipelines.runner import Work
from data_pipelines.services import PricedEditor, Services
from staged.backends.lmm.client import LmmClient
from staged.backends.lmm.ledger import LedgerLog
from staged.jobs.ledger import Ledger
from staged.jobs.rank import Rank
from staged.jobs.records import UnitResult
from staged.roles import ImageEditor
from staged.settings import load, to_dict
from staged.shapes.players import editor as shapes_editor
from staged.shapes.players import lmm as shapes_lmm

_ALONE = Rank()


def run_job(
    settings: PlanSketchSettings,
    folder: Path,
    *,
    rank: Rank = _ALONE,
    retry_failed: bool = False,
) -> job.JobSummary:
    """Do what is left of a job, and write the shards once nothing is; see `data_pipelines.job`."""
    settings = settled(settings, folder)
    prompt_of = _prompts(settings)
    return job.run_job(
        settings,
        folder,
        working=partial(_working, settings, prompt_of),
        prompt_of=prompt_of,
        rank=rank,
        retry_failed=retry_failed,
    )


def settled(settings: PlanSketchSettings, folder: Path) -> PlanSketchSettings:
    """Say what `auto` stands for where a pipeline draws; a job that goes on keeps its precision.

    Raises:
        ValueError: There is no such device, or the folder's settings cannot be read.
    """
    if settings.drawing.editor is None:
        return settings
    from staged.devices import settle  # torch is loaded only where it draws

    begun = None
    if (path := folder / SETTINGS).is_file():
        before = load(PlanSketchSettings, path).drawing.editor
        begun = before.dtype if before else None
    editor = settle(settings.drawing.editor, begun=begun)
    return replace(settings, drawing=replace(settings.drawing, editor=editor))


def priced(editor: ImageEditor, drawing: DrawingSettings) -> PricedEditor:
    """An editor with the sizes and the price that the settings say."""
    assert drawing.width is not None and drawing.height is not None
    facts = to_dict(drawing.editor or drawing.mistakes)
    return PricedEditor(
        editor=editor,
        deciding={name: value for name, value in facts.items() if name not in NOT_DECIDING},
        width=drawing.width,
        height=drawing.height,
        usd_per_image=drawing.usd_per_image,
        in_thread=drawing.editor is not None,
    )


@asynccontextmanager
async def _working(
    settings: PlanSketchSettings, prompt_of: PromptOf, ledger: Ledger
) -> AsyncIterator[Work]:
    allowed = _allowed(settings)
    async with _lmm(settings, ledger) as lmm:
        editor = _editor(settings)  # after the key has been looked for: this may take minutes
        drawing = priced(editor, settings.drawing)
        provenance = {
            "models": {"lmm": lmm.settings.model, "editor": editor.name},
            "prompt_versions": {"lmm": PROMPT_VERSION},
            "fingerprint": settings.fingerprint,
            "licence": editor.licence,
        }

        async def work(unit: int) -> UnitResult:
            services = Services(lmm=lmm, drawing=drawing, ledger=ledger)
            builder = TrajectoryBuilder(settings, services, prompt_of(unit), provenance, allowed)
            return await builder.build()

        yield work


def _prompts(settings: PlanSketchSettings) -> PromptOf:
    ours = settings.prompts
    if ours.file is not None:
        return from_file(ours.file, ours.count)
    return sampled(ours.tasks, ours.split, settings.seed)


def _allowed(settings: PlanSketchSettings) -> Allowed:
    if settings.prompts.file is not None:
        return lambda graph: True
    return shown_in(settings.prompts.split)


def _lmm(settings: PlanSketchSettings, ledger: Ledger) -> LmmClient:
    if settings.lmm is not None:
        return LmmClient(settings.lmm, log=LedgerLog(ledger))
    return shapes_lmm.connect(misbehaviour=settings.misbehaviour, log=LedgerLog(ledger))


def _editor(settings: PlanSketchSettings) -> ImageEditor:
    if settings.drawing.editor is None:
        return shapes_editor.ShapesEditor(mistakes=settings.drawing.mistakes)
    # diffusers and torch load only where they draw.
    from staged.backends.diffusers.editor import DiffusersEditor

    return DiffusersEditor(settings.drawing.editor)
