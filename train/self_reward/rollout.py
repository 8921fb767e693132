"""Rewrites of prompts, and the pictures that they give: kept as soon as they are there.

Every prompt is one unit of the ledger, and what comes of it depends on it alone: its rewrites are
sampled together, and its pictures have the same noise, the original prompt's too.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from staged import strict_json
from staged.backends.idea2img.painter import IdeaImageModel, LedgerPainter
from staged.jobs.budget import BudgetError
from staged.jobs.ledger import Ledger, unit_key
from staged.jobs.results import UnitResult
from staged.jobs.runner import in_turn
from staged.loops.idea2img.roles import DraftRequest, PaintedDraft
from staged.loops.rollout import step_seed
from staged.roles import RoleError
from train.self_reward.asking import Questions, read_rewrite
from train.self_reward.examples import keep_picture
from train.self_reward.settings import SamplingSettings, SelfRewardSettings
from train.self_reward.vlm import Asked, VlmPlayer

_AT_ONCE: Final = 4
"""Prompts whose pictures are drawn side by side."""


@dataclass(frozen=True, kw_only=True)
class DrawnRewrite:
    """A rewrite and its picture.

    Attributes:
        prompt: The rewrite.
        picture: SHA-256 (hex) of its picture in the ledger.
    """

    prompt: str
    picture: str


@dataclass(frozen=True, kw_only=True)
class DrawnPrompt:
    """A prompt, and what was made of it.

    Attributes:
        prompt: As a person wrote it.
        picture: SHA-256 (hex) of its picture.
        candidates: The different rewrites that were drawn, in the order in which they were written.
    """

    prompt: str
    picture: str
    candidates: tuple[DrawnRewrite, ...]

    @classmethod
    def of(cls, sample: Mapping[str, Any], place: str) -> DrawnPrompt:
        """Read what a ledger keeps of a unit."""
        found = strict_json.record(
            dict(sample), place, {"prompt": str, "picture": str, "candidates": list}
        )
        fields = {"prompt": str, "picture": str}
        return cls(
            prompt=found["prompt"],
            picture=found["picture"],
            candidates=tuple(
                DrawnRewrite(**strict_json.record(one, place, fields))
                for one in found["candidates"]
            ),
        )


class RolloutWork:
    """Writes and draws for prompts.

    Args:
        settings: How many rewrites, how.
        answerer: Writes.
        model: Draws.
        ledger: Keeps all of it.
        wording: How the model is asked.
        done: Told of each prompt as it ends.
    """

    def __init__(
        self,
        settings: SelfRewardSettings,
        answerer: VlmPlayer,
        model: IdeaImageModel,
        ledger: Ledger,
        wording: Questions,
        done: Callable[[], None] = lambda: None,
    ) -> None:
        """Take them."""
        endpoint = settings.image_model.endpoint
        usd = endpoint.usd_per_image if endpoint else 0.0
        self._settings, self._answerer, self._ledger = settings, answerer, ledger
        self._painter = LedgerPainter(model, ledger, usd_per_image=usd)
        self._wording, self._done = wording, done

    async def run(self, units: Sequence[int], prompts: Sequence[str]) -> str:
        """Work on units; returns the limit that stopped the job, if one did."""

        async def one(unit: int) -> None:
            await self._ledger.finish(unit, await self._one(prompts[unit]))
            self._done()

        try:
            await in_turn(units, one, workers=_AT_ONCE)
        except BudgetError as stop:
            return str(stop)
        return ""

    async def _one(self, prompt: str) -> UnitResult:
        noise = step_seed(self._settings.seed, prompt, 0)
        written = [text for text in await self._written(prompt) if text != prompt]
        candidates = list(dict.fromkeys(written))
        if not candidates:
            return UnitResult(status="rejected", stage="rollout", reason="no rewrite")
        drawn = await self._painter.draw(
            [DraftRequest(prompt=text, seed=noise) for text in (prompt, *candidates)]
        )
        digests = [_digest(one) for one in drawn]
        kept = [
            {"prompt": text, "picture": digest}
            for text, digest in zip(candidates, digests[1:], strict=True)
            if digest is not None
        ]
        if digests[0] is None or not kept:
            reasons = [one.reason for one in drawn if isinstance(one, RoleError)]
            return UnitResult(status="rejected", stage="rollout", reason=reasons[0])
        sample = {"prompt": prompt, "picture": digests[0], "candidates": kept}
        return UnitResult(status="accepted", sample=sample)

    async def _written(self, prompt: str) -> list[str]:
        settings = self._settings
        asked = Asked(question=self._wording.rewrite(prompt))
        seed = step_seed(settings.seed, prompt, 1)
        number = settings.num_candidates
        texts = await kept_answers(
            self._ledger, self._answerer, asked, number, settings.rollout, seed=seed
        )
        found = (None if text is None else read_rewrite(text) for text in texts)
        return [text for text in found if text is not None]


def _digest(drawn: PaintedDraft | RoleError) -> str | None:
    """Name of a picture in the ledger; None where there is none."""
    if isinstance(drawn, RoleError):
        return None
    return hashlib.sha256(drawn.image.loaded).hexdigest()


async def kept_answers(
    ledger: Ledger,
    answerer: VlmPlayer,
    asked: Asked,
    number: int,
    sampling: SamplingSettings,
    *,
    seed: int,
) -> list[str | None]:
    """Sample answers, or take those that any process of the job has sampled before."""
    key = unit_key(
        answerer.digest,
        asked.question,
        [hashlib.sha256(data).hexdigest() for data in asked.pictures],
        number,
        vars(sampling),
        seed,
    )
    async with ledger.claim(key):
        if kept := ledger.answers(key):
            texts: list[str | None] = list(kept[-1].data["texts"])
            return texts
        with ledger.admitted("requests"):
            texts = await asyncio.to_thread(answerer.sample, asked, number, sampling, seed=seed)
        await ledger.record(key, "requests", "answers", paid=True, usd=0.0, data={"texts": texts})
        return texts


def write_pictures(ledger: Ledger, rollouts: Sequence[DrawnPrompt], folder: Path) -> None:
    """Write the pictures of rollouts as files, named by their digests."""
    for one in rollouts:
        for digest in (one.picture, *(candidate.picture for candidate in one.candidates)):
            keep_picture(folder, ledger.blob(digest))


def picture_at(folder: Path, digest: str) -> Path:
    """Where a picture lies."""
    return folder / f"{digest[:32]}.png"
