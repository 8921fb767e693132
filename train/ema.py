"""An average of the weights that does not hide early learning."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor


class WeightAverage:
    """Exponential moving average with decay min(decay, (1 + n) / (10 + n)) at step n."""

    def __init__(self, parameters: Mapping[str, Tensor], decay: float) -> None:
        """Start as a copy of `parameters` (float32)."""
        self.decay = decay
        self.tensors = {name: p.detach().clone() for name, p in parameters.items()}

    @torch.no_grad()
    def update(self, parameters: Iterable[Tensor], step: int) -> None:
        """Move toward `parameters` after optimizer step number `step`, counted from 0."""
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.tensors.values()), list(parameters), weight)
