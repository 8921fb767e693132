"""The page of a study: one file that keeps votes in the browser, and sends nothing anywhere."""

from __future__ import annotations

from importlib.resources import files

from jinja2 import Environment, StrictUndefined

from eval.study.items import Study
from eval.study.votes import FORMAT
from staged import __version__, images
from staged.data_urls import to_data_url
from staged.report.page import PIXEL_ART_PX
from staged.report.shrunk import shrunk

_MAX_SIDE_PX = 768
"""What fits three times into a large screen."""


def study_page(study: Study) -> str:
    """Render the page; nothing in it says which picture is of which line.

    Raises:
        ValueError: A picture is no PNG, WebP or JPEG.
    """
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["shown"] = _picture
    template = (files("eval.study") / "study.html.j2").read_text(encoding="utf-8")
    css = (files("staged.report") / "page.css").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        study=study, css=css, version=__version__, votes_format=FORMAT
    )


def _picture(png: bytes) -> dict[str, object]:
    """What an `img` says of a picture."""
    data = shrunk(png, _MAX_SIDE_PX)
    _, width, height = images.probe(data)
    pixel_art = max(width, height) <= PIXEL_ART_PX
    return {"uri": to_data_url(data), "width": width, "height": height, "pixel_art": pixel_art}
