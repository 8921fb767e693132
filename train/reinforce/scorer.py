"""Graders by name: the miniature's detector, or whatever rates pictures of a prompt."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from staged.roles import Rated, Rating, Verifier
from staged.trajectory import Sketch, Trajectory
from train.reinforce.detector import DetectorGrader
from train.reinforce.grades import (
    Grader,
    Grades,
    SketchGrade,
    end_known,
    is_graded,
    newest_picture,
)
from train.reinforce.settings import RewardSettings


class ScorerGrader:
    """Grades each picture as an answer to the prompt, by whoever rates such.

    A picture's value is its grade and its gain what it has on the picture before it, where that is
    rated too; of words only the stop is judged, where the last picture is rated.

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
        rated: list[dict[int, Rating]] = [{} for _ in trajectories]
        for (rollout, index, _), rating in zip(places, ratings, strict=True):
            rated[rollout][index] = rating
        return [
            self._graded(trajectory, of_steps)
            for trajectory, of_steps in zip(trajectories, rated, strict=True)
        ]

    def _graded(self, trajectory: Trajectory, ratings: Mapping[int, Rating]) -> Grades:
        """Grade a rollout, with the ratings of its pictures by index of their step, in order."""
        grades = Grades()
        for index, rating in ratings.items():
            if rating.value is None or not math.isfinite(rating.value):
                reason = f"a rating of {rating.value}"
                why = rating.reason or ("no reason given" if rating.value is None else reason)
                grades = replace(grades, unrated={**grades.unrated, index: why})
                continue
            grade = (rating.value - self._worst) / (self._best - self._worst)
            grade = min(max(grade, 0.0), 1.0)
            before = newest_picture(trajectory, index)
            known = before is not None and is_graded(before, grades)
            gain = grade - grades.last if known else None
            one = SketchGrade(step=index, value=grade, whole=grade, gain=gain)
            grades = replace(grades, sketches=(*grades.sketches, one))
        if not (trajectory.complete and grades.sketches and end_known(trajectory, grades)):
            return grades
        return replace(grades, words={len(trajectory.steps) - 1: 1.0 if grades.right else -1.0})


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
