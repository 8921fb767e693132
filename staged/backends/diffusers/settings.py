"""How pipelines of diffusers are set; apart from them, since settings are read without torch."""

from dataclasses import dataclass, field
from typing import Any, Literal

from staged.ranges import check_range

CARRYING = "FluxKontextPipeline"
"""The pipeline whose edits may start from latents: others show the picture to their text encoder
too, or take no latents for it."""
LICENCES = {
    "black-forest-labs/FLUX.1-Kontext-dev": "FLUX.1 [dev] Non-Commercial License",
    "Qwen/Qwen-Image-Edit": "Apache-2.0",
    "Qwen/Qwen-Image-Edit-2509": "Apache-2.0",
}
"""Terms that outputs of known models carry; every sample and the dataset card say them."""


@dataclass(frozen=True, kw_only=True)
class PipelineLora:
    """A LoRA on a pipeline's transformer, and on its text encoders where it has weights of them."""

    model: str
    """Folder, or repository on the Hub."""
    licence: str
    """Terms that outputs carry on account of it, beside the model's."""
    file: str | None = None
    """Its file of safetensors, where there are several."""
    scale: float = 1.0
    """How strong it is."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check_range(self, "scale", minimum=-10, maximum=10)


@dataclass(frozen=True, kw_only=True)
class LoadSettings:
    """Which pipeline, where it runs, and what every call of it is given."""

    model: str
    """Folder, or repository on the Hub."""
    revision: str | None = None
    """Commit on the Hub; pin it where the pictures are to be repeated."""
    pipeline: str = "DiffusionPipeline"
    """Class in diffusers; this one takes the class that the model names."""
    device: str = "auto"
    """Torch device; `auto` is a GPU, one a process under torchrun, or the CPU."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Precision of the weights; `auto` is bfloat16 where the device multiplies it fast, and in a
    folder or job that goes on what it was begun in."""
    storage: Literal["dtype", "float8"] = "dtype"
    """In what the transformer's weights are kept: `float8` takes half the memory of bfloat16, and
    each layer is computed in `dtype` as before. Pictures become slightly different ones."""
    loras: tuple[PipelineLora, ...] = ()
    """LoRAs on it; more than one are added up."""
    offload: bool = False
    """Keep on the device only the part that runs: slower, for small devices."""
    guidance_argument: str = "guidance_scale"
    """What the pipeline calls it: `true_cfg_scale` for Qwen-Image and Qwen-Image-Edit."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """Further arguments of every call, such as `{negative_prompt: blurry}`."""


@dataclass(frozen=True, kw_only=True)
class DiffusersSettings(LoadSettings):
    """Which pipeline edits images, and how."""

    model: str = "black-forest-labs/FLUX.1-Kontext-dev"
    """Folder, or repository on the Hub."""
    pipeline: str = "FluxKontextPipeline"
    """Class in diffusers: `QwenImageEditPipeline`, `Flux2Pipeline`, …"""
    licence: str | None = None
    """Terms that the outputs carry; required for models that are not known here."""
    batch_size: int = 1
    """Images of one size in a call, for FLUX.1 Kontext; worth it for small images on a large
    device. The same seed gives the same image whatever is drawn beside it, as long as this stays;
    with another batch_size the last digits differ."""
    num_inference_steps: int = 28
    """Steps of the sampler."""
    guidance_scale: float = 2.5
    """Strength of the instruction."""
    first_step_without_image: bool = True
    """Draw a first step from text alone; otherwise onto a white canvas."""
    carry_latents: bool = False
    """Edit the latents that a picture was decoded from where they are known, in place of its
    pixels, so that autoencoder passes do not add up over the steps; for FLUX.1 Kontext."""

    def __post_init__(self) -> None:
        """Check ranges, that outputs have a licence, and that the pipeline takes latents."""
        check_range(self, "num_inference_steps", "batch_size", minimum=1)
        check_range(self, "guidance_scale", minimum=0, maximum=1000)
        if self.licence is None and self.model not in LICENCES:
            raise ValueError(
                f"licence: the terms of {self.model!r} are not known here; state them, since every "
                "sample carries them"
            )
        if self.carry_latents and self.pipeline != CARRYING:
            raise ValueError(
                f"carry_latents: {self.pipeline} ({self.model}) takes pictures alone; only "
                f"{CARRYING} edits latents: leave it out"
            )
