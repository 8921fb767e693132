"""Line charts as numbers that a template draws: ticks, and points in the drawing's own units."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from staged.report.sections import Curve

WIDTH, HEIGHT = 720, 300
LEFT, RIGHT, TOP, BOTTOM = 64, 28, 16, 48
_MAX_POINTS = 600
_TICKS = 5


@dataclass(frozen=True)
class Tick:
    """A mark on an axis: where it stands, and what it says."""

    at: float
    label: str


@dataclass(frozen=True)
class Line:
    """A series: the points of a polyline, and its last value in words."""

    name: str
    points: str
    last: str


@dataclass(frozen=True)
class Chart:
    """Everything that is drawn."""

    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    lines: Sequence[Line]
    summary: str


def chart(curve: Curve) -> Chart:
    """Lay a curve out; long series are thinned to what can be seen."""
    finite = [
        [(x, y) for x, y in series.points if math.isfinite(x) and math.isfinite(y)]
        for series in curve.series
    ]
    every = [point for points in finite for point in points] or [(0.0, 0.0)]
    xs, ys = [x for x, _ in every], [_scaled(y, curve.log_y) for _, y in every]
    x_low, x_high = _range(min(xs), max(xs))
    y_low, y_high = _range(min(ys), max(ys))

    def to_x(x: float) -> float:
        return LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)

    def to_y(y: float) -> float:
        return HEIGHT - BOTTOM - (y - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM)

    lines, said = [], []
    for series, points in zip(curve.series, finite, strict=True):
        path = " ".join(
            f"{to_x(x):.1f},{to_y(_scaled(y, curve.log_y)):.1f}" for x, y in _thinned(points)
        )
        last = f"{points[-1][1]:.4g}" if points else "no points"
        lines.append(Line(series.name, path, last))
        if points:
            said.append(f"{series.name} from {points[0][1]:.4g} to {last}")
    return Chart(
        x_ticks=[Tick(to_x(x), _number(x)) for x in _ticks(x_low, x_high)],
        y_ticks=[
            Tick(to_y(y), _number(10.0**y if curve.log_y else y)) for y in _ticks(y_low, y_high)
        ],
        lines=lines,
        summary="; ".join(said) or "no points",
    )


def _scaled(y: float, log: bool) -> float:
    return math.log10(y) if log else y


def _range(low: float, high: float) -> tuple[float, float]:
    if low == high:
        low, high = low - 0.5, high + 0.5
    return low, high


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Average runs of neighbours, so that no spike is shown that was not there for long."""
    size = math.ceil(len(points) / _MAX_POINTS) or 1
    runs = [points[i : i + size] for i in range(0, len(points), size)]
    return [(sum(x for x, _ in r) / len(r), sum(y for _, y in r) / len(r)) for r in runs]


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers within a range."""
    rough = (high - low) / _TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _number(value: float) -> str:
    if abs(value) >= 10_000 and value % 1000 == 0:
        return f"{value / 1000:g}k"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:g}"
