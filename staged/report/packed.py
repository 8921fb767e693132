"""A training pack token by token: what stands where, what it is to predict, and who sees it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

TokenKind = Literal["text", "noised", "clean", "vision"]

_WORDS: dict[TokenKind, str] = {
    "text": "text",
    "noised": "sketch, noised: what is drawn",
    "clean": "picture as latents",
    "vision": "picture as patches",
}
_COLUMNS = f"{'place':>13}  {'position':>8}  {'token':<24} {'predicts':<24} weight"


@dataclass(frozen=True, kw_only=True)
class PackedToken:
    """A token of a text, or a marker around a picture.

    Attributes:
        place: In the pack.
        position: Of the rotary embedding.
        text: What it says.
        label: What it is to predict; None for nothing.
        weight: Of that, before it is divided by the sum of all weights of a step.
    """

    place: int
    position: int
    text: str
    label: str | None = None
    weight: float = 0.0


@dataclass(frozen=True, kw_only=True)
class PackedGrid:
    """The tokens of a picture, which differ in nothing but where they are in it.

    Attributes:
        place: Of the first in the pack.
        position: Of the rotary embedding, of all.
        grid: Rows and columns.
        time: Of the flow, in [0, 1]; None of patches.
        supervised: Whether their velocity is predicted.
    """

    place: int
    position: int
    grid: tuple[int, int]
    time: float | None = None
    supervised: bool = False

    @property
    def count(self) -> int:
        """Tokens."""
        return self.grid[0] * self.grid[1]

    @property
    def text(self) -> str:
        """What they are, in words."""
        rows, columns = self.grid
        return f"{self.count} {'patches' if self.time is None else 'latents'}, {rows} x {columns}"

    @property
    def label(self) -> str | None:
        """What they are to predict."""
        return "velocity" if self.supervised else None


@dataclass(frozen=True, kw_only=True)
class PackedSegment:
    """A text, or one copy of a picture.

    Attributes:
        number: Within its sample; numbers that are missing were dropped.
        kind: What it is.
        tokens: In order.
        causal: Whether each sees only what is before it, or all see one another.
        sees: Numbers of the other segments that it sees.
    """

    number: int
    kind: TokenKind
    tokens: Sequence[PackedToken | PackedGrid]
    causal: bool
    sees: Sequence[int]

    @property
    def title(self) -> str:
        """What it is, in words."""
        return _WORDS[self.kind]

    @property
    def supervised(self) -> int:
        """Tokens that are to predict something."""
        grids = [token for token in self.tokens if isinstance(token, PackedGrid)]
        words = [token for token in self.tokens if isinstance(token, PackedToken)]
        return sum(word.label is not None for word in words) + sum(
            grid.count for grid in grids if grid.supervised
        )

    @property
    def sight(self) -> str:
        """Whom it sees, in words."""
        own = "its own tokens up to each" if self.causal else "all its own tokens"
        return f"sees {own}" + (f", and segments {_ranges(self.sees)}" if self.sees else "")


@dataclass(frozen=True, kw_only=True)
class PackedSample:
    """One sample of a pack; a section of a page.

    Attributes:
        title: Which one.
        segments: In order.
        intro: Plain text above.
        dropped: Numbers of segments that this pack goes without.
    """

    title: str
    segments: Sequence[PackedSegment]
    intro: str = ""
    dropped: Sequence[int] = ()

    def text(self) -> str:
        """Everything, as lines for a terminal."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield self.title
        if self.intro:
            yield f"  {self.intro}"
        for segment in self.segments:
            yield f"  segment {segment.number}: {segment.title}; {segment.sight}"
            yield _COLUMNS
            for token in segment.tokens:
                places, weight = str(token.place), ""
                if isinstance(token, PackedGrid):
                    places = f"{token.place}-{token.place + token.count - 1}"
                    weight = "" if token.time is None else f"time {token.time:.3f}"
                elif token.label is not None:
                    weight = f"{token.weight:.4f}"
                label = "" if token.label is None else shown(token.label)
                said = shown(token.text) if isinstance(token, PackedToken) else token.text
                line = f"{places:>13}  {token.position:>8}  {said:<24} {label:<24} {weight}"
                yield line.rstrip()


def shown(text: str) -> str:
    """A token's text so that spaces and line ends can be seen."""
    return text.replace(" ", "·").replace("\n", "⏎").replace("\t", "⇥")


def _ranges(numbers: Sequence[int]) -> str:
    """Numbers in short: `0-3, 5`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
