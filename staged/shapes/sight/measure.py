"""How good the detector is: precision and recall where the truth is known."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage

from staged import images
from staged.roles import Pixels
from staged.shapes.sight.detect import ShapeDetection, detect
from staged.shapes.world.render import render, silhouette
from staged.shapes.world.scene import (
    CANVAS_PX,
    COLORS,
    DIAMETER_PX,
    KINDS,
    SIZES,
    Scene,
    Shape,
    sample_background,
    scatter,
)

Damage = Callable[[Pixels, np.random.Generator], Pixels]

MAX_OFFSET_PX = 2.0
"""A detection is in its place when its centre is at most this far from the shape's."""

MIN_VISIBLE = 0.6
"""Share of a shape that an overlapping render leaves to be seen."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Counts over one condition; an object is right in class, colour and place, or not at all."""

    condition: str
    num_scenes: int
    num_objects: int
    num_detections: int
    num_right: int
    num_scenes_right: int

    @property
    def precision(self) -> float:
        """Share of detections that are right."""
        return self.num_right / self.num_detections

    @property
    def recall(self) -> float:
        """Share of objects that are found."""
        return self.num_right / self.num_objects

    def as_json(self) -> dict[str, str | int | float]:
        """The counts and both rates, for a file."""
        return {**vars(self), "precision": self.precision, "recall": self.recall}


def _clean(picture: Pixels, rng: np.random.Generator) -> Pixels:
    del rng
    return picture


def _noise(sigma: float) -> Damage:
    def damage(picture: Pixels, rng: np.random.Generator) -> Pixels:
        noisy = picture + rng.normal(0, sigma, picture.shape)
        return np.asarray(np.clip(np.rint(noisy), 0, 255), dtype=np.uint8)

    return damage


def _blur(sigma: float) -> Damage:
    def damage(picture: Pixels, rng: np.random.Generator) -> Pixels:
        del rng
        soft = ndimage.gaussian_filter(picture.astype(np.float64), (sigma, sigma, 0))
        return np.asarray(np.rint(soft), dtype=np.uint8)

    return damage


def _jpeg(quality: int) -> Damage:
    def damage(picture: Pixels, rng: np.random.Generator) -> Pixels:
        del rng
        stream = io.BytesIO()
        Image.fromarray(picture).save(stream, "JPEG", quality=quality)
        return images.decode(stream.getvalue())

    return damage


def sample_apart(rng: np.random.Generator) -> Scene:
    """One to four shapes, none touching another."""
    while True:
        if scene := scatter(int(rng.integers(1, 5)), rng):
            return scene


def sample_overlapping(rng: np.random.Generator) -> Scene:
    """Two or three shapes of different colours; at least one pair overlaps, all stay visible."""
    while True:
        colors = rng.permutation(len(COLORS))[: rng.integers(2, 4)]
        shapes = tuple(_anywhere(COLORS[int(color)], rng) for color in colors)
        visible = _visible_shares(shapes)
        if MIN_VISIBLE <= min(visible) < 1:
            return Scene(shapes=shapes, background=sample_background(rng))


def _anywhere(color: str, rng: np.random.Generator) -> Shape:
    size = SIZES[rng.integers(len(SIZES))]
    half = DIAMETER_PX[size] // 2
    x, y = (int(v) for v in rng.integers(half, CANVAS_PX - half, 2))
    return Shape(kind=KINDS[rng.integers(len(KINDS))], color=color, size=size, x=x, y=y)  # type: ignore[arg-type]


def _visible_shares(shapes: Sequence[Shape]) -> list[float]:
    """How much of each shape's coverage later shapes leave to be seen."""
    shares: list[float] = []
    free = np.ones((CANVAS_PX, CANVAS_PX))
    for shape in reversed(shapes):
        left, top, right, bottom = shape.box
        window = free[top:bottom, left:right]
        coverage = silhouette(shape.kind, shape.size)
        shares.append(float((coverage * window).sum() / coverage.sum()))
        window *= 1 - coverage
    return shares


CONDITIONS: dict[str, tuple[Callable[[np.random.Generator], Scene], Damage]] = {
    "clean": (sample_apart, _clean),
    "noise, sigma 10": (sample_apart, _noise(10)),
    "noise, sigma 25": (sample_apart, _noise(25)),
    "blur, sigma 0.7": (sample_apart, _blur(0.7)),
    "blur, sigma 1.0": (sample_apart, _blur(1.0)),
    "JPEG, quality 75": (sample_apart, _jpeg(75)),
    "overlapping": (sample_overlapping, _clean),
}
"""Name of each condition to how its scenes are drawn and what is then done to the picture."""


def num_right(shapes: Sequence[Shape], found: Sequence[ShapeDetection]) -> int:
    """Pair detections with shapes of the same class and colour in the same place, once each."""
    free = list(shapes)
    for detection in found:
        near = [
            shape
            for shape in free
            if (shape.kind, shape.color) == (detection.kind, detection.color)
            and np.hypot(shape.x - detection.x, shape.y - detection.y) <= MAX_OFFSET_PX
        ]
        if near:
            free.remove(near[0])
    return len(shapes) - len(free)


def measure(num_scenes: int, seed: int) -> Iterator[Measurement]:
    """Measure every condition in turn.

    Args:
        num_scenes: Scenes per condition, positive.
        seed: Decides scenes and damage; conditions do not depend on one another.

    Raises:
        ValueError: `num_scenes` is not positive.
    """
    if num_scenes < 1:
        raise ValueError(f"num_scenes {num_scenes}; expected 1 or more")
    for index, (condition, (sample, damage)) in enumerate(CONDITIONS.items()):
        rng = np.random.default_rng((seed, index))
        objects = detections = right = scenes_right = 0
        for _ in range(num_scenes):
            scene = sample(rng)
            found = detect(damage(render(scene), rng))
            hits = num_right(scene.shapes, found)
            objects += len(scene.shapes)
            detections += len(found)
            right += hits
            scenes_right += hits == len(scene.shapes) == len(found)
        yield Measurement(
            condition=condition, num_scenes=num_scenes, num_objects=objects,
            num_detections=detections, num_right=right, num_scenes_right=scenes_right,
        )  # fmt: skip
