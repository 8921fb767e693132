"""How fast a run is, and whether it waits for its data."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from train.gpus import rate_of


def rate_of_device(device: torch.device, dtype: torch.dtype) -> float | None:
    """Operations a second by the data sheet of a device; None where none is known.

    Args:
        device: Of a run.
        dtype: In which it computes; rates are known of bfloat16.
    """
    if device.type != "cuda" or dtype is not torch.bfloat16:
        return None
    return rate_of(torch.cuda.get_device_name(device))


_NUM_STEPS = 32


class Throughput:
    """Tokens and work a second over the last steps, and the share of the time spent on waiting.

    What is done between steps (validation, pictures, grading, states) is not theirs: see `aside`.
    """

    def __init__(self) -> None:
        """Start the clock."""
        self._aside_s = 0.0
        self._marks = deque([(self._now(), 0, 0.0, 0)], maxlen=_NUM_STEPS + 1)

    def add(self, tokens: int, waited_s: float, flops: int) -> None:
        """Count a step that ends now.

        Args:
            tokens: Of its packs.
            waited_s: Seconds in which no pack was there.
            flops: Operations that the mathematics of its packs asks for.
        """
        _, total, waited, work = self._marks[-1]
        self._marks.append((self._now(), total + tokens, waited + waited_s, work + flops))

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Stop the clock for what is no step."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._aside_s += time.monotonic() - began

    @property
    def tokens_per_s(self) -> float:
        """Over the window."""
        return (self._marks[-1][1] - self._marks[0][1]) / self._seconds

    @property
    def flops_per_s(self) -> float:
        """Over the window."""
        return (self._marks[-1][3] - self._marks[0][3]) / self._seconds

    @property
    def data_wait(self) -> float:
        """Share in [0, 1] over the window."""
        return (self._marks[-1][2] - self._marks[0][2]) / self._seconds

    @property
    def step_s(self) -> float:
        """Seconds of a step, the mean over the window."""
        return self._seconds / max(len(self._marks) - 1, 1)

    def _now(self) -> float:
        return time.monotonic() - self._aside_s

    @property
    def _seconds(self) -> float:
        return max(self._marks[-1][0] - self._marks[0][0], 1e-9)
