"""Graders by name: the miniature's detector, or whatever rates pictures of a prompt."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from staged.roles import Rated, Verifier
from staged.trajectory import Sketch, Trajectory
from train.reinforce.detector import DetectorGrader
from train.reinforce.grades import Grader, Grades, SketchGrade
from train.reinforce.settings import RewardSettings


class ScorerGrader:
    """Grades each picture as an answer to the prompt, by whoever rates such.

    A picture's value is its grade and its gain what it has on the picture before it; of words only
    the stop is judged.

    Args:
        scorer: Who rates.
        worst: Rating that is a grade of 0.
        best: Rating that is a grade of 1.
    """

    def __init__(self, scorer: Verifier, *, worst: float = 0.0, best: float = 1.0) -> None:
        """Keep the parts."""
        self._scorer, self._worst, self._best = scorer, worst, best

    @property
    def name(self) -> str:
        """The scorer's."""
        return self._scorer.name

    def require(self, prompts: Sequence[str]) -> None:
        """Any will do; what cannot be rated is not."""

    def grade(self, trajectories: Sequence[Trajectory]) -> list[Grades]:
        """See `Grader`; one call rates all."""
        places = [
            (rollout, index, step)
            for rollout, trajectory in enumerate(trajectories)
            for index, step in enumerate(trajectory.steps)
            if isinstance(step, Sketch)
        ]
        ratings = self._scorer.rate(
            [
                Rated(prompt=trajectories[rollout].prompt, pixels=step.image.array())
                for rollout, _, step in places
            ]
        )
        found: list[list[SketchGrade]] = [[] for _ in trajectories]
        for (rollout, index, _), rating in zip(places, ratings, strict=True):
            if rating.value is None:
                continue
            grade = (rating.value - self._worst) / (self._best - self._worst)
            grade = min(max(grade, 0.0), 1.0)
            before = found[rollout][-1].whole if found[rollout] else None
            gain = None if before is None else grade - before
            found[rollout].append(SketchGrade(step=index, value=grade, whole=grade, gain=gain))
        return [
            _with_stop(trajectory, tuple(sketches))
            for trajectory, sketches in zip(trajectories, found, strict=True)
        ]


def _with_stop(trajectory: Trajectory, sketches: tuple[SketchGrade, ...]) -> Grades:
    if not (trajectory.complete and sketches):
        return Grades(sketches=sketches)
    verdict = 1.0 if sketches[-1].right else -1.0
    return Grades(sketches=sketches, words={len(trajectory.steps) - 1: verdict})


def open_grader(settings: RewardSettings) -> Grader:
    """Make who grades.

    Raises:
        ValueError: There is no such scorer, or it cannot be made of these arguments.
    """
    if settings.scorer is None:
        return DetectorGrader()
    module, _, name = settings.scorer.partition(":")
    try:
        scorer: Verifier = getattr(importlib.import_module(module), name)(**settings.arguments)
    except (ImportError, AttributeError, TypeError) as error:
        raise ValueError(
            f"reward.scorer is {settings.scorer}, which cannot be made ({error}); give "
            "module:function of a function or class, and its arguments in reward.arguments"
        ) from error
    if not callable(getattr(scorer, "rate", None)):
        raise ValueError(
            f"reward.scorer is {settings.scorer}, which gives a {type(scorer).__name__}; it must "
            "have `rate`, as staged.roles.Verifier says"
        )
    worst, best = settings.range
    return ScorerGrader(scorer, worst=worst, best=best)
