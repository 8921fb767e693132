"""What an editor did to all of a picture beside what it was told: motion, colours, fine detail."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from data_pipelines.drift.registration import (
    EDITED,
    NOISE,
    SIDE_PX,
    Levels,
    Motion,
    Registration,
    moved_back,
    reduced,
    register,
)
from staged.roles import Pixels

_GREY: Final = np.array([0.299, 0.587, 0.114])
_LEAST_PLACES: Final = 0.02
"""Share of places that must have stayed, to look at those alone."""
_SURE: Final = 0.01
"""Share of the longer side beyond which a motion must find more of the edges than none does."""
_MORE_FOUND: Final = 0.05
_FLAT: Final = 2.0
"""Levels below which contrast and detail are noise."""
_SIDE_OF_DETAIL_PX: Final = 1024


@dataclass(frozen=True, kw_only=True)
class Drift:
    """How the whole of a picture changed from one to the next.

    All but the motion is measured where the edit was not: at the places whose colours, once motion
    and colours of the whole are taken back, differ by less than `EDITED` levels.

    Attributes:
        motion: How the whole has moved.
        moved: Farthest that any corner has gone, as a share of the longer side.
        explained: Share of the difference that the motion takes away.
        tint: Levels of 255 by which red, green and blue are brighter.
        contrast: Spread of the brightness, as a multiple of the one before.
        detail: Strength of the finest detail, likewise: under 1 is softer.
        edited: Share of places that differ: the edit, and what else was drawn anew.
        found: Share of the edges before that are found again.
    """

    motion: Motion
    moved: float
    explained: float
    tint: tuple[float, float, float]
    contrast: float
    detail: float
    edited: float
    found: float

    @property
    def most_tint(self) -> float:
        """Of the channel that changed most, in levels."""
        return max(abs(value) for value in self.tint)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as it stands in a trajectory's provenance."""
        motion = self.motion
        return {
            "moved": self.moved,
            "shift": [motion.right, motion.down],
            "zoom": motion.zoom,
            "turn_deg": motion.turn_deg,
            "tint": list(self.tint),
            "contrast": self.contrast,
            "detail": self.detail,
            "edited": self.edited,
            "found": self.found,
        }


def measure(before: Pixels, after: Pixels) -> Drift:
    """Measure the drift of an edit, whatever the edit was.

    Args:
        before: (h, w, 3) uint8 RGB: what was edited.
        after: The same of what came of it.

    Raises:
        ValueError: The sizes differ.
    """
    lies = register(before, after)
    side = min(SIDE_PX, max(before.shape[:2]))
    old, new = reduced(before, side), reduced(after, side)
    height, width = before.shape[:2]
    found = _found(*_compared(old, new, lies))
    if lies.motion.moved(height, width) > _SURE:
        # In a flat picture of one or two things any that comes instead may look like their motion.
        still = register(before, after, motions=1)
        at_rest = _found(*_compared(old, new, still))
        if found < at_rest + _MORE_FOUND:
            lies, found = still, at_rest
    _, left, known = _compared(old, new, lies)
    back, _ = moved_back(new, lies.motion)
    same = known & (left < EDITED)
    # The rim of an edit is mixed from both.
    places = known & ~ndimage.binary_dilation(~same, iterations=2)
    if places.mean() < _LEAST_PLACES:
        places = known  # drawn anew: everything is looked at rather than a few chance places
    red, green, blue = (float(value) for value in (back - old)[places].mean(0))
    return Drift(
        motion=lies.motion,
        moved=round(lies.motion.moved(height, width), 5),
        explained=lies.explained,
        tint=(round(red, 2), round(green, 2), round(blue, 2)),
        contrast=_ratio((old @ _GREY)[places].std(), (back @ _GREY)[places].std()),
        detail=_ratio(_detail(before, places), _detail(after, places)),
        edited=round(float((known & ~same).sum() / known.sum()), 4),
        found=found,
    )


def _compared(
    old: Levels, new: Levels, lies: Registration
) -> tuple[Levels, NDArray[np.float64], NDArray[np.bool_]]:
    """The picture before, what is left at each place of the difference, and where that is known."""
    back, known = moved_back(new, lies.motion)
    return old, np.abs(back - (old * lies.gains + lies.offsets)).max(-1), known


def _ratio(before: float, after: float) -> float:
    return 1.0 if before < _FLAT else round(float(after / before), 4)


def _detail(pixels: Pixels, places: NDArray[np.bool_]) -> float:
    """Strength of what a pixel differs by from its neighbours, at the places' full size."""
    height, width = pixels.shape[:2]
    scale = min(_SIDE_OF_DETAIL_PX / max(height, width), 1)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    grey = np.asarray(Image.fromarray(pixels).convert("L").resize(size), np.float32)
    where = np.asarray(Image.fromarray(places).resize(size, Image.Resampling.NEAREST))
    return float(np.sqrt((ndimage.laplace(grey)[where] ** 2).mean()))


def _found(before: Levels, left: NDArray[np.float64], known: NDArray[np.bool_]) -> float:
    """Share of the edges, by strength, at which less is left than half of what makes them."""
    size = (3, 3, 1)
    edge = (ndimage.maximum_filter(before, size) - ndimage.minimum_filter(before, size)).max(-1)
    strength = np.where(known & (edge > 2 * NOISE), edge, 0)
    if not strength.any():
        return 1.0  # nothing to find
    return round(float(strength[left < edge / 2].sum() / strength.sum()), 4)
