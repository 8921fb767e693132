"""Pixels to network input and back, and the sizes BAGEL resizes images to.

Pixels are uint8 arrays (h, w, 3), RGB; the network's images are (3, h, w) float32 in [-1, 1].
"""

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from staged.model.finite import require_finite

__all__ = ["fit_size", "from_pixels", "resize", "to_levels", "to_pixels"]


def fit_size(width: int, height: int, max_size: int, min_size: int, stride: int) -> tuple[int, int]:
    """Size that BAGEL resizes an image to, keeping its shape as far as the stride allows.

    The shorter side is brought up to ``min_size``, then the longer one down to ``max_size``,
    which wins where both cannot hold.

    Args:
        width: Pixels.
        height: Pixels.
        max_size: Largest allowed side, in pixels; a multiple of ``stride``.
        min_size: Smallest wanted side, in pixels.
        stride: Both results are multiples of it, and at least one stride.

    Returns:
        Width and height, in pixels.

    Raises:
        ValueError: A size is not positive, or the limits contradict one another.
    """
    if width < 1 or height < 1:
        raise ValueError(f"an image of {width} x {height} pixels has no size to fit")
    if stride < 1 or not 1 <= min_size <= max_size or max_size % stride:
        raise ValueError(
            f"max_size {max_size}, min_size {min_size}, stride {stride}: give "
            "1 <= min_size <= max_size and a max_size that is a multiple of the stride"
        )
    scale = max(min(max_size / max(width, height), 1.0), min_size / min(width, height))
    width, height = _scaled(width, scale, stride), _scaled(height, scale, stride)
    if max(width, height) > max_size:
        scale = max_size / max(width, height)
        width, height = _scaled(width, scale, stride), _scaled(height, scale, stride)
    return width, height


def _scaled(side: int, scale: float, stride: int) -> int:
    # Rounded twice, to pixels and then to the stride, as the reference does: one rounding
    # gives other sizes near the middle between two multiples.
    return max(stride, round(round(side * scale) / stride) * stride)


def resize(pixels: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """Resize by Pillow's antialiased bicubic filter.

    Args:
        pixels: (h, w, 3) uint8.
        width: New width, in pixels.
        height: New height, in pixels.

    Returns:
        (height, width, 3) uint8; the input itself where the size is already right.
    """
    if pixels.shape[:2] == (height, width):
        return pixels
    # Pillow's filter on bytes and torch's on floats differ by up to 8 levels of 255;
    # BAGEL was trained on Pillow's.
    resized = Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(resized)


def from_pixels(pixels: NDArray[np.uint8]) -> Tensor:
    """Pixels to network input.

    Args:
        pixels: (h, w, 3) uint8.

    Returns:
        (3, h, w) float32 in [-1, 1].

    Raises:
        ValueError: Another shape or dtype.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(f"image of shape {pixels.shape}, {pixels.dtype}: expected (h, w, 3) uint8")
    scaled = torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1) / 255.0
    return (scaled - 0.5) / 0.5


def to_pixels(image: Tensor) -> NDArray[np.uint8]:
    """Network output to pixels.

    Args:
        image: (3, h, w) real, nominally in [-1, 1]; values outside are clamped.

    Returns:
        (h, w, 3) uint8, rounded down as BAGEL's own code does.

    Raises:
        NotFiniteError: The image holds NaN, which would be black, or an infinity.
    """
    require_finite(image, "pixels are")
    pixels: NDArray[np.uint8] = to_levels(image).to(torch.uint8).cpu().numpy()
    return pixels


def to_levels(image: Tensor) -> Tensor:
    """Network output to levels of brightness, before they are rounded down to bytes.

    Args:
        image: (3, h, w) real, nominally in [-1, 1]; values outside are clamped.

    Returns:
        (h, w, 3) float32 in [0, 255].
    """
    return (image.detach().float() * 0.5 + 0.5).clamp(0, 1).permute(1, 2, 0) * 255
