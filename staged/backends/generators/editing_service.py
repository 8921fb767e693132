"""Any service with OpenAI's `images/edits` as an image editor."""

from __future__ import annotations

import asyncio
import threading
from functools import cached_property

import numpy as np

from staged import images
from staged.backends.generators.generator import DrawOutcome, NoImage
from staged.backends.generators.image_service import ImageService
from staged.backends.generators.settings import EditingServiceSettings
from staged.backends.http.api_key import read_api_key
from staged.roles import Pixels, RoleError


class EditingService:
    """Plays `ImageEditor` with a service.

    Many threads may ask for edits; all are sent by one of its own, so that they share connections,
    the limit of requests in flight, and what the service says of itself.

    Args:
        settings: Where it is, and how it is asked.

    Raises:
        ValueError: no such address, or the environment variable of the key is not set.
    """

    def __init__(self, settings: EditingServiceSettings) -> None:
        """Check address and key; nothing is opened yet."""
        self.settings = settings
        self._opening = threading.Lock()
        read_api_key(settings.base_url, settings.api_key_env)

    @property
    def name(self) -> str:
        """The model and where it is."""
        return f"{self.settings.model} at {self.settings.base_url}"

    @property
    def licence(self) -> str:
        """Terms that the outputs carry."""
        return self.settings.licence

    def edit(
        self, image: Pixels | None, instruction: str, *, width: int, height: int, seed: int
    ) -> Pixels:
        """Draw the instruction onto the image, or from nothing; from any thread.

        Args:
            image: (height, width, 3) uint8 RGB, or None for a first step.
            instruction: What to draw.
            width: Of the result, in pixels.
            height: Of the result, in pixels.
            seed: Sent where the settings say how.

        Raises:
            ServiceError: the service refuses everything. A `ValueError`.
            ValueError: it draws images of another size.
            RoleError: it gave no image, as often as it was asked.
        """
        if image is None and not self.settings.first_step_without_image:
            image = np.full((height, width, 3), 255, np.uint8)
        onto = None if image is None else images.encode_png(image)
        size = f"{width}x{height}" if self.settings.sends_size else None
        with self._opening:
            loop = self._loop
        drawing = self._draw(instruction, seed, size, onto)
        drawn = asyncio.run_coroutine_threadsafe(drawing, loop).result()
        if isinstance(drawn, NoImage):
            raise RoleError(drawn.reason, drawn.detail)
        if drawn.pixels.shape != (height, width, 3):
            high, wide = drawn.pixels.shape[:2]
            raise ValueError(
                f"{self.name} drew {wide} x {high} instead of {width} x {height} pixels: set "
                "drawing.width and drawing.height to what it draws"
            )
        return drawn.pixels

    async def _draw(
        self, instruction: str, seed: int, size: str | None, onto: bytes | None
    ) -> DrawOutcome:
        return await self._service.draw(instruction, seed=seed, size=size, onto=onto)

    @cached_property
    def _service(self) -> ImageService:
        # The job counts images by its own price: a reply costs nothing here.
        return ImageService(self.settings, lambda _: 0.0)

    @cached_property
    def _loop(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.new_event_loop()
        threading.Thread(target=loop.run_forever, name="editing service", daemon=True).start()
        return loop
