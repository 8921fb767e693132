"""An idea: text and images in the order in which they are meant, as a person would tell it.

    a logo of this dog <IMG>photos/dog.png<IMG>, in the colours of <IMG>flag.jpg

Between marks a piece is the path of an image where it ends like one, and text otherwise; paths
are relative to the file that the idea stands in. Source: arXiv 2310.08541, section 3.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from staged import images
from staged.lines import read_lines
from staged.trajectory import MAX_INPUTS, MAX_TEXT_CHARS, ImageRef

MARK: Final = "<IMG>"
"""What stands between text and the path of an image, and in `Idea.text` for an image."""
MAX_IDEAS: Final = 100_000

Part = str | ImageRef


@dataclass(frozen=True, kw_only=True)
class Idea:
    """Text and images in order.

    Attributes:
        parts: Texts, none of them blank, and loaded images (PNG, WebP or JPEG); at least one, at
            most `MAX_INPUTS` images and `MAX_TEXT_CHARS` characters.
    """

    parts: tuple[Part, ...]

    def __post_init__(self) -> None:
        """Check that something is there, and not too much.

        Raises:
            ValueError: It is not so; says how much there is.
        """
        if not self.parts:
            raise ValueError("an idea without text or image; say what the picture is to be")
        for part in self.parts:
            if isinstance(part, str) and not part.strip():
                raise ValueError(f"idea {self.text!r:.80}: a blank part; leave it out")
            if isinstance(part, str) and MARK in part:
                raise ValueError(f"idea {self.text!r:.80}: {MARK} stands for an image, not text")
        if len(self.images) > MAX_INPUTS:
            raise ValueError(
                f"idea {self.text!r:.80}: {len(self.images)} images; give at most {MAX_INPUTS}"
            )
        if len(self.text) > MAX_TEXT_CHARS:
            raise ValueError(
                f"idea {self.text!r:.80}: {len(self.text)} characters; give at most "
                f"{MAX_TEXT_CHARS}"
            )

    @property
    def images(self) -> tuple[ImageRef, ...]:
        """Its images, in order."""
        return tuple(part for part in self.parts if isinstance(part, ImageRef))

    @property
    def text(self) -> str:
        """The idea in one line of text, with `MARK` where an image stands."""
        said = (part if isinstance(part, str) else MARK for part in self.parts)
        return " ".join(" ".join(said).split())

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of everything in it, for whoever must tell it from another."""
        content = hashlib.sha256()
        for part in self.parts:
            data = part.encode() if isinstance(part, str) else part.png or b""
            content.update(f"{type(part).__name__} {len(data)} ".encode() + data)
        return content.hexdigest()


def read_idea(pieces: Sequence[str], folder: Path, place: str) -> Idea:
    """Read an idea from texts and paths of images.

    Args:
        pieces: In order; `MARK` may divide each further.
        folder: What paths are relative to.
        place: Where the idea stands, for messages.

    Raises:
        ValueError: An image cannot be read, or the idea is empty or too large; names the place.
    """
    divided = [part.strip() for piece in pieces for part in piece.split(MARK)]
    try:
        parts = [_part(text, folder) for text in divided if text]
        return Idea(parts=tuple(parts))
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None


def read_ideas(path: Path) -> list[Idea]:
    """Read a file of one idea a line; empty lines are passed over.

    Raises:
        ValueError: The file is no text, holds no ideas or too many, or a line is none.
        OSError: It cannot be read.
    """
    found: list[Idea] = []
    for line in read_lines(path):
        if len(found) == MAX_IDEAS:
            raise ValueError(f"{path} holds more than {MAX_IDEAS} ideas; divide it")
        found.append(read_idea([line.text()], path.parent, line.place))
    if not found:
        raise ValueError(f"{path} holds no ideas; write one a line")
    return found


def _part(text: str, folder: Path) -> Part:
    if not text.lower().endswith(images.SUFFIXES) or "\n" in text:
        return text
    path = folder / Path(text).expanduser()
    data = images.read_file(path)
    try:
        images.decode(data)  # once, so that a broken one is found here
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return ImageRef(png=data)
