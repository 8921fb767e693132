"""What a caller may ask of text and of images, and what comes back."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from staged.model.flow import Guidance


@dataclass(frozen=True, kw_only=True)
class TextSampling:
    """How a text block is written.

    Attributes:
        max_tokens: Tokens of the block at most, markers not counted.
        temperature: 0 takes the likeliest token.
        top_p: Nucleus kept, in (0, 1].
        seed: Of this block's draws.
    """

    max_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: A value is out of range.
        """
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens is {self.max_tokens}; give at least 1")
        if self.temperature < 0:
            raise ValueError(f"temperature is {self.temperature}; give 0 (greedy) or more")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}; give a value in (0, 1]")


@dataclass(frozen=True, kw_only=True)
class TextBlock:
    """A written block.

    Attributes:
        ids: Without markers.
        text: Decoded.
        finished: It closed itself; False when max_tokens cut it off.
    """

    ids: tuple[int, ...]
    text: str
    finished: bool


@dataclass(frozen=True, kw_only=True)
class FlowSettings:
    """How images are drawn.

    Attributes:
        num_flow_steps: Network evaluations of the full branch.
        timestep_shift: Bias of the time grid toward noise.
        guidance: Scales, interval and renormalisation.
    """

    num_flow_steps: int = 49
    timestep_shift: float = 3.0
    guidance: Guidance = field(default_factory=Guidance)


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A drawn image.

    Attributes:
        pixels: (height, width, 3) uint8 RGB.
        latents: (n, Z) float32 tokens that the pixels were decoded from.
    """

    pixels: NDArray[np.uint8]
    latents: Tensor


def choose(logits: Tensor, sampling: TextSampling, generator: torch.Generator) -> int:
    """Pick a token from (V,) logits."""
    if sampling.temperature == 0:
        return int(logits.argmax())
    probabilities = (logits.float().cpu() / sampling.temperature).softmax(dim=-1)
    if sampling.top_p < 1:
        ordered, ids = probabilities.sort(descending=True)
        keep = ordered.cumsum(0) - ordered < sampling.top_p
        probabilities = torch.zeros_like(probabilities).index_copy(0, ids, ordered * keep)
    return int(torch.multinomial(probabilities, 1, generator=generator))
