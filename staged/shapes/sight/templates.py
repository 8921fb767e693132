"""What each class looks like to the detector: silhouettes at every place and size."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from staged.shapes.world.render import coverage, silhouette
from staged.shapes.world.scene import CANVAS_PX, DIAMETER_PX, KINDS, SIZES, Kind, Size

Array = NDArray[np.float32]
Spectra = NDArray[np.complex64]
Bank = tuple[tuple["Pose", ...], Array]
PixelBox = tuple[int, int, int, int]
"""Poses, and what they cover of the patch: (poses, PATCH_PX * PATCH_PX) float32, read-only."""

PATCH_PX = 35
"""Side of the window in which a shape is compared: the largest shape, off centre, and a shift."""

DIAMETERS_PX = range(9, 26)
"""Sizes that generated shapes come in; smaller ones show too little to be told apart."""

SHIFTS = tuple((dx, dy) for dy in (-1, 0, 1) for dx in (-1, 0, 1))
"""How far a centre may lie from where the box of visible pixels puts it."""


@dataclass(frozen=True, kw_only=True)
class Pose:
    """A class at a size, with its centre relative to the patch's middle, all in pixels."""

    kind: Kind
    diameter: int
    dx: int
    dy: int


def bounds(mask: NDArray[np.bool_]) -> PixelBox:
    """Left, top, right, bottom of what a mask holds; the latter two lie beyond it."""
    (rows,), (columns,) = np.nonzero(mask.any(axis=1)), np.nonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


@cache
def tight_box(kind: Kind, diameter: int) -> PixelBox:
    """The pixels at least half covered, within the shape's own box."""
    return bounds(coverage(kind, diameter) >= 0.5)


@cache
def shifted(kind: Kind, diameter: int) -> Bank:
    """A class at one size, its visible box laid on the patch's middle and shifted about."""
    left, top, right, bottom = tight_box(kind, diameter)
    half = diameter // 2
    base_x, base_y = half - (left + right - 1) // 2, half - (top + bottom - 1) // 2
    poses = tuple(
        Pose(kind=kind, diameter=diameter, dx=base_x + x, dy=base_y + y) for x, y in SHIFTS
    )
    planes = np.zeros((len(poses), PATCH_PX, PATCH_PX), dtype=np.float32)
    for plane, pose in zip(planes, poses, strict=True):
        x, y = PATCH_PX // 2 + pose.dx - half, PATCH_PX // 2 + pose.dy - half
        plane[y : y + diameter, x : x + diameter] = coverage(kind, diameter)
    planes.setflags(write=False)
    return poses, planes.reshape(len(poses), -1)


@cache
def real_sizes() -> Bank:
    """Every class at the two sizes that are drawn."""
    banks = [shifted(kind, DIAMETER_PX[size]) for kind in KINDS for size in SIZES]
    return _joined(banks)


def near_size(width: int, height: int) -> Bank:
    """Every class at the three sizes whose visible box comes closest to the one given."""
    banks = []
    for kind in KINDS:
        left, top, right, bottom = tight_box(kind, DIAMETER_PX["large"])
        scale = max(width / (right - left), height / (bottom - top)) * DIAMETER_PX["large"]
        middle = min(max(round(scale), DIAMETERS_PX[1]), DIAMETERS_PX[-2])
        banks += [shifted(kind, diameter) for diameter in range(middle - 1, middle + 2)]
    return _joined(banks)


def _joined(banks: list[Bank]) -> Bank:
    poses = tuple(pose for some, _ in banks for pose in some)
    return poses, np.concatenate([planes for _, planes in banks])


@cache
def spectra() -> tuple[tuple[tuple[Kind, Size], ...], Spectra, Spectra, Spectra]:
    """Spectra for sliding every class and size over a padded canvas.

    Returns:
        The classes and sizes; then conjugate spectra, each (24, 72, 37) complex64, of their
        coverage, of its square, and of their box with a rim of 2 pixels, where whatever lies
        counts against a fit. The product of one with a canvas' spectrum gives, at each top left
        corner, the sum under the template.
    """
    names = tuple((kind, size) for kind in KINDS for size in SIZES)
    span = SPECTRUM_PX
    planes = np.zeros((3, len(names), span, span), dtype=np.float32)
    for index, (kind, size) in enumerate(names):
        d = DIAMETER_PX[size]
        planes[0, index, :d, :d] = silhouette(kind, size)
        planes[1, index, :d, :d] = planes[0, index, :d, :d] ** 2
        planes[2, index, : d + 4, : d + 4] = 1
    planes[2] = np.roll(planes[2], (-2, -2), axis=(1, 2))
    spectrum: Spectra = np.conj(np.fft.rfft2(planes)).astype(np.complex64)
    return names, spectrum[0], spectrum[1], spectrum[2]


SPECTRUM_PX = CANVAS_PX + 24
"""Side of the padded canvas: no template reaches round from one edge to the other."""
