"""Settings of the self-rewarding prompt optimiser; read without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, get_args

from staged import settings as job_settings
from staged.backends.deciding import decisive
from staged.backends.generators.settings import EndpointSettings, PipelineSettings
from staged.command_line import MAX_SEED
from staged.generate.settings import ModelSettings
from staged.jobs.budget import Budget
from staged.ranges import check_range

Rubric = Literal["aesthetic", "preference", "alignment"]
RUBRICS: Final[tuple[Rubric, ...]] = get_args(Rubric)
WordingName = Literal["full", "terse"]
_PUBLISHED: Final = PipelineSettings(
    model="stable-diffusion-v1-5/stable-diffusion-v1-5",
    width=512,
    height=512,
    num_inference_steps=20,
)


@dataclass(frozen=True, kw_only=True)
class SamplingSettings:
    """How texts are sampled."""

    temperature: float = 0.9
    """Of the softmax; 0 takes the likeliest token."""
    top_p: float = 0.9
    """Least probability of the tokens that are sampled from."""
    max_new_tokens: int = 256
    """Of a text, at most; one that runs longer is cut off and counts as invalid."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check_range(self, "temperature", minimum=0, maximum=100)
        check_range(self, "top_p", minimum=0, maximum=1, above=True)
        check_range(self, "max_new_tokens", minimum=1)


@dataclass(frozen=True, kw_only=True)
class LoraOptions:
    """A LoRA (PEFT) that is trained instead of the weights."""

    rank: int = 64
    """Rank of each addition."""
    alpha: int = 128
    """Scale times rank."""
    dropout: float = 0.0
    """Of what goes into it."""
    targets: str = "all-linear"
    """Modules, as PEFT names them: `all-linear`, or a regular expression."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check_range(self, "rank", "alpha", minimum=1)
        check_range(self, "dropout", minimum=0, maximum=1)


@dataclass(frozen=True, kw_only=True)
class VlmSettings:
    """The vision-language model that is trained."""

    model: str = "Qwen/Qwen3-VL-8B-Instruct"
    """Folder or Hub id of a model of transformers that reads images and writes text."""
    lora: LoraOptions | None = None
    """Train a LoRA; null trains all weights."""
    wording: WordingName = "full"
    """How it is asked: in full sentences, or in a few words, for models as small as the
    miniature's."""
    device: str = "auto"
    """Torch device; `auto` is a GPU, one a process, or the CPU."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision; `auto` is bfloat16 where the device multiplies it fast."""


@dataclass(frozen=True, kw_only=True)
class TuningSettings:
    """How weights are trained, by TRL; the defaults are those of the paper's first stage."""

    learning_rate: float = 2e-5
    """Peak; reached by a linear warm-up and left by a cosine."""
    batch_size: int = 16
    """Examples of a step, over all processes."""
    micro_batch_size: int = 1
    """Examples that a process holds at a time."""
    epochs: float = 1.0
    """Passes over the data."""
    warmup: float = 0.03
    """Share of the steps."""
    weight_decay: float = 0.1
    """Of AdamW."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Of AdamW."""
    max_grad_norm: float = 1.0
    """Longer gradients are shortened to it."""
    gradient_checkpointing: bool = False
    """Compute activations twice instead of keeping them."""
    save_every_steps: int = 500
    """States to go on from after a kill."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check_range(self, "learning_rate", "epochs", "max_grad_norm", minimum=0, above=True)
        check_range(self, "batch_size", "micro_batch_size", "save_every_steps", minimum=1)
        check_range(self, "warmup", minimum=0, maximum=1)
        check_range(self, "weight_decay", minimum=0)
        if self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"batch_size {self.batch_size} is no multiple of micro_batch_size "
                f"{self.micro_batch_size}; choose one that is"
            )


@dataclass(frozen=True, kw_only=True)
class DpoSettings(TuningSettings):
    """Direct preference optimisation, one iteration after another."""

    learning_rate: float = 1e-5
    """Peak, of the first iteration."""
    later_learning_rate: float = 5e-6
    """Peak, of the others."""
    batch_size: int = 32
    """Pairs of a step, over all processes."""
    epochs: float = 4.0
    """Passes over the pairs."""
    weight_decay: float = 0.0
    """Of AdamW."""
    beta: float = 0.1
    """How much leaving the model of the iteration before costs."""

    def __post_init__(self) -> None:
        """Check ranges."""
        TuningSettings.__post_init__(self)
        check_range(self, "beta", "later_learning_rate", minimum=0, above=True)

    def rate(self, iteration: int) -> float:
        """Peak learning rate of an iteration, from 1."""
        return self.learning_rate if iteration == 1 else self.later_learning_rate


@dataclass(frozen=True, kw_only=True)
class JudgeSettings:
    """How the model judges pictures, and its own judgement."""

    rubrics: tuple[Rubric, ...] = RUBRICS
    """What is asked about, each by itself, from 0 to 5."""
    num_samples: int = 3
    """Answers to each question."""
    both_orders: bool = True
    """Ask with the pictures in either order, so that a liking for one place cancels."""
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    """Of the answers."""
    assessed_rubrics: tuple[Rubric, ...] = ("aesthetic", "preference")
    """Rubrics whose answers are assessed in their turn, and become pairs."""
    max_assessed: int | None = 10_000
    """Questions whose answers are assessed, at most; null for all."""

    def __post_init__(self) -> None:
        """Check names and ranges."""
        for name in ("rubrics", "assessed_rubrics"):
            given = getattr(self, name)
            if len(set(given)) != len(given) or not set(given) <= set(RUBRICS):
                raise ValueError(f"{name} {given}: give each once, of {', '.join(RUBRICS)}")
        if not self.rubrics or not set(self.assessed_rubrics) <= set(self.rubrics):
            raise ValueError("rubrics: name at least one, and each of assessed_rubrics")
        check_range(self, "num_samples", minimum=1)
        check_range(self, "max_assessed", minimum=0)


@dataclass(frozen=True, kw_only=True)
class ImageModelSettings:
    """The image model whose prompts are optimised: one of the three."""

    model: ModelSettings | None = None
    """A checkpoint of ours."""
    pipeline: PipelineSettings | None = None
    """A text-to-image pipeline of diffusers."""
    endpoint: EndpointSettings | None = None
    """A service with the images API of OpenAI."""

    def __post_init__(self) -> None:
        """Check that there is one.

        Raises:
            ValueError: None is named, or several.
        """
        named = [n for n in ("model", "pipeline", "endpoint") if getattr(self, n) is not None]
        if len(named) != 1:
            raise ValueError(
                f"{' and '.join(named) or 'nothing'} is named, and prompts are for one image "
                "model; name one of model, pipeline and endpoint"
            )

    @property
    def editor(self) -> None:
        """Nobody draws onto pictures here."""

    @property
    def miniature_lmm(self) -> bool:
        """Whether the miniature world's language model looks at the pictures: it never does."""
        return False


@dataclass(frozen=True, kw_only=True)
class SelfRewardSettings:
    """The whole of it: who is trained, on what, against which image model."""

    out: Path
    """Folder of everything that is made."""
    seed: int = 0
    """Of everything that is drawn at random."""
    vlm: VlmSettings = field(default_factory=VlmSettings)
    """The model that writes and judges."""
    images: ImageModelSettings | None = None
    """The image model, which stays as it is; null is the published one, Stable Diffusion 1.5."""
    sft_data: tuple[Path, ...] = ()
    """Files of examples for the first stage, as `staged self-reward import` writes them; none
    begins with the model as it is."""
    prompts: Path
    """File of prompts to learn from, one a line."""
    num_prompts: tuple[int, ...] = (10_000, 20_000)
    """How many each iteration takes, one iteration after the other; fewer where fewer are left."""
    num_candidates: int = 8
    """Rewrites of a prompt."""
    rollout: SamplingSettings = field(default_factory=SamplingSettings)
    """Of the rewrites."""
    judge: JudgeSettings = field(default_factory=JudgeSettings)
    """How pictures become scores."""
    alignment_tolerance: float | None = 0.0
    """A rewrite is chosen only if its picture is at most so much worse aligned with the original
    prompt than the original's picture; null lets beauty pay for it."""
    sft: TuningSettings = field(default_factory=TuningSettings)
    """Training of the first stage."""
    dpo: DpoSettings = field(default_factory=DpoSettings)
    """Training of each iteration."""
    num_beams: int = 4
    """Of `optimise`, which writes the likeliest prompt."""
    budget: Budget = field(default_factory=Budget)
    """What the pictures of an iteration may cost."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: A value is out of range, or values contradict one another.
        """
        check_range(self, "seed", minimum=0, maximum=MAX_SEED)
        check_range(self, "num_beams", minimum=1)
        check_range(self, "num_candidates", minimum=2)
        check_range(self, "alignment_tolerance", minimum=0)
        if not self.num_prompts or any(number < 1 for number in self.num_prompts):
            raise ValueError(f"num_prompts {self.num_prompts}: one number an iteration, from 1")
        if self.alignment_tolerance is not None and "alignment" not in self.judge.rubrics:
            raise ValueError(
                "alignment_tolerance asks for alignment, which judge.rubrics leaves out; add it, "
                "or set the tolerance to null"
            )

    @property
    def image_model(self) -> ImageModelSettings:
        """The image model whose prompts are optimised."""
        return self.images or ImageModelSettings(pipeline=_PUBLISHED)

    def deciding(self, stage: str) -> Mapping[str, Any]:
        """What decides a stage's results beside what went into it, as plain data."""
        data = job_settings.to_dict(self)
        named = job_settings.to_dict(self.image_model)
        images = {name: decisive(part) for name, part in named.items() if part}
        vlm = {"wording": self.vlm.wording, "dtype": self.vlm.dtype}
        rollout = {
            "seed": self.seed,
            "vlm": vlm,
            "images": images,
            "num_candidates": self.num_candidates,
            "rollout": data["rollout"],
        }
        return rollout if stage == "rollout" else {**rollout, "judge": data["judge"]}
