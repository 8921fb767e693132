"""What a rollout got: grades of its pictures and of its words, whoever gave them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

from staged.trajectory import Trajectory

RIGHT = 1.0
"""Grade of a picture that shows all that the prompt asks for."""


@dataclass(frozen=True, kw_only=True)
class SketchGrade:
    """What a picture got, in [0, 1].

    Attributes:
        step: Index of its step.
        value: For itself: as the next step of the trajectory that it is of.
        whole: As an answer to the prompt; 1 is right.
        gain: How much nearer it is to what it was drawn for than the sketch before it was, in
            [-1, 1]; None where nothing was drawn before.
    """

    step: int
    value: float
    whole: float
    gain: float | None = None

    @property
    def right(self) -> bool:
        """Whether it shows all that the prompt asks for."""
        return self.whole >= RIGHT


@dataclass(frozen=True, kw_only=True)
class Grades:
    """What a trajectory got.

    Attributes:
        sketches: Of its pictures, in order; of one that cannot be graded there is none.
        words: Of texts and of the stop, by index of their step, from -1 (wrong) to 1 (right); of
            what nobody can judge there is none.
    """

    sketches: tuple[SketchGrade, ...] = ()
    words: Mapping[int, float] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def last(self) -> float:
        """Of the last picture as an answer to the prompt; 0 where none was drawn."""
        return self.sketches[-1].whole if self.sketches else 0.0

    @property
    def right(self) -> bool:
        """Whether the last picture shows all that the prompt asks for."""
        return bool(self.sketches) and self.sketches[-1].right

    def before(self, step: int) -> SketchGrade | None:
        """The newest picture before a step."""
        earlier = [grade for grade in self.sketches if grade.step < step]
        return earlier[-1] if earlier else None


class Grader(Protocol):
    """Grades rollouts."""

    @property
    def name(self) -> str:
        """Who it is, for the record."""
        ...

    def require(self, prompts: Sequence[str]) -> None:
        """Require prompts to be such as it can grade pictures of.

        Raises:
            ValueError: One is not.
        """
        ...

    def grade(self, trajectories: Sequence[Trajectory]) -> list[Grades]:
        """Grade each; its grades depend on nothing but itself."""
        ...
