"""Figures, as data; `chart` lays them out. Each is also shown as a table of its numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from staged.lines import read_lines
from staged.report.tables import Row, check_rows

MAX_LOG_BYTES = 256 * 2**20
Tone = Literal["good", "bad", "accent", "quiet"]


@dataclass(frozen=True, kw_only=True)
class Series:
    """A line of a curve.

    Attributes:
        name: What it shows.
        points: (x, y) pairs in order of x; those that are not finite are left out.
        intervals: Lower and upper end for each point, not finite where it has none; or empty.
    """

    name: str
    points: Sequence[tuple[float, float]]
    intervals: Sequence[tuple[float, float]] = ()

    def __post_init__(self) -> None:
        """Check that points and intervals fit."""
        if self.intervals and len(self.intervals) != len(self.points):
            raise ValueError(
                f"series {self.name!r} has {len(self.points)} points and {len(self.intervals)} "
                "intervals; give one for each, or none"
            )


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A line chart.

    Attributes:
        title: Heading.
        series: At most six.
        x_label: With units.
        y_label: With units.
        intro: Plain text above.
        log_y: Whether y is drawn to a logarithmic scale; every y must then be positive.
        y_range: Least and greatest y to be shown; None takes those of the points.
    """

    title: str
    series: Sequence[Series]
    x_label: str
    y_label: str
    intro: str = ""
    log_y: bool = False
    y_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        """Check what a chart can show."""
        _check_number(len(self.series))
        if self.log_y and any(y <= 0 for s in self.series for _, y in s.points if math.isfinite(y)):
            raise ValueError("a logarithmic scale needs positive values")

    @classmethod
    def from_log(
        cls,
        path: Path | str,
        keys: Mapping[str, str],
        *,
        title: str = "Training",
        intro: str = "",
        log_y: bool = False,
    ) -> Self:
        """Read a training run's `log.jsonl`.

        Args:
            path: The file; each line is an object with `step` and the keys.
            keys: Key of the log to the name of its line, such as `{"mse": "image loss"}`.
            title: Heading.
            intro: Plain text above.
            log_y: See the class.

        Raises:
            ValueError: the file is missing, too large, no such log, or has none of the keys.
        """
        path = Path(path)
        if not path.is_file() or path.stat().st_size > MAX_LOG_BYTES:
            raise ValueError(f"{path} is missing or exceeds {MAX_LOG_BYTES} bytes")
        points: dict[str, list[tuple[float, float]]] = {key: [] for key in keys}
        for line in read_lines(path):
            try:
                record = json.loads(line.content)
                for key in keys:
                    if key in record and not (log_y and record[key] <= 0):
                        points[key].append((float(record["step"]), float(record[key])))
            except (ValueError, TypeError, KeyError) as error:
                raise ValueError(f"{line.place} is no line of a training log: {error}") from None
        if not any(points.values()):
            raise ValueError(f"{path} has no line with {' or '.join(keys)}: nothing was trained")
        series = tuple(Series(name=keys[key], points=points[key]) for key in keys)
        return cls(
            title=title, series=series, x_label="step", y_label="loss", intro=intro, log_y=log_y
        )


@dataclass(frozen=True, kw_only=True)
class Dots:
    """Numbers on a common scale, with their intervals.

    Attributes:
        title: Heading.
        columns: What each dot of a row stands for; at most six.
        rows: Each with as many cells as there are columns.
        x_label: What the scale measures.
        intro: Plain text above.
        corner: Heading of the row labels.
        span: Least and greatest number to be shown.
        digits: Decimals.
        signed: Whether numbers carry their sign, as differences do.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Row]
    x_label: str
    intro: str = ""
    corner: str = ""
    span: tuple[float, float] = (0.0, 1.0)
    digits: int = 2
    signed: bool = False

    def __post_init__(self) -> None:
        """Check what a chart can show."""
        _check_number(len(self.columns))
        check_rows(self.rows, self.columns)
        if not self.span[0] < self.span[1]:
            raise ValueError(f"span {self.span}; expected a smaller and a greater number")


@dataclass(frozen=True, kw_only=True)
class Stacks:
    """Counts, a bar for each row: parts of a whole, or parts of what is largest.

    Attributes:
        title: Heading.
        columns: What each part of a bar counts; at most six.
        rows: Each with as many cells as there are columns; a cell's value is a count.
        intro: Plain text above.
        corner: Heading of the row labels.
        tones: What each part means, in its colour; or empty.
        full: What a bar over the whole width counts; None for the sum of its own parts.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Row]
    intro: str = ""
    corner: str = ""
    tones: Sequence[Tone] = ()
    full: float | None = None

    def __post_init__(self) -> None:
        """Check what a chart can show."""
        _check_number(len(self.columns))
        check_rows(self.rows, self.columns)
        if self.tones and len(self.tones) != len(self.columns):
            raise ValueError(f"{len(self.tones)} tones for {len(self.columns)} columns")
        for row in self.rows:
            if any(cell.value is None or cell.value < 0 for cell in row.cells):
                raise ValueError(f"row {row.label!r}: expected a count from 0 in each cell")


Figure = Curve | Dots | Stacks


def _check_number(number: int) -> None:
    if not 1 <= number <= 6:
        raise ValueError(f"{number} series; a chart shows 1 to 6")
