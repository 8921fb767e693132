"""Counter-based randomness: every draw is a function of (seed, pack, place), never of history."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


class SampleRandom:
    """All random numbers of one sample in one pack."""

    def __init__(self, seed: int, pack: int, place: int) -> None:
        """Key the stream by run seed, number of the pack and the sample's place in it."""
        # 24 bits for the place are more samples than a pack holds, and leave 40 for steps.
        self._rng = np.random.Generator(np.random.Philox(key=[seed, (pack << 24) + place]))

    def chance(self, probability: float) -> bool:
        """True with the given probability; always takes one number from the stream."""
        return bool(self._rng.random() < probability)

    def timestep_logits(self, count: int) -> Tensor:
        """(count,) float32 standard normals, to be squashed by a sigmoid (logit-normal times).

        One falls into each of `count` slices of equal probability, in random order: copies of one
        picture then cover the range of times instead of crowding.
        """
        slices = self._rng.permutation(count) + self._rng.random(count)
        logits: Tensor = torch.special.ndtri(torch.from_numpy(slices / count).clamp(1e-6, 1 - 1e-6))
        return logits.float()

    def noise(self, rows: int, columns: int) -> Tensor:
        """(rows, columns) float32 standard normal."""
        return torch.from_numpy(self._rng.standard_normal((rows, columns), dtype=np.float32))
