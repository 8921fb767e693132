"""One self-contained web page: trajectories, curves, scores, notes. Needs no network to open."""

from staged.report.command import main
from staged.report.page import Report
from staged.report.sections import (
    Cell,
    Curve,
    Gallery,
    Notes,
    Picture,
    Row,
    Section,
    Series,
    Table,
    Trajectories,
)

__all__ = [
    "Cell",
    "Curve",
    "Gallery",
    "Notes",
    "Picture",
    "Report",
    "Row",
    "Section",
    "Series",
    "Table",
    "Trajectories",
    "main",
]
