"""A language model as planner and director, or as inspector and refiner, over any sketcher."""

from __future__ import annotations

from collections.abc import Sequence

from staged.backends.lmm.asker import Asker
from staged.backends.lmm.inspecting import (
    InspectionAnswer,
    plan_inspection_request,
    sketch_inspection_request,
)
from staged.backends.lmm.planning import NextStepAnswer, next_step_request
from staged.backends.lmm.request import Failure, LmmRequest, Reply
from staged.roles import RoleError, StepRequest, TextPreview
from staged.trajectory import (
    Inspection,
    Move,
    Plan,
    Refinement,
    Target,
    TextStep,
    Trajectory,
)


class LmmPlanner:
    """Plays `BatchedWriter` for plans, and `BatchedDirector`: it says when nothing is left.

    It asks for no inspections and makes none; the loop's policy does.
    """

    def __init__(self, asker: Asker) -> None:
        """Ask this model."""
        self._asker = asker

    def choose(self, requests: Sequence[StepRequest]) -> list[tuple[Move, ...] | RoleError]:
        """Plan and sketch in turn, until the model says that the picture is done."""
        open_ones = [r for r in requests if "plan" in r.moves and "stop" in r.moves]
        replies = dict(zip(map(id, open_ones), self._ask(open_ones), strict=True))
        return [
            _decision(replies[id(request)]) if id(request) in replies else (_only(request.moves),)
            for request in requests
        ]

    def write(
        self, requests: Sequence[StepRequest], on_text: TextPreview | None = None
    ) -> list[TextStep | RoleError]:
        """Write the next plan of each; the answer that `choose` had got is not asked for again.

        Answers come whole, so no text is shown before it is there.
        """
        return [_plan(reply) for reply in self._ask(requests)]

    def _ask(self, requests: Sequence[StepRequest]) -> list[Reply[NextStepAnswer] | Failure]:
        return self._asker.ask([next_step_request(r.trajectory, seed=r.seed) for r in requests])


class LmmInspector:
    """Plays `BatchedWriter` for inspections and for the refinements that they call for."""

    def __init__(self, asker: Asker) -> None:
        """Ask this model."""
        self._asker = asker

    def write(
        self, requests: Sequence[StepRequest], on_text: TextPreview | None = None
    ) -> list[TextStep | RoleError]:
        """Inspect, or correct what the last inspection refused.

        An inspection is asked with its correction, so a refinement asks the same again and finds
        the answer. Its seed is the attempt: equal states are inspected alike.
        """
        asked = [_inspection_request(r.trajectory, seed=r.attempt) for r in requests]
        replies = self._asker.ask(asked)
        return [
            _inspected(request, reply) for request, reply in zip(requests, replies, strict=True)
        ]


def _only(moves: tuple[Move, ...]) -> Move:
    """What comes next where nobody needs to be asked."""
    return next((move for move in ("plan", "sketch") if move in moves), moves[0])


def _decision(reply: Reply[NextStepAnswer] | Failure) -> tuple[Move, ...] | RoleError:
    if isinstance(reply, Failure):
        return RoleError(reply.kind, reply.detail)
    return ("stop",) if reply.value.done else ("plan",)


def _plan(reply: Reply[NextStepAnswer] | Failure) -> Plan | RoleError:
    if isinstance(reply, Failure):
        return RoleError(reply.kind, reply.detail)
    if reply.value.done:
        return RoleError("refusal", "the planner says that nothing is left to draw")
    return Plan(instruction=reply.value.instruction, description=reply.value.description)


def _inspection_request(trajectory: Trajectory, *, seed: int) -> LmmRequest[InspectionAnswer]:
    """Ask about the last plan or sketch of a trajectory, inspected already or not."""
    steps = list(trajectory.steps)
    if isinstance(steps[-1], Inspection):
        steps.pop()
    plan, prompt = trajectory.last_plan, trajectory.prompt
    if isinstance(steps[-1], Plan):
        return plan_inspection_request(prompt, trajectory.drawn_so_far, steps[-1], seed=seed)
    sketch = trajectory.last_sketch
    assert sketch is not None  # something is inspected
    at_once = Plan(instruction=prompt, description=prompt)
    return sketch_inspection_request(prompt, plan or at_once, sketch.image.loaded, seed=seed)


def _inspected(
    request: StepRequest, reply: Reply[InspectionAnswer] | Failure
) -> TextStep | RoleError:
    if isinstance(reply, Failure):
        return RoleError(reply.kind, reply.detail)
    answer, move = reply.value, request.moves[0]
    if move in ("refine plan", "refine sketch"):
        if answer.verdict == "accept":
            return RoleError("refusal", f"nothing to correct: {answer.critique}")
        return Refinement(instruction=answer.correction)
    target: Target = "plan" if move == "inspect plan" else "sketch"
    return Inspection(target=target, verdict=answer.verdict, critique=answer.critique)
