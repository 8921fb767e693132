"""An average of the weights that does not hide early learning."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from train.sharding import local


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
        held = [local(tensor) for tensor in self.tensors.values()]
        torch._foreach_lerp_(held, [local(p) for p in parameters], weight)


@contextmanager
def averaged(
    parameters: Mapping[str, nn.Parameter], average: WeightAverage | None
) -> Iterator[None]:
    """Put averaged weights in place of `parameters` for a while; without an average, nothing."""
    pairs = (
        [] if average is None else [(p, average.tensors[name]) for name, p in parameters.items()]
    )
    _swap(pairs)
    try:
        yield
    finally:
        _swap(pairs)


def _swap(pairs: Iterable[tuple[nn.Parameter, Tensor]]) -> None:
    # Tensor by tensor: another copy of all weights might not fit.
    for parameter, tensor in pairs:
        held = parameter.data.clone()
        parameter.data.copy_(tensor)
        tensor.copy_(held)
