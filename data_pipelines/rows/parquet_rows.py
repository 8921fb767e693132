"""Rows of a folder of parquet files, one file after another."""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Final

from data_pipelines.rows.row import SourceRow
from staged.tables import BadRowError, ParquetFile

Columns = Callable[[ParquetFile], Sequence[str]]
"""Chooses the columns of a file, and refuses one that lacks some."""
_NEAR: Final = 64
"""Rows that are sooner passed over than searched for from the start of their group."""


class ParquetRows:
    """The rows of a parquet file, or of all below a folder in the order of their names.

    They come one after another from a reader that stands where the last one was, and passes over
    some, such as those of other ranks; another one is searched for in its group of rows.

    Args:
        path: A file, or a folder.
        columns: Which columns are read.
        folder: Of images that are named by paths; that of `path` by default.

    Raises:
        ValueError: There are no such files, or one is damaged or lacks a column; names it.
        OSError: A file cannot be read.
    """

    def __init__(self, path: Path, columns: Columns, folder: Path | None = None) -> None:
        """Read what the files say of themselves."""
        found = [path] if path.is_file() else sorted(path.rglob("*.parquet"))
        if not found:
            raise ValueError(f"{path}: no such file, and no folder of .parquet files")
        self._folder = folder or (path.parent if path.is_file() else path)
        self._files = [ParquetFile(file) for file in found]
        self._columns = [tuple(columns(file)) for file in self._files]
        self._ends = list(accumulate(file.num_rows for file in self._files))
        self._reader: Iterator[tuple[int, SourceRow | BadRowError]] = iter(())
        self._next: int | None = None
        self._last: tuple[int, SourceRow | BadRowError] | None = None

    def __len__(self) -> int:
        """Return how many rows there are."""
        return self._ends[-1]

    def __getitem__(self, number: int) -> SourceRow:
        """Read one; the last one that was read is at hand.

        Raises:
            BadRowError: It cannot be read.
            IndexError: There is none of that number.
            ValueError: Its file is damaged.
        """
        if not 0 <= number < len(self):
            raise IndexError(f"row {number} of {len(self)}")
        if self._last is None or self._last[0] != number:
            self._last = self._read(number)
        row = self._last[1]
        if isinstance(row, BadRowError):
            raise row
        return row

    def scan(self, columns: Sequence[str]) -> Iterator[SourceRow | BadRowError]:
        """Read some columns of all rows.

        Raises:
            ValueError: A file is damaged.
        """
        for _, row in self._from(0, [tuple(columns)] * len(self._files)):
            yield row

    def _read(self, number: int) -> tuple[int, SourceRow | BadRowError]:
        if self._next is None or not self._next <= number <= self._next + _NEAR:
            self._reader = self._from(number, self._columns)
        self._next = None  # a reader that raises has ended
        found = next(row for row in self._reader if row[0] == number)
        self._next = number + 1
        return found

    def _from(
        self, number: int, columns: Sequence[Sequence[str]]
    ) -> Iterator[tuple[int, SourceRow | BadRowError]]:
        at = bisect_right(self._ends, number)
        for place in range(at, len(self._files)):
            file = self._files[place]
            first = self._ends[place] - file.num_rows
            for inside, data in file.rows(columns[place], max(0, number - first)):
                shown = f"{file.path}: row {inside + 1}"
                row = (
                    data if isinstance(data, BadRowError) else SourceRow(data, shown, self._folder)
                )
                yield first + inside, row
