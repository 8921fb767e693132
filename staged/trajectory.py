"""The trajectory: a prompt and the ordered steps a model takes to answer it with an image.

It is the one type that everything passes around: pipelines write it, training reads it, the
loop emits it, evaluation scores it and the report draws it.

Legal orders (the published method's, and short forms of the same type):

    staged         prompt round+ stop
                   round := plan [inspect-plan [refine plan]]*
                            sketch [inspect-sketch [refine sketch]]*
    one-shot,      prompt [think] sketch [inspect-sketch [refine sketch]]* stop
    editing        (the same with input images; one round without a plan)
    understanding  prompt answer stop
    interleaved    prompt [think sketch [inspect-sketch [refine sketch]]*]+ [answer] stop

A refinement follows exactly the inspections whose verdict is "revise". A trajectory that cannot
be continued legally cannot be built; one that is not finished (a loop in progress, a rollout that
failed) is any prefix of these orders, and `validate()` says whether it is complete.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from staged import images, strict_json

VERSION: Final = 1
MAX_STEPS: Final = 128
MAX_INPUTS: Final = 16
MAX_TEXT_CHARS: Final = 8192
"""Longest text of one field: an instruction, a description, a critique, a prompt, an answer."""
MAX_PROVENANCE_ITEMS: Final = 4096
MAX_JSON_BYTES: Final = 32 * 2**20
"""Above what the bounds above allow, so that every legal trajectory can be read back."""

Target = Literal["plan", "sketch"]
Verdict = Literal["accept", "revise"]
Move = Literal[
    "plan",
    "sketch",
    "inspect plan",
    "inspect sketch",
    "refine plan",
    "refine sketch",
    "answer",
    "think",
    "stop",
]
"""What a step does. The kind of the next step together with what it is about."""

_IMAGE_NAME: Final = re.compile(
    rf"[A-Za-z0-9_-]{{1,64}}\.(?:{'|'.join(images.EXTENSIONS.values())})", re.ASCII
)


class TrajectoryError(ValueError):
    """The order of the steps is illegal.

    Attributes:
        index: Index in `steps` of the offending step; `len(steps)` when one is missing.
    """

    def __init__(self, index: int, reason: str) -> None:
        """Name the step and the reason."""
        super().__init__(f"steps[{index}]: {reason}")
        self.index = index
        self.reason = reason


@dataclass(frozen=True, kw_only=True)
class ImageRef:
    """An image of a trajectory: bytes in memory, a named file beside the JSON, or both.

    Attributes:
        png: Encoded bytes; what this project writes is PNG, WebP and JPEG are read too.
        name: File name without its folder and sample key, such as `0.png`: one stem without
            dots, and an extension of png, webp or jpg.
    """

    png: bytes | None = field(default=None, repr=False)
    name: str | None = None

    def __post_init__(self) -> None:
        """Check types and the name."""
        if self.png is None and self.name is None:
            raise ValueError("ImageRef: give the encoded bytes, the file name, or both")
        if self.png is not None and type(self.png) is not bytes:
            raise ValueError(f"ImageRef.png: expected bytes, got {type(self.png).__name__}")
        if self.name is not None:
            _check_image_name(self.name)

    @classmethod
    def from_array(cls, pixels: NDArray[np.uint8], *, name: str | None = None) -> Self:
        """Encode (h, w, 3) uint8 RGB as PNG."""
        return cls(png=images.encode_png(pixels), name=name)

    @property
    def loaded(self) -> bytes:
        """The encoded bytes.

        Raises:
            ValueError: only a name is known.
        """
        if self.png is None:
            raise ValueError(f"image {self.name!r} is not loaded; read it from its sample first")
        return self.png

    def array(self, *, max_pixels: int = images.MAX_PIXELS) -> NDArray[np.uint8]:
        """Decode to (h, w, 3) uint8 RGB.

        Raises:
            ValueError: only a name is known, or the bytes are no image within the limit.
        """
        return images.decode(self.loaded, max_pixels=max_pixels)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to change next, and the whole scene after it.

    Attributes:
        instruction: The next change.
        description: The scene once it is drawn.
        loss: Whether training is supervised on this step.
    """

    instruction: str
    description: str
    loss: bool = True

    def __post_init__(self) -> None:
        """Check types and sizes."""
        _check_text(self.instruction, "plan instruction")
        _check_text(self.description, "plan description")
        _check_bool(self.loss, "plan loss")


@dataclass(frozen=True, kw_only=True)
class Sketch:
    """An image drawn.

    Attributes:
        image: The image.
        seed: Seed of its noise; None where it was not sampled or is unknown.
        num_flow_steps: Network evaluations of the flow that drew it, those of drawings that were
            refused in its place among them; 0 where none did.
        loss: Whether training is supervised on this step.
    """

    image: ImageRef
    seed: int | None = None
    num_flow_steps: int = 0
    loss: bool = True

    def __post_init__(self) -> None:
        """Check types and sizes."""
        if not isinstance(self.image, ImageRef):
            raise ValueError(f"sketch image: expected ImageRef, got {type(self.image).__name__}")
        if self.seed is not None:
            _check_count(self.seed, "sketch seed", strict_json.MAX_INT)
        _check_count(self.num_flow_steps, "sketch num_flow_steps", 1_000_000)
        _check_bool(self.loss, "sketch loss")


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """A check of the last plan against the prompt, or of the last sketch against its plan.

    Attributes:
        target: What was inspected.
        verdict: Whether to go on or to refine.
        critique: What was seen.
        loss: Whether training is supervised on this step.
    """

    target: Target
    verdict: Verdict
    critique: str
    loss: bool = True

    def __post_init__(self) -> None:
        """Check types and sizes."""
        _check_choice(self.target, get_args(Target), "inspection target")
        _check_choice(self.verdict, get_args(Verdict), "inspection verdict")
        _check_text(self.critique, "inspection critique")
        _check_bool(self.loss, "inspection loss")


@dataclass(frozen=True, kw_only=True)
class Refinement:
    """How to correct what the inspection before it refused; a new plan or sketch follows.

    Attributes:
        instruction: The correction.
        loss: Whether training is supervised on this step.
    """

    instruction: str
    loss: bool = True

    def __post_init__(self) -> None:
        """Check types and sizes."""
        _check_text(self.instruction, "refinement instruction")
        _check_bool(self.loss, "refinement loss")


@dataclass(frozen=True, kw_only=True)
class Thought:
    """What a model thinks before it draws, as BAGEL's own thinking mode has it.

    Attributes:
        text: Its tags included.
        loss: Whether training is supervised on this step.
    """

    text: str
    loss: bool = True

    def __post_init__(self) -> None:
        """Check types and sizes."""
        _check_text(self.text, "thought text")
        _check_bool(self.loss, "thought loss")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The text that answers a question about the input images.

    Attributes:
        text: The answer.
        loss: Whether training is supervised on this step.
    """

    text: str
    loss: bool = True

    def __post_init__(self) -> None:
        """Check types and sizes."""
        _check_text(self.text, "answer text")
        _check_bool(self.loss, "answer loss")


@dataclass(frozen=True, kw_only=True)
class Stop:
    """The end.

    Attributes:
        loss: Whether training is supervised on this step.
    """

    loss: bool = True

    def __post_init__(self) -> None:
        """Check types."""
        _check_bool(self.loss, "stop loss")


TextStep = Plan | Inspection | Refinement | Answer | Thought
Step = Plan | Sketch | Inspection | Refinement | Answer | Thought | Stop

_KINDS: Final[dict[str, type[Step]]] = {
    "plan": Plan,
    "sketch": Sketch,
    "inspection": Inspection,
    "refinement": Refinement,
    "answer": Answer,
    "thought": Thought,
    "stop": Stop,
}
_NAMES: Final = {cls: name for name, cls in _KINDS.items()}


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
        _check_text(self.prompt, "prompt")
        if self.system is not None:
            _check_text(self.system, "system")
        if self.task is not None:
            _check_text(self.task, "task", max_chars=128)
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
        return _legal_after(made, self.steps[-1] if self.steps else None)

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
            "inputs": [_name_of(ref, f"inputs[{i}]") for i, ref in enumerate(self.inputs)],
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
                _ref_of(name, f"inputs[{i}]") for i, name in enumerate(data.get("inputs") or ())
            ),
            steps=tuple(_step_from_dict(item, i) for i, item in enumerate(data["steps"])),
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


def moves(steps: Sequence[Step]) -> tuple[Move, ...]:
    """Say what each step does, checking that their order is legal.

    Raises:
        TrajectoryError: with the index of the first step that may not stand where it stands.
    """
    made: list[Move] = []
    for i, step in enumerate(steps):
        if type(step) not in _NAMES:
            raise TrajectoryError(i, f"{type(step).__name__} is no step")
        before = steps[i - 1] if i else None
        move = _move(step, before)
        legal = _legal_after(made, before)
        if move not in legal:
            place = f"after {made[-1]}" if made else "at the start"
            expected = " or ".join(legal) or "nothing"
            raise TrajectoryError(i, f"{move} may not come {place}; expected {expected}")
        made.append(move)
    return tuple(made)


def _move(step: Step, before: Step | None) -> Move:
    match step:
        case Inspection(target=target):
            return "inspect plan" if target == "plan" else "inspect sketch"
        case Refinement():
            # A refinement is of what was just inspected; elsewhere it is illegal either way.
            about_plan = isinstance(before, Inspection) and before.target == "plan"
            return "refine plan" if about_plan else "refine sketch"
        case Plan():
            return "plan"
        case Sketch():
            return "sketch"
        case Answer():
            return "answer"
        case Thought():
            return "think"
        case Stop():
            return "stop"


def _legal_after(made: Sequence[Move], before: Step | None) -> tuple[Move, ...]:
    if not made:
        return ("plan", "sketch", "answer", "think")
    if isinstance(before, Inspection) and before.verdict == "revise":
        return ("refine plan",) if before.target == "plan" else ("refine sketch",)
    match made[-1]:
        case "plan" | "inspect plan":
            return ("inspect plan", "sketch")
        case "refine plan":
            return ("plan",)
        case "refine sketch" | "think":
            return ("sketch",)
        case "sketch" | "inspect sketch":
            # A trajectory that began at once has one round only; one that began with a thought may
            # be a chain of thoughts and pictures, to an answer in the end.
            further: dict[Move, tuple[Move, ...]] = {
                "plan": ("plan",),
                "think": ("think", "answer"),
            }
            return ("inspect sketch", "stop", *further.get(made[0], ()))
        case "answer":
            return ("stop",)
        case "stop":
            return ()


def step_to_dict(step: Step, index: int) -> dict[str, Any]:
    """Return one step of `to_dict`; `index` is its place, for messages."""
    data: dict[str, Any] = {"step": _NAMES[type(step)]}
    for item in fields(step):
        value = getattr(step, item.name)
        data[item.name] = (
            _name_of(value, f"steps[{index}]") if isinstance(value, ImageRef) else value
        )
    return data


def _step_from_dict(data: Any, index: int) -> Step:
    place = f"steps[{index}]"
    kind = data.get("step") if type(data) is dict else None
    if type(kind) is not str or kind not in _KINDS:
        raise ValueError(f"{place}.step: {kind!r:.80} is none of {', '.join(_KINDS)}")
    required: dict[str, type] = {"step": str, "loss": bool}
    optional: dict[str, type] = {}
    if kind == "sketch":
        required |= {"image": str, "num_flow_steps": int}
        optional = {"seed": int}
    else:
        required |= {item.name: str for item in fields(_KINDS[kind]) if item.name != "loss"}
    values = dict(strict_json.record(data, place, required, optional))
    del values["step"]
    try:
        if kind == "sketch":
            values["image"] = _ref_of(values["image"], "image")
        return _KINDS[kind](**values)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None


def _name_of(ref: ImageRef, place: str) -> str:
    if ref.name is None:
        raise ValueError(f"{place}: the image has no name; name it before writing JSON")
    return ref.name


def _ref_of(name: Any, place: str) -> ImageRef:
    if type(name) is not str:
        raise ValueError(f"{place}: expected the name of an image, got {type(name).__name__}")
    try:
        return ImageRef(name=name)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None


def _check_image_name(name: str) -> None:
    if type(name) is not str or not _IMAGE_NAME.fullmatch(name):
        raise ValueError(
            f"image name {name!r:.80}: expected letters, digits, _ or -, then .png, .webp or .jpg"
        )


def _check_text(value: Any, place: str, *, max_chars: int = MAX_TEXT_CHARS) -> None:
    strict_json.unicode_text(value, place)
    if not value.strip():
        raise ValueError(f"{place}: empty; every text says something")
    if len(value) > max_chars:
        raise ValueError(f"{place}: {len(value)} characters exceed the limit of {max_chars}")


def _check_bool(value: Any, place: str) -> None:
    if type(value) is not bool:
        raise ValueError(f"{place}: expected true or false, got {value!r:.80}")


def _check_count(value: Any, place: str, most: int) -> None:
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(f"{place}: expected an integer from 0 to {most}, got {value!r:.80}")


def _check_choice(value: Any, choices: tuple[str, ...], place: str) -> None:
    if value not in choices:
        raise ValueError(f"{place}: {value!r:.80} is none of {', '.join(choices)}")
