"""How a checkpoint of ours draws; read without torch."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final, Literal

from staged.backends.bagel_settings import BagelSettings
from staged.backends.deciding import decisive
from staged.backends.lmm.settings import LmmSettings
from staged.engine.text_sampling import MAX_TEMPERATURE
from staged.loops.policy import Inspect, Mode, Player, Policy, Sketcher
from staged.model.flows import FlowSettings, Renorm
from staged.model.quantizations import Quantization
from staged.protocol import check_text
from staged.ranges import check_finite, check_range
from staged.settings import to_dict
from staged.trajectory import MAX_TEXT_CHARS

_GUIDANCE: Final = {
    "guidance_scale": "text_scale",
    "image_guidance_scale": "image_scale",
    "guidance_interval": "interval",
    "guidance_renorm": "renorm",
    "guidance_renorm_min": "renorm_min",
}
"""Settings to the fields of `Guidance` that they replace."""
_THINK_THEN: Final = {
    "draw": (
        "Reason first about what the image should show and how it is composed. Put this reasoning "
        "between <think> and </think>, and only then create the image."
    ),
    "answer": (
        "Reason first about what is asked and what can be seen. Put this reasoning between <think> "
        "and </think>, and only then give your answer."
    ),
}
"""In our own words; a user can give the published ones."""
MAX_REDRAWS: Final = 32
"""Of one sketch."""
FLOW_SETTINGS: Final = ("num_flow_steps", "timestep_shift", *_GUIDANCE)
"""Settings that replace what the checkpoint says of its pictures."""


OF_WEIGHTS: Final = ("checkpoint", "lora", "device", "dtype", "quantization")
"""Settings that say which weights are read, and how: those of a loaded model stay as they are."""


@dataclass(frozen=True, kw_only=True)
class DrawSettings:
    """A checkpoint of ours, and how it draws."""

    checkpoint: str
    """`miniature:base`, `miniature:staged`, a folder, or a Hub id; or a LoRA's folder, which names
    the checkpoint that it belongs to."""
    lora: Path | None = None
    """Folder of a LoRA (PEFT's format) to put upon the checkpoint."""
    mode: Mode = Policy.mode
    """Draw in stages, draw at once, or answer a question."""
    think: bool = Policy.think
    """Write a thought before drawing at once, or before answering, as BAGEL was taught to."""
    system_prompt: str | None = None
    """Text before everything else; null is one that asks for the thought, with `think`."""
    vision_only: bool = BagelSettings.vision_only
    """Read images as ViT copies alone, as BAGEL does to answer; otherwise as VAE copies too."""
    planner: Player = "model"
    """Who plans and directs; `scripted` players know the miniature world alone, `lmm` is a language
    model."""
    inspector: Player = "model"
    """Who inspects and refines; other than the model, it inspects whatever it may."""
    sketcher: Sketcher = "model"
    """Who draws; `editing` asks a model that knows no stages for one edit after another."""
    inspect_plan: Inspect = Policy.inspect_plan
    """Whether plans are inspected."""
    inspect_sketch: Inspect = Policy.inspect_sketch
    """Whether sketches are."""
    lmm: LmmSettings | None = None
    """Where the language model is that plays a role."""
    lmm_budget_usd: float | None = None
    """Most money for it over all runs of a folder; null for no limit."""
    max_rounds: int = Policy.max_rounds
    """Plans that are sketched, at most."""
    max_refinements: int = Policy.max_refinements
    """Of one plan, and of one round's sketch, at most."""
    max_redraws: int = 0
    """Times that a sketch is drawn again, from other noise, where the inspector refuses it, before
    it counts; 0 leaves what is refused to refinements. In stages alone, where sketches are
    inspected."""
    max_flow_steps: int = Policy.max_flow_steps
    """Network evaluations of a trajectory, at most."""
    max_attempts: int = Policy.max_attempts
    """Times that one step is tried before it fails."""
    temperature: float = BagelSettings.temperature
    """Of text; 0 takes the likeliest token."""
    max_text_tokens: int = BagelSettings.max_text_tokens
    """Of a text; one that runs longer is cut off and tried again."""
    width: int | None = None
    """In pixels; null is the largest square, or the size of an input image."""
    height: int | None = None
    """In pixels."""
    num_flow_steps: int | None = None
    """Network evaluations a sketch; null, here and below, is what the checkpoint says."""
    guidance_scale: float | None = None
    """Over the last text; 1 is off."""
    image_guidance_scale: float | None = None
    """Over images in context, beside the text; 1 is off."""
    guidance_interval: tuple[float, float] | None = None
    """Guidance is on where the shifted time, from 1 (noise) to 0, is in (low, high]."""
    guidance_renorm: Renorm | None = None
    """Over what the guided velocity is held to the length of the unguided one."""
    guidance_renorm_min: float | None = None
    """Least factor of that correction; 1 switches it off."""
    timestep_shift: float | None = None
    """Bias of the time grid toward noise."""
    device: str = "auto"
    """Torch device; `auto` is a GPU, one a process under torchrun, or the CPU."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the model; the autoencoder's is float32. `auto` is bfloat16 where the device
    multiplies it fast, and in a folder that has pictures what they were drawn in."""
    quantization: Quantization = "none"
    """To what weights of the experts are rounded as they are read: bytes, of half the memory that
    bfloat16 takes. `int8` computes in `dtype` on any device; `float8` multiplies in float8, on an
    H100 or later. Pictures differ."""

    def __post_init__(self) -> None:
        """Check names and ranges; those of a flow where it is built.

        Raises:
            ValueError: A value is out of range, or values contradict one another.
        """
        check_finite(self)
        check_range(self, "width", "height", minimum=1)
        check_range(self, "temperature", minimum=0, maximum=MAX_TEMPERATURE)
        # No text of a step may be longer, and a token is a character at least.
        check_range(self, "max_text_tokens", minimum=1, maximum=2 * MAX_TEXT_CHARS)
        if (self.width is None) != (self.height is None):
            raise ValueError(f"width {self.width}, height {self.height}: give both, or neither")
        check_range(self, "lmm_budget_usd", minimum=0)
        check_range(self, "max_redraws", minimum=0, maximum=MAX_REDRAWS)
        if self.mode != "staged" and self.planner != "model":
            raise ValueError(
                f"planner {self.planner}: {self.mode} mode plans nothing; give mode staged"
            )
        if self.asks_lmm != (self.lmm is not None):
            raise ValueError(
                "lmm.model is missing: name the language model that plays planner or inspector"
                if self.asks_lmm
                else "lmm: no role is a language model's; give planner lmm or inspector lmm"
            )
        if self.system_prompt is not None:
            try:
                check_text(self.system_prompt)
            except ValueError as error:
                raise ValueError(f"system_prompt: {error}") from None
        if self.think and self.sketcher != "model":
            raise ValueError(f"think: the sketcher is {self.sketcher}, who reads no thoughts")
        if self.think and self.checkpoint.startswith("miniature:"):
            raise ValueError(
                f"think: {self.checkpoint} was never taught to; give a checkpoint of BAGEL"
            )
        self.policy()

    @property
    def drawn_by(self) -> str:
        """What draws: the checkpoint, to what it is rounded, and the LoRA upon it."""
        rounded = "" if self.quantization == "none" else f" in {self.quantization}"
        upon = "" if self.lora is None else f" with {self.lora}"
        return f"{self.checkpoint}{rounded}{upon}"

    @property
    def asks_lmm(self) -> bool:
        """Whether a language model plays a role."""
        return "lmm" in (self.planner, self.inspector)

    @property
    def system(self) -> str | None:
        """What stands before everything else."""
        if self.system_prompt is None and self.think:
            return _THINK_THEN["answer" if self.mode == "answer" else "draw"]
        return self.system_prompt

    @property
    def redraws(self) -> int:
        """Times that a refused sketch is drawn again: 0 where nobody would refuse it."""
        refusing = self.mode == "staged" and self.inspect_sketch != "never"
        return self.max_redraws if refusing else 0

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of a picture in pixels, where they are given."""
        if self.width is None or self.height is None:
            return None
        return self.height, self.width

    def policy(self) -> Policy:
        """The loop's limits, before the choice of roles has its say."""
        names = {field.name for field in fields(Policy)}
        return Policy(**{name: value for name, value in vars(self).items() if name in names})

    def flow(self, default: FlowSettings) -> FlowSettings:
        """Change what a checkpoint says of one kind of picture.

        Raises:
            ValueError: A value is out of range.
        """
        given = {
            name: value for name in FLOW_SETTINGS if (value := getattr(self, name)) is not None
        }
        guidance = {_GUIDANCE[name]: given.pop(name) for name in _GUIDANCE if name in given}
        if guidance:
            given["guidance"] = replace(default.guidance, **guidance)
        return default.otherwise(**given)

    def decides(self) -> dict[str, Any]:
        """What decides a picture beside prompt, flow and weights, by name, as plain data."""
        not_deciding = ("checkpoint", "lora", "device", *FLOW_SETTINGS, "lmm_budget_usd")
        plain = {name: value for name, value in to_dict(self).items() if name not in not_deciding}
        # Only where there is one, so that what was drawn before there could be goes on.
        lmm, _ = plain.pop("lmm"), plain.pop("max_redraws")
        if self.redraws:
            plain["max_redraws"] = self.redraws
        if plain["quantization"] == "none":
            del plain["quantization"]
        return plain if lmm is None else {**plain, "lmm": decisive(lmm)}


@dataclass(frozen=True, kw_only=True)
class ModelSettings(DrawSettings):
    """A checkpoint of ours, and how it draws."""

    mode: Literal["one-shot", "staged"] = "one-shot"
    """Draw each prompt at once, or in stages."""

    @property
    def name(self) -> str:
        """Checkpoint and mode, to stand in a sentence."""
        return f"{self.drawn_by} {'in stages' if self.mode == 'staged' else 'in one shot'}"
