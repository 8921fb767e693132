"""The steps of a trajectory, and the images in them, checked as they are made."""

import re
from dataclasses import dataclass, field, fields
from typing import Any, Final, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from staged import images, strict_json

MAX_TEXT_CHARS: Final = 8192
"""Longest text of one field: an instruction, a description, a critique, a prompt, an answer."""

Target = Literal["plan", "sketch"]
Verdict = Literal["accept", "revise"]

_IMAGE_NAME: Final = re.compile(
    rf"[A-Za-z0-9_-]{{1,64}}\.(?:{'|'.join(images.EXTENSIONS.values())})", re.ASCII
)


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
        check_text(self.instruction, "plan instruction")
        check_text(self.description, "plan description")
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
        check_text(self.critique, "inspection critique")
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
        check_text(self.instruction, "refinement instruction")
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
        check_text(self.text, "thought text")
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
        check_text(self.text, "answer text")
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
STEP_NAMES: Final = {cls: name for name, cls in _KINDS.items()}


def step_to_dict(step: Step, index: int) -> dict[str, Any]:
    """Return one step of `to_dict`; `index` is its place, for messages."""
    data: dict[str, Any] = {"step": STEP_NAMES[type(step)]}
    for item in fields(step):
        value = getattr(step, item.name)
        data[item.name] = (
            name_of(value, f"steps[{index}]") if isinstance(value, ImageRef) else value
        )
    return data


def step_from_dict(data: Any, index: int) -> Step:
    """Read what `step_to_dict` wrote.

    Raises:
        ValueError: an unknown kind or key, a wrong type or size, with its place.
    """
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
            values["image"] = ref_of(values["image"], "image")
        return _KINDS[kind](**values)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None


def name_of(ref: ImageRef, place: str) -> str:
    """Return the name under which an image is written; `place` is for messages.

    Raises:
        ValueError: it has none.
    """
    if ref.name is None:
        raise ValueError(f"{place}: the image has no name; name it before writing JSON")
    return ref.name


def ref_of(name: Any, place: str) -> ImageRef:
    """Return an image by its name, without bytes; `place` is for messages.

    Raises:
        ValueError: it is no name of an image.
    """
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


def check_text(value: Any, place: str, *, max_chars: int = MAX_TEXT_CHARS) -> None:
    """Require a text that says something.

    Raises:
        ValueError: it is no text, empty or too long; names `place`.
    """
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
