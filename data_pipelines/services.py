"""A language model and an image editor, with the ledger between them and the work."""

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from data_pipelines.asking import Asking, UnitEndError
from data_pipelines.kept_images import keep_image
from staged import images
from staged.backends.lmm.client import LmmClient
from staged.jobs.kept_images import KeptImage, draw_once
from staged.jobs.ledger import Ledger, unit_key
from staged.roles import ImageEditor, RoleError


@dataclass(frozen=True, kw_only=True)
class PricedEditor:
    """An image editor as a job uses it.

    Attributes:
        editor: Who draws.
        deciding: Of its settings what decides an image, as plain data: where it is drawn does
            not, so that an image is found again on another machine.
        width: Of every image, in pixels.
        height: Of every image, in pixels.
        usd_per_image: Price of one image.
        in_thread: Draw in a thread, for editors that take their time.
    """

    editor: ImageEditor
    deciding: Mapping[str, Any]
    width: int
    height: int
    usd_per_image: float = 0.0
    in_thread: bool = False


class Services(Asking):
    """Asks and draws for one unit, and adds up what that costs.

    Args:
        lmm: The language model.
        drawing: The image editor, with sizes and prices.
        ledger: Where images are kept; the language model keeps its attempts there itself.
    """

    def __init__(self, *, lmm: LmmClient, drawing: PricedEditor, ledger: Ledger) -> None:
        """Begin with no costs."""
        super().__init__(lmm)
        self._drawing, self._ledger = drawing, ledger
        self.images = 0

    async def draw(self, before: bytes | None, instruction: str, *, seed: int) -> bytes:
        """Draw an instruction, or take the image that was drawn for it before.

        Returns:
            PNG bytes.

        Raises:
            UnitEndError: the editor could not draw it.
        """
        key = unit_key(
            self._drawing.editor.name,
            self._drawing.deciding,
            self._drawing.width,
            self._drawing.height,
            before and hashlib.sha256(before).hexdigest(),
            instruction,
            seed,
        )

        async def drawn() -> KeptImage:
            png = await self._drawn(before, instruction, seed)
            return KeptImage(png=png, usd=self._drawing.usd_per_image)

        price = self._drawing.usd_per_image
        kept = await draw_once(self._ledger, key, usd=price, draw=drawn)
        assert kept.png is not None, "what is not drawn is not kept"
        self.usd += price
        self.images += 1
        return kept.png

    async def keep(self, image: bytes, *, purpose: str) -> None:
        """Keep an image that nobody is paid for, so that it is found again under its hash."""
        await keep_image(image, self._ledger, purpose=purpose)

    async def _drawn(self, before: bytes | None, instruction: str, seed: int) -> bytes:
        def draw() -> bytes:
            pixels = None if before is None else images.decode(before)
            size = {"width": self._drawing.width, "height": self._drawing.height}
            drawn = self._drawing.editor.edit(pixels, instruction, seed=seed, **size)
            return images.encode_png(drawn)

        try:
            return await asyncio.to_thread(draw) if self._drawing.in_thread else draw()
        except RoleError as error:
            detail = str(error).removeprefix(f"{error.reason}: ")
            raise UnitEndError("failed", "draw", error.reason, detail) from None
