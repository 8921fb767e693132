"""Which sketches a trajectory's provenance says were drawn onto latents."""

import asyncio
from pathlib import Path
from typing import Any, cast

import numpy as np

from data_pipelines.kept_images import named_image
from data_pipelines.services import PricedEditor, Services
from staged import images
from staged.backends.lmm.client import LmmClient
from staged.jobs.ledger import Ledger
from staged.roles import Pixels
from staged.trajectory import Sketch


class Carrying:
    """Draws another grey each time, with latents."""

    name = "carrying"

    def edit_latents(
        self, image: Pixels | None, latents: bytes | None, instruction: str, **size: Any
    ) -> tuple[Pixels, bytes]:
        grey = len(instruction)
        return np.full((8, 8, 3), grey, np.uint8), bytes([grey])


def sketch(png: bytes) -> Sketch:
    return Sketch(image=named_image(png), seed=1)


def test_what_was_laid_back_was_drawn_onto_what_it_was_drawn_onto(tmp_path: Path) -> None:
    """Its bytes are others, and so it was missing."""
    editor = cast(Any, Carrying())
    drawing = PricedEditor(editor=editor, deciding={}, width=8, height=8, latents=editor)

    async def places(ledger: Ledger) -> list[list[int]]:
        services = Services(lmm=cast(LmmClient, None), drawing=drawing, ledger=ledger)
        first = await services.draw(None, "a", seed=1)
        second = await services.draw(first, "bb", seed=2)
        laid = [images.encode_png(np.full((8, 8, 3), n, np.uint8)) for n in (100, 200)]
        await services.keep(laid[0], purpose="realigned image", made_of=second)
        await services.keep(laid[1], purpose="realigned image", made_of=first)
        return [
            services.onto_latents([sketch(first), sketch(second)]),
            services.onto_latents([sketch(first), sketch(laid[0])]),
            services.onto_latents([sketch(laid[1]), sketch(laid[0])]),
        ]

    with Ledger(tmp_path / "ledger", fingerprint="f" * 64) as ledger:
        assert asyncio.run(places(ledger)) == [[1], [1], [1]]
