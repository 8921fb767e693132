"""The whole job: settings to a folder with a ledger and, at the end, shards."""

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from data_pipelines.plan_sketch.build import Builder
from data_pipelines.plan_sketch.claim import record_settings, refuse_other_settings, settled
from data_pipelines.plan_sketch.requests import PROMPT_VERSION
from data_pipelines.plan_sketch.services import Services
from data_pipelines.plan_sketch.settings import PlanSketchSettings
from data_pipelines.plan_sketch.shards import acceptance, examples, write_shards
from data_pipelines.prompts import Allowed, PromptOf, from_file, sampled, shown_in
from data_pipelines.runner import run
from staged.backends.lmm.client import LmmClient
from staged.backends.lmm.ledger import LedgerLog
from staged.jobs import locks
from staged.jobs.budget import BudgetError
from staged.jobs.ledger import Ledger
from staged.jobs.rank import Rank
from staged.jobs.records import Result
from staged.roles import ImageEditor
from staged.shapes.players import editor as shapes_editor
from staged.shapes.players import lmm as shapes_lmm

LEDGER = "ledger"
_ALONE = Rank()


@dataclass(frozen=True, kw_only=True)
class Report:
    """How a job stands.

    Attributes:
        accepted: Samples in the shards.
        rejected: Units that a filter ended.
        failed: Units that a service ended.
        reasons: Stage -> reason -> number, of those two.
        examples: (stage, reason) -> what a service said of one of them.
        unfinished: Units that are still to be done.
        new: Units that this process ended now.
        stopped: The limit that stopped the job, if one did.
    """

    accepted: int = 0
    rejected: int = 0
    failed: int = 0
    reasons: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    examples: Mapping[tuple[str, str], str] = field(default_factory=dict)
    unfinished: int = 0
    stopped: str = ""
    new: int = field(default=0, compare=False)


def run_job(
    settings: PlanSketchSettings,
    folder: Path,
    *,
    rank: Rank = _ALONE,
    retry_failed: bool = False,
) -> Report:
    """Do what is left of a job, and write the shards once nothing is.

    Args:
        settings: Of the job; a folder takes one job's only.
        folder: Where everything is written.
        rank: Which of the processes that share the job this is.
        retry_failed: Try again what services failed at; give it to every process of a run.

    Raises:
        ValueError: the folder holds other settings, or the prompts of finished units changed.
    """
    settings = settled(settings, folder)
    refuse_other_settings(settings, folder)
    prompt_of = _prompts(settings)
    units = rank.share(range(settings.prompts.count))
    (folder / LEDGER).mkdir(parents=True, exist_ok=True)
    if rank.world_size > 1:
        locks.check_reach(folder / LEDGER)
    with Ledger(
        folder / LEDGER,
        fingerprint=settings.fingerprint,
        writer=rank.number,
        budget=settings.budget,
    ) as ledger:
        record_settings(settings, folder, ledger)
        if retry_failed:
            ledger.retry_failed(units)
        stopped, new = None, 0
        # Another process may begin a round for what fails meanwhile; then this one joins it.
        while stopped is None and (left := ledger.left(units)):
            stopped = asyncio.run(_work(settings, ledger, prompt_of, units, rank.label("prompts")))
            new += len(left - ledger.left(left))
        report = replace(_report(ledger, settings, stopped), new=new)
        if not report.unfinished:
            write_shards(settings, ledger, folder, prompt_of)
    return report


async def _work(
    settings: PlanSketchSettings,
    ledger: Ledger,
    prompt_of: PromptOf,
    units: Sequence[int],
    label: str,
) -> BudgetError | None:
    allowed = _allowed(settings)
    # Edits wait for their turn in threads; asyncio's own has hardly more of them than cores.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(settings.concurrency))
    async with _lmm(settings, ledger) as lmm:
        editor = _editor(settings)  # after the key has been looked for: this may take minutes
        provenance = {
            "models": {"lmm": lmm.settings.model, "editor": editor.name},
            "prompt_versions": {"lmm": PROMPT_VERSION},
            "fingerprint": settings.fingerprint,
            "licence": editor.licence,
        }

        async def work(unit: int) -> Result:
            services = Services(
                lmm=lmm,
                editor=editor,
                ledger=ledger,
                drawing=settings.drawing,
                in_thread=settings.drawing.editor is not None,
            )
            builder = Builder(settings, services, prompt_of(unit), provenance, allowed)
            return await builder.build()

        return await run(units, work, ledger, concurrency=settings.concurrency, label=label)


def _report(ledger: Ledger, settings: PlanSketchSettings, stopped: BudgetError | None) -> Report:
    unfinished = ledger.left(range(settings.prompts.count))
    reasons = acceptance(ledger)
    samples = reasons.pop("samples")
    return Report(
        **samples,
        reasons=reasons,
        examples=examples(ledger),
        unfinished=len(unfinished),
        stopped=str(stopped or ""),
    )


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
