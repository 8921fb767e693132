"""Whether a run is still worth going on with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from train.reinforce.grades import Grades
from train.reinforce.settings import CollapseSettings

_LOST_ONE_SHOT = 0.1


def collapse(rewards: Sequence[float], settings: CollapseSettings) -> str:
    """Say why a run is to stop; empty where it is not.

    Args:
        rewards: Mean of every iteration so far that has one.
        settings: When that is.
    """
    number = settings.patience
    if not settings.stop_below or len(rewards) < 2 * number:
        return ""
    first, last = sum(rewards[:number]) / number, sum(rewards[-number:]) / number
    if last >= settings.stop_below * first:
        return ""
    return (
        f"the mean reward of the last {number} iterations is {last:.3f}, of the first {number} it "
        f"was {first:.3f}: the policy has collapsed. Begin another `out` with a lower "
        "optimizer.lr or a larger images.beta; collapse.stop_below=0 goes on"
    )


def unrated_in_words(grades: Sequence[Grades]) -> str:
    """Say how many pictures of rollouts got no grade, and most often why; empty where none."""
    reasons = Counter(reason for one in grades for reason in one.unrated.values())
    if not reasons:
        return ""
    [(reason, number)] = reasons.most_common(1)
    return (
        f"{reasons.total()} pictures could not be rated and count for nothing, {number} of them: "
        f"{reason:.200}"
    )


def warnings_of(
    figures: dict[str, float], first_one_shot: float | None, num_compared: int
) -> list[str]:
    """Say what looks wrong about an iteration.

    Args:
        figures: Of it.
        first_one_shot: Mean grade of one-shot pictures before the first iteration.
        num_compared: Steps whose advantage is not 0.
    """
    said = []
    if not num_compared:
        said.append(
            "no step differs from the others of its group, so there is nothing to learn: give "
            "harder or easier prompts, larger groups, or a temperature above 0"
        )
    now = figures.get("probe/one_shot")
    if now is not None and first_one_shot is not None and now < first_one_shot - _LOST_ONE_SHOT:
        said.append(
            f"one-shot pictures fell from {first_one_shot:.3f} to {now:.3f}: plain drawing is lost"
        )
    return said
