"""Parquet files from anywhere, a few rows at a time.

A file says of itself how much is in it, and a few kilobytes may stand for terabytes: one value that
a million rows share, or zeros packed well. So rows are made a few at a time and only of columns
that were asked for, and a row that is too long is an error of that row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

MAX_ROW_BYTES: Final = 512 * 2**20
"""Longest row: the columns that were asked for, as they lie in memory."""
_BATCH_ROWS: Final = 8


class BadRowError(ValueError):
    """One row cannot be read; the others can.

    Attributes:
        reason: Short and countable.
    """

    def __init__(self, reason: str, place: str, detail: str) -> None:
        """Name the file and the row in it."""
        super().__init__(f"{place}: {reason}: {detail}")
        self.reason = reason


class ParquetFile:
    """The rows of one parquet file, which is open only while they are read: there may be thousands.

    Attributes:
        path: The file.
        names: Its columns, in order.
        num_rows: How many rows it says that it has.
    """

    def __init__(self, path: Path) -> None:
        """Read what the file says of itself.

        Raises:
            ValueError: It is no parquet file, or nothing here reads one; names the file.
            OSError: It cannot be read.
        """
        self.path = path
        with closing(self._open()) as file:
            self.names: tuple[str, ...] = tuple(file.schema_arrow.names)
            self._group_rows = _group_rows(file)
            groups = range(file.metadata.num_row_groups)
            sizes = [int(file.metadata.row_group(number).total_byte_size) for number in groups]
        self.num_rows = sum(self._group_rows)
        # One value may fill all of a group that says to be large, and stand in each of its rows.
        self._batch_rows = _BATCH_ROWS if max(sizes, default=0) <= MAX_ROW_BYTES else 1

    def require(self, names: Sequence[str]) -> None:
        """Require columns.

        Raises:
            ValueError: It lacks some; says which it has.
        """
        missing = [name for name in names if name not in self.names]
        if missing:
            there = ", ".join(self.names[:20])
            raise ValueError(f"{self.path}: no column {', '.join(missing)}; it has {there}")

    def rows(
        self, columns: Sequence[str], start: int = 0
    ) -> Iterator[tuple[int, dict[str, Any] | BadRowError]]:
        """Yield number and content of each row from one on; what cannot be read is in its place.

        Args:
            columns: Which columns; they must be there.
            start: Number of the first row, from 0.

        Raises:
            ValueError: The file is damaged or truncated, and names the file and the row, or it is
                another one than it was.
            OSError: It cannot be read.
        """
        with closing(self._open()) as file:
            if _group_rows(file) != self._group_rows:
                raise ValueError(f"{self.path} has changed while it was read; start again")
            yield from self._rows(file, columns, start)

    def _open(self) -> Any:
        try:
            import pyarrow.parquet as parquet
        except ImportError:
            raise ValueError(
                f"{self.path}: parquet files are read by pyarrow; pip install staged[parquet]"
            ) from None
        with self.path.open("rb"):
            pass  # a file that cannot be opened is the system's error, in its words
        try:
            # Not all of a group of rows at once, which may be the whole file.
            return parquet.ParquetFile(self.path, pre_buffer=False, buffer_size=2**20)
        except (ValueError, OSError) as error:
            raise ValueError(f"{self.path}: no parquet file: {error}") from None

    def _rows(
        self, file: Any, columns: Sequence[str], start: int
    ) -> Iterator[tuple[int, dict[str, Any] | BadRowError]]:
        first, number = 0, 0
        while number < len(self._group_rows) and first + self._group_rows[number] <= start:
            first += self._group_rows[number]
            number += 1
        groups = list(range(number, len(self._group_rows)))
        row = first
        try:
            batches = file.iter_batches(
                self._batch_rows, row_groups=groups, columns=list(columns), use_threads=False
            )
            for batch in batches:
                for inside in range(batch.num_rows):
                    if row >= start:
                        yield row, self._row(batch.slice(inside, 1), row)
                    row += 1
        except (ValueError, OSError, NotImplementedError, KeyError, MemoryError) as error:
            said = str(error) or type(error).__name__
            raise ValueError(
                f"{self.path}: damaged or truncated after row {row}: {said.strip()}; fetch the "
                "file again"
            ) from None
        if row < self.num_rows:
            raise ValueError(f"{self.path}: {row} rows, but it says that it has {self.num_rows}")

    def _row(self, batch: Any, number: int) -> dict[str, Any] | BadRowError:
        place = f"{self.path}: row {number + 1}"
        if batch.nbytes > MAX_ROW_BYTES:
            return BadRowError("too large", place, f"{batch.nbytes} bytes exceed {MAX_ROW_BYTES}")
        try:
            [row] = batch.to_pylist()
        except UnicodeDecodeError as error:
            return BadRowError("bad text", place, f"no UTF-8: {error}")
        except (ValueError, OverflowError) as error:  # dates and the like that Python lacks
            return BadRowError("bad value", place, str(error))
        found: dict[str, Any] = row
        return found


def _group_rows(file: Any) -> list[int]:
    """Rows of each group of an open file."""
    metadata = file.metadata
    return [int(metadata.row_group(number).num_rows) for number in range(metadata.num_row_groups)]
