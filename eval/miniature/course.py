"""Accuracy on the way: after each round, and with so many flow steps spent.

A trajectory that has come to its end keeps its last picture, so every number is over all images,
and the last one is the score itself. Like the score, they are means over tasks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

from eval.miniature.line import SampleScore, ScoredPicture
from eval.statistics import Estimate, Observation, mean, mean_of_means

MAX_BUDGETS = 16
"""Most budgets that are reported; more are thinned evenly."""


def course_estimates(scored: Sequence[SampleScore]) -> dict[str, Estimate]:
    """Estimate the accuracy on the way.

    Args:
        scored: Samples for which something was tried.

    Returns:
        `round K/correct`: shows what the prompt asks for after K rounds.
        `round K/follows plan`: of the K-th rounds that began with a plan, those that ended in a
        picture of exactly its description.
        `within N flow steps/correct`: the newest picture when no more than N were spent. The
        first N is what every image's first picture needs; there are none where no flow was run.
        What was never drawn is unscored.
    """
    found: dict[str, Estimate] = {}
    if any(picture.by_plan for item in scored for picture in item.pictures):
        for number in sorted({picture.round for item in scored for picture in item.pictures}):
            by_then = partial(_newest, at_most=number, of="round")
            found[f"round {number}/correct"] = correct_on_the_way(scored, by_then)
            found[f"round {number}/follows plan"] = mean(_followed(scored, number))
    for budget in budgets([[p.num_flow_steps for p in item.pictures] for item in scored]):
        found[f"within {budget} flow steps/correct"] = within(scored, budget)
    return found


def within(scored: Sequence[SampleScore], budget: int) -> Estimate:
    """Estimate the accuracy of the newest pictures when no more flow steps were spent."""
    return correct_on_the_way(scored, partial(_newest, at_most=budget, of="num_flow_steps"))


def correct_on_the_way(
    scored: Sequence[SampleScore], newest: Callable[[SampleScore], ScoredPicture | None]
) -> Estimate:
    """Estimate, as the score does, how many are correct by the picture that each has by then."""
    by_task: defaultdict[str, list[Observation]] = defaultdict(list)
    for item in scored:
        picture = newest(item)
        value = None if picture is None else float(picture.correct)
        by_task[item.task].append(Observation(cluster=item.prompt, value=value))
    return mean_of_means(mean(observations) for observations in by_task.values())


def _newest(
    item: SampleScore, *, at_most: int, of: Literal["round", "num_flow_steps"]
) -> ScoredPicture | None:
    there = (picture for picture in reversed(item.pictures) if getattr(picture, of) <= at_most)
    return next(there, None)


def budgets(spent: Sequence[Sequence[int]]) -> list[int]:
    """Choose the numbers of flow steps to compare at.

    Args:
        spent: For each image, what had been spent when each of its pictures was there.
    """
    drawn = [steps for steps in spent if steps]
    first = max((steps[0] for steps in drawn), default=0)
    there = sorted({number for steps in drawn for number in steps if number >= max(first, 1)})
    if len(there) <= MAX_BUDGETS:
        return there
    last = len(there) - 1
    return [there[round(i * last / (MAX_BUDGETS - 1))] for i in range(MAX_BUDGETS)]


def _followed(scored: Sequence[SampleScore], number: int) -> list[Observation]:
    found: list[Observation] = []
    for item in scored:
        pictures = [p for p in item.pictures if p.round == number and p.by_plan]
        if pictures:
            follows = pictures[-1].follows_plan
            value = None if follows is None else float(follows)
            found.append(Observation(cluster=item.prompt, value=value))
    return found
