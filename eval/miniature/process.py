"""Whether the steps were right: plans by reading them, inspections and refinements by looking.

Each number rests on what the model itself wrote at that point: a sketch is held against the
description it was drawn for, exactly, as an inspector should.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from eval.miniature.settings import Sample
from eval.statistics import Estimate, Observation, mean
from staged.shapes.detect import detect
from staged.shapes.faults import plan_faults
from staged.shapes.prompts import read_description
from staged.shapes.spec import Spec
from staged.shapes.verdict import satisfied
from staged.trajectory import Inspection, Plan, Refinement, Sketch, Trajectory


def process_estimates(
    samples: Mapping[str, Sample], trajectories: Mapping[str, Trajectory]
) -> dict[str, Estimate]:
    """Estimate how well a model worked in stages.

    Args:
        samples: By key.
        trajectories: By key; others are left out.

    Returns:
        Name to estimate, for what occurred at all, clustered by prompt:
        `plan/right` (the last plan asks for exactly what the prompt does), and for T of `plan`
        and `sketch`: `inspect T/precision` (of those refused, wrong), `inspect T/recall` (of those
        wrong and inspected, refused), `refine T/helped` (of the wrong ones that were refined, now
        right), `refine T/harmed` (of the right ones that were refined, now wrong),
        `sketch/follows plan` (of all sketches, those that show their description exactly).
        What is not of the miniature world's language is wrong where it is a plan, and unscored
        where something would have to be held against it.
    """
    found: defaultdict[str, list[Observation]] = defaultdict(list)
    for key, trajectory in trajectories.items():
        prompt = samples[key].prompt
        for name, value in _observed(trajectory, prompt.spec):
            found[name].append(Observation(cluster=prompt.text, value=value))
    return {name: mean(observations) for name, observations in sorted(found.items())}


def _observed(trajectory: Trajectory, asked: Spec) -> list[tuple[str, float | None]]:
    found: list[tuple[str, float | None]] = []
    plan: Plan | None = None
    states: dict[str, bool | None] = {}
    refined: dict[str, bool | None] = {}
    pending_faultless = False
    for index, step in enumerate(trajectory.steps):
        match step:
            case Plan():
                plan = step
                states["plan"], pending_faultless = _plan_right(step, asked)
                found += _outcome("plan", refined, states)
            case Sketch():
                wanted = asked if plan is None else _read(plan)
                states["sketch"] = None if wanted is None else _shows(step, wanted)
                if plan is not None:
                    found.append(("sketch/follows plan", _number(states["sketch"])))
                found += _outcome("sketch", refined, states)
            case Inspection(target=target, verdict=verdict):
                right = states[target]
                if verdict == "revise":
                    wrong = None if right is None else not right
                    found.append((f"inspect {target}/precision", _number(wrong)))
                if right is not True:
                    caught = None if right is None else verdict == "revise"
                    found.append((f"inspect {target}/recall", _number(caught)))
            case Refinement():
                before = trajectory.steps[index - 1]
                assert isinstance(before, Inspection)  # refinements stand nowhere else
                refined[before.target] = states[before.target]
    if plan is not None:
        found.append(("plan/right", float(pending_faultless)))
    return found


def _outcome(
    target: str, refined: dict[str, bool | None], states: dict[str, bool | None]
) -> list[tuple[str, float | None]]:
    """What a refinement before this state did."""
    if target not in refined:
        return []
    before, now = refined.pop(target), states[target]
    if before is None:
        return []
    if before:
        return [(f"refine {target}/harmed", _number(None if now is None else not now))]
    return [(f"refine {target}/helped", _number(now))]


def _plan_right(plan: Plan, asked: Spec) -> tuple[bool, bool]:
    """Whether a plan contradicts nothing, and whether it also leaves nothing out."""
    said = _read(plan)
    if said is None:
        return False, False
    faults, pending = plan_faults(said, asked)
    return not faults, not faults and not pending


def _read(plan: Plan) -> Spec | None:
    try:
        return read_description(plan.description)
    except ValueError:
        return None


def _shows(sketch: Sketch, wanted: Spec) -> bool:
    return satisfied(wanted, detect(sketch.image.array())).exact


def _number(value: bool | None) -> float | None:
    return None if value is None else float(value)
