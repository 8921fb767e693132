"""Pixels to objects, with classical vision: the score of every picture comes from here.

Colour first: every pixel goes to the nearest of the background and the ten colours, regions vote
with their solid pixels, and rims (a mixture of a colour and what lies beside it) join the solid
region next to them. Then shape: the region's coverage is compared with every class at every size
and place nearby; generated shapes vary, so those that fit badly are tried at sizes between.
Regions that touch others, or fit nothing, are searched for shapes that hide one another.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from staged import images
from staged.shapes.sight.segment import MIN_AREA_PX, Array, Mask, Region, Surface, segment
from staged.shapes.sight.templates import (
    PATCH_PX,
    SPECTRUM_PX,
    Bank,
    PixelBox,
    bounds,
    near_size,
    real_sizes,
    spectra,
)
from staged.shapes.world.render import silhouette
from staged.shapes.world.scene import CANVAS_PX, DIAMETER_PX, Color, Kind, Scene, Shape, Size

CONFIDENT = 0.96
"""A region that fits one class this well is looked at no further."""

_SIZE_PENALTY = 0.02
"""What another size must gain over the two real ones: sizes between also fit damage better."""

_MIN_PEELED = 0.7
_MIN_VISIBLE = 0.35
_MAX_PEELED = 6
_PLUS = ndimage.generate_binary_structure(2, 1)


@dataclass(frozen=True, kw_only=True)
class ShapeDetection:
    """One object found in an image.

    Attributes:
        kind: The class whose silhouette fits best.
        color: The colour that most of its solid pixels are nearest to.
        box: Left, top, right, bottom of its visible pixels; right and bottom exclusive.
        score: How well the silhouette fits, 0 to 1: 1 is the renderer's own pixels.
        size: The nearer of the two sizes.
        x: Centre in pixels from the left, by the class' own box, as in `Shape`.
        y: Centre in pixels from the top.
        mask: (48, 48) bool, its visible pixels.
    """

    kind: Kind
    color: Color
    box: PixelBox
    score: float
    size: Size
    x: int
    y: int
    mask: Mask = field(repr=False, compare=False)


@dataclass(frozen=True, kw_only=True)
class _Fit:
    kind: Kind
    size: Size
    x: int
    y: int
    score: float


def detect(image: NDArray[np.uint8]) -> list[ShapeDetection]:
    """Find every object in an image, best fit first.

    A region that resembles no class is still reported, with a low score: a blob that should
    not be there is a fault of the picture. Specks under `MIN_AREA_PX` pixels are not.

    Args:
        image: (48, 48, 3) uint8 RGB.

    Raises:
        ValueError: The image has another shape or type.
    """
    _check(image)
    return _detect(*segment(image))


@lru_cache(maxsize=4096)
def detections_in(png: bytes) -> tuple[ShapeDetection, ...]:
    """Find every object in an encoded picture; pictures are looked at several times.

    Raises:
        ValueError: it is no picture of the miniature world's size.
    """
    return tuple(detect(images.decode(png, max_pixels=2**16)))


def scene_from(image: NDArray[np.uint8]) -> Scene:
    """Read an image back into the scene that draws it; exact for clean, unhidden renders.

    Args:
        image: (48, 48, 3) uint8 RGB.

    Returns:
        Shapes from top to bottom and left to right, each nudged inside the canvas.

    Raises:
        ValueError: The image has another shape or type.
    """
    _check(image)
    surface, regions = segment(image)
    shapes = []
    for found in _detect(surface, regions):
        half = DIAMETER_PX[found.size] // 2
        x, y = (min(max(v, half), CANVAS_PX - half - 1) for v in (found.x, found.y))
        shapes.append(Shape(kind=found.kind, color=found.color, size=found.size, x=x, y=y))
    r, g, b = (round(float(channel)) for channel in surface.background)
    return Scene(shapes=tuple(sorted(shapes, key=lambda s: (s.y, s.x))), background=(r, g, b))


def _check(image: NDArray[np.uint8]) -> None:
    if image.shape != (CANVAS_PX, CANVAS_PX, 3) or image.dtype != np.uint8:
        raise ValueError(
            f"image of shape {image.shape} and type {image.dtype}; expected "
            f"({CANVAS_PX}, {CANVAS_PX}, 3) uint8: resize or convert it first"
        )


def _detect(surface: Surface, regions: list[Region]) -> list[ShapeDetection]:
    found: list[ShapeDetection] = []
    for region in regions:
        found += _classify(surface, region)
    return sorted(found, key=lambda d: -d.score)


def _classify(surface: Surface, region: Region) -> list[ShapeDetection]:
    """Name one region, or the several shapes of one colour that it is made of."""
    others = surface.foreground & ~region.mask
    hidden = ndimage.binary_dilation(others, structure=_PLUS) & ~region.mask
    coverage = surface.coverage(region.color)
    noise = surface.coverage_noise(region.color)
    box = bounds(region.mask)
    whole = _fit(real_sizes(), coverage, hidden, box, noise)
    if whole.score >= CONFIDENT and not region.touches:
        return [_detection(region.color, region.mask, whole)]
    left, top, right, bottom = box
    scaled = _fit(near_size(right - left, bottom - top), coverage, hidden, box, noise)
    if scaled.score > whole.score + _SIZE_PENALTY:
        whole = scaled
    if whole.score >= CONFIDENT and not region.touches:
        return [_detection(region.color, region.mask, whole)]
    peeled = _peel(coverage, hidden, region.mask)
    if peeled and (region.touches or np.mean([fit.score for fit, _ in peeled]) > whole.score):
        return [_detection(region.color, mask, fit) for fit, mask in peeled]
    return [_detection(region.color, region.mask, whole)]


def _detection(color: Color, mask: Mask, fit: _Fit) -> ShapeDetection:
    return ShapeDetection(
        kind=fit.kind, color=color, box=bounds(mask), mask=mask, size=fit.size, x=fit.x, y=fit.y,
        score=min(max(fit.score, 0.0), 1.0),
    )  # fmt: skip


def _fit(bank: Bank, coverage: Array, hidden: Mask, box: PixelBox, noise: float) -> _Fit:
    """The best of a bank, its visible boxes laid upon a region's.

    The score is Tanimoto's p.t / (|p|^2 + |t|^2 - p.t), which is intersection over union for
    hard masks; white noise adds its variance to every |p|^2, and is taken off again.
    """
    x, y = (box[0] + box[2] - 1) // 2, (box[1] + box[3] - 1) // 2
    margin = PATCH_PX // 2
    window = slice(y, y + PATCH_PX), slice(x, x + PATCH_PX)
    cared = np.pad(~hidden, margin, constant_values=True)[window].ravel().astype(np.float32)
    patch = np.pad(coverage, margin)[window].ravel() * cared
    poses, planes = bank
    overlap = planes @ patch
    energy = max(float(patch @ patch) - noise**2 * float(cared.sum()), 1e-6)
    scores = overlap / (energy + (planes * planes) @ cared - overlap)
    best = int(np.argmax(scores))
    pose = poses[best]
    size: Size = "small" if pose.diameter < sum(DIAMETER_PX.values()) / 2 else "large"
    return _Fit(kind=pose.kind, size=size, x=x + pose.dx, y=y + pose.dy, score=float(scores[best]))


def _peel(coverage: Array, hidden: Mask, region: Mask) -> list[tuple[_Fit, Mask]]:
    """Take the best-fitting whole shapes out of a region one by one.

    What other colours cover may hide anything and is not compared; a shape must show at least
    `_MIN_VISIBLE` of itself. Stops when the rest is a speck or fits nothing.
    """
    names, spectrum, spectrum_squared, spectrum_window = spectra()
    shown = np.clip(coverage, 0, 1)
    left_over = region.copy()
    cared = ~hidden
    peeled: list[tuple[_Fit, Mask]] = []
    full = np.asarray(spectrum_squared[:, 0, 0].real)
    while int(left_over.sum()) >= MIN_AREA_PX and len(peeled) < _MAX_PEELED:
        seen = shown * cared
        overlap = _slide(seen, spectrum)
        expected = _slide(cared.astype(np.float32), spectrum_squared)
        energy = _slide(seen * seen, spectrum_window)
        visible = expected / full[:, None, None]
        scores = overlap / np.maximum(energy + expected - overlap, 1e-3)
        scores *= (visible >= _MIN_VISIBLE) * (0.85 + 0.15 * visible)
        for index, (_, size) in enumerate(names):
            last = CANVAS_PX - DIAMETER_PX[size] + 1
            scores[index, last:], scores[index, :, last:] = 0, 0
        best, y, x = (int(v) for v in np.unravel_index(int(np.argmax(scores)), scores.shape))
        if scores[best, y, x] < _MIN_PEELED:
            break
        kind, size = names[best]
        half = DIAMETER_PX[size] // 2
        fit = _Fit(kind=kind, size=size, x=x + half, y=y + half, score=float(scores[best, y, x]))
        drawn = ndimage.binary_dilation(_drawn(fit) > 0.3, structure=_PLUS)
        mask = left_over & drawn
        cared = cared & ~drawn
        left_over = left_over & ~drawn
        if int(mask.sum()) < MIN_AREA_PX:
            break
        peeled.append((fit, mask))
    return peeled


def _slide(plane: Array, conjugate: NDArray[np.complex64]) -> Array:
    """Sum a plane under each template at each top left corner: (24, 48, 48)."""
    spectrum = fft.rfft2(plane, s=(SPECTRUM_PX, SPECTRUM_PX))
    sums = fft.irfft2(spectrum * conjugate, s=(SPECTRUM_PX, SPECTRUM_PX))
    return np.asarray(sums[:, :CANVAS_PX, :CANVAS_PX], dtype=np.float32)


def _drawn(fit: _Fit) -> Array:
    """A fit's coverage on the canvas: (48, 48)."""
    plane = np.zeros((CANVAS_PX, CANVAS_PX), dtype=np.float32)
    half = DIAMETER_PX[fit.size] // 2
    left, top = fit.x - half, fit.y - half
    plane[top : top + 2 * half + 1, left : left + 2 * half + 1] = silhouette(fit.kind, fit.size)
    return plane
