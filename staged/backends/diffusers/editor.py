"""Any diffusers editing pipeline as an image editor; FLUX.1 Kontext unless the settings differ.

A pipeline keeps the place of the sampler in its scheduler, so two calls at a time end in an
IndexError or in each other's noise. Many threads may ask for edits; the pipeline is called by one
at a time, and with several edits of one size at once where the settings allow it.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from staged.backends.diffusers import latents as stored
from staged.backends.diffusers.finite_pictures import FinitePictures
from staged.backends.diffusers.loading import check_takes, load_pipeline, name_of
from staged.backends.diffusers.settings import LICENCES, DiffusersSettings
from staged.backends.diffusers.turns import Turns
from staged.model.finite import NotFiniteError
from staged.roles import Pixels, RoleError

_BATCHES = ("FluxKontextPipeline",)
"""Pipelines to which a list of images means one for each prompt; to others it means several
references for all of them."""


@dataclass(frozen=True, kw_only=True)
class _Edit:
    image: Image.Image | Tensor | None
    instruction: str
    width: int
    height: int
    seed: int


@dataclass(frozen=True)
class _Drawn:
    pixels: Pixels
    latents: Tensor | None


class DiffusersEditor:
    """Plays `ImageEditor` with a diffusers pipeline, and `LatentEditor` where the settings say so.

    Args:
        settings: Which pipeline, and how it is called.
        pipeline: A pipeline that is already loaded, in place of the settings' model.

    Raises:
        ValueError: diffusers has no such pipeline, or it does not take the arguments or batches.
    """

    def __init__(self, settings: DiffusersSettings, *, pipeline: Any | None = None) -> None:
        """Load the pipeline."""
        self.settings = settings
        self._pipeline = load_pipeline(settings) if pipeline is None else pipeline
        needed = {"image", "prompt", "generator", "num_inference_steps"}
        needed |= {settings.guidance_argument, *settings.arguments}
        check_takes(self._pipeline, sorted(needed), kind="an editing")
        known = inspect.signature(self._pipeline.__call__).parameters
        kind = type(self._pipeline).__name__
        if settings.batch_size > 1 and kind not in _BATCHES:
            raise ValueError(
                f"batch_size is {settings.batch_size}, and {kind} may take a list of images for "
                f"one request; only {', '.join(_BATCHES)} draws several: set batch_size to 1"
            )
        self._pictures = FinitePictures.of(self._pipeline)
        self._turns = Turns(self._draw, settings.batch_size)
        # A plain image-to-image pipeline (with its `strength`) draws as large as what it is given.
        self._takes_size = {"width", "height"} <= known.keys()
        self._takes_area = "max_area" in known
        self._takes_resize = "_auto_resize" in known
        self._last = stored.LastLatents(self._pipeline) if settings.carry_latents else None

    @cached_property
    def name(self) -> str:
        """Model, revision and pipeline."""
        return name_of(self.settings, self._pipeline)

    @property
    def licence(self) -> str:
        """Terms that the outputs carry."""
        own = self.settings.licence or LICENCES[self.settings.model]
        return " and ".join(dict.fromkeys([own, *(lora.licence for lora in self.settings.loras)]))

    def edit(
        self, image: Pixels | None, instruction: str, *, width: int, height: int, seed: int
    ) -> Pixels:
        """Draw the instruction onto the image, or from nothing; from any thread.

        Args:
            image: (height, width, 3) uint8 RGB, or None for a first step.
            instruction: What to draw.
            width: Of the result, in pixels.
            height: Of the result, in pixels.
            seed: Of this step's noise; drawn on the CPU, so that devices agree on it.

        Raises:
            ValueError: the pipeline cannot make images of that size, or they do not fit into
                memory.
            RoleError: the pipeline refused to give an image (a safety checker), or its numbers
                were not finite.
        """
        given = self._given(image, width, height)
        return self._take(given, instruction, width, height, seed).pixels

    def edit_latents(
        self,
        image: Pixels | None,
        latents: bytes | None,
        instruction: str,
        *,
        width: int,
        height: int,
        seed: int,
    ) -> tuple[Pixels, bytes]:
        """Draw as `edit` does, onto latents in place of the image where there are any.

        Args:
            image: See `edit`.
            latents: What an earlier call returned with that image, for the same width and height.
            instruction: See `edit`.
            width: See `edit`.
            height: See `edit`.
            seed: See `edit`.

        Returns:
            (height, width, 3) uint8 RGB, and the latents that it was decoded from.

        Raises:
            ValueError: as `edit`; or these are no latents of such a picture.
            RoleError: as `edit`.
        """
        given: Image.Image | Tensor | None
        if latents is None:
            given = self._given(image, width, height)
        else:
            factor, channels = self._pipeline.vae_scale_factor, self._pipeline.latent_channels
            shape = (channels, height // factor, width // factor)
            given = stored.from_bytes(latents, shape, self._pipeline.transformer.dtype)
        drawn = self._take(given, instruction, width, height, seed)
        assert drawn.latents is not None, "the settings say carry_latents"
        return drawn.pixels, stored.to_bytes(drawn.latents)

    def _given(self, image: Pixels | None, width: int, height: int) -> Image.Image | None:
        """What the pipeline is to draw onto."""
        given: Image.Image | None = None
        if image is not None:
            given = Image.fromarray(image)
        elif not self.settings.first_step_without_image:
            given = Image.new("RGB", (width, height), "white")
        if not self._takes_size:
            if given is None:
                raise ValueError(
                    f"{self.name} draws onto images alone: set first_step_without_image to false"
                )
            given = given.resize((width, height), Image.Resampling.LANCZOS)
        return given

    def _take(
        self,
        given: Image.Image | Tensor | None,
        instruction: str,
        width: int,
        height: int,
        seed: int,
    ) -> _Drawn:
        edit = _Edit(image=given, instruction=instruction, width=width, height=height, seed=seed)
        kind = given.size if isinstance(given, Image.Image) else type(given)
        return self._turns.take((width, height, kind), edit)

    def _draw(self, edits: Sequence[_Edit]) -> list[_Drawn | Exception]:
        """Draw edits of one size, all with an image, all with latents or all without.

        A call has always `batch_size` rows, some of them in vain: kernels are chosen by shape, and
        in a call of another shape the last digits of the same picture would differ.
        """
        rows = [*edits, *[edits[-1]] * (self.settings.batch_size - len(edits))]
        width, height = edits[0].width, edits[0].height
        arguments: dict[str, Any] = {
            "image": None if edits[0].image is None else [edit.image for edit in rows],
            "prompt": [edit.instruction for edit in rows],
            "generator": [torch.Generator("cpu").manual_seed(edit.seed) for edit in rows],
        }
        if len(rows) == 1:  # pipelines that draw one at a time take no lists
            arguments = {name: value and value[0] for name, value in arguments.items()}
        latents = [edit.image for edit in rows if isinstance(edit.image, Tensor)]
        if latents:
            arguments["image"] = torch.stack(latents)
        arguments |= {
            **({"width": width, "height": height} if self._takes_size else {}),
            "num_inference_steps": self.settings.num_inference_steps,
            self.settings.guidance_argument: self.settings.guidance_scale,
            **self.settings.arguments,
        }
        # Kontext keeps only the aspect of width and height, and makes its own size of them, for
        # the result (one megapixel) and for the input (its training sizes), unless it is told.
        if self._takes_area:
            arguments.setdefault("max_area", width * height)
        if self._takes_resize:
            arguments.setdefault("_auto_resize", False)
        if self._last is not None:
            arguments["callback_on_step_end"] = self._last
        try:
            with torch.inference_mode():
                result = self._pipeline(**arguments)
        except torch.OutOfMemoryError as error:
            raise ValueError(
                f"{self.name}: {len(rows)} images of {width} x {height} do not fit into memory "
                f"({str(error).partition('.')[0]}); lower batch_size or the size, or set offload"
            ) from None
        flags = getattr(result, "nsfw_content_detected", None) or [False] * len(rows)
        finite = self._pictures.take(len(rows))
        drawn = zip(result.images, flags, finite, strict=True)
        pictures = [
            self._outcome(image, width, height, withheld=withheld, finite=good)
            for _, (image, withheld, good) in zip(edits, drawn, strict=False)
        ]
        kept = [None] * len(rows) if self._last is None else self._last.take(width, height)
        return [
            picture if isinstance(picture, Exception) else _Drawn(picture, of_it)
            for picture, of_it in zip(pictures, kept, strict=False)
        ]

    def _outcome(
        self, image: Image.Image, width: int, height: int, *, withheld: bool, finite: bool
    ) -> Pixels | RoleError:
        if not finite:
            error = NotFiniteError(f"pixels of {self.name} are")
            return RoleError(error.reason, str(error))
        if withheld:
            return RoleError("content_filter", f"{self.name} withheld the image")
        pixels = np.asarray(image.convert("RGB"), dtype=np.uint8)
        if pixels.shape != (height, width, 3):
            raise ValueError(
                f"{self.name} drew {pixels.shape[1]} x {pixels.shape[0]} instead of "
                f"{width} x {height} pixels: use sides that are multiples of 16"
            )
        return pixels
