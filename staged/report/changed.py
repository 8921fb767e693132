"""What a step changed in a picture: where, and how much of it."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from staged import images

MIN_DIFFERENCE: Final = 24
"""Least difference of a channel, of 255, that counts as a change: what an autoencoder alone does to
a picture mostly stays below."""
_MAX_SIDE_PX: Final = 320
_FULL: Final = 128
"""Difference at which the colour of a change is full."""
_COLOR: Final = np.array([176.0, 40.0, 28.0], np.float32)
_PALE: Final = 0.3


class PictureChange(NamedTuple):
    """A picture of what changed, and the share of pixels that did."""

    png: bytes
    share: float


def change(before: bytes, after: bytes) -> PictureChange | None:
    """Compare two encoded pictures.

    Args:
        before: PNG, WebP or JPEG.
        after: Likewise.

    Returns:
        The later picture in pale grey under the changes in red, with no side over 320 pixels; None
        where the two are of different sizes, so that no pixel lies on the other's.

    Raises:
        ValueError: one is no image.
    """
    old, new = images.decode(before), images.decode(after)
    if old.shape != new.shape:
        return None
    old, new = _reduced(old), _reduced(new)
    difference = np.abs(new - old).max(-1)
    grey = 255 - _PALE * (255 - new.mean(-1, keepdims=True))
    strength = np.where(difference >= MIN_DIFFERENCE, np.minimum(difference / _FULL, 1), 0)
    mixed = grey + strength[..., None] * (_COLOR - grey)
    png = images.encode_png(mixed.round().astype(np.uint8))
    return PictureChange(png, float((difference >= MIN_DIFFERENCE).mean()))


def _reduced(pixels: NDArray[np.uint8]) -> NDArray[Any]:
    image = Image.fromarray(pixels)
    image.thumbnail((_MAX_SIDE_PX, _MAX_SIDE_PX))
    return np.asarray(image, np.float32)
