"""One self-contained web page: trajectories, figures, scores, notes. Needs no network to open."""

from staged.report.command import main
from staged.report.drawn import drawn_report
from staged.report.explored import explored_report
from staged.report.figures import Curve, Dots, Series, Stacks
from staged.report.outcome import EARLY, Opinion, Outcome, detector
from staged.report.page import Report
from staged.report.sections import (
    Claim,
    Claims,
    Explorations,
    Galleries,
    Gallery,
    GalleryPicture,
    Notes,
    Section,
    Trajectories,
)
from staged.report.tables import Cell, Row, Table

__all__ = [
    "EARLY",
    "Cell",
    "Claim",
    "Claims",
    "Curve",
    "Dots",
    "Explorations",
    "Galleries",
    "Gallery",
    "GalleryPicture",
    "Notes",
    "Opinion",
    "Outcome",
    "Report",
    "Row",
    "Section",
    "Series",
    "Stacks",
    "Table",
    "Trajectories",
    "detector",
    "drawn_report",
    "explored_report",
    "main",
]
