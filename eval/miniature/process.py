"""Whether the steps were right: plans by reading them, inspections and refinements by looking.

Each number rests on what the model itself wrote at that point: a sketch is held against the
description it was drawn for, exactly, as an inspector should.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from eval.miniature.kinds import kind_of, kinds_of
from eval.miniature.line import SampleScore
from eval.statistics import UNIT, Estimate, Observation, mean
from staged.shapes.language.critiques import read_plan_critique, read_sketch_critique
from staged.shapes.language.faults import (
    Fault,
    Missing,
    PlanFault,
    WrongNumber,
    instruction_faults,
    plan_faults,
)
from staged.shapes.language.instructions import read_edits
from staged.shapes.sight.drift import untouched
from staged.shapes.sight.pictures import DrawnPicture, described
from staged.shapes.world.scene import CANVAS_PX
from staged.shapes.world.spec import Spec, Thing
from staged.trajectory import Inspection, Plan, Refinement, Sketch, Stop, Target, Trajectory

SHIFT = "untouched/shift px"
_MAX_SHIFT_PX = math.hypot(CANVAS_PX, CANVAS_PX)

_Found = Iterator[tuple[str, float | None]]


def process_estimates(scored: Iterable[SampleScore]) -> dict[str, Estimate]:
    """Estimate how well a model worked in stages, from what was `observed` in each sample.

    Returns:
        Name to estimate, for what occurred at all, clustered by prompt.
    """
    found: defaultdict[str, list[Observation]] = defaultdict(list)
    for item in scored:
        for name, value in item.process:
            found[name].append(Observation(cluster=item.prompt, value=value))
    return {
        name: mean(observations, bounds=(0, _MAX_SHIFT_PX) if name == SHIFT else UNIT)
        for name, observations in sorted(found.items())
    }


def observed(trajectory: Trajectory, asked: Spec, drawn: Sequence[DrawnPicture]) -> _Found:
    """See how the steps of a trajectory went.

    Args:
        trajectory: With its images loaded.
        asked: What its prompt means.
        drawn: Its pictures.

    Yields:
        Name and value of each observation, in [0, 1] but for the shift. T is `plan` or `sketch`, K
        a kind of fault. What is not of the miniature world's language is wrong where it is a plan,
        and None where something would have to be held against it.

        - `plan/right`: the last plan asks for exactly what the prompt does.
          `plan/consistent`: of all plans, those whose description contradicts nothing of it.
          `plan/instruction fits`: of all plans, those whose instruction adds and moves what
          their own description shows.
        - `sketch/follows plan`: of all sketches, those that show their description exactly.
        - `inspect T/precision`: of those refused, wrong; `inspect T/recall`: of those wrong and
          inspected, refused. With `/K`: of the refusals that name a K, those where there is one;
          of the inspected with a K, those refused with a K named.
        - `inspect plan/over-inspection`: of inspected plans that are right so far and leave
          something to come, those refused. `inspect sketch/over-inspection`: of sketches that
          were inspected while something was to come, those refused for the lack of it, though
          what was planned of its kind is there.
        - `refine T/helped`: of the wrong ones that were refined, now right; `refine T/harmed`: of
          the right ones that were refined, now wrong.
        - `stop/right`: of the model's decisions to stop or to plan on, those that stop when the
          picture shows what the prompt asks for and go on when it does not;
          `stop/stopped when right` and `stop/went on when wrong` are its two halves.
        - `untouched/kept`: of objects that the instruction between two pictures leaves alone,
          those that stay; `untouched/shift px`: how far they move, where they are still there.
    """
    yield from _steps(trajectory, asked, {picture.step: picture for picture in drawn})
    yield from _decisions(trajectory, drawn)
    for objects in untouched(trajectory):
        if objects is None:
            yield "untouched/kept", None
            continue
        for stayed in objects:
            yield "untouched/kept", float(stayed.kept)
            if stayed.shift_px is not None:
                yield SHIFT, stayed.shift_px


def _steps(trajectory: Trajectory, asked: Spec, drawn: Mapping[int, DrawnPicture]) -> _Found:
    """Plans, sketches, inspections and refinements."""
    plan = _Plan(said=None, asked=asked)
    picture: DrawnPicture | None = None
    states: dict[Target, bool | None] = {}
    refined: dict[Target, bool | None] = {}
    for index, step in enumerate(trajectory.steps):
        match step:
            case Plan():
                plan = _Plan(said=described(step), asked=asked)
                states["plan"] = plan.consistent
                yield "plan/consistent", float(plan.consistent)
                yield "plan/instruction fits", float(_instruction_fits(step))
                yield from _outcome("plan", refined, states)
            case Sketch():
                picture = drawn[index]
                states["sketch"] = None if picture.planned is None else picture.planned.exact
                if picture.by_plan:
                    yield "sketch/follows plan", _number(states["sketch"])
                yield from _outcome("sketch", refined, states)
            case Inspection(target=target):
                yield from _verdict(step, states[target])
                if target == "plan":
                    yield from _plan_inspected(step, plan)
                elif picture is not None:
                    yield from _sketch_inspected(step, picture, plan.pending)
            case Refinement():
                before = trajectory.steps[index - 1]
                assert isinstance(before, Inspection)  # refinements stand nowhere else
                refined[before.target] = states[before.target]
    if trajectory.last_plan is not None:
        yield "plan/right", float(plan.consistent and not plan.pending)


def _instruction_fits(plan: Plan) -> bool:
    said = described(plan)
    try:
        edits = read_edits(plan.instruction)
    except ValueError:
        return False
    return said is not None and not instruction_faults(edits, said)


class _Plan:
    """A plan held against the prompt; unreadable ones are wrong, without a fault to name."""

    def __init__(self, *, said: Spec | None, asked: Spec) -> None:
        self.faults: tuple[PlanFault, ...] = ()
        self.pending: tuple[Thing, ...] = ()
        if said is not None:
            self.faults, self.pending = plan_faults(said, asked)
        self.consistent = said is not None and not self.faults


def _verdict(inspection: Inspection, right: bool | None) -> _Found:
    refused, target = inspection.verdict == "revise", inspection.target
    wrong = None if right is None else not right
    if refused:
        yield f"inspect {target}/precision", _number(wrong)
    if wrong is not False:
        yield f"inspect {target}/recall", None if wrong is None else float(refused)


def _plan_inspected(inspection: Inspection, plan: _Plan) -> _Found:
    claims = _claims(inspection)
    yield from _by_kind("plan", claims, kinds_of(plan.faults))
    if plan.consistent and plan.pending:
        yield "inspect plan/over-inspection", float(inspection.verdict == "revise")


def _sketch_inspected(
    inspection: Inspection, picture: DrawnPicture, pending: Sequence[Thing]
) -> _Found:
    claims = _claims(inspection)
    if picture.planned is None:
        if claims:
            for kind in kinds_of(claims):
                yield f"inspect sketch/precision/{kind}", None
        return
    there = (*picture.planned.faults, *picture.planned.surplus)
    yield from _by_kind("sketch", claims, kinds_of(there))
    if pending:
        awaited = {thing.kind for thing in pending} - {thing.kind for thing in _lacking(there)}
        asked_for = None if claims is None else {thing.kind for thing in _lacking(claims)}
        yield (
            "inspect sketch/over-inspection",
            None if asked_for is None else float(bool(awaited & asked_for)),
        )


def _claims(inspection: Inspection) -> tuple[Fault | PlanFault, ...] | None:
    """What a refusal objects to; None where its words are not in the miniature world's language."""
    if inspection.verdict == "accept":
        return ()
    try:
        if inspection.target == "plan":
            return read_plan_critique(inspection.critique).faults
        return read_sketch_critique(inspection.critique)
    except ValueError:
        return None


def _by_kind(
    target: Target, claims: Sequence[Fault | PlanFault] | None, there: Sequence[str]
) -> _Found:
    named = None if claims is None else {kind_of(claim) for claim in claims}
    for kind in sorted(named or ()):
        yield f"inspect {target}/precision/{kind}", float(kind in there)
    for kind in there:
        yield f"inspect {target}/recall/{kind}", None if named is None else float(kind in named)


def _lacking(faults: Iterable[Fault | PlanFault]) -> Iterator[Thing]:
    """The things of which there are none, or too few."""
    for fault in faults:
        match fault:
            case Missing(thing=thing):
                yield thing
            case WrongNumber(thing=thing, seen=seen) if seen < thing.number:
                yield thing


def _outcome(
    target: Target, refined: dict[Target, bool | None], states: Mapping[Target, bool | None]
) -> _Found:
    """What a refinement before this state did."""
    if target not in refined:
        return
    before, now = refined.pop(target), states[target]
    if before is None:
        return
    if before:
        yield f"refine {target}/harmed", _number(None if now is None else not now)
    else:
        yield f"refine {target}/helped", _number(now)


def _decisions(trajectory: Trajectory, drawn: Sequence[DrawnPicture]) -> _Found:
    """Whether to stop, or to plan on; a stop that the loop's limits imposed is no decision."""
    imposed = trajectory.provenance.get("ended_by", "model") != "model"
    pictures = {picture.step: picture for picture in drawn}
    picture: DrawnPicture | None = None
    for index, step in enumerate(trajectory.steps):
        picture = pictures.get(index, picture)
        stops = isinstance(step, Stop)
        plans = isinstance(step, Plan) and not isinstance(trajectory.steps[index - 1], Refinement)
        if picture is None or not (stops or plans) or (stops and imposed):
            continue
        right = picture.whole.correct
        yield "stop/right", float(stops == right)
        yield (
            "stop/stopped when right" if right else "stop/went on when wrong",
            float(stops == right),
        )


def _number(value: bool | None) -> float | None:
    return None if value is None else float(value)
