"""What of a judged rollout is supervised: the critiques, what was put right, and what was right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from data_pipelines.critique.players import JudgedRollout
from data_pipelines.critique.settings import Learned
from data_pipelines.drift.steady import DRIFT
from data_pipelines.inspection import PlanJudgement
from data_pipelines.services import ONTO_LATENTS
from staged.trajectory import Inspection, Plan, Sketch, Step, Stop, Trajectory

MAKERS = "makers"
"""Where in a trajectory's provenance stands who made each step: model, judge, editor or loop."""


def supervised(
    trajectory: Trajectory, rollout: JudgedRollout, learned: Learned
) -> Trajectory | None:
    """Say of each step whether it is learned, and end after the last that is.

    Args:
        trajectory: As the loop left it, finished or broken off.
        rollout: Who made each step, and what the judge said.
        learned: Which right steps of the checkpoint are learned.

    Returns:
        The lesson, complete or a legal beginning; None where nothing can be learned.
    """
    steps = tuple(
        replace(step, loss=_learned(place, step, trajectory, rollout, learned))
        for place, step in enumerate(trajectory.steps)
    )
    return cut(replace(trajectory, steps=steps))


def cut(trajectory: Trajectory) -> Trajectory | None:
    """End after the last supervised step; None without any."""
    last = max((place for place, step in enumerate(trajectory.steps) if step.loss), default=None)
    if last is None:
        return None
    provenance = placed(trajectory.provenance, range(last + 1))
    return replace(trajectory, steps=trajectory.steps[: last + 1], provenance=provenance)


def placed(provenance: Mapping[str, Any], kept: Sequence[int]) -> dict[str, Any]:
    """Let what a provenance says of places among the steps go with the steps.

    Args:
        provenance: Of a trajectory.
        kept: Places of the steps that it keeps, in order.
    """
    now = {place: number for number, place in enumerate(kept)}
    moved = {**provenance, MAKERS: [provenance[MAKERS][place] for place in kept]}
    if ONTO_LATENTS in provenance:
        moved[ONTO_LATENTS] = [now[place] for place in provenance[ONTO_LATENTS] if place in now]
    if DRIFT in provenance:
        noted = [one for one in provenance[DRIFT] if one["place"] in now]
        moved[DRIFT] = [{**one, "place": now[one["place"]]} for one in noted]
    return moved


def _learned(
    place: int, step: Step, trajectory: Trajectory, rollout: JudgedRollout, learned: Learned
) -> bool:
    maker = rollout.makers.get(place)
    judgement = rollout.judgements.get(place)
    accepted = judgement is not None and judgement.verdict == "accept"
    match step:
        case Plan() if maker == "judge":
            # Not judged again where no further correction was allowed.
            return judgement is None or accepted
        case Plan():
            sound = isinstance(judgement, PlanJudgement) and judgement.sound
            return learned.own_plans and accepted and sound
        case Sketch() if maker == "editor":
            return accepted
        case Sketch():
            return learned.own_sketches and accepted
        case Stop():
            before = place - 1 - isinstance(trajectory.steps[place - 1], Inspection)
            seen = rollout.judgements.get(before)
            return seen is not None and seen.verdict == "accept" and rollout.complete
    return True
