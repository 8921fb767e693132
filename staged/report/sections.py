"""The sections of a report, as data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from staged.ideas.exploration import Exploration
from staged.report.figures import Figure, Tone
from staged.report.outcome import Outcome
from staged.report.packed import PackedSample
from staged.report.tables import Table
from staged.trajectory import Trajectory


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A sentence that answers what a page was opened for.

    Attributes:
        text: The sentence.
        tone: What it means, in its colour.
        detail: What it rests on, smaller.
    """

    text: str
    tone: Tone = "quiet"
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Claims:
    """Sentences at the top of a page.

    Attributes:
        claims: In order.
    """

    claims: Sequence[Claim]


Opening = Claims | Outcome


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
        outcomes: What came of each; empty reads it from the trajectories.
        folded: Show only prompts and last images until one is opened.
        bare: Show the steps alone: the outcome stands elsewhere.
        training: Mark the steps that training is not supervised on.
        changes: Show beside each sketch what it changed in the one before.
        groups: What each belongs to, in words, for readers to choose by; or empty.
    """

    title: str
    trajectories: Sequence[Trajectory]
    intro: str = ""
    outcomes: Sequence[Outcome] = ()
    folded: bool = False
    bare: bool = False
    training: bool = False
    changes: bool = False
    groups: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Check the outcomes."""
        if not self.outcomes:
            found = [Outcome.of(trajectory) for trajectory in self.trajectories]
            object.__setattr__(self, "outcomes", found)
        number = len(self.trajectories)
        for what, given in (("outcomes", self.outcomes), ("groups", self.groups)):
            if given and len(given) != number:
                raise ValueError(
                    f"{len(given)} {what} for {number} trajectories; give one for each, or none"
                )

    @property
    def choices(self) -> list[tuple[str, int]]:
        """Groups and their sizes, largest first; empty where there are no two."""
        found = Counter(self.groups).most_common()
        return found if len(found) > 1 else []


@dataclass(frozen=True, kw_only=True)
class Explorations:
    """Ideas, and how each was explored, round by round.

    Attributes:
        title: Heading.
        explorations: Their images must be loaded.
        outcomes: What came of each.
        intro: Plain text above.
        folded: Show ideas and chosen pictures alone until one is opened.
        bare: Show the rounds alone: the outcome stands elsewhere.
    """

    title: str
    explorations: Sequence[Exploration]
    outcomes: Sequence[Outcome]
    intro: str = ""
    folded: bool = False
    bare: bool = False

    def __post_init__(self) -> None:
        """Check the outcomes."""
        if len(self.outcomes) != len(self.explorations):
            raise ValueError(
                f"{len(self.outcomes)} outcomes for {len(self.explorations)} explorations; give "
                "one for each"
            )


@dataclass(frozen=True, kw_only=True)
class GalleryPicture:
    """A picture of a gallery.

    Attributes:
        png: Encoded bytes (PNG, WebP or JPEG).
        caption: Plain text below; it also describes the picture to those who do not see it.
        note: Smaller plain text below that; its line breaks are kept.
        good: Whether it is marked as right or wrong; None for neither.
        label: What tells it from those that it stands together with, such as who drew it.
    """

    png: bytes
    caption: str
    note: str = ""
    good: bool | None = None
    label: str = ""


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Pictures side by side.

    Attributes:
        title: Heading.
        pictures: In order.
        intro: Plain text above.
        together: So many at a time belong together, stay side by side, and share a caption.
    """

    title: str
    pictures: Sequence[GalleryPicture]
    intro: str = ""
    together: int = 1

    def __post_init__(self) -> None:
        """Check that no group is left incomplete."""
        if self.together < 1 or len(self.pictures) % self.together:
            raise ValueError(
                f"{len(self.pictures)} pictures, {self.together} together; give whole groups"
            )


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


Section = Notes | Trajectories | Explorations | Gallery | Galleries | Table | Figure | PackedSample
