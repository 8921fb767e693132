"""What a caller may ask of text and of images, and what comes back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from staged.model.finite import NotFiniteError
from staged.ranges import check_range

MAX_TEMPERATURE = 100.0
"""Beyond it every token is as likely as any other."""


@dataclass(frozen=True, kw_only=True)
class TextSampling:
    """How a text block is written.

    Attributes:
        max_tokens: Tokens of the block at most, markers not counted.
        temperature: 0 takes the likeliest token.
        top_p: Nucleus kept, in (0, 1].
        seed: Of this block's draws.
        begins: What the block may begin with; empty, with anything. A step that may not come is
            then never written, and of those that may the likeliest is.
    """

    max_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    begins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: A value is out of range, or a beginning is empty.
        """
        if "" in self.begins:
            raise ValueError(f"begins {self.begins}: one is empty; leave all out to allow anything")
        check_range(self, "max_tokens", minimum=1)
        check_range(self, "temperature", minimum=0, maximum=MAX_TEMPERATURE)
        check_range(self, "top_p", minimum=0, maximum=1, above=True)


@dataclass(frozen=True, kw_only=True)
class TextBlock:
    """A written block.

    Attributes:
        ids: Without markers.
        text: Decoded.
        finished: It closed itself; False when max_tokens cut it off.
        finite: The logits were numbers throughout. Where they were not the block broke off, and
            neither it nor its context is of any use.
    """

    ids: tuple[int, ...]
    text: str
    finished: bool
    finite: bool = True


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A drawn image, or what became of it.

    Attributes:
        latents: (n, Z) float32 tokens that the pixels were decoded from.
        decoded: (height, width, 3) uint8 RGB, or why there are none.
    """

    latents: Tensor
    decoded: NDArray[np.uint8] | NotFiniteError

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """(height, width, 3) uint8 RGB.

        Raises:
            NotFiniteError: Latents or pixels were no numbers.
        """
        if isinstance(self.decoded, NotFiniteError):
            raise self.decoded
        return self.decoded


def sample(logits: Tensor, sampling: TextSampling, generator: torch.Generator) -> int:
    """Draw a token from (V,) finite logits, at a temperature above 0."""
    # The largest is 0 before it is divided: the smallest temperature overflows to -inf at most,
    # whose probability is 0.
    wide = logits.double().cpu()
    probabilities = ((wide - wide.max()) / sampling.temperature).softmax(dim=-1).float()
    if sampling.top_p < 1:
        ordered, ids = probabilities.sort(descending=True)
        keep = ordered.cumsum(0) - ordered < sampling.top_p
        probabilities = torch.zeros_like(probabilities).index_copy(0, ids, ordered * keep)
    return int(torch.multinomial(probabilities, 1, generator=generator))
