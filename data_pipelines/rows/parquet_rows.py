"""Rows of a folder of parquet files, one file after another."""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path

from data_pipelines.rows.row import SourceRow
from staged.tables import BadRowError, ParquetFile

Columns = Callable[[ParquetFile], Sequence[str]]
"""Chooses the columns of a file, and refuses one that lacks some."""


class ParquetRows:
    """The rows of a parquet file, or of all below a folder in the order of their names.

    They come one after another from a reader that stands where the last one was; another one is
    searched for in its group of rows.

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
        self._next = -1
        self._last: tuple[int, SourceRow | BadRowError] | None = None

    def __len__(self) -> int:
        """Return how many rows there are."""
        return self._ends[-1]

    def __getitem__(self, number: int) -> SourceRow:
        """Read one; the last one that was read is at hand.

        Raises:
            BadRowError: It cannot be read.
            ValueError: Its file is damaged.
        """
        if self._last is None or self._last[0] != number:
            if number != self._next:
                self._reader = self._from(number, self._columns)
            self._last = next(self._reader)
            self._next = number + 1
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
