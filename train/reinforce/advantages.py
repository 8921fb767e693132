"""From grades to what each step is worth beside others of its group.

A group has the steps of one kind (sketch, plan, inspection, …) that came at the same turn (after as
many sketches) in rollouts of the same prompt. A step's return is its own grade with what came of
it later; its advantage is the return less the group's mean, over the spread of all such
differences.

A picture's return is its value and a share of what later turns gain on it. A picture drawn onto
another that comes no nearer to what it was drawn for gets the lowest return of its group, and so
does one drawn onto a picture that was right already. A text's return is what the end gains on the
picture before it, and the grade of what it says or decides.

What a picture that nobody could grade was worth is not known: it has no return, nor has a text
between it and the next one. Where it was the last, no text of the rollout has one, and no picture
a share of what came later.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from staged.ranges import check_range
from staged.trajectory import Move, Sketch, Trajectory, moves
from train.reinforce.grades import Grades, SketchGrade, end_known, is_graded


@dataclass(frozen=True, kw_only=True)
class CreditSettings:
    """How grades become advantages."""

    later_share: float = 0.5
    """How much of what later turns gain belongs to a picture, too."""
    verdict_share: float = 0.5
    """How much of a text's return is the grade of what it says or decides; the rest is what the end
    gains on the picture before it."""
    max_advantage: float = 2.0
    """Advantages are cut off there, in spreads; pictures then have a reward of 1, or of 0."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check_range(self, "later_share", "verdict_share", minimum=0, maximum=1)
        check_range(self, "max_advantage", minimum=0, above=True)


@dataclass(frozen=True, kw_only=True)
class Credit:
    """What a step is worth.

    Attributes:
        value: Its return.
        advantage: Beside its group's, in [-`max_advantage`, `max_advantage`].
    """

    value: float
    advantage: float


Credits = dict[int, Credit]
"""By index of the step; one that has none is neither rewarded nor punished."""


@dataclass(frozen=True)
class _Return:
    """A return that is not compared yet."""

    rollout: int
    step: int
    value: float
    is_lowest: bool = False


_Group = tuple[int, Move, int]
"""Number of the prompt, kind of step, turn."""


def credit(
    trajectories: Sequence[Trajectory],
    grades: Sequence[Grades],
    groups: Sequence[int],
    settings: CreditSettings,
) -> list[Credits]:
    """Compare the steps of rollouts.

    Args:
        trajectories: Ended or broken off.
        grades: Of each.
        groups: For each the number of its prompt.
        settings: What counts how much.

    Returns:
        For each trajectory what its graded steps are worth. Pictures and words each have a spread
        of their own; where nothing differs, all advantages are 0.
    """
    pictures: defaultdict[_Group, list[_Return]] = defaultdict(list)
    words: defaultdict[_Group, list[_Return]] = defaultdict(list)
    for rollout, (trajectory, graded, group) in enumerate(
        zip(trajectories, grades, groups, strict=True)
    ):
        sketches = {grade.step: grade for grade in graded.sketches}
        knows_end = end_known(trajectory, graded)
        turn, newest = 0, None
        for step, move in enumerate(moves(trajectory.steps)):
            place = group, move, turn
            if not isinstance(trajectory.steps[step], Sketch):
                known = knows_end and is_graded(newest, graded)
                if known and not _is_imposed(trajectory, move):
                    value = _text_return(graded, step, settings)
                    words[place].append(_Return(rollout, step, value))
                continue
            turn, newest = turn + 1, step
            if (grade := sketches.get(step)) is not None:
                later = graded.last - grade.whole if knows_end else 0.0
                value = grade.value + settings.later_share * later
                wasted = not _improves(grade, graded.before(step))
                pictures[place].append(_Return(rollout, step, value, wasted))
    found: list[Credits] = [{} for _ in trajectories]
    for kind in (pictures, words):
        for one, advantage in _compared(kind, settings.max_advantage):
            found[one.rollout][one.step] = Credit(value=one.value, advantage=advantage)
    return found


def _is_imposed(trajectory: Trajectory, move: Move) -> bool:
    """Whether it is a stop that the loop's limits asked for, which nobody decided."""
    return move == "stop" and trajectory.provenance.get("ended_by", "model") != "model"


def _improves(grade: SketchGrade, before: SketchGrade | None) -> bool:
    if before is None or grade.gain is None:
        return True
    return grade.gain > 0 and not before.right


def _text_return(graded: Grades, step: int, settings: CreditSettings) -> float:
    before = graded.before(step)
    gain = graded.last - (0.0 if before is None else before.whole)
    share = settings.verdict_share
    return (1 - share) * gain + share * graded.words.get(step, 0.0)


def _compared(
    groups: Mapping[_Group, Sequence[_Return]], most: float
) -> list[tuple[_Return, float]]:
    """Every return with its advantage; one that is alone in its group has nothing beside it."""
    centred: list[tuple[_Return, float]] = []
    alone: list[_Return] = []
    for returns in groups.values():
        if len(returns) == 1:
            alone += returns
            continue
        lowest = min(one.value for one in returns)
        values = [lowest if one.is_lowest else one.value for one in returns]
        mean = math.fsum(values) / len(values)
        centred += [(one, value - mean) for one, value in zip(returns, values, strict=True)]
    square = math.fsum(apart**2 for _, apart in centred) / max(len(centred), 1)
    spread = math.sqrt(square)
    compared = [
        (one, max(-most, min(most, apart / spread)) if spread > 1e-9 else 0.0)
        for one, apart in centred
    ]
    return [*compared, *((one, 0.0) for one in alone)]
