"""Exploring many ideas: a folder with a ledger, and an exploration in a folder of its own for each.

    settings.yaml     what decides every exploration
    ideas.json        which ideas, by their digests
    ledger/           every answer and picture, as soon as it is there
    00000/ 00001/ …   explorations, whole or not at all (`staged.ideas.folder`)
    report.html       made anew from these by every run

Whatever is killed costs what was being asked or drawn at that moment, and no more.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from staged.backends.idea2img.painter import LedgerPainter
from staged.backends.idea2img.player import LmmIdeaPlayer
from staged.backends.idea2img.requests import PROMPT_VERSION
from staged.backends.lmm.client import LmmClient
from staged.backends.lmm.ledger import LedgerLog
from staged.idea2img.image_models import check_image_model, open_image_model, settled
from staged.idea2img.settings import Idea2ImgSettings
from staged.ideas.exploration import Exploration
from staged.ideas.folder import EXPLORATION, save_exploration
from staged.ideas.idea import MARK, Idea
from staged.jobs.budget import BudgetError
from staged.jobs.files import read_json, write_json
from staged.jobs.ledger import Ledger
from staged.jobs.rank import Rank
from staged.jobs.results import UnitResult
from staged.jobs.runner import in_turn
from staged.loops.idea2img.events import IdeaEvent
from staged.loops.idea2img.loop import Idea2ImgLoop
from staged.loops.idea2img.roles import IdeaRoles
from staged.settings import changes, load, save_resolved
from staged.shapes.players.lmm import connect
from staged.shapes.sight.wishes import judged_exploration

SETTINGS: Final = "settings.yaml"
IDEAS: Final = "ideas.json"
LEDGER: Final = "ledger"
_ALONE: Final = Rank()


@dataclass(frozen=True, kw_only=True)
class IdeaJobResult:
    """How the explorations of a folder stand.

    Attributes:
        complete: Number of each that came to its end.
        failed: Number of each that broke off -> why.
        unfinished: How many are still to be done.
        new: How many this process ended now.
        usd: What all of them have cost.
        stopped: The limit that stopped the job, if one did.
    """

    complete: tuple[int, ...] = ()
    failed: Mapping[int, str] = field(default_factory=dict)
    unfinished: int = 0
    new: int = 0
    usd: float = 0.0
    stopped: str = ""


@dataclass(frozen=True, kw_only=True)
class IdeaTask:
    """One exploration that is wanted.

    Attributes:
        idea: What is wanted.
        manual: What a person would ask the image model for.
        seed: Of the exploration.
    """

    idea: Idea
    manual: str
    seed: int


def tasks_of(
    ideas: Sequence[Idea], manual: Sequence[str], settings: Idea2ImgSettings
) -> list[IdeaTask]:
    """List every exploration, idea by idea within one seed, so that more of each only adds.

    Args:
        ideas: In order.
        manual: What a person would ask for, for each; empty takes the texts of the ideas.
        settings: Number and seed.

    Raises:
        ValueError: There are not as many of the one as of the other.
    """
    if manual and len(manual) != len(ideas):
        raise ValueError(
            f"{len(manual)} prompts for {len(ideas)} ideas; give one for each, in their order"
        )
    said = manual or [" ".join(idea.text.replace(MARK, " ").split()) for idea in ideas]
    return [
        IdeaTask(idea=idea, manual=text, seed=settings.seed + number)
        for number in range(settings.explorations)
        for idea, text in zip(ideas, said, strict=True)
    ]


def run_ideas(
    settings: Idea2ImgSettings,
    tasks: Sequence[IdeaTask],
    folder: Path,
    *,
    rank: Rank = _ALONE,
    retry_failed: bool = False,
    tell: Callable[[IdeaEvent], None] = lambda event: None,
    done: Callable[[int, Exploration], None] = lambda number, exploration: None,
) -> IdeaJobResult:
    """Explore what the folder lacks.

    Args:
        settings: Who explores, how.
        tasks: What.
        folder: Where everything is written; it takes one job.
        rank: Which of the processes that share the job this is.
        retry_failed: Try again what broke off.
        tell: Told of everything as it happens.
        done: Told of each exploration as it ends.

    Raises:
        ValueError: The folder holds another job, or the settings cannot be followed.
        ServiceError: A service refuses whatever is asked; a `ValueError`.
    """
    before = load(Idea2ImgSettings, folder / SETTINGS) if (folder / SETTINGS).is_file() else None
    settings = settled(settings, before)
    if before is not None and (changed := changes(before.deciding, settings.deciding)):
        raise ValueError(
            f"{folder} holds explorations of other settings: {'; '.join(changed)}. Write to "
            f"another folder, or go on with the settings in {folder / SETTINGS}"
        )
    check_image_model(settings)
    units = rank.share(range(len(tasks)))
    with Ledger(
        folder / LEDGER, fingerprint=settings.fingerprint, rank=rank, budget=settings.budget
    ) as ledger:
        _record(settings, tasks, folder)
        if retry_failed:
            ledger.retry_failed(units)
        stopped, new = "", 0
        left = ledger.left(units)
        if left:
            work = _Work(settings, tasks, folder, ledger, tell, done)
            stopped = asyncio.run(work.run(sorted(left)))
            new = len(left - ledger.left(left))
        return _result(ledger, tasks, new, stopped)


def numbers_in(folder: Path) -> list[int]:
    """Numbers of the explorations that are there, complete or not."""
    return sorted(
        int(path.parent.name)
        for path in folder.glob(f"*/{EXPLORATION}")
        if path.parent.name.isdigit()
    )


class _Work:
    """What one process does with its share."""

    def __init__(
        self,
        settings: Idea2ImgSettings,
        tasks: Sequence[IdeaTask],
        folder: Path,
        ledger: Ledger,
        tell: Callable[[IdeaEvent], None],
        done: Callable[[int, Exploration], None],
    ) -> None:
        self._settings, self._tasks, self._folder = settings, tasks, folder
        self._ledger, self._tell, self._done = ledger, tell, done

    async def run(self, units: Sequence[int]) -> str:
        """Explore the units; returns the limit that stopped the job, if one did."""
        settings = self._settings
        async with self._loop() as loop:

            async def one(unit: int) -> None:
                await self._explore(loop, unit)

            try:
                await in_turn(units, one, workers=settings.concurrency)
            except BudgetError as stop:
                return str(stop)
        return ""

    async def _explore(self, loop: Idea2ImgLoop, unit: int) -> None:
        task = self._tasks[unit]
        exploration = await loop.run(
            task.idea, seed=task.seed, manual=task.manual, index=unit, on_event=self._tell
        )
        exploration = judged_exploration(exploration)
        # The folder first: what the ledger calls done is there.
        save_exploration(self._folder / f"{unit:05d}", exploration)
        provenance = exploration.provenance
        result = UnitResult(status="accepted", sample={"idea": task.idea.digest})
        if not exploration.complete:
            detail = str(provenance.get("failure_detail", ""))
            reason = str(provenance.get("failure", "nothing chosen"))
            result = UnitResult(status="failed", stage="idea2img", reason=reason, detail=detail)
        await self._ledger.finish(unit, result)
        self._done(unit, exploration)

    @asynccontextmanager
    async def _loop(self) -> AsyncIterator[Idea2ImgLoop]:
        settings, log = self._settings, LedgerLog(self._ledger)
        if settings.lmm is not None:
            client = LmmClient(settings.lmm, log=log)
        else:
            client = connect(misbehaviour=settings.misbehaviour, log=log)
        async with client as lmm:
            model = open_image_model(settings)  # after the key was looked for: it takes minutes
            usd = settings.endpoint.usd_per_image if settings.endpoint else 0.0
            player = LmmIdeaPlayer(lmm)
            names = dict.fromkeys(("writer", "selector", "critic", "inspector"), player.name)
            roles = IdeaRoles(
                writer=player,
                selector=player,
                critic=player,
                inspector=player,
                painter=LedgerPainter(model, self._ledger, usd_per_image=usd),
                names={**names, "painter": model.name},
                prompt_versions={"lmm": PROMPT_VERSION},
            )
            yield Idea2ImgLoop(roles, settings.policy)


def _record(settings: Idea2ImgSettings, tasks: Sequence[IdeaTask], folder: Path) -> None:
    """Write down what is explored, and refuse a folder of other ideas.

    Raises:
        ValueError: An idea that the folder has is another now.
    """
    listed = [[task.idea.digest, task.manual, task.seed] for task in tasks]
    path = folder / IDEAS
    if path.is_file():
        before = read_json(path)
        if not isinstance(before, list):
            raise ValueError(f"{path}: no list of ideas; restore it, or choose another folder")
        for number, (old, now) in enumerate(zip(before, listed, strict=False)):
            if old != now:
                raise ValueError(
                    f"{folder} holds another exploration {number} than "
                    f"{tasks[number].idea.text!r:.80}: ideas, prompts and seeds may only be added "
                    "at the end; write to another folder"
                )
        if len(before) >= len(listed):
            return
    save_resolved(settings, folder / SETTINGS)
    write_json(path, listed)


def _result(ledger: Ledger, tasks: Sequence[IdeaTask], new: int, stopped: str) -> IdeaJobResult:
    left = ledger.left(range(len(tasks)))
    ends = {unit: result for unit, result in ledger.results() if unit < len(tasks)}
    return IdeaJobResult(
        complete=tuple(unit for unit, one in ends.items() if one.status == "accepted"),
        failed={
            unit: one.detail or one.reason for unit, one in ends.items() if one.status == "failed"
        },
        unfinished=len(left),
        new=new,
        usd=ledger.spent.usd,
        stopped=stopped,
    )
