"""The two services of the pipeline, with the ledger between them and the work."""

import asyncio
import hashlib
from typing import Any, TypeVar

from pydantic import BaseModel

from data_pipelines.plan_sketch.settings import NOT_DECIDING, Drawing
from staged import images, settings
from staged.backends.lmm.client import LmmClient
from staged.backends.lmm.types import Failure, LmmRequest
from staged.jobs.ledger import Ledger, unit_key
from staged.jobs.records import Result
from staged.roles import ImageEditor, RoleError

T = TypeVar("T", bound=BaseModel)


class UnitEndError(Exception):
    """A unit of work ends here.

    Attributes:
        result: How; its sample is added by whoever knows the steps so far.
    """

    def __init__(self, result: Result) -> None:
        """Keep the result."""
        super().__init__(f"{result.stage}: {result.reason}")
        self.result = result


class Services:
    """Asks and draws for one unit, and adds up what that costs.

    Args:
        lmm: The language model.
        editor: The image editor.
        ledger: Where images are kept; the language model keeps its attempts there itself.
        drawing: Sizes and prices.
        in_thread: Draw in a thread, for editors that take their time.
    """

    def __init__(
        self,
        *,
        lmm: LmmClient,
        editor: ImageEditor,
        ledger: Ledger,
        drawing: Drawing,
        in_thread: bool,
    ) -> None:
        """Begin with no costs."""
        self._lmm, self._editor, self._ledger = lmm, editor, ledger
        self._drawing, self._in_thread = drawing, in_thread
        # Where it is drawn does not decide what: an image is found again on another machine.
        self._identity = {
            name: value
            for name, value in settings.to_dict(drawing.editor or drawing.mistakes).items()
            if name not in NOT_DECIDING
        }
        self.usd = 0.0
        self.requests = 0
        self.images = 0

    async def ask(self, request: LmmRequest[T]) -> T:
        """Ask the language model.

        Raises:
            UnitEndError: there is no answer.
        """
        reply = await self._lmm.ask(request)
        self.usd += reply.usd
        self.requests += 1
        if isinstance(reply, Failure):
            raise UnitEndError(
                Result(
                    status="failed", stage=request.purpose, reason=reply.kind, detail=reply.detail
                )
            )
        return reply.value

    async def draw(self, before: bytes | None, instruction: str, *, seed: int) -> bytes:
        """Draw an instruction, or take the image that was drawn for it before.

        Returns:
            PNG bytes.

        Raises:
            UnitEndError: the editor could not draw it.
        """
        key = unit_key(
            self._editor.name,
            self._identity,
            self._drawing.width,
            self._drawing.height,
            before and hashlib.sha256(before).hexdigest(),
            instruction,
            seed,
        )
        png = self._kept(key)
        if png is None:
            async with self._ledger.claim(key):
                # Another process may have drawn it until now.
                png = self._kept(key)
                if png is None:
                    png = await self._paid(key, before, instruction, seed)
        self.usd += self._drawing.usd_per_image
        self.images += 1
        return png

    def _kept(self, key: str) -> bytes | None:
        """Return the image of a request; None where none was drawn, or it was lost since."""
        kept = [answer.sha256 for answer in self._ledger.answers(key) if answer.sha256]
        return self._ledger.find_blob(kept[-1]) if kept else None

    async def _paid(self, key: str, before: bytes | None, instruction: str, seed: int) -> bytes:
        usd = self._drawing.usd_per_image
        self._ledger.admit("images", usd=usd)
        try:
            png = await self._drawn(before, instruction, seed)
        except UnitEndError:
            self._ledger.withdraw("images", usd=usd)
            raise
        await self._ledger.record(
            key, "images", "images", paid=True, usd=usd, reserved_usd=usd, data={}, blob=png
        )
        return png

    async def _drawn(self, before: bytes | None, instruction: str, seed: int) -> bytes:
        def draw() -> bytes:
            pixels = None if before is None else images.decode(before)
            size: dict[str, Any] = {"width": self._drawing.width, "height": self._drawing.height}
            return images.encode_png(self._editor.edit(pixels, instruction, seed=seed, **size))

        try:
            return await asyncio.to_thread(draw) if self._in_thread else draw()
        except RoleError as error:
            raise UnitEndError(
                Result(
                    status="failed",
                    stage="draw",
                    reason=error.reason,
                    detail=str(error).removeprefix(f"{error.reason}: ")[:500],
                )
            ) from None
