"""The painter of Idea2Img: any image model, with the job's ledger between it and the loop."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from PIL import Image

from staged import images
from staged.backends.generators.generator import DrawnImage, DrawOutcome, Generator, NoImage
from staged.jobs.kept_images import KeptImage, draw_once
from staged.jobs.ledger import Ledger, unit_key
from staged.loops.idea2img.roles import DraftRequest, PaintedDraft
from staged.roles import ImageEditor, Pixels, RoleError
from staged.trajectory import ImageRef

_MAX_DETAIL_CHARS = 500
_SIDE_PX = 1024
"""Editors, like most image models, were trained at a megapixel."""
_STEP_PX = 16


class IdeaImageModel(Protocol):
    """An image model that can be explored."""

    @property
    def name(self) -> str:
        """What a person calls it."""
        ...

    @property
    def edits(self) -> bool:
        """Whether it draws onto pictures too."""
        ...

    @property
    def at_once(self) -> int:
        """Most pictures a call; more than 1 only where none depends on its company."""
        ...

    def identity(self) -> Mapping[str, Any]:
        """What decides every picture, as plain JSON data."""
        ...

    def draw(self, requests: Sequence[DraftRequest]) -> Iterator[tuple[DraftRequest, DrawOutcome]]:
        """Draw each once, in any order, and yield each as soon as it is there.

        Raises:
            ValueError: Something is wrong with all of them, not with one.
        """
        ...


class GeneratorModel:
    """A generator of images, and perhaps an editor beside it, as one image model.

    Args:
        generator: Draws from nothing.
        editor: Draws onto pictures; None where nobody does.
        editing: What decides the editor's pictures, as plain JSON data.
        at_once: Most pictures a call of the generator, if it draws each alone.
    """

    def __init__(
        self,
        generator: Generator[DraftRequest],
        editor: ImageEditor | None = None,
        *,
        editing: Mapping[str, Any] | None = None,
        at_once: int = 16,
    ) -> None:
        """Take both."""
        self._generator, self._editor, self._editing = generator, editor, dict(editing or {})
        # What others change in the last digits is drawn by itself, so that a kill changes nothing.
        self.at_once = at_once if generator.alone else 1

    @property
    def name(self) -> str:
        """The generator's, and the editor's."""
        editor = f", edits by {self._editor.name}" if self._editor else ""
        return self._generator.name + editor

    @property
    def edits(self) -> bool:
        """Whether there is an editor."""
        return self._editor is not None

    def identity(self) -> Mapping[str, Any]:
        """What decides every picture."""
        editor = {"editor": self._editor.name, **self._editing} if self._editor else {}
        return {**self._generator.identity(), **editor}

    def draw(self, requests: Sequence[DraftRequest]) -> Iterator[tuple[DraftRequest, DrawOutcome]]:
        """Draw from nothing with the generator, onto pictures with the editor."""
        if fresh := [one for one in requests if one.onto is None]:
            yield from self._generator.draw(fresh)
        for one in requests:
            if one.onto is not None:
                yield one, self._edited(one, one.onto)

    def _edited(self, request: DraftRequest, onto: ImageRef) -> DrawOutcome:
        if self._editor is None:
            raise ValueError(f"{self._generator.name} draws onto no picture; name an editor")
        before = fitting(onto.array())
        height, width = before.shape[:2]
        try:
            pixels = self._editor.edit(
                before, request.prompt, width=width, height=height, seed=request.seed
            )
        except RoleError as error:
            return NoImage(reason=error.reason, detail=str(error), final=True)
        return DrawnImage(pixels=pixels)


class LedgerPainter:
    """Plays `Painter`: draws what the ledger does not hold yet.

    Args:
        model: Draws, one call at a time, from a thread.
        ledger: Of the job; keeps every picture.
        usd_per_image: What is reserved of the budget before a picture; what it costs in the end,
            the model says.
    """

    def __init__(self, model: IdeaImageModel, ledger: Ledger, *, usd_per_image: float = 0) -> None:
        """Take the model; nothing is drawn yet."""
        self._model, self._ledger, self._usd = model, ledger, usd_per_image
        self._identity = dict(model.identity())
        self._queue = DrawQueue(model)

    @property
    def edits(self) -> bool:
        """Whether the model draws onto pictures."""
        return self._model.edits

    async def draw(self, requests: Sequence[DraftRequest]) -> list[PaintedDraft | RoleError]:
        """Draw each, or take what was drawn for it before."""
        # Equal requests of one call would wait for each other's claim; they are one picture anyway.
        wanted = {self._key(request): request for request in requests}
        # All of them, also where one stops the job: what is being drawn is paid for.
        came = await asyncio.gather(
            *(self._one(key, request) for key, request in wanted.items()), return_exceptions=True
        )
        painted: dict[str, PaintedDraft | RoleError] = {}
        for key, one in zip(wanted, came, strict=True):
            if isinstance(one, BaseException) and not isinstance(one, RoleError):
                raise one
            painted[key] = one
        return [painted[self._key(request)] for request in requests]

    async def _one(self, key: str, request: DraftRequest) -> PaintedDraft | RoleError:
        async def drawn() -> KeptImage:
            return _kept(await self._queue.take(request))

        kept = await draw_once(self._ledger, key, usd=self._usd, draw=drawn)
        if kept.png is None:
            return RoleError(str(kept.data.get("reason")), str(kept.data.get("detail", "")))
        cost = {**kept.data.get("cost", {}), **({"usd": kept.usd} if kept.usd else {})}
        return PaintedDraft(image=ImageRef(png=kept.png), cost=cost)

    def _key(self, request: DraftRequest) -> str:
        onto = request.onto and hashlib.sha256(request.onto.png or b"").hexdigest()
        return unit_key(
            self._model.name, self._identity, request.prompt, request.seed, onto, request.edit
        )


class DrawQueue:
    """Many tasks before one image model, which serves one call at a time, several a call.

    What has come while a call ran goes into the next one. Whatever a call yields reaches its task
    at once, and not when the call is over, so that it can be kept before anything else happens.

    Args:
        model: Draws, in a thread.
    """

    def __init__(self, model: IdeaImageModel) -> None:
        """Begin with nobody waiting."""
        self._model = model
        self._waiting: list[tuple[DraftRequest, asyncio.Future[DrawOutcome]]] = []
        self._serving: asyncio.Task[None] | None = None

    async def take(self, request: DraftRequest) -> DrawOutcome:
        """Wait for a turn, and return what came, or raise what the call raised."""
        came: asyncio.Future[DrawOutcome] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, came))
        if self._serving is None:
            self._serving = asyncio.ensure_future(self._serve())
        return await came

    async def _serve(self) -> None:
        # Tasks that are about to ask do so before the first call begins.
        await asyncio.sleep(0)
        while self._waiting:
            size = self._model.at_once
            call, self._waiting = self._waiting[:size], self._waiting[size:]
            await asyncio.to_thread(self._call, call, asyncio.get_running_loop())
        self._serving = None

    def _call(
        self,
        call: Sequence[tuple[DraftRequest, asyncio.Future[DrawOutcome]]],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        left = {id(request): came for request, came in call}
        failed: Exception = ValueError(f"{self._model.name} did not answer every request")
        try:
            for request, outcome in self._model.draw([request for request, _ in call]):
                loop.call_soon_threadsafe(_settle, left.pop(id(request)), outcome)
        except Exception as error:
            failed = error
        for came in left.values():
            loop.call_soon_threadsafe(_settle, came, failed)


def _settle(came: asyncio.Future[DrawOutcome], outcome: DrawOutcome | Exception) -> None:
    if came.done():  # whoever waited was cancelled
        return
    if isinstance(outcome, Exception):
        came.set_exception(outcome)
    else:
        came.set_result(outcome)


def fitting(pixels: Pixels) -> Pixels:
    """Scale a picture to what editors draw: no side over 1024 px, both multiples of 16.

    Smaller ones keep their size where it is a multiple of 16, so a picture that was drawn stays as
    it is.

    Args:
        pixels: (h, w, 3) uint8 RGB.
    """
    height, width = pixels.shape[:2]
    scale = min(1.0, _SIDE_PX / max(height, width))
    sides = [max(_STEP_PX, round(side * scale / _STEP_PX) * _STEP_PX) for side in (width, height)]
    if sides == [width, height]:
        return pixels
    resized = Image.fromarray(pixels).resize((sides[0], sides[1]), Image.Resampling.LANCZOS)
    return np.asarray(resized, dtype=np.uint8)


def _kept(outcome: DrawOutcome) -> KeptImage:
    cost = {unit: amount for unit, amount in outcome.cost.items() if unit != "usd"}
    usd = outcome.cost.get("usd", 0.0)
    if isinstance(outcome, NoImage):
        detail = outcome.detail[:_MAX_DETAIL_CHARS]
        data = {"reason": outcome.reason, "detail": detail, "cost": cost}
        return KeptImage(png=None, usd=usd, data=data, final=outcome.final)
    png = images.encode_png(outcome.pixels)
    return KeptImage(png=png, usd=usd, data={"cost": cost})
