"""Which pixels belong together, and in which of the ten colours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from staged.shapes.world.scene import COLORS, PALETTE, Color

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]

MIN_AREA_PX = 14
"""Smaller regions are specks; the smallest shape covers three times as much."""

MIN_VOTES = 6.0
"""Solid pixels, counted by how close they come to the palette, that make a colour's claim."""

_SOLID_DISTANCE = 40.0
_NOISY_SIGMA = 4.0
_EIGHT = np.ones((3, 3), dtype=np.bool_)
_COLORS_RGB: Array = np.asarray([PALETTE[color] for color in COLORS], dtype=np.float32)


@dataclass(frozen=True, kw_only=True, eq=False)
class Surface:
    """An image as the detector sees it.

    Attributes:
        pixels: (48, 48, 3) float32, 0 to 255, as given.
        background: (3,) float32, the ground's colour.
        noise: Standard deviation of white noise per channel, 8-bit steps.
        foreground: (48, 48) bool, whatever is nearer to a colour than to the background.
    """

    pixels: Array
    background: Array
    noise: float
    foreground: Mask

    def coverage(self, color: Color) -> Array:
        """How much of each pixel a colour covers: 0 is background, 1 is the colour. (48, 48)."""
        toward = _COLORS_RGB[COLORS.index(color)] - self.background
        alpha = (self.pixels - self.background) @ (toward / (toward @ toward))
        return np.asarray(np.clip(alpha, -0.5, 1.5), dtype=np.float32)

    def coverage_noise(self, color: Color) -> float:
        """Standard deviation of the noise in `coverage`."""
        toward = _COLORS_RGB[COLORS.index(color)] - self.background
        return self.noise / float(np.sqrt(toward @ toward))


@dataclass(frozen=True, kw_only=True, eq=False)
class Region:
    """Connected pixels of one colour; `touches` others when its outline may be hidden."""

    color: Color
    mask: Mask
    touches: bool


def _noise(pixels: Array) -> float:
    """Standard deviation from differences of neighbours: most pixels lie on flat ground."""
    return float(np.median(np.abs(np.diff(pixels, axis=1))) / (0.6745 * np.sqrt(2)))


def _background(pixels: Array) -> Array:
    """The median of the greyish pixels in the middle of the range."""
    low, high = pixels.min(axis=-1), pixels.max(axis=-1)
    grey = (low > 120) & (high < 215) & (high - low < 70)
    if int(grey.sum()) < 40:
        return np.full(3, 172, dtype=np.float32)
    return np.asarray(np.median(pixels[grey], axis=0), dtype=np.float32)


def segment(image: NDArray[np.uint8]) -> tuple[Surface, list[Region]]:
    """Split an image into regions of one colour each.

    Args:
        image: (height, width, 3) uint8.

    Returns:
        The surface, and the regions of at least `MIN_AREA_PX` pixels.
    """
    pixels = image.astype(np.float32)
    noise = _noise(pixels)
    smooth = ndimage.gaussian_filter(pixels, (1.0, 1.0, 0)) if noise > _NOISY_SIGMA else pixels
    background = _background(smooth)
    anchors = np.concatenate([background[None], _COLORS_RGB])
    squared = np.sum(smooth**2, axis=-1, keepdims=True) - 2 * smooth @ anchors.T
    squared += np.sum(anchors**2, axis=-1)
    labels = np.argmin(squared, axis=-1)
    solid = np.exp(-np.min(squared, axis=-1) / _SOLID_DISTANCE**2)
    surface = Surface(
        pixels=pixels, background=background, noise=noise, foreground=np.asarray(labels > 0)
    )
    blobs, num_blobs = ndimage.label(surface.foreground, structure=_EIGHT)
    votes = np.bincount(
        (blobs * len(anchors) + labels).ravel(),
        weights=solid.ravel(),
        minlength=(num_blobs + 1) * len(anchors),
    ).reshape(num_blobs + 1, len(anchors))
    areas = np.bincount(blobs.ravel(), minlength=num_blobs + 1)
    regions: list[Region] = []
    for blob in range(1, num_blobs + 1):
        if areas[blob] >= MIN_AREA_PX:
            regions += _split(np.asarray(blobs == blob), labels, solid, votes[blob])
    return surface, regions


def _split(
    blob: Mask, labels: NDArray[np.intp], solid: Array, votes: NDArray[np.float64]
) -> list[Region]:
    """Give every pixel of a blob to the nearest colour that has solid pixels there."""
    votes = votes.copy()
    votes[0] = 0
    claims = [int(label) for label in np.flatnonzero(votes >= MIN_VOTES)]
    if len(claims) > 1:
        # A rim's pixels may be many, but they nowhere fill a 2 x 2 square solidly.
        claims = [label for label in claims if _has_core(blob & (labels == label) & (solid > 0.4))]
    if len(claims) <= 1:
        label = claims[0] if claims else int(np.argmax(votes))
        return [Region(color=COLORS[label - 1], mask=blob, touches=False)]
    claimed = np.isin(labels, claims) & blob & (solid > 0.2)
    nearest = ndimage.distance_transform_edt(~claimed, return_distances=False, return_indices=True)
    owner = labels[tuple(nearest)]
    parts = [(label, np.asarray(blob & (owner == label))) for label in claims]
    parts = [(label, mask) for label, mask in parts if int(mask.sum()) >= MIN_AREA_PX]
    return [
        Region(color=COLORS[label - 1], mask=mask, touches=len(parts) > 1) for label, mask in parts
    ]


def _has_core(mask: Mask) -> bool:
    return bool((mask[:-1, :-1] & mask[1:, :-1] & mask[:-1, 1:] & mask[1:, 1:]).sum() >= 2)
