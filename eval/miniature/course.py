"""Accuracy on the way: after each round, and with so many flow steps spent.

A trajectory that has come to its end keeps its last picture, so every number is over all images,
and the last one is the score itself. Like the score, they are means over tasks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from eval.miniature.pictures import DrawnPicture
from eval.miniature.settings import MiniatureSample
from eval.statistics import Estimate, Observation, mean, mean_of_means

MAX_BUDGETS = 16
"""Most budgets that are reported; more are thinned evenly."""

Course = tuple[MiniatureSample, Sequence[DrawnPicture]]
"""A sample and its pictures, in order; none where nothing was drawn."""


def course_estimates(courses: Sequence[Course]) -> dict[str, Estimate]:
    """Estimate the accuracy on the way.

    Returns:
        `round K/correct`: shows what the prompt asks for after K rounds.
        `round K/follows plan`: of the K-th rounds that began with a plan, those that ended in a
        picture of exactly its description.
        `within N flow steps/correct`: the newest picture when no more than N were spent. The
        first N is what every image's first picture needs; there are none where no flow was run.
        What was never drawn is unscored.
    """
    found: dict[str, Estimate] = {}
    if any(picture.by_plan for _, drawn in courses for picture in drawn):
        for number in sorted({picture.round for _, drawn in courses for picture in drawn}):
            by_then = [
                (sample, [p for p in drawn if p.round <= number]) for sample, drawn in courses
            ]
            found[f"round {number}/correct"] = _newest_correct(by_then)
            found[f"round {number}/follows plan"] = mean(_followed(courses, number))
    for budget in budgets([[p.num_flow_steps for p in drawn] for _, drawn in courses]):
        affordable = [
            (sample, [p for p in drawn if p.num_flow_steps <= budget]) for sample, drawn in courses
        ]
        found[f"within {budget} flow steps/correct"] = _newest_correct(affordable)
    return found


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


def _newest_correct(courses: Sequence[Course]) -> Estimate:
    by_task: defaultdict[str, list[Observation]] = defaultdict(list)
    for sample, drawn in courses:
        value = float(drawn[-1].whole.correct) if drawn else None
        by_task[sample.prompt.task].append(Observation(cluster=sample.prompt.text, value=value))
    return mean_of_means(mean(observations) for observations in by_task.values())


def _followed(courses: Sequence[Course], number: int) -> list[Observation]:
    found: list[Observation] = []
    for sample, drawn in courses:
        pictures = [picture for picture in drawn if picture.round == number and picture.by_plan]
        if pictures:
            verdict = pictures[-1].planned
            value = None if verdict is None else float(verdict.exact)
            found.append(Observation(cluster=sample.prompt.text, value=value))
    return found
