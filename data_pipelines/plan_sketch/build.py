"""One prompt becomes one trajectory, or the reason why it does not."""

import asyncio
import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from data_pipelines.asking import UnitEndError
from data_pipelines.drift.steady import DRIFT, REALIGNED, Steadied, steadied
from data_pipelines.inspection import (
    SketchJudgement,
    plan_judgement_request,
    sketch_judgement_request,
)
from data_pipelines.kept_images import named_image
from data_pipelines.objection import Objection
from data_pipelines.plan_sketch.gate import objection
from data_pipelines.plan_sketch.intents import Intent, in_short, intents
from data_pipelines.plan_sketch.requests import (
    StepAnswer,
    drawn_later,
    scene_graph_request,
    steps_request,
    unsaid,
)
from data_pipelines.plan_sketch.settings import PlanSketchSettings
from data_pipelines.prompts import UnitPrompt
from data_pipelines.services import ONTO_LATENTS, Services
from data_pipelines.wording import Wording
from staged.jobs.results import UnitResult
from staged.scene_graph import Delta, SceneGraph, delta
from staged.trajectory import (
    Inspection,
    Plan,
    Refinement,
    Sketch,
    Step,
    Stop,
    Trajectory,
)

_FROM_THE_FIRST = ("style", "setting")
"""What is said of the whole image and must be seen before everything is drawn."""
REFUSED = "refused_edits"
"""Where in a trajectory's provenance stand drawings that the gate refused before one passed."""


class TrajectoryBuilder:
    """Builds the trajectory of one prompt. What it does depends on settings and prompt alone.

    Args:
        settings: Of the job.
        wording: In which words the language model is asked.
        services: Of this unit.
        prompt: What is asked for.
        provenance: Models, licence and the like, to which choices and costs are added.
        allowed: Whether the data set may show a scene.
    """

    def __init__(
        self,
        settings: PlanSketchSettings,
        wording: Wording,
        services: Services,
        prompt: UnitPrompt,
        provenance: dict[str, Any],
        allowed: Callable[[SceneGraph], bool],
    ) -> None:
        """Begin with no steps."""
        self._settings, self._wording, self._services = settings, wording, services
        self._prompt, self._provenance, self._allowed = prompt, provenance, allowed
        self._steps: list[Step] = []
        self._graph = SceneGraph()
        self._look: dict[str, str] = {}
        self._chosen: list[Intent] = []
        self._notes: list[str] = []
        self._not_drawn: list[str] = []
        self._refused: list[dict[str, Any]] = []
        self._first: bytes | None = None
        self._drift: list[dict[str, Any]] = []

    async def build(self) -> UnitResult:
        """Do everything, and say how it ended; a trajectory stops at its first rejected step."""
        try:
            await self._all_steps()
        except UnitEndError as end:
            return replace(end.result, sample=self._sample())
        return UnitResult(status="accepted", sample=self._sample())

    async def _all_steps(self) -> None:
        scene = await self._services.ask(
            scene_graph_request(self._wording, self._prompt.text, seed=self._settings.seed)
        )
        self._graph, self._look = scene.graph(), scene.said_of_all()
        *_, most = self._settings.steps.limits
        if len(self._graph.objects) > most:
            raise UnitEndError("rejected", "scene_graph", f"more than {most} objects")
        chosen = self._chosen = intents(
            self._settings,
            self._graph,
            scene.vocabulary(),
            rng=random.Random(self._seed("choices")),
            seed_of=self._seed,
            allowed=self._allowed,
        )
        path = [intent.step for intent in chosen]
        later = drawn_later(path, self._look)
        texts = await self._texts(path, later)
        wrong_texts = iter(await self._wrong_texts(chosen, texts, later))
        drawn: bytes | None = None
        described: str | None = None
        for number, (intent, text) in enumerate(zip(chosen, texts, strict=True)):
            last = number == len(chosen) - 1
            await self._plan(intent, text.plan, described, wrong_texts)
            drawn = await self._sketch(intent, text, drawn, number, last, wrong_texts)
            described = text.description
        self._steps.append(Stop())

    async def _texts(
        self,
        steps: Sequence[Delta],
        later: Sequence[tuple[str, ...]],
        drawn_so_far: Sequence[str | None] | None = None,
    ) -> list[StepAnswer]:
        if not steps:
            return []
        answer = await self._services.ask(
            steps_request(
                self._wording,
                self._prompt.text,
                self._look,
                steps,
                later,
                drawn_so_far=drawn_so_far,
                seed=self._settings.seed,
            )
        )
        return answer.steps

    async def _wrong_texts(
        self,
        chosen: Sequence[Intent],
        texts: Sequence[StepAnswer],
        later: Sequence[tuple[str, ...]],
    ) -> list[StepAnswer]:
        """The texts of all deliberate mistakes that something is drawn or planned for."""
        steps, not_yet, drawn_so_far = [], [], []
        described = [None, *(text.description for text in texts)]
        for intent, coming, so_far in zip(chosen, later, described, strict=False):
            for wrong in (intent.wrong_plan, intent.wrong_sketch):
                if wrong and wrong[1] != intent.step.before:
                    steps.append(delta(intent.step.before, wrong[1]))
                    not_yet.append(unsaid(coming, self._look, wrong[1]))
                    drawn_so_far.append(so_far)
        return await self._texts(steps, not_yet, drawn_so_far)

    async def _plan(
        self,
        intent: Intent,
        plan: Plan,
        described: str | None,
        wrong_texts: Iterator[StepAnswer],
    ) -> None:
        """Write the plan of a step, perhaps after a wrong one, perhaps inspected."""
        inspect = intent.inspect_plan
        if intent.wrong_plan:
            self._notes.append(f"plan: {intent.wrong_plan[0]}")
            wrong = next(wrong_texts).plan
            self._steps.append(replace(wrong, loss=False))
            answer = await self._inspect_plan(wrong, described)
            if answer.verdict != "revise":
                raise UnitEndError(
                    "rejected", "judge_plan", f"wrong {intent.wrong_plan[0]} not seen"
                )
            self._steps += [
                Inspection(target="plan", verdict="revise", critique=answer.critique),
                Refinement(instruction=answer.correction),
            ]
            inspect = intent.look_again[0]
        self._steps.append(plan)
        if inspect:
            answer = await self._inspect_plan(plan, described)
            if answer.verdict != "accept":
                raise UnitEndError("rejected", "judge_plan", "right plan refused", answer.critique)
            self._steps.append(
                Inspection(target="plan", verdict="accept", critique=answer.critique)
            )

    async def _inspect_plan(self, plan: Plan, described: str | None) -> SketchJudgement:
        return await self._services.ask(
            plan_judgement_request(
                self._wording, self._prompt.text, described, plan, seed=self._settings.seed
            )
        )

    async def _sketch(
        self,
        intent: Intent,
        text: StepAnswer,
        before: bytes | None,
        number: int,
        last: bool,
        wrong_texts: Iterator[StepAnswer],
    ) -> bytes:
        """Draw a step, perhaps wrong first, pass it through the gate, perhaps inspect it."""
        inspect, plan = intent.inspect_sketch, text.plan
        wrong = await self._wrong_sketch(intent, before, number, wrong_texts)
        onto = before
        if intent.wrong_sketch and wrong is not None:
            kind, scene = intent.wrong_sketch
            self._notes.append(f"sketch: {kind}")
            self._steps.append(wrong)
            answer = await self._inspect_sketch(plan, before, wrong.image.loaded)
            if answer.verdict != "revise":
                raise UnitEndError("rejected", "judge_sketch", f"wrong {kind} not seen")
            self._steps += [
                Inspection(target="sketch", verdict="revise", critique=answer.critique),
                Refinement(instruction=answer.correction),
            ]
            # A refinement is a step from the wrong scene to the right one, and judged as such.
            step, onto = delta(scene, intent.step.after), wrong.image.loaded
            sketch = await self._passing(
                "refine", step, onto, answer.correction, number, last=last, whole=True
            )
            inspect = intent.look_again[1]
        else:
            if intent.wrong_sketch:
                self._not_drawn.append(f"sketch: {intent.wrong_sketch[0]}")
            sketch = await self._passing(
                "draw", intent.step, before, text.editor_prompt, number, last=last, whole=last
            )
        if inspect:
            answer = await self._inspect_sketch(plan, onto, sketch.image.loaded)
            if answer.verdict != "accept":
                raise UnitEndError(
                    "rejected", "judge_sketch", "right sketch refused", answer.critique
                )
            self._steps.append(
                Inspection(target="sketch", verdict="accept", critique=answer.critique)
            )
        return sketch.image.loaded

    async def _wrong_sketch(
        self,
        intent: Intent,
        before: bytes | None,
        number: int,
        wrong_texts: Iterator[StepAnswer],
    ) -> Sketch | None:
        """Draw the deliberate mistake of a step; None where there is none, or no way to draw it."""
        if intent.wrong_sketch is None:
            return None
        if intent.wrong_sketch[1] == intent.step.before and before is not None:
            return self._drawn(before, None, loss=False)  # nothing was done
        wrong = next(wrong_texts)
        try:
            sketch = await self._draw(before, wrong.editor_prompt, f"wrong {number}", last=False)
        except UnitEndError:
            return None
        sketch, steady = await self._steadied(before, sketch)
        if steady is not None:
            if steady.objection is not None:
                # It would be wrong in more than what the inspection is to find.
                return None
            self._drift.append({"place": len(self._steps), **steady.noted})
        return replace(sketch, loss=False)

    async def _inspect_sketch(
        self, plan: Plan, before: bytes | None, image: bytes
    ) -> SketchJudgement:
        return await self._services.ask(
            sketch_judgement_request(
                self._wording, self._prompt.text, plan, before, image, seed=self._settings.seed
            )
        )

    async def _passing(
        self,
        stage: str,
        step: Delta,
        before: bytes | None,
        told: str,
        number: int,
        *,
        last: bool,
        whole: bool,
    ) -> Sketch:
        """Draw until the gate lets a drawing pass, each time onto the same image.

        Raises:
            UnitEndError: none has passed; the last one is among the steps.
        """
        # Light may come from what is not drawn yet, and a composition is of all that is.
        look = self._look if last else {k: v for k, v in self._look.items() if k in _FROM_THE_FIRST}
        attempts = self._settings.gate.attempts or 1
        for attempt in range(attempts):
            name = f"{stage} {number}" if attempt == 0 else f"{stage} {number} again {attempt}"
            sketch = await self._draw(before, told, name, last=last)
            sketch, steady = await self._steadied(before, sketch)
            # What has drifted is refused before anybody is paid to look at it.
            wrong = steady.objection if steady else None
            wrong = wrong or await objection(
                self._services,
                self._wording,
                self._settings.gate,
                step,
                before,
                sketch.image.loaded,
                whole=whole,
                seed=self._settings.seed,
                look=look,
            )
            if wrong is None:
                break
            if attempt + 1 < attempts:
                self._keep_refused(sketch, wrong, steady)
        if steady is not None:
            self._drift.append({"place": len(self._steps), **steady.noted})
        self._steps.append(sketch)
        if wrong is not None:
            raise UnitEndError("rejected", stage, wrong.reason, wrong.detail)
        self._first = self._first or sketch.image.loaded
        return sketch

    async def _steadied(
        self, before: bytes | None, sketch: Sketch
    ) -> tuple[Sketch, Steadied | None]:
        """Measure the drift of a drawing; the drawing, laid back where that mends it."""
        limits = self._settings.gate.drift
        if limits is None or before is None:
            return sketch, None
        drawn = sketch.image.loaded
        first = None if self._first == before else self._first
        steady = await asyncio.to_thread(steadied, limits, first, before, drawn)
        if steady.image != drawn:
            await self._services.keep(steady.image, purpose=REALIGNED, made_of=drawn)
            sketch = replace(sketch, image=named_image(steady.image))
        return sketch, steady

    def _keep_refused(self, sketch: Sketch, wrong: Objection, steady: Steadied | None) -> None:
        """Note a drawing that was refused before another passed: worth a preference."""
        self._refused.append(
            {
                "place": len(self._steps),
                "image": sketch.image.name,
                "seed": sketch.seed,
                "reason": wrong.reason,
                **({DRIFT: steady.noted} if steady else {}),
            }
        )

    async def _draw(self, before: bytes | None, told: str, name: str, last: bool) -> Sketch:
        seed = self._seed(name)
        if self._settings.drawing.foresight and not last:
            told = f"{told}. Leave room for the rest of: {self._prompt.text}"
        return self._drawn(await self._services.draw(before, told, seed=seed), seed)

    def _drawn(self, image: bytes, seed: int | None, *, loss: bool = True) -> Sketch:
        return Sketch(
            image=named_image(image),
            seed=seed,
            num_flow_steps=0 if seed is None else self._settings.drawing.num_flow_steps,
            loss=loss,
        )

    def _sample(self) -> dict[str, Any]:
        services = self._services
        steps = tuple(self._steps)
        onto_latents = services.onto_latents(steps)
        trajectory = Trajectory(
            prompt=self._prompt.text,
            steps=steps,
            task=self._prompt.task,
            scene_graph=self._graph.to_dict(),
            provenance={
                **self._provenance,
                "unit": self._prompt.unit,
                "graphs": [intent.step.after.to_dict() for intent in self._chosen],
                "deltas": [in_short(intent.step) for intent in self._chosen],
                "mistakes": self._notes,
                **({"mistakes_not_drawn": self._not_drawn} if self._not_drawn else {}),
                **({"look": self._look} if self._look else {}),
                **({REFUSED: self._refused} if self._refused else {}),
                **({DRIFT: self._drift} if self._drift else {}),
                **({ONTO_LATENTS: onto_latents} if onto_latents else {}),
                "cost": {
                    "usd": round(services.usd, 9),
                    "requests": services.requests,
                    "images": services.images,
                },
            },
        )
        return trajectory.to_dict()

    def _seed(self, name: str) -> int:
        """Derive the seed of one choice, whatever else happens: 31 bits, as most services take."""
        text = f"{self._settings.seed}/{self._prompt.unit}/{name}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) >> 1
