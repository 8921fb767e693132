"""The pipeline as a job: triples in, explained and corrected samples out."""

from __future__ import annotations

import hashlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from data_pipelines import job
from data_pipelines.asking import Asking, UnitEndError
from data_pipelines.kept_images import keep_image, named_image
from data_pipelines.prompts import PromptOf, UnitPrompt
from data_pipelines.reader import open_lmm
from data_pipelines.refine.genref import GenRef
from data_pipelines.refine.json_lines import JsonLines
from data_pipelines.refine.own import OwnTrajectories
from data_pipelines.refine.requests import fit_request, pair_request
from data_pipelines.refine.settings import ImportSettings, RefineSettings
from data_pipelines.refine.triples import Triple, Triples, TripleSource
from data_pipelines.runner import Work
from data_pipelines.summary import JobSummary
from data_pipelines.wording import Wording
from staged.jobs.ledger import Ledger
from staged.jobs.rank import Rank
from staged.jobs.results import UnitResult
from staged.tables import BadRowError
from staged.trajectory import (
    Inspection,
    Plan,
    Refinement,
    Sketch,
    Step,
    Stop,
    Trajectory,
)

_ALONE = Rank()
_UNREADABLE = "unreadable"


def run_job(
    settings: RefineSettings,
    folder: Path,
    *,
    rank: Rank = _ALONE,
    retry_failed: bool = False,
) -> JobSummary:
    """Do what is left of a job, and write the shards once nothing is; see `data_pipelines.job`.

    Raises:
        ValueError: As there; or no source is named, or one cannot be opened.
    """
    if not settings.sources:
        raise ValueError("sources: none; name what to import, as sources=[{path: …, format: …}]")
    triples = Triples([(_opened(source), source.most) for source in settings.sources])
    if not len(triples):
        raise ValueError("sources: there are no triples in them")
    count = len(triples) if settings.count is None else settings.count
    if count > len(triples):
        raise ValueError(f"count is {count}, but the sources have {len(triples)} triples")
    wording = Wording(settings.wording)
    words = wording.versions("explain_image", "correct_image")
    settings = replace(settings, count=count, words=words)
    prompt_of = _prompts(triples)
    return job.run_job(
        settings,
        folder,
        working=partial(_working, settings, wording, triples),
        prompt_of=prompt_of,
        rank=rank,
        retry_failed=retry_failed,
    )


def _opened(source: ImportSettings) -> TripleSource:
    match source.format:
        case "genref":
            return GenRef(source.path, source.subsets)
        case "json-lines":
            return JsonLines(source.path, source.fields)
        case "trajectories":
            return OwnTrajectories(source.path)


def _prompts(triples: Triples) -> PromptOf:
    def prompt_of(unit: int) -> UnitPrompt:
        try:
            return UnitPrompt(unit=unit, text=triples.prompt(unit))
        except BadRowError:
            return UnitPrompt(unit=unit, text=_UNREADABLE)

    return prompt_of


@asynccontextmanager
async def _working(
    settings: RefineSettings, wording: Wording, triples: Triples, ledger: Ledger
) -> AsyncIterator[Work]:
    async with open_lmm(settings.lmm, settings.misbehaviour, ledger) as lmm:
        provenance = {
            "models": {"inspector": lmm.settings.model, "refiner": lmm.settings.model},
            "prompt_versions": settings.words,
            "fingerprint": settings.fingerprint,
        }

        async def work(unit: int) -> UnitResult:
            try:
                triple = triples.triple(unit)
            except BadRowError as error:
                return UnitEndError("rejected", "import", error.reason, str(error)).result
            lesson = _Lesson(settings, wording, Asking(lmm), triple, unit, provenance, ledger)
            return await lesson.build()

        yield work


class _Lesson:
    """Makes a sample of one triple. What it becomes depends on settings and triple alone."""

    def __init__(
        self,
        settings: RefineSettings,
        wording: Wording,
        asking: Asking,
        triple: Triple,
        unit: int,
        provenance: dict[str, Any],
        ledger: Ledger,
    ) -> None:
        self._settings, self._wording = settings, wording
        self._asking, self._triple = asking, triple
        self._unit, self._provenance, self._ledger = unit, provenance, ledger
        self._steps: list[Step] = []
        if settings.plan == "prompt":
            plan = Plan(instruction=triple.prompt, description=triple.prompt, loss=False)
            self._steps.append(plan)

    async def build(self) -> UnitResult:
        digest = hashlib.sha256(f"{self._settings.seed}/{self._unit}/kind".encode()).digest()
        dice = random.Random(digest)
        aligned = dice.random() < self._settings.aligned or self._triple.bad is None
        kind = "aligned" if aligned else "misaligned"
        try:
            if aligned:
                await self._explained()
            else:
                await self._corrected(again=dice.random() < self._settings.explain_mended)
        except UnitEndError as end:
            return replace(end.result, sample=await self._sample(kind))
        return UnitResult(status="accepted", sample=await self._sample(kind))

    async def _explained(self) -> None:
        self._show(self._triple.good, loss=False)
        judgement = await self._asking.ask(
            fit_request(
                self._wording, self._triple.prompt, self._triple.good, seed=self._settings.seed
            )
        )
        if judgement.verdict == "revise":
            raise UnitEndError(
                "rejected", "explain_image", "the better image does not fit", judgement.critique
            )
        self._say("accept", judgement.critique)
        self._steps.append(Stop())

    async def _corrected(self, *, again: bool) -> None:
        triple = self._triple
        assert triple.bad is not None
        self._show(triple.bad, loss=False)
        judgement = await self._asking.ask(
            pair_request(
                self._wording,
                triple.prompt,
                triple.bad,
                triple.good,
                triple.reflection,
                seed=self._settings.seed,
            )
        )
        if not judgement.conflicts:
            raise UnitEndError(
                "rejected", "correct_image", "nothing wrong with the first", judgement.critique
            )
        if not judgement.mended:
            raise UnitEndError(
                "rejected", "correct_image", "the second does not mend it", judgement.critique
            )
        self._say("revise", judgement.critique)
        self._steps.append(Refinement(instruction=judgement.correction))
        self._show(triple.good, loss=True)
        if again:
            self._say("accept", judgement.explanation)
        self._steps.append(Stop())

    def _show(self, image: bytes, *, loss: bool) -> None:
        self._steps.append(Sketch(image=named_image(image), loss=loss))

    def _say(self, verdict: Any, critique: str) -> None:
        self._steps.append(Inspection(target="sketch", verdict=verdict, critique=critique))

    async def _sample(self, kind: str) -> dict[str, Any]:
        triple = self._triple
        trajectory = Trajectory(
            prompt=triple.prompt,
            steps=tuple(self._steps),
            task=f"refine {kind}",
            provenance={
                **self._provenance,
                "unit": self._unit,
                "source": triple.place,
                **({} if triple.subset is None else {"subset": triple.subset}),
                **({} if triple.reflection is None else {"reflection": triple.reflection}),
                **({"made by": triple.facts} if triple.facts else {}),
                "cost": {"usd": self._asking.usd, "requests": self._asking.requests},
            },
        )
        for ref in trajectory.images:
            await keep_image(ref.loaded, self._ledger, purpose="imported image")
        return trajectory.to_dict()
