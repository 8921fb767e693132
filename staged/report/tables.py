"""Tables of scores, as data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A number of a table with its uncertainty.

    Attributes:
        value: The estimate; None for what was not measured.
        low: Lower end of its interval.
        high: Upper end.
        count: What it rests on.
        text: Shown in place of the number.
        note: A few words below it.
        best: Whether it stands out in its column.
        signed: Whether it carries its sign in a table of others that do not.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    count: int | None = None
    text: str = ""
    note: str = ""
    best: bool = False
    signed: bool = False


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
        signed: Whether they carry their sign, as differences do.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Row]
    intro: str = ""
    corner: str = ""
    digits: int = 2
    signed: bool = False

    def __post_init__(self) -> None:
        """Check that rows and columns fit."""
        check_rows(self.rows, self.columns)


def number(value: float, digits: int, *, signed: bool = False) -> str:
    """Write a number as tables do: `.47`, `-.05` with a true minus, `46.3`, and `0` for zero.

    Args:
        value: Finite.
        digits: Decimals.
        signed: Whether one above zero carries its sign.
    """
    text = f"{abs(value):.{digits}f}"
    if not float(text):
        return "0"
    if digits > 1 and text.startswith("0."):
        text = text[1:]
    return f"{'−' if value < 0 else '+' if signed else ''}{text}"


def interval(cell: Cell, digits: int, *, signed: bool = False) -> str:
    """Write the interval of a cell, `[.32, .64]`; empty where it has none."""
    if cell.low is None or cell.high is None:
        return ""
    ends = (number(end, digits, signed=signed) for end in (cell.low, cell.high))
    return f"[{', '.join(ends)}]"


def check_rows(rows: Sequence[Row], columns: Sequence[str]) -> None:
    """Check that each row has a cell for every column.

    Raises:
        ValueError: one has not.
    """
    for row in rows:
        if len(row.cells) != len(columns):
            raise ValueError(
                f"row {row.label!r} has {len(row.cells)} cells for {len(columns)} columns"
            )
