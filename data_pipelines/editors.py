"""Where the image editor of a job is: in this process, or wherever a pool of editors is."""

from typing import Final, Protocol

from data_pipelines.drawing import DrawingSettings, open_editor
from staged.roles import ImageEditor


class Editors(Protocol):
    """Opens the editor that the settings name, on the machine that is to draw."""

    def settled(
        self, drawing: DrawingSettings, *, begun: DrawingSettings | None
    ) -> DrawingSettings:
        """Say what `auto` stands for over there; see `DrawingSettings.settled`."""
        ...

    def open(self, drawing: DrawingSettings) -> ImageEditor:
        """Open it; see `data_pipelines.drawing.open_editor`."""
        ...


class OwnEditors:
    """Editors that are in the process that asks."""

    def settled(
        self, drawing: DrawingSettings, *, begun: DrawingSettings | None
    ) -> DrawingSettings:
        """Say what `auto` stands for here."""
        return drawing.settled(begun=begun)

    def open(self, drawing: DrawingSettings) -> ImageEditor:
        """Load who draws."""
        return open_editor(drawing)


OWN: Final[Editors] = OwnEditors()
"""Editors that are in the process that asks."""
