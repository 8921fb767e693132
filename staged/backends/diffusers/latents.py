"""Latents of a pipeline's pictures as bytes, so that the next edit needs to encode no pixels.

Each pass through an autoencoder loses a little of a picture, and after some edits that shows.
FLUX.1 Kontext takes latents in place of the picture that they were decoded to.
"""

from typing import Any, Final

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from staged.model.finite import all_finite

_NAME: Final = "latents"


class LastLatents:
    """Holds what a pipeline's sampler ended with, in the course of one call after another.

    Args:
        pipeline: One that packs its latents as FLUX does.
    """

    def __init__(self, pipeline: Any) -> None:
        """Nothing was drawn yet."""
        self._pipeline = pipeline
        self._packed: Tensor | None = None

    def __call__(
        self, pipeline: Any, step: int, timestep: Any, values: dict[str, Any]
    ) -> dict[str, Any]:
        """Take note of the latents after a step of the sampler; changes nothing."""
        self._packed = values[_NAME]
        return values

    def take(self, width: int, height: int) -> Tensor:
        """Return the latents of the call that is over, and forget them.

        Args:
            width: Of its pictures, in pixels.
            height: Of its pictures, in pixels.

        Returns:
            (b, c, h, w) as the pipeline's encoder scales them, in the precision of the pipeline.
        """
        packed, self._packed = self._packed, None
        assert packed is not None, "the pipeline has called back"
        unpack, factor = self._pipeline._unpack_latents, self._pipeline.vae_scale_factor
        latents: Tensor = unpack(packed, height, width, factor)
        return latents.cpu()


def to_bytes(latents: Tensor) -> bytes:
    """Encode the latents of one picture, (c, h, w), as safetensors."""
    return safetensors.torch.save({_NAME: latents.contiguous()})


def from_bytes(data: bytes, shape: tuple[int, int, int], dtype: torch.dtype) -> Tensor:
    """Decode the latents of one picture.

    Args:
        data: As `to_bytes` made them.
        shape: What (c, h, w) they must have.
        dtype: In which precision they must be.

    Raises:
        ValueError: they are no such latents, or not finite.
    """
    try:
        tensors = safetensors.torch.load(data)
    except (safetensors.SafetensorError, ValueError) as error:
        raise ValueError(f"latents of {len(data)} bytes cannot be read: {error}") from None
    latents = tensors.get(_NAME)
    if latents is None or latents.shape != shape or latents.dtype != dtype:
        found = "none" if latents is None else f"{tuple(latents.shape)} of {latents.dtype}"
        raise ValueError(f"latents: expected {shape} of {dtype}, got {found}")
    if not bool(all_finite(latents)):
        raise ValueError("latents: not all are finite numbers")
    return latents
