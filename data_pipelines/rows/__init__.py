"""Rows of data sets that others wrote: JSON lines, JSON lists, parquet files."""

from data_pipelines.rows.json_rows import JsonRows
from data_pipelines.rows.parquet_rows import ParquetRows
from data_pipelines.rows.row import SourceRow, SourceRows

__all__ = ["JsonRows", "ParquetRows", "SourceRow", "SourceRows"]
