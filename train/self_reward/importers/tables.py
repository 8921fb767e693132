"""Parquet files, read row group by row group, and checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


def rows(path: Path, columns: Mapping[str, type | tuple[type, ...]]) -> Iterator[dict[str, Any]]:
    """Yield rows of some columns; at most a batch of them is in memory.

    Args:
        path: A parquet file.
        columns: Name to what its values are.

    Raises:
        ValueError: It is no parquet file, lacks a column, or holds something else in it; names the
            file, and the row.
        OSError: It cannot be read.
    """
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise ValueError(
            f"{path}: parquet files are read by pyarrow; pip install staged[preference]"
        ) from None
    with path.open("rb") as opened:
        try:
            file = parquet.ParquetFile(opened)
        except (ValueError, OSError) as error:
            raise ValueError(f"{path}: no parquet file: {error}") from None
        missing = [name for name in columns if name not in file.schema_arrow.names]
        if missing:
            there = ", ".join(file.schema_arrow.names[:20])
            raise ValueError(f"{path}: no column {', '.join(missing)}; it has {there}")
        number = 0
        for batch in file.iter_batches(batch_size=256, columns=list(columns)):
            for row in batch.to_pylist():
                number += 1
                for name, kind in columns.items():
                    if not isinstance(row[name], kind):
                        raise ValueError(f"{path}: row {number}, {name}: {row[name]!r:.60}")
                yield row
