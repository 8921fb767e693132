"""A report as one HTML file: nothing in it is loaded from anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined, select_autoescape

from staged import __version__, images
from staged.data_urls import to_data_url
from staged.report import chart as charts
from staged.report.changed import change
from staged.report.packed import shown
from staged.report.rounds import ending, rounds
from staged.report.sections import Opening, Section
from staged.report.shrunk import shrunk
from staged.report.tables import interval, number
from staged.trajectory import ImageRef

PIXEL_ART_PX = 128
"""Images up to this side are enlarged without smoothing."""
STEP_PX = 640
"""Longest side of a picture among others; the picture that a page opens with stays as it is."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """A page.

    Attributes:
        title: Its heading.
        sections: In order.
        lead: Plain text under the heading, and under what opens the page.
        opening: What the page was opened for, above everything else; None for none.
        kind: What the page is, in a word or two, beside the project's name.
        links: Words and addresses of pages that this one goes with, relative to it.
    """

    title: str
    sections: Sequence[Section]
    lead: str = ""
    opening: Opening | None = None
    kind: str = ""
    links: Sequence[tuple[str, str]] = ()

    def html(self) -> str:
        """Render the page.

        Raises:
            ValueError: an image is not loaded, or is no PNG, WebP or JPEG.
        """
        return environment().get_template("page.html.j2").render(report=self)

    def write(self, path: Path | str) -> Path:
        """Write the page, folders above it included; returns its path."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.html(), encoding="utf-8")
        return path


@cache
def environment() -> Environment:
    """Give templates of this folder what they are made of; markup in values is escaped.

    It is one for all pages, as it keeps templates compiled: that takes longer than most pages do.
    """
    folder = files("staged.report")
    environment = Environment(
        loader=FunctionLoader(lambda name: (folder / name).read_text(encoding="utf-8")),
        autoescape=select_autoescape(("html", "j2")),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "kind": lambda value: type(value).__name__,
        "image": _image,
    }
    environment.globals |= {
        "chart": charts.chart,
        "size": charts,
        "lanes": charts.lanes,
        "dot_ticks": charts.dot_ticks,
        "parts": charts.parts,
        "change": change,
        "color_of": charts.color_of,
        "in_words": charts.in_words,
        "rounds": rounds,
        "number": number,
        "interval": interval,
        "version": __version__,
        "ending": ending,
        "numbers": charts.numbers,
        "visible": shown,
    }
    return environment


def _image(source: ImageRef | bytes, whole: bool = False) -> dict[str, Any]:
    """What an `img` element needs: a data URI, the size, and whether it is pixel art."""
    data = source.png if isinstance(source, ImageRef) else source
    if data is None:
        raise ValueError(f"image {source!r} is not loaded; read it from its sample first")
    data = data if whole else shrunk(data, STEP_PX)
    _, width, height = images.probe(data)
    return {
        "uri": to_data_url(data),
        "width": width,
        "height": height,
        "pixel_art": max(width, height) <= PIXEL_ART_PX,
    }
