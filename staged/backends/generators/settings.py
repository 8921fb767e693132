"""How generators of images are set; read without torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from staged.backends.diffusers.settings import LoadSettings
from staged.ranges import check_range


@dataclass(frozen=True, kw_only=True)
class PipelineSettings(LoadSettings):
    """Any text-to-image pipeline of diffusers, and how it is called."""

    width: int | None = None
    """In pixels; null, here and below, leaves it to the pipeline."""
    height: int | None = None
    """In pixels."""
    num_inference_steps: int | None = None
    """Steps of the sampler."""
    guidance_scale: float | None = None
    """Strength of the prompt."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check_range(self, "width", "height", "num_inference_steps", minimum=1)
        check_range(self, "guidance_scale", minimum=0, maximum=1000)


@dataclass(frozen=True, kw_only=True)
class ImageServiceSettings:
    """Any service with the images API of OpenAI, and how it is asked."""

    model: str
    """Name of the model at the endpoint."""
    base_url: str = "http://127.0.0.1:8000/v1"
    """Address of the endpoint, up to and with its `/v1`."""
    api_key_env: str | None = None
    """Environment variable that holds the key, such as OPENAI_API_KEY; null sends none."""
    response_format: Literal["b64_json"] | None = "b64_json"
    """How the image comes back; null does not say it, for models that know one way alone."""
    seed_field: str | None = "seed"
    """Field that carries a sample's seed; null for an endpoint that takes none."""
    extra_body: dict[str, Any] = field(default_factory=dict)
    """Further fields of every request, such as `{quality: high}`."""
    concurrency: int = 8
    """Most requests in flight."""
    max_attempts: int = 6
    """Attempts per request, the first included."""
    timeout_s: float = 300.0
    """Longest wait for one attempt."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check_range(self, "concurrency", "max_attempts", minimum=1)
        check_range(self, "timeout_s", minimum=0, above=True)


@dataclass(frozen=True, kw_only=True)
class EndpointSettings(ImageServiceSettings):
    """A service that draws from prompts."""

    size: str | None = "1024x1024"
    """Width and height in pixels; null leaves them to the endpoint."""
    usd_per_image: float = 0.0
    """Price of an image, where it has one."""
    usd_per_million_input_tokens: float = 0.0
    """Price of what is sent, where the endpoint counts tokens."""
    usd_per_million_output_tokens: float = 0.0
    """Price of what comes back, where the endpoint counts tokens."""

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        prices = ("usd_per_image", "usd_per_million_input_tokens", "usd_per_million_output_tokens")
        check_range(self, *prices, minimum=0)


@dataclass(frozen=True, kw_only=True)
class EditingServiceSettings(ImageServiceSettings):
    """A service that edits images, at `images/edits`."""

    licence: str
    """Terms that the outputs carry; every sample and the dataset card say them."""
    sends_size: bool = True
    """Say the size of the image; otherwise it must come out in the right one by itself."""
    first_step_without_image: bool = True
    """Draw a first step at `images/generations`; otherwise onto a white canvas."""
