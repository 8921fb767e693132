"""What an optimizer keeps for a parameter: a tensor of zeros at first, cut as the parameter is."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from train.sharding import zeros_by_rows


@dataclass(frozen=True)
class Kept:
    """A tensor kept for a parameter.

    Attributes:
        shape: That of the parameter, as many rows, or none: one number.
        dtype: Of it.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32

    @property
    def nbytes(self) -> int:
        """Of all of it, on however many ranks."""
        return math.prod(self.shape) * self.dtype.itemsize

    def zeros(self, parameter: Tensor) -> Tensor:
        """Make it, where a parameter lies and cut among ranks as that is."""
        if not self.shape:
            return parameter.new_zeros((), dtype=self.dtype)
        if self.shape == tuple(parameter.shape):
            return torch.zeros_like(parameter, dtype=self.dtype)
        return zeros_by_rows(parameter, self.shape, self.dtype)
