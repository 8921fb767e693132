"""What a rollout got: grades of its pictures and of its words, whoever gave them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

from staged.trajectory import Sketch, Trajectory

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
        unrated: Why a picture has no grade, by index of its step.
    """

    sketches: tuple[SketchGrade, ...] = ()
    words: Mapping[int, float] = field(default_factory=lambda: MappingProxyType({}))
    unrated: Mapping[int, str] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def last(self) -> float:
        """Of the last graded picture as an answer to the prompt; 0 where there is none.

        It is the end's only where `end_known`.
        """
        return self.sketches[-1].whole if self.sketches else 0.0

    @property
    def right(self) -> bool:
        """Whether the last graded picture shows all that the prompt asks for."""
        return bool(self.sketches) and self.sketches[-1].right

    def before(self, step: int) -> SketchGrade | None:
        """The newest graded picture before a step."""
        earlier = [grade for grade in self.sketches if grade.step < step]
        return earlier[-1] if earlier else None


def end_known(trajectory: Trajectory, grades: Grades) -> bool:
    """Whether it is known what a rollout came to.

    It is where no picture was drawn, or the last one is graded.
    """
    return is_graded(newest_picture(trajectory, len(trajectory.steps)), grades)


def newest_picture(trajectory: Trajectory, step: int) -> int | None:
    """Index of the newest picture before a step, graded or not; None where there is none."""
    drawn = [i for i, one in enumerate(trajectory.steps[:step]) if isinstance(one, Sketch)]
    return drawn[-1] if drawn else None


def is_graded(picture: int | None, grades: Grades) -> bool:
    """Whether a picture, by the index of its step, is graded; so is that there is none."""
    return picture is None or any(grade.step == picture for grade in grades.sketches)


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
