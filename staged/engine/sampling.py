"""What a caller may ask of text and of images, and what comes back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from staged.engine.text_sampling import TextSampling
from staged.model.finite import NotFiniteError


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
