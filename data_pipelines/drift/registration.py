"""Where one picture lies on another: shift, zoom and turn, found whatever else was drawn into it.

An editor is told to change a part of a picture and moves the whole by the way. The part is unknown
here, so every pixel is compared, and a robust loss (Cauchy's) lets those that do not fit any motion
of the whole count for little: they are the edit. Colours are fitted together with the motion, as
otherwise a tint would be taken for an edit of everything. SciPy's `least_squares` does the fitting,
from coarse to fine; it is a dependency already, and fits flat drawings as well as photographs,
where features to match are found in photographs alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage, optimize

from staged.roles import Pixels

Levels = NDArray[np.float64]
"""(h, w, 3) levels of 255."""

SIDE_PX: Final = 128
"""Longer side at which the last fit is made."""
_SIDES_PX: Final = (16, 32, 64, SIDE_PX)
"""Longer side at each pass, as far as the pictures have it."""
_CHOOSING: Final = 3
"""Passes after which one of the beginnings is chosen."""
_ZOOMS: Final = (1.0, 0.87, 1.15)
"""Where the coarsest pass begins; what editors do lies between."""
_BETTER: Final = 0.95
"""Share of the loss at which more motion is believed instead of less: of two accounts that are as
good, that of the one thing in a flat picture, say, the plainer one counts."""
NOISE: Final = 6.0
"""Difference that may be noise: passes through an autoencoder mostly leave less."""
EDITED: Final = 24.0
"""Difference from which on a place counts as edited."""
_BLUR_PX: Final = 0.8
_MOST: Final = np.array([0.2, 0.2, 0.25, math.radians(12), 0.5, 0.5, 0.5, 64, 64, 64])
"""How far each parameter may be from that of no change."""
_SCALE: Final = np.array([0.05, 0.05, 0.05, 0.1, 0.1, 0.1, 0.1, 10, 10, 10])
_PRIORS: Final = np.array([0.1, 0.1, 0.1, 0.1, 2, 2, 2, 0.02, 0.02, 0.02])
"""What holds motion and colours where the pictures say nothing of them: a blank one has none."""
_REST: Final = np.array([0, 0, 0, 0, 1, 1, 1, 0, 0, 0.0])
_MOTIONS: Final[tuple[list[int], ...]] = ([], [0, 1], [0, 1, 2, 3])
_COLORS: Final = list(range(4, 10))
_MAX_CALLS: Final = 30


@dataclass(frozen=True, kw_only=True)
class Motion:
    """How a picture lies on another: about the middle zoomed, turned, and then shifted.

    Attributes:
        right: Shift, as a share of the longer side.
        down: Likewise.
        zoom: Over 1 is larger than before.
        turn_deg: Clockwise.
    """

    right: float = 0.0
    down: float = 0.0
    zoom: float = 1.0
    turn_deg: float = 0.0

    @property
    def shift(self) -> float:
        """How far, as a share of the longer side."""
        return math.hypot(self.right, self.down)

    def matrix(self, height: int, width: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Say where each pixel of the picture before has gone.

        Returns:
            (2, 2) and (2,) float64: (row, column) after = matrix @ (row, column) before + offset.
        """
        turn, side = math.radians(self.turn_deg), max(height, width)
        cosine, sine = self.zoom * math.cos(turn), self.zoom * math.sin(turn)
        matrix = np.array([[cosine, sine], [-sine, cosine]])
        middle = np.array([height - 1, width - 1]) / 2
        return matrix, middle - matrix @ middle + side * np.array([self.down, self.right])

    def moved(self, height: int, width: int) -> float:
        """Farthest that any corner has gone, as a share of the longer side."""
        matrix, offset = self.matrix(height, width)
        bottom, right = height - 1, width - 1
        corners = np.array([[0, 0], [0, right], [bottom, 0], [bottom, right]], np.float64)
        gone = corners @ matrix.T + offset - corners
        return float(np.hypot(*gone.T).max() / max(height, width))


NO_MOTION: Final = Motion()


@dataclass(frozen=True, kw_only=True)
class Registration:
    """How a picture lies on another, and what else became of all of it.

    Attributes:
        motion: Rounded to what pictures can tell; `NO_MOTION` where none explains more.
        gains: Factor of each channel.
        offsets: Levels added to each channel.
        explained: Share of the difference (Cauchy's loss) that the motion takes away, in [0, 1].
    """

    motion: Motion
    gains: tuple[float, float, float]
    offsets: tuple[float, float, float]
    explained: float


def register(before: Pixels, after: Pixels, *, motions: int = len(_MOTIONS)) -> Registration:
    """Find the motion and the colours of the whole that leave the least to be an edit.

    Motions of up to a fifth of the longer side, a quarter of the size and 12 degrees are looked
    for.

    Args:
        before: (h, w, 3) uint8 RGB.
        after: The same of another picture of this size.
        motions: How many kinds are tried, from none by a shift to all.

    Raises:
        ValueError: The sizes differ.
    """
    if before.shape != after.shape:
        raise ValueError(f"pictures of {before.shape} and {after.shape}: give two of one size")
    longest = max(before.shape[:2])
    sides = sorted({min(side, longest) for side in _SIDES_PX})
    pairs = [(reduced(before, side), reduced(after, side)) for side in sides]
    early, late = pairs[:_CHOOSING], pairs[_CHOOSING:]
    found, free, least = _REST, _MOTIONS[0], math.inf
    for motion in _MOTIONS[:motions]:
        for zoom in _ZOOMS if 2 in motion else _ZOOMS[:1]:
            begin = _REST + np.eye(10)[2] * math.log(zoom)
            end, loss = _followed(early, begin, motion)
            if loss < _BETTER * least:
                found, free, least = end, motion, loss
    # What was edited pulls at the rest, so the best account is fitted again without it.
    pair = late[-1] if late else early[-1]
    fit = _Fit(*pair, free=free + _COLORS)
    found = fit.best(fit.best(found), kept=fit.kept(found))
    explained = 0.0
    if free:
        still = _Fit(*pair, free=_COLORS)
        at_rest = still.loss(still.best(_REST))
        explained = max(1 - fit.loss(found) / at_rest, 0.0) if at_rest else 0.0
    down, right, zoom, turn = (float(value) for value in found[:4])
    red, green, blue, *offsets = (float(value) for value in found[4:])
    return Registration(
        motion=Motion(
            right=round(right, 5),
            down=round(down, 5),
            zoom=round(math.exp(zoom), 5),
            turn_deg=round(math.degrees(turn), 3),
        ),
        gains=(red, green, blue),
        offsets=(offsets[0], offsets[1], offsets[2]),
        explained=round(explained, 3),
    )


def moved_back(
    pixels: Pixels | Levels, motion: Motion, *, order: int = 1
) -> tuple[Levels, NDArray[np.bool_]]:
    """Undo a motion.

    Args:
        pixels: (h, w, 3) levels of 255 of the picture that was moved.
        motion: How.
        order: Of the splines between pixels.

    Returns:
        The picture as it would lie without it, and (h, w) bool: where it is known. Elsewhere its
        nearest pixel is repeated.
    """
    height, width = pixels.shape[:2]
    matrix, offset = motion.matrix(height, width)
    planes = [
        ndimage.affine_transform(
            pixels[..., channel].astype(np.float64), matrix, offset, order=order, mode="nearest"
        )
        for channel in range(3)
    ]
    places = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij"), -1)
    there = places @ matrix.T + offset
    inside = (there >= -0.5) & (there <= np.array([height - 0.5, width - 0.5]))
    return np.stack(planes, -1), np.asarray(inside.all(-1))


def reduced(pixels: Pixels, side: int) -> Levels:
    """A picture with a longer side of so many pixels, blurred a little."""
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    size = (max(round(width * scale), 2), max(round(height * scale), 2))
    if size != (width, height):
        pixels = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))
    levels = pixels.astype(np.float64)
    return np.asarray(ndimage.gaussian_filter(levels, (_BLUR_PX, _BLUR_PX, 0)))


def _followed(
    pairs: list[tuple[Levels, Levels]], begin: NDArray[np.float64], motion: list[int]
) -> tuple[NDArray[np.float64], float]:
    """Fit from coarse to fine; the parameters, and the loss of the last pass."""
    loss = math.inf
    for before, after in pairs:
        fit = _Fit(before, after, free=motion + _COLORS)
        begin = fit.best(begin)
        loss = fit.loss(begin)
    return begin, loss


class _Fit:
    """Differences of two pictures under a motion and a change of colours, and their slopes.

    Parameters: down, right, log of the zoom, turn in radians; three gains, three offsets.

    Args:
        before: A picture.
        after: Another one of its size.
        free: Parameters that are fitted; the others stay as they are.
    """

    def __init__(self, before: Levels, after: Levels, *, free: list[int]) -> None:
        """Lay out what every call needs."""
        height, width = before.shape[:2]
        self._side, self._free = max(height, width), free
        self._middle = np.array([height - 1, width - 1]) / 2
        rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
        self._rows = (rows - self._middle[0]).ravel()
        self._columns = (columns - self._middle[1]).ravel()
        self._before, self._after = before.reshape(-1, 3), after
        self._slopes = np.asarray(np.gradient(after, axis=(0, 1)))
        self._shape = (height, width)

    def best(
        self, begin: NDArray[np.float64], *, kept: NDArray[np.bool_] | None = None
    ) -> NDArray[np.float64]:
        """Fit the free parameters, to the places that are kept alone where these are given."""
        places = slice(None) if kept is None else kept.ravel()
        weight = math.sqrt(3 * len(self._rows[places]) + 1)
        free = self._free

        def whole(p: NDArray[np.float64]) -> NDArray[np.float64]:
            parameters = begin.copy()
            parameters[free] = p
            return parameters

        def residuals(p: NDArray[np.float64]) -> NDArray[np.float64]:
            held = weight * (_PRIORS * (whole(p) - _REST))[free]
            return np.concatenate([self._left(whole(p), places).ravel(), held])

        def jacobian(p: NDArray[np.float64]) -> NDArray[np.float64]:
            held = weight * np.diag(_PRIORS[free])
            return np.concatenate([self._slopes_of(whole(p), places)[:, free], held])

        limits = (_REST - _MOST)[free], (_REST + _MOST)[free]
        result = optimize.least_squares(
            residuals,
            np.clip(begin[free], *limits),
            jacobian,
            bounds=limits,
            loss="cauchy",
            f_scale=NOISE,
            x_scale=_SCALE[free],
            max_nfev=_MAX_CALLS,
            xtol=1e-6,
            ftol=1e-6,
            gtol=None,
        )
        return whole(result.x)

    def loss(self, p: NDArray[np.float64]) -> float:
        """Mean of Cauchy's loss over all values."""
        return float(np.log1p((self._left(p, slice(None)) / NOISE) ** 2).mean())

    def kept(self, p: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Say where nothing was edited: (h, w) bool."""
        left = np.abs(self._left(p, slice(None))).max(-1).reshape(self._shape)
        return np.asarray(~ndimage.binary_dilation(left >= EDITED, iterations=2))

    def _left(self, p: NDArray[np.float64], places: Any) -> NDArray[np.float64]:
        seen = _sampled(self._after, self._gone(p, places))
        return np.asarray(seen - (self._before[places] * p[4:7] + p[7:10]))

    def _slopes_of(self, p: NDArray[np.float64], places: Any) -> NDArray[np.float64]:
        gone = self._gone(p, places)
        by_row, by_column = _sampled(self._slopes[0], gone), _sampled(self._slopes[1], gone)
        rows, columns = self._turned(p, places)
        slopes = np.zeros((len(rows), 3, 10))
        slopes[..., 0] = self._side * by_row
        slopes[..., 1] = self._side * by_column
        slopes[..., 2] = by_row * rows[:, None] + by_column * columns[:, None]
        # The turn's slope of (rows, columns) is (columns, -rows).
        slopes[..., 3] = by_row * columns[:, None] - by_column * rows[:, None]
        for channel in range(3):
            slopes[:, channel, 4 + channel] = -self._before[places, channel]
            slopes[:, channel, 7 + channel] = -1
        return slopes.reshape(-1, 10)

    def _turned(self, p: NDArray[np.float64], places: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        cosine, sine = math.exp(p[2]) * math.cos(p[3]), math.exp(p[2]) * math.sin(p[3])
        rows, columns = self._rows[places], self._columns[places]
        return cosine * rows + sine * columns, cosine * columns - sine * rows

    def _gone(self, p: NDArray[np.float64], places: Any) -> NDArray[np.float64]:
        rows, columns = self._turned(p, places)
        down, right = self._middle + self._side * p[:2]
        return np.stack([rows + down, columns + right])


def _sampled(levels: Levels, places: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.stack(
        [
            ndimage.map_coordinates(levels[..., channel], places, order=1, mode="nearest")
            for channel in range(3)
        ],
        -1,
    )
