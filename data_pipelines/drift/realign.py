"""Undoing a motion of the whole, so that the next edit begins where the last one did."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from data_pipelines.drift.measure import Drift
from data_pipelines.drift.registration import NO_MOTION, Motion, moved_back
from staged.roles import Pixels

_WHOLE_PX: Final = 0.12
"""A shift so near to whole pixels, and what zoom and turn move at most, are measured as nothing."""


def realigned(before: Pixels, after: Pixels, drift: Drift) -> tuple[Pixels, Motion]:
    """Lay a picture back onto the one that it was drawn onto.

    A shift by whole pixels only copies them. Otherwise cubic splines lie between the pixels, which
    softens a little. What lay outside of the edited picture is taken from the one before, in the
    colours of the edit.

    Args:
        before: (h, w, 3) uint8 RGB.
        after: The same of the edited picture.
        drift: Of the two.

    Returns:
        The picture, and the motion that was undone.
    """
    height, width = after.shape[:2]
    motion = _plain(drift.motion, height, width)
    back, known = moved_back(after, motion, order=3)
    old = before.astype(np.float64) + np.asarray(drift.tint)
    mixed = np.where(known[..., None], back, old)
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8), motion


def _plain(motion: Motion, height: int, width: int) -> Motion:
    """The motion in whole pixels, where it is one as far as can be told."""
    side = max(height, width)
    right, down = round(motion.right * side), round(motion.down * side)
    whole = replace(NO_MOTION, right=right / side, down=down / side)
    apart = replace(motion, right=motion.right - whole.right, down=motion.down - whole.down)
    return whole if apart.moved(height, width) * side <= _WHOLE_PX else motion
