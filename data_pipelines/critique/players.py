"""Who plays in a rollout: the checkpoint plans and sketches, a judge inspects and puts right."""

import asyncio
import hashlib
import random
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

from data_pipelines.asking import UnitEndError
from data_pipelines.critique.settings import CritiqueSettings
from data_pipelines.drift.steady import REALIGNED, steadied
from data_pipelines.inspection import (
    PlanJudgement,
    SketchJudgement,
    plan_judgement_request,
    sketch_judgement_request,
)
from data_pipelines.services import Services
from data_pipelines.wording import Wording
from staged.jobs.results import UnitResult
from staged.loops.roles import Roles
from staged.roles import Preview, RoleError, StepRequest, TextPreview
from staged.trajectory import (
    ImageRef,
    Inspection,
    Move,
    Plan,
    Refinement,
    Sketch,
    TextStep,
    Trajectory,
)

T = TypeVar("T")
Maker = Literal["model", "judge", "editor"]
UNIT = "unit"
"""Where in a trajectory's provenance stands whose it is."""
FORESIGHT = ". Leave room for the rest of: "
"""What stands between an instruction and the prompt, for an editor that takes it."""


@dataclass
class JudgedRollout:
    """What is known of one unit's rollout while it runs.

    Attributes:
        services: Of this unit.
        makers: Place of a step to who made it.
        judgements: Place of a plan or sketch to what the judge said of it.
        drift: What was measured of the editor's pictures, as it stands in provenance.
        complete: Whether the plan in force leaves nothing to come.
        ended: How the unit ends, where a service ended it.
    """

    services: Services
    makers: dict[int, Maker] = field(default_factory=dict)
    judgements: dict[int, SketchJudgement] = field(default_factory=dict)
    drift: list[dict[str, Any]] = field(default_factory=list)
    complete: bool = False
    ended: UnitResult | None = None


class Cast:
    """All roles of rollouts: a checkpoint's own, with judge and editor where they take over.

    Args:
        own: The checkpoint's.
        settings: Of the job.
        wording: In which words the judge is asked.
        events: The event loop in which services are asked; roles are called in another thread.
        names: Of `judge` and `editor`, for provenance.
    """

    def __init__(
        self,
        own: Roles,
        settings: CritiqueSettings,
        wording: Wording,
        events: asyncio.AbstractEventLoop,
        *,
        judge: str,
        editor: str,
    ) -> None:
        """Begin with no rollouts."""
        self._own, self._settings, self._wording, self._events = own, settings, wording, events
        self._names = {"director": judge, "inspector": judge, "refiner": judge, "editor": editor}
        self.rollouts: dict[int, JudgedRollout] = {}

    @property
    def num_flow_steps(self) -> int:
        """Network evaluations of the checkpoint for a sketch."""
        return self._own.sketcher.num_flow_steps

    @property
    def num_at_once(self) -> int:
        """Sketches of the checkpoint that gain from being drawn in one call."""
        return self._own.sketcher.num_at_once

    def release(self, trajectory: Trajectory) -> None:
        """Let the checkpoint give up what it keeps for a trajectory."""
        self._own.release(trajectory)

    def roles(self) -> Roles:
        """Itself in all roles, under the names of who really plays them."""
        return replace(Roles.of(self, ""), names={**self._own.names, **self._names})

    def choose(self, requests: Sequence[StepRequest]) -> list[tuple[Move, ...] | RoleError]:
        """Plan first; plan on until a sketch that was accepted shows all that is asked for."""
        return self._await(*(self._next(request) for request in requests))

    def write(
        self, requests: Sequence[StepRequest], on_text: TextPreview | None = None
    ) -> list[TextStep | RoleError]:
        """Let the checkpoint plan, and the judge do everything else; nothing is previewed."""
        written: dict[int, TextStep | RoleError] = {}
        planning = [
            place
            for place, request in enumerate(requests)
            if request.moves == ("plan",) and not _corrects(request)
        ]
        if planning:
            plans = self._own.planner.write([requests[place] for place in planning])
            written = dict(zip(planning, plans, strict=True))
        others = [place for place in range(len(requests)) if place not in written]
        if others:
            answers = self._await(*(self._judged(requests[place]) for place in others))
            written |= dict(zip(others, answers, strict=True))
        for place, step in written.items():
            self._note(requests[place], step, "model" if place in planning else "judge")
        return [written[place] for place in range(len(requests))]

    def draw(
        self, requests: Sequence[StepRequest], on_preview: Preview | None = None
    ) -> list[Sketch | RoleError]:
        """Let the checkpoint sketch, or the editor where it takes over."""
        drawn: dict[int, Sketch | RoleError] = {}
        edited = [place for place, request in enumerate(requests) if self._takes_over(request)]
        own = [place for place in range(len(requests)) if place not in edited]
        if own:
            sketches = self._own.sketcher.draw([requests[place] for place in own])
            drawn = dict(zip(own, sketches, strict=True))
        if edited:
            pictures = self._await(*(self._edited(requests[place]) for place in edited))
            drawn |= dict(zip(edited, pictures, strict=True))
        for place, step in drawn.items():
            self._note(requests[place], step, "editor" if place in edited else "model")
        return [drawn[place] for place in range(len(requests))]

    def _of(self, trajectory: Trajectory) -> JudgedRollout:
        return self.rollouts[trajectory.provenance[UNIT]]

    async def _next(self, request: StepRequest) -> tuple[Move, ...] | RoleError:
        trajectory, rollout = request.trajectory, self._of(request.trajectory)
        if "plan" not in request.moves:
            return ("stop" if "stop" in request.moves else request.moves[0],)
        if "stop" not in request.moves:
            return ("plan",)
        last = len(trajectory.steps) - 1
        if isinstance(trajectory.steps[last], Inspection):
            last -= 1
        elif (seen := await self._look(trajectory)) is not None:
            # Corrected as often as is allowed: looked at without a word, for whether to go on.
            return seen
        accepted = rollout.judgements[last].verdict == "accept"
        return ("plan" if accepted and not rollout.complete else "stop",)

    async def _judged(self, request: StepRequest) -> TextStep | RoleError:
        trajectory, rollout = request.trajectory, self._of(request.trajectory)
        last = len(trajectory.steps) - 1
        move = request.moves[0]
        if move == "plan":
            judgement = rollout.judgements[last - 2]
            assert isinstance(judgement, PlanJudgement)
            return judgement.plan
        if move in ("refine plan", "refine sketch"):
            return Refinement(instruction=rollout.judgements[last - 1].correction)
        if (failure := await self._look(trajectory)) is not None:
            return failure
        judgement = rollout.judgements[last]
        assert judgement.verdict != "unusable"
        return Inspection(
            target="plan" if move == "inspect plan" else "sketch",
            verdict=judgement.verdict,
            critique=judgement.critique,
        )

    async def _look(self, trajectory: Trajectory) -> RoleError | None:
        """Let the judge look at the last plan or sketch; what it says is kept with the rollout."""
        rollout = self._of(trajectory)
        try:
            judgement = await self._judgement(trajectory, rollout.services)
        except UnitEndError as end:
            rollout.ended = end.result
            return RoleError(end.result.reason, end.result.detail)
        if judgement.verdict == "unusable":
            return RoleError("unusable", judgement.critique)
        rollout.judgements[len(trajectory.steps) - 1] = judgement
        if isinstance(judgement, PlanJudgement):
            rollout.complete = judgement.complete
        return None

    async def _judgement(self, trajectory: Trajectory, services: Services) -> SketchJudgement:
        plan, sketch, prompt = trajectory.last_plan, trajectory.last_sketch, trajectory.prompt
        seed = self._settings.seed
        if isinstance(trajectory.steps[-1], Plan):
            assert plan is not None
            described = trajectory.drawn_so_far
            return await services.ask(
                plan_judgement_request(self._wording, prompt, described, plan, seed=seed)
            )
        if plan is None:  # drawn at once
            plan = Plan(instruction=prompt, description=prompt)
        assert sketch is not None
        before = _before_last_sketch(trajectory)
        return await services.ask(
            sketch_judgement_request(
                self._wording, prompt, plan, before, sketch.image.loaded, seed=seed
            )
        )

    def _takes_over(self, request: StepRequest) -> bool:
        """Whether the editor draws: refinements mostly, and some of the checkpoint's edits."""
        trajectory, ours = request.trajectory, self._settings.corrections
        before = trajectory.last_sketch
        # Where the editor finds no way, the checkpoint may.
        if before is None or request.attempt + 1 >= self._settings.generator.max_attempts:
            return False
        chance = self._dice(trajectory).random()
        if not _corrects(request):
            return chance < ours.edits_by_editor
        # The last refinement that is allowed is the editor's, and so is every one after another.
        tried = sum(isinstance(step, Refinement) for step in _round(trajectory))
        last = tried >= self._settings.generator.max_refinements
        return last or tried > 1 or chance >= ours.refined_by_model

    def _dice(self, trajectory: Trajectory) -> random.Random:
        named = f"{self._settings.seed}/{trajectory.provenance[UNIT]}/{len(trajectory.steps)}"
        return random.Random(hashlib.sha256(named.encode()).digest())

    async def _edited(self, request: StepRequest) -> Sketch | RoleError:
        trajectory, rollout = request.trajectory, self._of(request.trajectory)
        before, plan, last = trajectory.last_sketch, trajectory.last_plan, trajectory.steps[-1]
        assert before is not None
        correction = last if isinstance(last, Refinement) else plan
        instruction = trajectory.prompt if correction is None else correction.instruction
        drawing = self._settings.drawing
        if drawing.foresight and not rollout.complete:
            instruction = f"{instruction}{FORESIGHT}{trajectory.prompt}"
        try:
            png = await rollout.services.draw(before.image.loaded, instruction, seed=request.seed)
        except UnitEndError as end:
            # What cannot be drawn ends the trajectory here, and is no failure of a service.
            return RoleError(end.result.reason, end.result.detail)
        limits = self._settings.corrections.drift
        if limits is not None:
            first = _edited_from(trajectory, rollout)
            steady = await asyncio.to_thread(steadied, limits, first, before.image.loaded, png)
            if steady.objection is not None:
                # Nobody is paid to look at it; the loop asks again, with another seed.
                return RoleError(steady.objection.reason, steady.objection.detail)
            if steady.image != png:
                await rollout.services.keep(steady.image, purpose=REALIGNED, made_of=png)
                png = steady.image
            rollout.drift.append({"place": len(trajectory.steps), **steady.noted})
        steps = drawing.num_flow_steps
        return Sketch(image=ImageRef(png=png), seed=request.seed, num_flow_steps=steps)

    def _note(self, request: StepRequest, step: object, maker: Maker) -> None:
        if not isinstance(step, RoleError):
            self._of(request.trajectory).makers[len(request.trajectory.steps)] = maker

    def _await(self, *asked: Coroutine[Any, Any, T]) -> list[T]:
        """Wait, in the loop's thread, for coroutines of the event loop."""

        async def together() -> list[T]:
            return list(await asyncio.gather(*asked))

        waiting = together()
        try:
            return asyncio.run_coroutine_threadsafe(waiting, self._events).result()
        except RuntimeError:  # the event loop is closed: the user has interrupted
            for coroutine in (waiting, *asked):
                coroutine.close()
            raise


def _corrects(request: StepRequest) -> bool:
    steps = request.trajectory.steps
    return bool(steps) and isinstance(steps[-1], Refinement)


def _round(trajectory: Trajectory) -> Sequence[object]:
    """The steps since the plan in force."""
    steps = trajectory.steps
    plans = [place for place, step in enumerate(steps) if isinstance(step, Plan)]
    return steps[plans[-1] :] if plans else steps


def _edited_from(trajectory: Trajectory, rollout: JudgedRollout) -> bytes | None:
    """The picture onto which the editor drew first, without the checkpoint drawing since.

    None where it would draw onto it now.
    """
    sketches = [place for place, step in enumerate(trajectory.steps) if isinstance(step, Sketch)]
    first = len(sketches) - 1
    while first > 0 and rollout.makers.get(sketches[first]) == "editor":
        first -= 1
    if first == len(sketches) - 1:
        return None
    step = trajectory.steps[sketches[first]]
    assert isinstance(step, Sketch)
    return step.image.loaded


def _before_last_sketch(trajectory: Trajectory) -> bytes | None:
    images = trajectory.images
    return images[-2].loaded if len(images) > 1 else None
