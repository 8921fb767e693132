"""A curve as a picture of its own, for documents that are not web pages of ours."""

from __future__ import annotations

from staged.report.figures import Curve
from staged.report.page import environment


def svg(curve: Curve) -> str:
    """Draw a curve with its legend; light or dark as the reader has it.

    The title is told to those who do not see it; a document has headings of its own.
    """
    return environment().get_template("standalone.svg.j2").render(curve=curve)
