"""The pipeline as a job: its prompts, its checkpoint, its judge and its editor."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_pipelines import job
from data_pipelines.claim import SETTINGS
from data_pipelines.critique.balance import Balance
from data_pipelines.critique.lessons import MAKERS, supervised
from data_pipelines.critique.players import UNIT, Cast, JudgedRollout
from data_pipelines.critique.rolling import RollingThread
from data_pipelines.critique.settings import CritiqueSettings
from data_pipelines.drawing import priced
from data_pipelines.drift.steady import DRIFT
from data_pipelines.editors import OWN, Editors
from data_pipelines.kept_images import keep_image, named_image
from data_pipelines.prompts import PromptOf, UnitPrompt
from data_pipelines.reader import open_lmm
from data_pipelines.runner import Work
from data_pipelines.services import ONTO_LATENTS, Services
from data_pipelines.shards import trajectories
from data_pipelines.summary import JobSummary
from data_pipelines.wording import Wording
from staged.jobs.ledger import Ledger
from staged.jobs.rank import Rank
from staged.jobs.records import Records
from staged.jobs.results import UnitResult
from staged.settings import load
from staged.trajectory import Trajectory

if TYPE_CHECKING:  # torch takes seconds to import
    from staged.generate.model import DrawingModel

_ALONE = Rank()


def run_job(
    settings: CritiqueSettings,
    folder: Path,
    *,
    rank: Rank = _ALONE,
    retry_failed: bool = False,
    editors: Editors = OWN,
) -> JobSummary:
    """Do what is left of a job, and write the shards once nothing is; see `data_pipelines.job`.

    Raises:
        ValueError: As there; or there is no such checkpoint, its weights are not those of the
            folder, or a prompt is beyond it.
    """
    from staged.generate.model import DrawingModel

    model = DrawingModel(settings.generator, seed=settings.seed)
    prompt_of = _prompts(settings, model)  # before weights are read
    wording = Wording(settings.wording)
    settings = replace(
        _settled(settings, model, folder, editors),
        words=wording.versions("judge_plan", "judge_sketch"),
    )
    return job.run_job(
        settings,
        folder,
        working=partial(_working, settings, model, editors, wording, prompt_of),
        prompt_of=prompt_of,
        rank=rank,
        retry_failed=retry_failed,
        arranged=partial(_balanced, settings),
    )


def _settled(
    settings: CritiqueSettings, model: DrawingModel, folder: Path, editors: Editors
) -> CritiqueSettings:
    """Say what `auto` stands for, and which weights there are."""
    path = folder / SETTINGS
    begun = load(CritiqueSettings, path) if path.is_file() else None
    model.settle(begun.generator.dtype if begun else None)
    model.admit(most=settings.concurrency)  # before weights take their room
    if settings.weights not in (None, model.weights):
        raise ValueError(
            f"weights: {settings.generator.checkpoint} has {model.weights}, and the settings say "
            f"{settings.weights}; leave them out, or name the checkpoint that has them"
        )
    return replace(
        settings,
        generator=model.settings,
        weights=model.weights,
        drawing=editors.settled(settings.drawing, begun=begun.drawing if begun else None),
    )


def _prompts(settings: CritiqueSettings, model: DrawingModel) -> PromptOf:
    """The prompt of each rollout, in words that the checkpoint reads."""
    prompt_of = settings.prompts.of_units(settings.seed)
    if settings.prompts.file is not None:  # sampled ones are in its words
        said = model.understood([prompt_of(i).text for i in range(settings.prompts.count)])
        return lambda unit: UnitPrompt(unit=unit, text=said[unit // settings.rollouts])

    def rolled(unit: int) -> UnitPrompt:
        return replace(prompt_of(unit // settings.rollouts), unit=unit)

    return rolled


@asynccontextmanager
async def _working(
    settings: CritiqueSettings,
    model: DrawingModel,
    editors: Editors,
    wording: Wording,
    prompt_of: PromptOf,
    ledger: Ledger,
) -> AsyncIterator[Work]:
    async with open_lmm(settings.lmm, settings.misbehaviour, ledger) as lmm:
        editor = editors.open(settings.drawing)
        drawing = priced(editor, settings.drawing)
        # As many as there is room for; none depends on it.
        loop = model.loop(most=settings.concurrency)
        cast = Cast(
            loop.roles,
            settings,
            wording,
            asyncio.get_running_loop(),
            judge=lmm.settings.model,
            editor=editor.name,
        )
        policy = replace(
            settings.generator.policy(), inspect_plan="always", inspect_sketch="always"
        )
        provenance = {
            "prompt_versions": settings.words,
            "fingerprint": settings.fingerprint,
            "weights": settings.weights,
            "licence": editor.licence,
        }
        async with RollingThread(cast.roles(), policy, room=loop.batch_size) as rolling:

            async def work(unit: int) -> UnitResult:
                services = Services(lmm=lmm, drawing=drawing, ledger=ledger)
                rollout = cast.rollouts[unit] = JudgedRollout(services)
                prompt = prompt_of(unit)
                start = replace(model.start(prompt.text), task=prompt.task, provenance={UNIT: unit})
                try:
                    ended = await rolling.roll(start, _seed(settings, unit))
                finally:
                    del cast.rollouts[unit]
                return await _kept(ended, rollout, settings, provenance, ledger)

            yield work


async def _kept(
    ended: Trajectory,
    rollout: JudgedRollout,
    settings: CritiqueSettings,
    provenance: dict[str, Any],
    ledger: Ledger,
) -> UnitResult:
    """Make a lesson of a rollout, with its images in the ledger."""
    services = rollout.services
    facts = {
        **ended.provenance,
        **provenance,
        MAKERS: [rollout.makers.get(place, "loop") for place in range(len(ended.steps))],
        "cost": {
            **ended.provenance.get("cost", {}),
            "usd": services.usd,
            "requests": services.requests,
            "images": services.images,
        },
    }
    named = _named(ended)
    if rollout.drift:
        facts[DRIFT] = rollout.drift
    if onto_latents := services.onto_latents(named.steps):
        facts[ONTO_LATENTS] = onto_latents
    named = replace(named, provenance=facts)
    lesson = supervised(named, rollout, settings.learned)
    await _keep_images(lesson or named, ledger)
    sample = (lesson or named).to_dict()
    if rollout.ended is not None:
        return replace(rollout.ended, sample=sample)
    if lesson is None:
        reason = str(ended.provenance.get("failure") or "nothing to learn")
        return UnitResult(status="rejected", stage="rollout", reason=reason, sample=sample)
    return UnitResult(status="accepted", sample=sample)


def _named(trajectory: Trajectory) -> Trajectory:
    """Name images by their hashes: under these the ledger gives their bytes back."""
    return trajectory.with_images([named_image(ref.loaded) for ref in trajectory.images])


async def _keep_images(trajectory: Trajectory, ledger: Ledger) -> None:
    """Keep what the checkpoint drew; what the editor drew is there."""
    for ref in trajectory.images:
        await keep_image(ref.loaded, ledger, purpose="sketch")


def _balanced(
    settings: CritiqueSettings, records: Records
) -> Callable[[int, Trajectory], Trajectory | None]:
    accepted = (
        (unit, trajectory)
        for unit, result, trajectory in trajectories(records)
        if result.status == "accepted"
    )
    return Balance.of(accepted, settings.learned, settings.seed).applied


def _seed(settings: CritiqueSettings, unit: int) -> int:
    digest = hashlib.sha256(f"{settings.seed}/{unit}/rollout".encode()).digest()
    return int.from_bytes(digest[:6])
