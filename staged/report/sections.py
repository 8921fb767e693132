"""The sections of a report, as data."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from staged import images
from staged.roles import Pixels
from staged.trajectory import ImageRef, Trajectory

MAX_LOG_BYTES = 256 * 2**20


@dataclass(frozen=True, kw_only=True)
class Notes:
    """Free text.

    Attributes:
        title: Heading.
        paragraphs: Plain text each.
    """

    title: str
    paragraphs: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Trajectories:
    """Trajectories step by step; also samples of a data set.

    Attributes:
        title: Heading.
        trajectories: Their images must be loaded.
        intro: Plain text above.
        captions: One line under each prompt, such as what a detector said; empty for none.
        folded: Show only prompts and last images until one is opened.
    """

    title: str
    trajectories: Sequence[Trajectory]
    intro: str = ""
    captions: Sequence[str] = ()
    folded: bool = False

    def __post_init__(self) -> None:
        """Check the captions."""
        if self.captions and len(self.captions) != len(self.trajectories):
            raise ValueError(
                f"{len(self.captions)} captions for {len(self.trajectories)} trajectories; "
                "give one for each, or none"
            )


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture of a gallery.

    Attributes:
        png: Encoded bytes (PNG, WebP or JPEG).
        caption: Plain text below; it also describes the picture to those who do not see it.
        note: Smaller plain text below that.
        good: Whether it is marked as right or wrong; None for neither.
    """

    png: bytes
    caption: str
    note: str = ""
    good: bool | None = None

    @classmethod
    def from_array(
        cls, pixels: Pixels, caption: str, *, note: str = "", good: bool | None = None
    ) -> Self:
        """Encode (h, w, 3) uint8 RGB."""
        return cls(png=images.encode_png(pixels), caption=caption, note=note, good=good)

    @classmethod
    def of(cls, image: ImageRef, caption: str, *, good: bool | None = None) -> Self:
        """Take a loaded image of a trajectory."""
        if image.png is None:
            raise ValueError(f"image {image.name!r} is not loaded; read it from its sample first")
        return cls(png=image.png, caption=caption, good=good)


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Pictures side by side.

    Attributes:
        title: Heading.
        pictures: In order.
        intro: Plain text above.
    """

    title: str
    pictures: Sequence[Picture]
    intro: str = ""


@dataclass(frozen=True, kw_only=True)
class Series:
    """A line of a curve.

    Attributes:
        name: What it shows.
        points: (x, y) pairs in order of x; those that are not finite are left out.
    """

    name: str
    points: Sequence[tuple[float, float]]


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
    """

    title: str
    series: Sequence[Series]
    x_label: str
    y_label: str
    intro: str = ""
    log_y: bool = False

    def __post_init__(self) -> None:
        """Check what a chart can show."""
        if not 1 <= len(self.series) <= 6:
            raise ValueError(f"{len(self.series)} series; a chart shows 1 to 6")
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
            ValueError: the file is missing, too large, or no such log.
        """
        path = Path(path)
        if not path.is_file() or path.stat().st_size > MAX_LOG_BYTES:
            raise ValueError(f"{path} is missing or exceeds {MAX_LOG_BYTES} bytes")
        points: dict[str, list[tuple[float, float]]] = {key: [] for key in keys}
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            try:
                record = json.loads(line)
                for key in keys:
                    if key in record and not (log_y and record[key] <= 0):
                        points[key].append((float(record["step"]), float(record[key])))
            except (ValueError, TypeError, KeyError) as error:
                raise ValueError(f"{path}:{number} is no line of a training log: {error}") from None
        series = tuple(Series(name=keys[key], points=points[key]) for key in keys)
        return cls(
            title=title, series=series, x_label="step", y_label="loss", intro=intro, log_y=log_y
        )


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A number of a table with its uncertainty.

    Attributes:
        value: The estimate; None for what was not measured.
        low: Lower end of its interval.
        high: Upper end.
        count: What it rests on.
        text: Shown in place of the number.
        best: Whether it stands out in its column.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    count: int | None = None
    text: str = ""
    best: bool = False


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of a table.

    Attributes:
        label: Its heading.
        cells: One for each column.
    """

    label: str
    cells: Sequence[Cell]


@dataclass(frozen=True, kw_only=True)
class Table:
    """Scores.

    Attributes:
        title: Heading.
        columns: Headings.
        rows: Each with as many cells as there are columns.
        intro: Plain text above.
        corner: Heading of the column of row labels.
        digits: Decimals of values and intervals.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Row]
    intro: str = ""
    corner: str = ""
    digits: int = 2

    def __post_init__(self) -> None:
        """Check that rows and columns fit."""
        for row in self.rows:
            if len(row.cells) != len(self.columns):
                raise ValueError(
                    f"row {row.label!r} has {len(row.cells)} cells for {len(self.columns)} columns"
                )


Section = Notes | Trajectories | Gallery | Curve | Table
