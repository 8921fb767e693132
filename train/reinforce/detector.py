"""The miniature world's detector as a grader: it knows what was asked for, and looks at pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from staged.shapes.language.asked import read_request
from staged.shapes.language.faults import plan_faults
from staged.shapes.language.phrases import GrammarError
from staged.shapes.sight.drift import untouched
from staged.shapes.sight.pictures import DrawnPicture, described, pictures_of, seen
from staged.shapes.sight.verdict import satisfied
from staged.shapes.world.spec import Spec
from staged.trajectory import Inspection, Plan, Refinement, Sketch, Stop, Trajectory
from train.reinforce.grades import Grades, SketchGrade


class DetectorGrader:
    """Grades rollouts of the miniature world.

    A picture's value is the mean of: the share of its plan that holds (things too many counted
    against it), the share of the prompt that holds, and, onto another picture, the share of
    untouched objects that stayed. Words are right or wrong: a plan that contradicts nothing, and
    is made while something is missing; a verdict that is true; a stop when the picture is right.
    """

    name = "detector"

    def require(self, prompts: Sequence[str]) -> None:
        """See `Grader`."""
        for prompt in prompts:
            try:
                read_request(prompt)
            except GrammarError as error:
                raise ValueError(
                    f"reward.kind is detector, which knows the miniature world alone, and a prompt "
                    f"is {prompt!r:.80}: {error}; give prompts of its language, or another reward"
                ) from None

    def grade(self, trajectories: Sequence[Trajectory]) -> list[Grades]:
        """See `Grader`."""
        return [_graded(trajectory) for trajectory in trajectories]


def _graded(trajectory: Trajectory) -> Grades:
    asked = read_request(trajectory.prompt).spec
    drawn = pictures_of(trajectory, asked)
    stayed = [None, *untouched(trajectory)]
    sketches = []
    for number, picture in enumerate(drawn):
        objects = stayed[number]
        parts = [picture.whole.share]
        if picture.planned is not None:
            parts.append(picture.planned.likeness)
        if objects:
            parts.append(sum(one.kept for one in objects) / len(objects))
        sketches.append(
            SketchGrade(
                step=picture.step,
                value=sum(parts) / len(parts),
                whole=picture.whole.share,
                gain=_gain(trajectory, asked, drawn[number - 1], picture) if number else None,
            )
        )
    return Grades(
        sketches=tuple(sketches),
        words=_words(trajectory, asked, {picture.step: picture for picture in drawn}),
    )


def _gain(
    trajectory: Trajectory, asked: Spec, before: DrawnPicture, picture: DrawnPicture
) -> float:
    """How much nearer a picture is to its plan than the one before, or else to the prompt."""
    plan = _plan_at(trajectory, picture.step)
    wanted = asked if plan is None else described(plan)
    if wanted is None or picture.planned is None:
        return picture.whole.share - before.whole.share
    earlier = trajectory.steps[before.step]
    assert isinstance(earlier, Sketch)
    return picture.planned.likeness - satisfied(wanted, seen(earlier.image)).likeness


def _plan_at(trajectory: Trajectory, step: int) -> Plan | None:
    plans = [made for made in trajectory.steps[:step] if isinstance(made, Plan)]
    return plans[-1] if plans else None


def _words(
    trajectory: Trajectory, asked: Spec, drawn: Mapping[int, DrawnPicture]
) -> dict[int, float]:
    found: dict[int, float] = {}
    picture: DrawnPicture | None = None
    consistent = False
    for index, step in enumerate(trajectory.steps):
        match step:
            case Sketch():
                picture = drawn[index]
            case Plan():
                said = described(step)
                consistent = said is not None and not plan_faults(said, asked)[0]
                corrects = index > 0 and isinstance(trajectory.steps[index - 1], Refinement)
                done = picture is not None and picture.whole.correct and not corrects
                found[index] = _sign(consistent and not done)
            case Inspection(target="plan", verdict=verdict):
                found[index] = _sign(consistent == (verdict == "accept"))
            case Inspection(target="sketch", verdict=verdict):
                if picture is not None and picture.planned is not None:
                    found[index] = _sign(picture.planned.exact == (verdict == "accept"))
            case Stop():
                found[index] = _sign(picture is not None and picture.whole.correct)
            case _:
                pass
    return found


def _sign(right: bool) -> float:
    return 1.0 if right else -1.0
