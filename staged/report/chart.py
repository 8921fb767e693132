"""Figures as numbers that a template draws, and as tables for those who do not see them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from staged.report.figures import Curve, Dots, Series, Stacks
from staged.report.tables import Cell, Row, Table, interval, number

WIDTH, HEIGHT = 720, 300
LEFT, RIGHT, TOP, BOTTOM = 64, 28, 16, 48
_MAX_POINTS = 600
_MAX_MARKS = 32
"""A line of no more points shows each of them."""
_MAX_LABELS = 10
_MAX_ROWS = 12
_DODGE_PX = 7
_INSET_PX = 24
"""Room at either end for intervals that stand side by side."""
_TICKS = 5
_MIN_LABELLED = 0.07
"""Smallest part of a bar that has room for its count."""

_Point = tuple[float, float]


@dataclass(frozen=True)
class Tick:
    """A mark on an axis: where it stands, and what it says."""

    at: float
    label: str


@dataclass(frozen=True)
class Mark:
    """A point with its interval, in the drawing's units; both ends of none are its middle."""

    x: float
    y: float
    low: float
    high: float


@dataclass(frozen=True)
class Polyline:
    """A series: the points of a polyline, its marks, and its last value in words."""

    name: str
    points: str
    marks: Sequence[Mark]
    last: str


@dataclass(frozen=True)
class Chart:
    """Everything that is drawn."""

    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    lines: Sequence[Polyline]
    summary: str


def chart(curve: Curve) -> Chart:
    """Lay a curve out; long series are thinned to what can be seen."""
    finite = [_finite(series) for series in curve.series]
    every = [point for points, _ in finite for point in points] or [(0.0, 0.0)]
    ends = [end for _, pairs in finite for pair in pairs for end in pair]
    xs = sorted({x for x, _ in every})
    ys = [_scaled(y, curve.log_y) for y in (*(y for _, y in every), *ends)]
    x_low, x_high = _range(xs[0], xs[-1])
    y_low, y_high = curve.y_range or _range(min(ys), max(ys))
    inset = _INSET_PX if ends else 0

    def to_x(x: float) -> float:
        width = WIDTH - LEFT - RIGHT - 2 * inset
        return LEFT + inset + (x - x_low) / (x_high - x_low) * width

    def to_y(y: float) -> float:
        share = (_scaled(y, curve.log_y) - y_low) / (y_high - y_low)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    lines, said = [], []
    for index, (series, (points, pairs)) in enumerate(zip(curve.series, finite, strict=True)):
        few = 0 < len(points) <= _MAX_MARKS
        # Side by side, so that intervals at the same x do not cover one another.
        aside = (index - (len(finite) - 1) / 2) * _DODGE_PX if pairs else 0.0
        drawn = [(to_x(x) + aside, to_y(y)) for x, y in _thinned(points)]
        marks = [
            Mark(x, y, *(map(to_y, pairs[i]) if pairs else (y, y)))
            for i, (x, y) in enumerate(drawn if few else ())
        ]
        last = f"{points[-1][1]:.4g}" if points else "no points"
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in drawn)
        lines.append(Polyline(series.name, path, marks, last))
        if points:
            said.append(f"{series.name} from {points[0][1]:.4g} to {last}")
    at = xs if len(xs) <= _MAX_LABELS else _ticks(x_low, x_high)
    return Chart(
        x_ticks=[Tick(to_x(x), _number(x)) for x in at],
        y_ticks=[
            Tick(to_y(value), _number(value))
            for value in (10.0**y if curve.log_y else y for y in _ticks(y_low, y_high))
        ],
        lines=lines,
        summary="; ".join(said) or "no points",
    )


@dataclass(frozen=True)
class Lane:
    """A dot in per cent of the scale, and what stands beside it; None for what was not measured."""

    at: float | None
    low: float
    width: float
    said: str
    beside: str = ""
    zero: float | None = None


def lanes(dots: Dots, row: Row) -> list[Lane]:
    """Lay out the dots of a row."""
    return [_lane(cell, dots) for cell in row.cells]


def dot_ticks(dots: Dots) -> list[Tick]:
    """Mark the scale, in per cent."""
    return [Tick(_percent(x, dots.span), _number(x)) for x in _ticks(*dots.span)]


def in_words(figure: Dots | Stacks) -> str:
    """Say what a figure of rows shows."""
    digits, signed = _format(figure)

    def said(column: str, cell: Cell) -> str:
        if cell.value is None:
            return f"{column} not measured"
        value = number(cell.value, digits, signed=signed)
        return f"{column} {value} {interval(cell, digits, signed=signed)}".rstrip()

    return "; ".join(
        f"{row.label}: " + ", ".join(map(said, figure.columns, row.cells)) for row in figure.rows
    )


@dataclass(frozen=True)
class BarPart:
    """A part of a bar: its share in per cent, its count, and whether there is room to write it."""

    width: float
    count: int
    labelled: bool


def _format(figure: Dots | Stacks) -> tuple[int, bool]:
    """Digits after the point, and whether a plus is shown; counts have neither."""
    return (figure.digits, figure.signed) if isinstance(figure, Dots) else (0, False)


def color_of(stacks: Stacks, index: int) -> str:
    """Name the colour of a part by its index, from 0."""
    return f"tone-{stacks.tones[index]}" if stacks.tones else f"s{index + 1}"


def parts(stacks: Stacks, row: Row) -> list[BarPart]:
    """Lay out a bar; one without any count is empty."""
    counts = [cell.value or 0.0 for cell in row.cells]
    total = stacks.full or math.fsum(counts) or 1.0
    return [BarPart(100 * n / total, round(n), n / total >= _MIN_LABELLED) for n in counts]


def numbers(figure: Curve | Dots | Stacks, *, whole: bool = False) -> Table:
    """Write a figure as a table; of a long curve means over equal stretches, unless `whole`."""
    if not isinstance(figure, Curve):
        digits, signed = _format(figure)
        return Table(
            title=figure.title, columns=figure.columns, rows=figure.rows, corner=figure.corner,
            digits=digits, signed=signed,
        )  # fmt: skip
    finite = [_finite(series) for series in figure.series]
    xs = sorted({x for points, _ in finite for x, _ in points})
    if whole or len(xs) <= _MAX_ROWS:
        rows = [Row(label=_number(x), cells=[_cell_at(x, *one) for one in finite]) for x in xs]
    else:
        width = (xs[-1] - xs[0]) / _MAX_ROWS
        starts = [xs[0] + i * width for i in range(_MAX_ROWS)]
        stretches = [(x, x + width if x != starts[-1] else math.inf) for x in starts]
        rows = [
            Row(
                label=f"{_number(low)} to {_number(min(high, xs[-1]))}",
                cells=[_mean_cell(y for x, y in points if low <= x < high) for points, _ in finite],
            )
            for low, high in stretches
        ]
    return Table(
        title=figure.title,
        columns=[series.name for series in figure.series],
        rows=rows,
        corner=figure.x_label,
        digits=3,
    )


def _finite(series: Series) -> tuple[list[_Point], list[_Point]]:
    """Points, and an interval for each: the point itself where it has none."""
    kept, pairs = [], []
    for index, (x, y) in enumerate(series.points):
        if math.isfinite(x) and math.isfinite(y):
            kept.append((x, y))
            if series.intervals:
                ends = series.intervals[index]
                pairs.append(ends if all(map(math.isfinite, ends)) else (y, y))
    return kept, pairs


def _cell_at(x: float, points: Sequence[_Point], pairs: Sequence[_Point]) -> Cell:
    for index, (other, y) in enumerate(points):
        if other == x:
            low, high = pairs[index] if pairs else (y, y)
            sure = low == high
            return Cell(value=y, low=None if sure else low, high=None if sure else high)
    return Cell()


def _mean_cell(values: Iterable[float]) -> Cell:
    found = list(values)
    return Cell(value=math.fsum(found) / len(found) if found else None)


def _lane(cell: Cell, dots: Dots) -> Lane:
    zero = _percent(0.0, dots.span) if dots.span[0] < 0 < dots.span[1] else None
    if cell.value is None:
        return Lane(None, 0.0, 0.0, "–", cell.note, zero)
    low = _percent(cell.value if cell.low is None else cell.low, dots.span)
    high = _percent(cell.value if cell.high is None else cell.high, dots.span)
    beside = [
        interval(cell, dots.digits, signed=dots.signed),
        "" if cell.count is None else f"n {cell.count}",
        cell.note,
    ]
    return Lane(
        at=_percent(cell.value, dots.span),
        low=low,
        width=high - low,
        said=number(cell.value, dots.digits, signed=dots.signed),
        beside=" · ".join(filter(None, beside)),
        zero=zero,
    )


def _percent(value: float, span: tuple[float, float]) -> float:
    share = (value - span[0]) / (span[1] - span[0])
    return round(100 * min(max(share, 0.0), 1.0), 2)


def _scaled(y: float, log: bool) -> float:
    return math.log10(y) if log else y


def _range(low: float, high: float) -> tuple[float, float]:
    if low == high:
        low, high = low - 0.5, high + 0.5
    return low, high


def _thinned(points: Sequence[_Point]) -> list[_Point]:
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
