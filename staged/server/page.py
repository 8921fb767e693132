"""The page in the browser: files of the package, and nothing from elsewhere."""

from __future__ import annotations

from importlib.resources import files
from typing import Annotated

from fastapi import APIRouter, Path, Response

_KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
_OURS = ("page.css", "page.js", "api.js", "dom.js", "pane.js")
_FILES = {
    **{name: ("staged.server", f"page/{name}") for name in _OURS},
    "house.css": ("staged.report", "palette.css", "page.css"),  # the design of the reports
}
_HEADERS = {
    # What a prompt or a model says is only ever text; should that fail once, it still cannot act.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}

router = APIRouter(include_in_schema=False)


@router.get("/")
def index() -> Response:
    """Show the page."""
    return _file("staged.server", "page/index.html")


@router.get("/page/{name}")
def part(name: Annotated[str, Path(max_length=40)]) -> Response:
    """Get one of its files."""
    if name not in _FILES:
        return Response(status_code=404)
    return _file(*_FILES[name])


def _file(package: str, *paths: str) -> Response:
    """Answer with files of one kind, one after the other."""
    kind = _KINDS[paths[0].rsplit(".", 1)[1]]
    data = b"".join(files(package).joinpath(path).read_bytes() for path in paths)
    return Response(data, media_type=kind, headers=_HEADERS)
