"""What each class looks like to the detector: silhouettes at every place, size and stretch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from staged.shapes.render import silhouette
from staged.shapes.scene import CANVAS_PX, DIAMETER_PX, KINDS, SIZES, Kind, Size

Array = NDArray[np.float32]

PATCH_PX = 31
"""Side of the window in which a shape is compared: the largest shape, off centre, and a shift."""

SHIFTS = tuple((dx, dy) for dy in (-1, 0, 1) for dx in (-1, 0, 1))
"""How far a centre may lie from where the box of visible pixels puts it."""


@dataclass(frozen=True, kw_only=True)
class Pose:
    """A class at a size, with its centre relative to the patch's middle in pixels."""

    kind: Kind
    size: Size
    dx: int
    dy: int


@cache
def tight_box(kind: Kind, size: Size) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the pixels at least half covered, within the shape's own box."""
    solid = silhouette(kind, size) >= 0.5
    (rows,), (columns,) = np.nonzero(solid.any(axis=1)), np.nonzero(solid.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


@cache
def patch_bank() -> tuple[tuple[Pose, ...], Array]:
    """Every class, size and shift, drawn where its visible box sits on the patch's middle.

    Returns:
        Poses, and their coverages as (poses, PATCH_PX * PATCH_PX) float32; read-only.
    """
    poses, planes = [], []
    for kind in KINDS:
        for size in SIZES:
            coverage, half = silhouette(kind, size), DIAMETER_PX[size] // 2
            left, top, right, bottom = tight_box(kind, size)
            base_x, base_y = half - (left + right - 1) // 2, half - (top + bottom - 1) // 2
            for shift_x, shift_y in SHIFTS:
                dx, dy = base_x + shift_x, base_y + shift_y
                plane = np.zeros((PATCH_PX, PATCH_PX), dtype=np.float32)
                x, y = PATCH_PX // 2 + dx - half, PATCH_PX // 2 + dy - half
                plane[y : y + coverage.shape[0], x : x + coverage.shape[1]] = coverage
                poses.append(Pose(kind=kind, size=size, dx=dx, dy=dy))
                planes.append(plane.ravel())
    bank = np.stack(planes)
    bank.setflags(write=False)
    return tuple(poses), bank


@cache
def spectra() -> tuple[tuple[tuple[Kind, Size], ...], NDArray[np.complex64], ...]:
    """Spectra for sliding every class and size over a padded canvas.

    Returns:
        The classes and sizes, then conjugate spectra of their coverage, of its square and of
        their box with a rim of 2 pixels (what lies there counts against a fit), each (24, 72, 37) complex64: a product with a canvas' spectrum gives,
        at each top left corner, the sum under the template.
    """
    names = tuple((kind, size) for kind in KINDS for size in SIZES)
    span = SPECTRUM_PX
    planes = np.zeros((3, len(names), span, span), dtype=np.float32)
    for index, (kind, size) in enumerate(names):
        coverage = silhouette(kind, size)
        d = coverage.shape[0]
        planes[0, index, :d, :d] = coverage
        planes[1, index, :d, :d] = coverage**2
        planes[2, index, : d + 4, : d + 4] = 1
    planes[2] = np.roll(planes[2], (-2, -2), axis=(1, 2))
    spectrum = np.conj(np.fft.rfft2(planes)).astype(np.complex64)
    return names, spectrum[0], spectrum[1], spectrum[2]


SPECTRUM_PX = CANVAS_PX + 24
"""Side of the padded canvas: no template reaches round from one edge to the other."""


@lru_cache(maxsize=4096)
def stretched(height: int, width: int) -> Array:
    """Every class squeezed into one box, as generated shapes come in sizes of their own.

    Returns:
        (12, height * width) float32 coverage in `KINDS` order; read-only and shared.
    """
    planes = []
    for kind in KINDS:
        coverage = Image.fromarray(silhouette(kind, "large").astype(np.float32))
        box = tight_box(kind, "large")
        planes.append(
            np.asarray(coverage.resize((width, height), Image.Resampling.BILINEAR, box=box)).ravel()
        )
    bank = np.stack(planes).astype(np.float32)
    bank.setflags(write=False)
    return bank


@cache
def aspect(kind: Kind) -> float:
    """Width over height of the class' visible box."""
    left, top, right, bottom = tight_box(kind, "large")
    return (right - left) / (bottom - top)
