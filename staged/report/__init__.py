"""One self-contained web page: trajectories, figures, scores, notes. Needs no network to open."""

from staged.report.command import main
from staged.report.figures import Curve, Dots, Series, Stacks
from staged.report.page import Report
from staged.report.sections import Galleries, Gallery, Notes, Picture, Section, Trajectories
from staged.report.tables import Cell, Row, Table

__all__ = [
    "Cell",
    "Curve",
    "Dots",
    "Galleries",
    "Gallery",
    "Notes",
    "Picture",
    "Report",
    "Row",
    "Section",
    "Series",
    "Stacks",
    "Table",
    "Trajectories",
    "main",
]
