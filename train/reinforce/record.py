"""What a rollout got, kept in its own provenance, and the figures of many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Self

from staged import strict_json
from staged.trajectory import Sketch, Trajectory
from train.reinforce.advantages import Credits
from train.reinforce.grades import Grades, SketchGrade, end_known

REWARD = "reward"
"""Where in `provenance` it stands."""
_SHOWN: Final = (
    *("reward", "right", "unrated", "harm", "num_sketches", "failed"),
    *("text_nats", "image_shift", "text_kl"),
    *("probe/reward", "probe/right", "probe/one_shot"),
)
_FIELDS = {"grader": str, "prompt": int, "sketches": list, "words": list, "credits": list}


@dataclass(frozen=True, kw_only=True)
class RewardRecord:
    """Grades and credits of a rollout.

    Attributes:
        grader: Who graded.
        prompt: Number of its prompt in the run's file; rollouts of one are a group.
        grades: What it got.
        advantages: Of its steps, by index.
    """

    grader: str
    prompt: int
    grades: Grades
    advantages: dict[int, float]

    @classmethod
    def of(cls, trajectory: Trajectory) -> Self:
        """Read it.

        Raises:
            ValueError: There is none, or it is not as it must be.
        """
        place = f"provenance.{REWARD}"
        record = strict_json.record(trajectory.provenance.get(REWARD), place, _FIELDS)
        try:
            sketches = tuple(
                SketchGrade(step=step, value=value, whole=whole, gain=gain)
                for step, value, whole, gain in record["sketches"]
            )
            words = {int(step): float(grade) for step, grade in record["words"]}
            advantages = {int(step): float(other) for step, _, other in record["credits"]}
        except (TypeError, ValueError) as error:
            raise ValueError(f"{place} is damaged: {error}") from None
        return cls(
            grader=record["grader"],
            prompt=record["prompt"],
            grades=Grades(sketches=sketches, words=words),
            advantages=advantages,
        )


def recorded(
    trajectory: Trajectory, *, grader: str, prompt: int, grades: Grades, credits: Credits
) -> Trajectory:
    """The trajectory with what it got, and what each of its steps is worth."""
    said: dict[str, Any] = {
        "grader": grader,
        "prompt": prompt,
        "sketches": [[one.step, one.value, one.whole, one.gain] for one in grades.sketches],
        "words": [[step, grade] for step, grade in sorted(grades.words.items())],
        "credits": [[step, one.value, one.advantage] for step, one in sorted(credits.items())],
    }
    return replace(trajectory, provenance={**trajectory.provenance, REWARD: said})


def figures_of(rollouts: Sequence[tuple[Trajectory, Grades]]) -> dict[str, float]:
    """What to watch: rewards, harm, length, failures.

    Returns:
        - `reward`: mean grade of last pictures as answers, 0 where there is none; `right`: share of
          those that show all that was asked for. Neither counts rollouts whose last picture could
          not be graded, and both are missing where that is all of them. `unrated`: their share.
        - `sketch_value`: mean value of all pictures for themselves.
        - `harm`: of right pictures that were drawn onto, those that were wrong then.
        - `num_sketches`, `num_steps`: of a rollout; `failed`: share that broke off.
    """
    number = max(len(rollouts), 1)
    known = [grades for trajectory, grades in rollouts if end_known(trajectory, grades)]
    ends = {
        "reward": sum(grades.last for grades in known) / max(len(known), 1),
        "right": sum(grades.right for grades in known) / max(len(known), 1),
    }
    values = [one.value for _, grades in rollouts for one in grades.sketches]
    changed = [
        (before.right, after.right)
        for _, grades in rollouts
        for before, after in zip(grades.sketches, grades.sketches[1:], strict=False)
    ]
    after_right = [after for before, after in changed if before]
    sketches = [
        sum(isinstance(step, Sketch) for step in trajectory.steps) for trajectory, _ in rollouts
    ]
    return (ends if known else {}) | {
        "unrated": 1 - len(known) / number if rollouts else 0.0,
        "sketch_value": sum(values) / max(len(values), 1),
        "harm": sum(not after for after in after_right) / max(len(after_right), 1),
        "num_sketches": sum(sketches) / number,
        "num_steps": sum(len(trajectory.steps) for trajectory, _ in rollouts) / number,
        "failed": sum(not trajectory.complete for trajectory, _ in rollouts) / number,
    }


def in_words(figures: Mapping[str, float]) -> str:
    """The figures of an iteration that a line on the terminal has room for."""
    shown = [(name, figures[name]) for name in _SHOWN if name in figures]
    return "  ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in shown)
