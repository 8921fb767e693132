"""Scenes to pixels, exactly: silhouettes from implicit functions, supersampled once and kept."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from staged.shapes.world.scene import CANVAS_PX, DIAMETER_PX, PALETTE, Kind, Scene, Size

Plane = NDArray[np.float64]
_SUPERSAMPLE = 8


def _triangle(u: Plane, v: Plane) -> NDArray[np.bool_]:
    return (v < 0.9) & (np.abs(u) < (v + 1) * 0.5263)


def _star(u: Plane, v: Plane) -> NDArray[np.bool_]:
    angle = np.mod(np.arctan2(u, -v), 2 * np.pi / 5) - np.pi / 5
    radius = np.hypot(u, v)
    # One straight edge of a five-pointed star, repeated: from the tip (1 at the sector's rim)
    # to the notch (0.42 at its middle).
    tip, notch = np.array([np.cos(np.pi / 5), np.sin(np.pi / 5)]), np.array([0.42, 0.0])
    x, y = radius * np.cos(angle), radius * np.abs(np.sin(angle))
    edge = tip - notch
    return np.asarray((x - notch[0]) * edge[1] - (y - notch[1]) * edge[0] < 0)


def _heart(u: Plane, v: Plane) -> NDArray[np.bool_]:
    x, y = u * 1.18, -v * 1.15 + 0.12
    return (x**2 + y**2 - 1) ** 3 - x**2 * y**3 < 0


def _arrow(u: Plane, v: Plane) -> NDArray[np.bool_]:
    shaft = (np.abs(v) < 0.3) & (u > -1) & (u < 0.1)
    head = (u >= 0.0) & (u < 1) & (np.abs(v) < 0.9 * (1 - u))
    return shaft | head


def _drop(u: Plane, v: Plane) -> NDArray[np.bool_]:
    bulb = np.hypot(u, v - 0.38) < 0.62
    cone = (v > -1) & (v < 0.1) & (np.abs(u) < (v + 1) * 0.505)
    return bulb | cone


SILHOUETTES: dict[Kind, Callable[[Plane, Plane], NDArray[np.bool_]]] = {
    "circle": lambda u, v: np.hypot(u, v) < 1,
    "square": lambda u, v: np.maximum(np.abs(u), np.abs(v)) < 0.9,
    "triangle": _triangle,
    "star": _star,
    "cross": lambda u, v: np.minimum(np.abs(u), np.abs(v)) < 0.32,
    "ring": lambda u, v: (np.hypot(u, v) < 1) & (np.hypot(u, v) > 0.56),
    "heart": _heart,
    "diamond": lambda u, v: np.abs(u) / 0.72 + np.abs(v) < 1,
    "crescent": lambda u, v: (np.hypot(u, v) < 1) & (np.hypot(u - 0.55, v) > 0.82),
    "hexagon": lambda u, v: (np.abs(v) < 0.866) & (np.abs(u) + np.abs(v) / 1.732 < 1),
    "arrow": _arrow,
    "drop": _drop,
}
"""Inside-tests on the unit square: u to the right, v down, both in [-1, 1]."""


@cache
def coverage(kind: Kind, diameter: int) -> NDArray[np.float64]:
    """Coverage of a shape over its own box.

    Args:
        kind: The class.
        diameter: Side of the box in pixels, positive.

    Returns:
        (diameter, diameter) float64 in [0, 1]; read-only and shared.
    """
    fine = diameter * _SUPERSAMPLE
    axis = (np.arange(fine) + 0.5) / fine * 2 - 1
    u, v = np.meshgrid(axis, axis)
    inside = SILHOUETTES[kind](u, v).astype(np.float64)
    blocks = inside.reshape(diameter, _SUPERSAMPLE, diameter, _SUPERSAMPLE)
    covered = np.asarray(blocks.mean(axis=(1, 3)))
    covered.setflags(write=False)
    return covered


def silhouette(kind: Kind, size: Size) -> NDArray[np.float64]:
    """`coverage` at one of the two sizes: (d, d) with d the diameter in pixels."""
    return coverage(kind, DIAMETER_PX[size])


def render(scene: Scene) -> NDArray[np.uint8]:
    """Draw a scene.

    Returns:
        (48, 48, 3) uint8 RGB; the same scene always gives the same bytes.
    """
    canvas = np.empty((CANVAS_PX, CANVAS_PX, 3), dtype=np.float64)
    canvas[:] = scene.background
    for shape in scene.shapes:
        left, top, right, bottom = shape.box
        alpha = silhouette(shape.kind, shape.size)[..., None]
        window = canvas[top:bottom, left:right]
        window += alpha * (np.asarray(PALETTE[shape.color], dtype=np.float64) - window)
    return np.asarray(np.rint(canvas), dtype=np.uint8)
