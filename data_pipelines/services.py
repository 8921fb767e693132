"""A language model and an image editor, with the ledger between them and the work."""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data_pipelines.asking import Asking, UnitEndError
from data_pipelines.kept_images import keep_image
from staged import images
from staged.backends.lmm.client import LmmClient
from staged.jobs.kept_images import KeptImage, draw_once
from staged.jobs.ledger import Ledger, unit_key
from staged.roles import ImageEditor, LatentEditor, RoleError
from staged.trajectory import Sketch, Step

ONTO_LATENTS = "onto_latents"
"""Where in a trajectory's provenance stand the places of sketches that were drawn onto the latents
of the picture before, not onto its pixels."""


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
        latents: The editor, where it is to draw onto latents of its own pictures.
    """

    editor: ImageEditor
    deciding: Mapping[str, Any]
    width: int
    height: int
    usd_per_image: float = 0.0
    in_thread: bool = False
    latents: LatentEditor | None = None


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
        self._latents: dict[str, bytes] = {}
        self._onto_latents: set[str] = set()
        self.images = 0

    async def draw(self, before: bytes | None, instruction: str, *, seed: int) -> bytes:
        """Draw an instruction, or take the image that was drawn for it before.

        Returns:
            PNG bytes.

        Raises:
            UnitEndError: the editor could not draw it.
        """
        onto = before and _sha256(before)
        # Of this unit's own pictures, in the order in which they come: a resume finds the same.
        latents = self._latents.get(onto) if onto else None
        key = unit_key(
            self._drawing.editor.name,
            self._drawing.deciding,
            self._drawing.width,
            self._drawing.height,
            onto,
            instruction,
            seed,
            *([] if latents is None else [_sha256(latents)]),
        )

        async def drawn() -> KeptImage:
            png, beside = await self._drawn(before, latents, instruction, seed)
            return KeptImage(png=png, beside=beside, usd=self._drawing.usd_per_image)

        price = self._drawing.usd_per_image
        kept = await draw_once(self._ledger, key, usd=price, draw=drawn)
        assert kept.png is not None, "what is not drawn is not kept"
        self.usd += price
        self.images += 1
        if kept.beside is not None:
            self._latents[_sha256(kept.png)] = kept.beside
        if latents is not None:
            self._onto_latents.add(_sha256(kept.png))
        return kept.png

    def onto_latents(self, steps: Sequence[Step]) -> list[int]:
        """Return the places of sketches that were drawn onto latents, not onto a picture."""
        return [
            place
            for place, step in enumerate(steps)
            if isinstance(step, Sketch)
            and str(step.image.name).partition(".")[0] in self._onto_latents
        ]

    async def keep(self, image: bytes, *, purpose: str, made_of: bytes) -> None:
        """Keep an image that nobody is paid for, so that it is found again under its hash.

        Args:
            image: Encoded bytes.
            purpose: Under which it is counted.
            made_of: The drawing that it was; what that was drawn onto, it was drawn onto.
        """
        await keep_image(image, self._ledger, purpose=purpose)
        if _sha256(made_of) in self._onto_latents:
            self._onto_latents.add(_sha256(image))

    async def _drawn(
        self, before: bytes | None, latents: bytes | None, instruction: str, seed: int
    ) -> tuple[bytes, bytes | None]:
        def draw() -> tuple[bytes, bytes | None]:
            pixels = None if before is None else images.decode(before)
            size = {"width": self._drawing.width, "height": self._drawing.height}
            kept: bytes | None = None
            if (editor := self._drawing.latents) is not None:
                drawn, kept = editor.edit_latents(pixels, latents, instruction, seed=seed, **size)
            else:
                drawn = self._drawing.editor.edit(pixels, instruction, seed=seed, **size)
            return images.encode_png(drawn), kept

        try:
            return await asyncio.to_thread(draw) if self._drawing.in_thread else draw()
        except RoleError as error:
            detail = str(error).removeprefix(f"{error.reason}: ")
            raise UnitEndError("failed", "draw", error.reason, detail) from None


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
