"""A prompt and the steps taken for it, as one value, checked as a whole."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from staged import strict_json
from staged.trajectory.order import Move, TrajectoryError, legal_after, moves
from staged.trajectory.steps import (
    ImageRef,
    Plan,
    Sketch,
    Step,
    Stop,
    Target,
    check_text,
    name_of,
    ref_of,
    step_from_dict,
    step_to_dict,
)

VERSION: Final = 1
MAX_STEPS: Final = 128
MAX_INPUTS: Final = 16
MAX_PROVENANCE_ITEMS: Final = 4096
MAX_JSON_BYTES: Final = 32 * 2**20
"""Above what the bounds above allow, so that every legal trajectory can be read back."""


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """A prompt and the steps taken for it.

    Attributes:
        prompt: What was asked.
        steps: In a legal order (see the module), possibly unfinished.
        inputs: Images given with the prompt, for editing and understanding.
        system: How the model is told to go about it, before everything else; None says nothing.
        task: Name of the task or data subset, if any.
        scene_graph: `SceneGraph` as JSON, where the wanted scene is known.
        provenance: Where it comes from, as bounded JSON. By convention: `models` and
            `prompt_versions` (role -> name), `seeds`, `fingerprint` of the settings, `cost`
            (unit -> amount), `licence` of the generating model, `failure` (reason) where a
            rollout failed, `detector` where one has looked at the last sketch
            (`{"correct": true or false, "reasons": ["...", ...]}`).
    """

    prompt: str
    steps: tuple[Step, ...] = ()
    inputs: tuple[ImageRef, ...] = ()
    system: str | None = None
    task: str | None = None
    scene_graph: dict[str, Any] | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check types, sizes and that the steps are a legal prefix.

        Raises:
            TrajectoryError: an illegal order, with the index of the step.
            ValueError: anything else, with its place.
        """
        check_text(self.prompt, "prompt")
        if self.system is not None:
            check_text(self.system, "system")
        if self.task is not None:
            check_text(self.task, "task", max_chars=128)
        object.__setattr__(self, "steps", tuple(self.steps))
        object.__setattr__(self, "inputs", tuple(self.inputs))
        if len(self.inputs) > MAX_INPUTS:
            raise ValueError(f"inputs: {len(self.inputs)} images exceed the limit of {MAX_INPUTS}")
        for i, image in enumerate(self.inputs):
            if not isinstance(image, ImageRef):
                raise ValueError(f"inputs[{i}]: expected ImageRef, got {type(image).__name__}")
        # Copies: a caller that goes on filling its own dict must not change a frozen value.
        if self.scene_graph is not None:
            if type(self.scene_graph) is not dict:
                raise ValueError("scene_graph: expected the graph's JSON object")
            graph = strict_json.checked(self.scene_graph, "scene_graph")
            object.__setattr__(self, "scene_graph", graph)
        if type(self.provenance) is not dict:
            raise ValueError(f"provenance: expected a dict, got {type(self.provenance).__name__}")
        provenance = strict_json.checked(
            self.provenance, "provenance", max_items=MAX_PROVENANCE_ITEMS
        )
        object.__setattr__(self, "provenance", provenance)
        self.validate(complete=False)

    def validate(self, *, complete: bool = True) -> None:
        """Check the order of the steps.

        Args:
            complete: Also require that the trajectory ends with `Stop`; otherwise any legal
                prefix passes.

        Raises:
            TrajectoryError: with the index of the offending step.
        """
        if len(self.steps) > MAX_STEPS:
            raise TrajectoryError(MAX_STEPS, f"more than {MAX_STEPS} steps")
        moves(self.steps)
        if complete and not self.complete:
            expected = " or ".join(self.legal_next())
            raise TrajectoryError(
                len(self.steps), f"the trajectory is not complete; expected {expected}"
            )

    @property
    def complete(self) -> bool:
        """Whether it ends with `Stop`."""
        return bool(self.steps) and isinstance(self.steps[-1], Stop)

    def legal_next(self) -> tuple[Move, ...]:
        """Name the moves that may come next; empty after `Stop`."""
        made = moves(self.steps)
        return legal_after(made, self.steps[-1] if self.steps else None)

    def extend(self, *steps: Step) -> "Trajectory":
        """Return the trajectory with `steps` appended; `TrajectoryError` if that is illegal."""
        return replace(self, steps=self.steps + steps)

    @property
    def images(self) -> tuple[ImageRef, ...]:
        """Inputs, then sketches, in order."""
        return self.inputs + tuple(s.image for s in self.steps if isinstance(s, Sketch))

    @property
    def last_plan(self) -> Plan | None:
        """The plan in force."""
        return next((s for s in reversed(self.steps) if isinstance(s, Plan)), None)

    @property
    def drawn_so_far(self) -> str | None:
        """What the newest sketch shows, if it shows what it should; None where nothing is drawn.

        The description of its plan, or the prompt of one that was drawn without.
        """
        described, plan = None, None
        for step in self.steps:
            if isinstance(step, Plan):
                plan = step
            elif isinstance(step, Sketch):
                described = self.prompt if plan is None else plan.description
        return described

    @property
    def last_sketch(self) -> Sketch | None:
        """The newest sketch."""
        return next((s for s in reversed(self.steps) if isinstance(s, Sketch)), None)

    @property
    def inspection_target(self) -> Target | None:
        """What an inspection written now would be about; None where none is legal."""
        legal = self.legal_next()
        return (
            "plan" if "inspect plan" in legal else "sketch" if "inspect sketch" in legal else None
        )

    @property
    def num_flow_steps(self) -> int:
        """Network evaluations over all sketches."""
        return sum(s.num_flow_steps for s in self.steps if isinstance(s, Sketch))

    def with_images(self, refs: Sequence[ImageRef]) -> "Trajectory":
        """Replace all images, in the order of `images`.

        Raises:
            ValueError: another number of images.
        """
        if len(refs) != len(self.images):
            raise ValueError(f"{len(refs)} images given for a trajectory of {len(self.images)}")
        rest = iter(refs[len(self.inputs) :])
        steps = tuple(
            replace(s, image=next(rest)) if isinstance(s, Sketch) else s for s in self.steps
        )
        return replace(self, inputs=tuple(refs[: len(self.inputs)]), steps=steps)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data; images appear by name, their bytes are left out.

        Raises:
            ValueError: an image has no name (shards and reports give names as they write).
        """
        return {
            "version": VERSION,
            "prompt": self.prompt,
            # Only where there is one, so that the text of all others is what it always was.
            **({} if self.system is None else {"system": self.system}),
            "task": self.task,
            "inputs": [name_of(ref, f"inputs[{i}]") for i, ref in enumerate(self.inputs)],
            "steps": [step_to_dict(step, i) for i, step in enumerate(self.steps)],
            "scene_graph": strict_json.checked(self.scene_graph, "scene_graph"),
            "provenance": strict_json.checked(self.provenance, "provenance"),
        }

    @classmethod
    def from_dict(cls, data: Any) -> "Trajectory":
        """Read what `to_dict` wrote; images come back as names without bytes.

        Raises:
            TrajectoryError: an illegal order.
            ValueError: another version, an unknown key, a wrong type or size, with its place.
        """
        strict_json.record(
            data,
            "trajectory",
            {"version": int, "prompt": str, "steps": list},
            {"system": str, "task": str, "inputs": list, "scene_graph": dict, "provenance": dict},
        )
        if data["version"] != VERSION:
            raise ValueError(f"trajectory.version: {data['version']} is not {VERSION}")
        for name, limit in (("steps", MAX_STEPS), ("inputs", MAX_INPUTS)):
            if len(data.get(name) or ()) > limit:
                raise ValueError(f"trajectory.{name}: {len(data[name])} exceed {limit}")
        return cls(
            prompt=data["prompt"],
            system=data.get("system"),
            task=data.get("task"),
            inputs=tuple(
                ref_of(name, f"inputs[{i}]") for i, name in enumerate(data.get("inputs") or ())
            ),
            steps=tuple(step_from_dict(item, i) for i, item in enumerate(data["steps"])),
            scene_graph=data.get("scene_graph"),
            provenance=data.get("provenance") or {},
        )

    def to_json(self) -> str:
        """Serialise canonically: equal trajectories give equal text. See `to_dict`."""
        return strict_json.dumps(self.to_dict())

    @classmethod
    def from_json(cls, text: str | bytes) -> "Trajectory":
        """Parse strictly. See `from_dict`; syntax errors are ValueErrors too."""
        return cls.from_dict(strict_json.loads(text, place="trajectory", max_bytes=MAX_JSON_BYTES))
