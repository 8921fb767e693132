"""The sections of a report, as data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from staged import images
from staged.report.figures import Figure
from staged.report.tables import Table
from staged.roles import Pixels
from staged.trajectory import ImageRef, Trajectory


@dataclass(frozen=True, kw_only=True)
class Notes:
    """Free text.

    Attributes:
        title: Heading.
        paragraphs: Plain text each.
    """

    title: str
    paragraphs: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Trajectories:
    """Trajectories step by step; also samples of a data set.

    Attributes:
        title: Heading.
        trajectories: Their images must be loaded.
        intro: Plain text above.
        captions: One line under each prompt, such as what a detector said; empty for none.
        folded: Show only prompts and last images until one is opened.
    """

    title: str
    trajectories: Sequence[Trajectory]
    intro: str = ""
    captions: Sequence[str] = ()
    folded: bool = False

    def __post_init__(self) -> None:
        """Check the captions."""
        if self.captions and len(self.captions) != len(self.trajectories):
            raise ValueError(
                f"{len(self.captions)} captions for {len(self.trajectories)} trajectories; "
                "give one for each, or none"
            )


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture of a gallery.

    Attributes:
        png: Encoded bytes (PNG, WebP or JPEG).
        caption: Plain text below; it also describes the picture to those who do not see it.
        note: Smaller plain text below that; its line breaks are kept.
        good: Whether it is marked as right or wrong; None for neither.
    """

    png: bytes
    caption: str
    note: str = ""
    good: bool | None = None

    @classmethod
    def from_array(
        cls, pixels: Pixels, caption: str, *, note: str = "", good: bool | None = None
    ) -> Self:
        """Encode (h, w, 3) uint8 RGB."""
        return cls(png=images.encode_png(pixels), caption=caption, note=note, good=good)

    @classmethod
    def of(cls, image: ImageRef, caption: str, *, good: bool | None = None) -> Self:
        """Take a loaded image of a trajectory."""
        if image.png is None:
            raise ValueError(f"image {image.name!r} is not loaded; read it from its sample first")
        return cls(png=image.png, caption=caption, good=good)


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Pictures side by side.

    Attributes:
        title: Heading.
        pictures: In order.
        intro: Plain text above.
        paired: Whether each two belong together and stay side by side.
    """

    title: str
    pictures: Sequence[Picture]
    intro: str = ""
    paired: bool = False


@dataclass(frozen=True, kw_only=True)
class Galleries:
    """Several galleries under one heading.

    Attributes:
        title: Heading.
        galleries: In order; their titles become headings of their own.
        intro: Plain text above.
    """

    title: str
    galleries: Sequence[Gallery]
    intro: str = ""


Section = Notes | Trajectories | Gallery | Galleries | Table | Figure
