"""The roles of Idea2Img; see `staged.roles` for what players may do and how they fail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

from staged.ideas.exploration import Action, Draft, Feedback, Preferred, Remembered
from staged.ideas.idea import Idea
from staged.roles import RoleError
from staged.scene_graph import Question
from staged.trajectory import ImageRef


@dataclass(frozen=True, kw_only=True)
class Revision:
    """Prompts of a further round.

    Attributes:
        prompts: As many as were asked for.
        action: `edit`: they are instructions for the best picture so far.
    """

    prompts: Sequence[str]
    action: Action = "regenerate"


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What a selector says of some drafts.

    Attributes:
        scores: Score and justification of each, in their order.
        choice: Number of the best, from 0; none has a higher score.
    """

    scores: Sequence[tuple[int, str]]
    choice: int


@dataclass(frozen=True, kw_only=True)
class DraftRequest:
    """A picture that is wanted.

    Attributes:
        prompt: What is to be drawn, or how `onto` is to be changed.
        seed: Of the noise.
        onto: PaintedDraft to draw onto; None for one from nothing.
        edit: Whether the prompt is an instruction about `onto`, not what is to be seen.
    """

    prompt: str
    seed: int
    onto: ImageRef | None = None
    edit: bool = False


@dataclass(frozen=True, kw_only=True)
class PaintedDraft:
    """A picture that was drawn.

    Attributes:
        image: Loaded.
        cost: Unit (`flow_steps`, `usd`) to amount.
    """

    image: ImageRef
    cost: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))


class PromptWriter(Protocol):
    """Writes prompts, by what it knows of the image model."""

    async def begin(self, idea: Idea, *, number: int, max_words: int, seed: int) -> Sequence[str]:
        """Write different prompts, before anything is known."""
        ...

    async def revise(
        self,
        idea: Idea,
        memory: Sequence[Remembered],
        *,
        number: int,
        max_words: int,
        may_edit: bool,
        seed: int,
    ) -> Revision:
        """Write different prompts by all that is remembered; the last feedback comes first."""
        ...


class Selector(Protocol):
    """Judges how well pictures show an idea."""

    async def score(self, idea: Idea, drafts: Sequence[Draft], *, seed: int) -> Scores:
        """Score drafts, all of which have images, and choose one."""
        ...

    async def compare(
        self, idea: Idea, first: ImageRef, second: ImageRef, *, seed: int
    ) -> tuple[Preferred, str]:
        """Say which of two pictures is better, and why."""
        ...


class Critic(Protocol):
    """Finds the one thing to improve."""

    async def reflect(
        self, idea: Idea, memory: Sequence[Remembered], unmet: Sequence[str], *, seed: int
    ) -> Feedback:
        """Give feedback on the last picture, or on the one that is marked as best.

        Args:
            idea: What is wanted.
            memory: All rounds; the last has no feedback yet.
            unmet: Questions that the picture does not answer with yes, where they were asked.
            seed: Of this attempt.
        """
        ...


class ChecklistInspector(Protocol):
    """Tells by yes/no questions whether a picture shows an idea."""

    async def write(self, idea: Idea, *, seed: int) -> tuple[Question, ...]:
        """Write the questions; parents come before their children."""
        ...

    async def check(
        self, idea: Idea, questions: Sequence[Question], image: ImageRef, *, seed: int
    ) -> Mapping[str, bool]:
        """Answer each question, by its id."""
        ...


class Painter(Protocol):
    """The image model that is explored."""

    @property
    def edits(self) -> bool:
        """Whether it can draw onto a picture."""
        ...

    async def draw(self, requests: Sequence[DraftRequest]) -> list[PaintedDraft | RoleError]:
        """Draw each, or say why not. What is drawn depends on the request alone."""
        ...


@dataclass(frozen=True, kw_only=True)
class IdeaRoles:
    """Who plays which role.

    Attributes:
        writer: Writes prompts.
        selector: Judges pictures.
        critic: Gives feedback.
        inspector: Writes and answers checklists.
        painter: Draws.
        names: Role to name, for provenance.
        prompt_versions: Role to version of what it is asked.
    """

    writer: PromptWriter
    selector: Selector
    critic: Critic
    inspector: ChecklistInspector
    painter: Painter
    names: Mapping[str, str] = field(default_factory=dict)
    prompt_versions: Mapping[str, str] = field(default_factory=dict)
