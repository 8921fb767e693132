"""Images to what a model reads of them, and back: sizes, token grids, latents and patches.

An image stands in a sequence twice: as latents of the autoencoder (what is drawn) and as patches
of the vision tower (what is seen). Training and generation both get them from here.

Letters: b images, n latent tokens, Z numbers a latent token, m patches, P numbers a patch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from staged.model import images
from staged.model.autoencoder import Autoencoder, latents_from_tokens, tokens_from_latents
from staged.model.config import BagelConfig
from staged.model.layout import Grids
from staged.model.patches import patchify

_PIXELS = 8 * 1024 * 1024
"""Encoded in one call: the largest activation of FLUX's encoder takes 256 bytes a pixel."""
_CPU_PIXELS = 8 * 48 * 48
"""The same on a CPU: more do not stay in its cache, and take twice as long each."""


@dataclass(frozen=True, kw_only=True)
class ImageSizes:
    """Bounds of the two copies of an image, in pixels: longest side at most, shortest at least."""

    latent_max: int = 1024
    latent_min: int = 512
    vision_max: int = 980
    vision_min: int = 224

    @classmethod
    def of(cls, config: BagelConfig) -> Self:
        """Upstream's bounds, cut down to what the model's position tables can hold."""
        latent = min(cls.latent_max, config.max_latent_size * config.pixels_per_latent_token)
        vision = min(cls.vision_max, config.vision.positions_per_side * config.vision.patch_size)
        return cls(
            latent_max=latent,
            latent_min=min(cls.latent_min, latent),
            vision_max=vision,
            vision_min=min(cls.vision_min, vision),
        )


class ImageCodec:
    """An autoencoder, and the sizes in which a model of a configuration reads images."""

    def __init__(
        self, autoencoder: Autoencoder, config: BagelConfig, *, sizes: ImageSizes | None = None
    ) -> None:
        """Wrap a loaded autoencoder; it stays on its device, in its dtype.

        Args:
            autoencoder: In evaluation mode.
            config: Of the model that reads the images.
            sizes: Bounds on image copies; `ImageSizes.of` the model by default.
        """
        self.autoencoder, self.config = autoencoder, config
        self.sizes = sizes or ImageSizes.of(config)

    def grids(self, height: int, width: int) -> Grids:
        """Token grids of the two copies of an image of that many pixels."""
        latent, vision = self.copy_sizes(height, width)
        stride, patch = self.config.pixels_per_latent_token, self.config.vision.patch_size
        return Grids(
            latent=(latent[1] // stride, latent[0] // stride),
            vision=(vision[1] // patch, vision[0] // patch),
        )

    def to_latents(self, pixels: NDArray[np.uint8]) -> Tensor:
        """(h, w, 3) uint8 to the (n, Z) latent tokens of its clean copy."""
        return self.to_latents_each([pixels])[0]

    def to_latents_each(self, pictures: Sequence[NDArray[np.uint8]]) -> list[Tensor]:
        """Images of any sizes to the (n, Z) latent tokens of each, equal sizes together.

        Here alone the last digits depend on how many there are; contexts get one image at a time.
        Padding different ones to one size would change latents: the autoencoder's group norms see
        a whole image.
        """
        places: dict[tuple[int, int], list[int]] = {}
        for place, picture in enumerate(pictures):
            latent, _ = self.copy_sizes(*picture.shape[:2])
            places.setdefault(latent, []).append(place)
        found: dict[int, Tensor] = {}
        for latent, alike in places.items():
            resized = [images.resize(pictures[place], *latent) for place in alike]
            encoded = self.encode(torch.stack([images.from_pixels(p) for p in resized]))
            found |= dict(zip(alike, encoded, strict=True))
        return [found[place] for place in range(len(pictures))]

    def to_patches(self, pixels: NDArray[np.uint8]) -> Tensor:
        """(h, w, 3) uint8 to the (m, P) float32 patches of its ViT copy.

        The image is first brought to its latent size, as upstream does, then to the ViT's.
        """
        latent, vision = self.copy_sizes(*pixels.shape[:2])
        seen = images.resize(images.resize(pixels, *latent), *vision)
        return patchify(images.from_pixels(seen), self.config.vision.patch_size)

    def copy_sizes(self, height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """(width, height) of the latent copy and of the ViT copy."""
        stride, patch = self.config.pixels_per_latent_token, self.config.vision.patch_size
        sizes = self.sizes
        latent = images.fit_size(width, height, sizes.latent_max, sizes.latent_min, stride)
        return latent, images.fit_size(*latent, sizes.vision_max, sizes.vision_min, patch)

    @torch.inference_mode()
    def encode(self, pictures: Tensor) -> Tensor:
        """(b, 3, h, w) in [-1, 1] to (b, n, Z) latent tokens, without sampling noise."""
        parameter = next(self.autoencoder.parameters())
        at_once = _CPU_PIXELS if parameter.device.type == "cpu" else _PIXELS
        most = max(at_once // math.prod(pictures.shape[-2:]), 1)
        latents = [
            # In its own precision, not the model's: what is rounded here shows in every picture.
            self.autoencoder.encode(some.to(parameter.device, parameter.dtype))
            for some in pictures.split(most)
        ]
        return tokens_from_latents(torch.cat(latents), self.config.latent_patch_size)

    @torch.inference_mode()
    def decode(self, tokens: Tensor, rows: int, columns: int) -> NDArray[np.uint8]:
        """(n, Z) latent tokens to (h, w, 3) uint8 pixels.

        Raises:
            NotFiniteError: The pixels hold NaN or an infinity.
        """
        parameter = next(self.autoencoder.parameters())
        latents = latents_from_tokens(tokens, rows, columns, self.config.latent_patch_size)
        picture = self.autoencoder.decode(latents[None].to(parameter.device, parameter.dtype))
        return images.to_pixels(picture[0].float())
