"""One prompt becomes one trajectory, or the reason why it does not."""

import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from data_pipelines.asking import UnitEndError
from data_pipelines.plan_sketch.mistakes import MistakeKind, mistaken
from data_pipelines.plan_sketch.requests import (
    judgement_request,
    scene_graph_request,
    steps_request,
)
from data_pipelines.plan_sketch.settings import PlanSketchSettings
from data_pipelines.prompts import UnitPrompt
from data_pipelines.services import Services
from staged.backends.lmm.inspecting import (
    InspectionAnswer,
    plan_inspection_request,
    sketch_inspection_request,
)
from staged.jobs.records import UnitResult
from staged.scene_graph import (
    AddObject,
    ChangeAttribute,
    Delta,
    Relate,
    RemoveObject,
    ReplaceObject,
    SceneGraph,
    SwapObjects,
    Vocabulary,
    delta,
    increments,
    questions,
    resolve,
    varied_path,
)
from staged.scene_graph.matching import embeds, same_scene
from staged.trajectory import (
    ImageRef,
    Inspection,
    Plan,
    Refinement,
    Sketch,
    Step,
    Stop,
    Trajectory,
)

_DETOURS = 8


@dataclass(frozen=True, kw_only=True)
class _Intent:
    """What is going to be done in one step, decided before anything is asked or drawn.

    Attributes:
        step: The scene before and after.
        inspect_plan: Whether the plan is inspected.
        wrong_plan: The scene of the plan that is wrong first, with the kind of mistake.
        inspect_sketch: Whether the sketch is inspected.
        wrong_sketch: The scene of the sketch that is wrong first, with the kind of mistake.
        look_again: Whether a corrected plan, and a corrected sketch, are inspected once more.
    """

    step: Delta
    inspect_plan: bool
    wrong_plan: tuple[MistakeKind, SceneGraph] | None
    inspect_sketch: bool
    wrong_sketch: tuple[MistakeKind, SceneGraph] | None
    look_again: tuple[bool, bool]


class TrajectoryBuilder:
    """Builds the trajectory of one prompt. What it does depends on settings and prompt alone.

    Args:
        settings: Of the job.
        services: Of this unit.
        prompt: What is asked for.
        provenance: Models, licence and the like, to which choices and costs are added.
        allowed: Whether the data set may show a scene.
    """

    def __init__(
        self,
        settings: PlanSketchSettings,
        services: Services,
        prompt: UnitPrompt,
        provenance: dict[str, Any],
        allowed: Callable[[SceneGraph], bool],
    ) -> None:
        """Begin with no steps."""
        self._settings, self._services, self._prompt = settings, services, prompt
        self._provenance, self._allowed = provenance, allowed
        self._rng = random.Random(self._seed("choices"))
        self._steps: list[Step] = []
        self._graph = SceneGraph()
        self._chosen: list[_Intent] = []
        self._notes: list[str] = []

    async def build(self) -> UnitResult:
        """Do everything, and say how it ended; a trajectory stops at its first rejected step."""
        try:
            await self._all_steps()
        except UnitEndError as end:
            return replace(end.result, sample=self._sample())
        return UnitResult(status="accepted", sample=self._sample())

    async def _all_steps(self) -> None:
        answer = await self._services.ask(
            scene_graph_request(self._prompt.text, seed=self._settings.seed)
        )
        self._graph = answer.graph()
        _, most = self._settings.steps.limits
        if len(self._graph.objects) > most:
            self._reject("scene_graph", f"more than {most} objects")
        intents = self._chosen = self._intents()
        plans = await self._plans(tuple(intent.step for intent in intents))
        wrong_scenes = [
            delta(intent.step.before, wrong[1])
            for intent in intents
            for wrong in (intent.wrong_plan, intent.wrong_sketch)
            if wrong and wrong[1] != intent.step.before
        ]
        wrong_plans = iter(await self._plans(tuple(wrong_scenes)))
        drawn: bytes | None = None
        described: str | None = None
        for number, (intent, plan) in enumerate(zip(intents, plans, strict=True)):
            last = number == len(intents) - 1
            await self._plan(intent, plan, described, wrong_plans)
            drawn = await self._sketch(intent, plan, drawn, number, last, wrong_plans)
            described = plan.description
        self._steps.append(Stop())

    def _intents(self) -> list[_Intent]:
        ours, rng = self._settings.steps, self._rng
        words, (max_steps, max_objects) = ours.vocabulary, ours.limits
        path = increments(
            self._graph,
            seed=self._seed("path"),
            max_steps=max_steps,
            late_attributes=ours.late_attributes,
            grouped=ours.grouped,
        )
        if rng.random() < ours.varied:
            # Some of the first detours may show what this data set must not.
            for attempt in range(_DETOURS):
                tried = varied_path(
                    self._graph,
                    seed=self._seed(f"detour {attempt}"),
                    max_steps=max_steps,
                    vocabulary=words,
                    variations=ours.variations,
                    max_objects=max_objects,
                    grouped=ours.grouped,
                )
                if all(self._allowed(graph) for graph in tried):
                    path = tried
                    break
        intents = []
        for before, after in zip((SceneGraph(), *path), path, strict=False):
            intents.append(self._intent(delta(before, after), words))
        return intents

    def _intent(self, step: Delta, words: Vocabulary) -> _Intent:
        critiques, rng = self._settings.critiques, self._rng
        _, most = self._settings.steps.limits
        # A detour contradicts the prompt on purpose: to approve its plan would teach a falsehood,
        # and to refuse it would undo it. What is left open for now is a detour too.
        ids = [item.id for item in step.after.objects]
        settled = all(i in self._graph for i in ids) and step.after == self._graph.subgraph(ids)
        inspect_plan = rng.random() < critiques.plan_share and settled
        inspect_sketch = rng.random() < critiques.sketch_share
        wrong_plan = wrong_sketch = None
        if inspect_plan and rng.random() < critiques.wrong_plans:
            wrong_plan = mistaken(
                step,
                rng,
                vocabulary=words,
                kinds=critiques.plan_mistakes,
                max_objects=most,
                counts=lambda wrong: (
                    self._allowed(wrong) and wrong != step.before and not embeds(wrong, self._graph)
                ),
            )
        if inspect_sketch and rng.random() < critiques.wrong_sketches:
            wrong_sketch = mistaken(
                step,
                rng,
                vocabulary=words,
                kinds=critiques.sketch_mistakes,
                max_objects=most,
                # Where nothing is drawn yet, to draw nothing is no picture to inspect.
                counts=lambda wrong: (
                    bool(wrong.objects or step.before.objects)
                    and self._allowed(wrong)
                    and not same_scene(wrong, step.after)
                ),
            )
        return _Intent(
            step=step,
            inspect_plan=inspect_plan,
            wrong_plan=wrong_plan,
            inspect_sketch=inspect_sketch,
            wrong_sketch=wrong_sketch,
            look_again=(
                rng.random() < critiques.plan_share,
                rng.random() < critiques.sketch_share,
            ),
        )

    async def _plans(self, steps: tuple[Delta, ...]) -> list[Plan]:
        if not steps:
            return []
        answer = await self._services.ask(
            steps_request(self._prompt.text, steps, seed=self._settings.seed)
        )
        return [Plan(instruction=s.instruction, description=s.description) for s in answer.steps]

    async def _plan(
        self, intent: _Intent, plan: Plan, described: str | None, wrong_plans: Iterator[Plan]
    ) -> None:
        """Write the plan of a step, perhaps after a wrong one, perhaps inspected."""
        inspect = intent.inspect_plan
        if intent.wrong_plan:
            self._notes.append(f"plan: {intent.wrong_plan[0]}")
            wrong = next(wrong_plans)
            self._steps.append(replace(wrong, loss=False))
            answer = await self._inspect_plan(wrong, described)
            if answer.verdict == "accept":
                self._reject("inspect_plan", f"wrong {intent.wrong_plan[0]} not seen")
            self._steps += [
                Inspection(target="plan", verdict="revise", critique=answer.critique),
                Refinement(instruction=answer.correction),
            ]
            inspect = intent.look_again[0]
        self._steps.append(plan)
        if inspect:
            answer = await self._inspect_plan(plan, described)
            if answer.verdict == "revise":
                self._reject("inspect_plan", "right plan refused")
            self._steps.append(
                Inspection(target="plan", verdict="accept", critique=answer.critique)
            )

    async def _inspect_plan(self, plan: Plan, described: str | None) -> InspectionAnswer:
        return await self._services.ask(
            plan_inspection_request(self._prompt.text, described, plan, seed=self._settings.seed)
        )

    async def _sketch(
        self,
        intent: _Intent,
        plan: Plan,
        before: bytes | None,
        number: int,
        last: bool,
        wrong_plans: Iterator[Plan],
    ) -> bytes:
        """Draw a step, perhaps wrong first, pass it through the gate, perhaps inspect it."""
        inspect = intent.inspect_sketch
        wrong = await self._wrong_sketch(intent, before, number, wrong_plans)
        if intent.wrong_sketch and wrong is not None:
            kind, scene = intent.wrong_sketch
            self._notes.append(f"sketch: {kind}")
            self._steps.append(wrong)
            answer = await self._inspect_sketch(plan, _png(wrong))
            if answer.verdict == "accept":
                self._reject("inspect_sketch", f"wrong {kind} not seen")
            self._steps += [
                Inspection(target="sketch", verdict="revise", critique=answer.critique),
                Refinement(instruction=answer.correction),
            ]
            sketch = await self._draw(_png(wrong), answer.correction, f"refine {number}", last)
            self._steps.append(sketch)
            # A refinement is a step from the wrong scene to the right one, and judged as such.
            step = delta(scene, intent.step.after)
            await self._gate("refine", step, plan, _png(wrong), _png(sketch), whole=True)
            inspect = intent.look_again[1]
        else:
            sketch = await self._draw(before, plan.instruction, f"draw {number}", last)
            self._steps.append(sketch)
            await self._gate("draw", intent.step, plan, before, _png(sketch), whole=last)
        if inspect:
            answer = await self._inspect_sketch(plan, _png(sketch))
            if answer.verdict == "revise":
                self._reject("inspect_sketch", "right sketch refused")
            self._steps.append(
                Inspection(target="sketch", verdict="accept", critique=answer.critique)
            )
        return _png(sketch)

    async def _wrong_sketch(
        self,
        intent: _Intent,
        before: bytes | None,
        number: int,
        wrong_plans: Iterator[Plan],
    ) -> Sketch | None:
        """Draw the deliberate mistake of a step; None where there is none, or no way to draw it."""
        if intent.wrong_sketch is None:
            return None
        if intent.wrong_sketch[1] == intent.step.before and before is not None:
            return self._drawn(before, None, loss=False)  # nothing was done
        wrong_plan = next(wrong_plans)
        try:
            sketch = await self._draw(before, wrong_plan.instruction, f"wrong {number}", last=False)
        except UnitEndError:
            return None
        return replace(sketch, loss=False)

    async def _inspect_sketch(self, plan: Plan, image: bytes) -> InspectionAnswer:
        return await self._services.ask(
            sketch_inspection_request(self._prompt.text, plan, image, seed=self._settings.seed)
        )

    async def _draw(self, before: bytes | None, instruction: str, name: str, last: bool) -> Sketch:
        seed = self._seed(name)
        text = instruction
        if self._settings.drawing.foresight and not last:
            text = f"{instruction}. Leave room for the rest of: {self._prompt.text}"
        return self._drawn(await self._services.draw(before, text, seed=seed), seed)

    async def _gate(
        self,
        stage: str,
        step: Delta,
        plan: Plan,
        before: bytes | None,
        image: bytes,
        *,
        whole: bool,
    ) -> None:
        """Reject the trajectory unless the image shows what the step did, or the whole scene."""
        asked = {q.id: q for q in questions(step)}
        if whole:
            asked |= {q.id: q for q in questions(delta(SceneGraph(), step.after))}
        answer = await self._services.ask(
            judgement_request(
                plan, step, tuple(asked.values()), before, image, seed=self._settings.seed
            )
        )
        answers = {a.id: a.yes for a in answer.answers}
        missing = asked.keys() - answers.keys()
        if missing:
            self._reject(stage, "question left unanswered")
        holds = resolve(tuple(asked.values()), answers)
        for question in asked.values():
            if not holds[question.id]:
                self._reject(stage, f"{question.subject} not as planned")
        if not answer.rest_unchanged:
            self._reject(stage, "something else changed")

    def _drawn(self, image: bytes, seed: int | None, *, loss: bool = True) -> Sketch:
        """Name an image by its hash: under it the ledger gives its bytes back."""
        editor = self._settings.drawing.editor
        return Sketch(
            image=ImageRef(png=image, name=f"{hashlib.sha256(image).hexdigest()}.png"),
            seed=seed,
            num_flow_steps=editor.num_inference_steps if editor and seed is not None else 0,
            loss=loss,
        )

    def _reject(self, stage: str, reason: str) -> NoReturn:
        raise UnitEndError(UnitResult(status="rejected", stage=stage, reason=reason))

    def _sample(self) -> dict[str, Any]:
        services = self._services
        trajectory = Trajectory(
            prompt=self._prompt.text,
            steps=tuple(self._steps),
            task=self._prompt.task,
            scene_graph=self._graph.to_dict(),
            provenance={
                **self._provenance,
                "unit": self._prompt.unit,
                "deltas": [_short(intent.step) for intent in self._chosen],
                "mistakes": self._notes,
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


def _png(sketch: Sketch) -> bytes:
    assert sketch.image.png is not None, "sketches of a trajectory in the making hold their bytes"
    return sketch.image.png


def _short(step: Delta) -> str:
    """Name the operations of a step, for people who look at samples: by classes, not by ids."""

    def name(object_id: str) -> str:
        scene = step.after if object_id in step.after else step.before
        class_name = scene.object(object_id).class_name
        alike = [item.id for item in scene.objects if item.class_name == class_name]
        number = f" {alike.index(object_id) + 1}" if len(alike) > 1 else ""
        return f"{class_name}{number}"

    names = []
    for edit in step:
        match edit:
            case AddObject(object=item) | RemoveObject(object=item):
                names.append(f"{edit.operation} {name(item.id)}")
            case ChangeAttribute(object_id=item, kind=kind, before=old, after=new):
                change = f"change {kind} of {name(item)}"
                names.append(f"{change} from {old or 'open'} to {new or 'open'}")
            case ReplaceObject(before=old, after=new):
                names.append(f"swap {old} for {new}")
            case SwapObjects(first=first, second=second):
                names.append(f"exchange {name(first)} and {name(second)}")
            case Relate(after=gained):
                names += [f"move {name(r.source)} {r.name} {name(r.target)}" for r in gained]
    return "; ".join(names)
