"""How fast a run is, and whether it waits for its data."""

from __future__ import annotations

import time
from collections import deque


class Throughput:
    """Tokens a second over the last steps, and the share of the time spent waiting for data."""

    def __init__(self, window: int = 32) -> None:
        """Start the clock."""
        self._marks = deque([(time.monotonic(), 0, 0.0)], maxlen=window + 1)

    def add(self, tokens: int, waited_s: float) -> None:
        """Count a step that ends now."""
        _, total, waited = self._marks[-1]
        self._marks.append((time.monotonic(), total + tokens, waited + waited_s))

    @property
    def tokens_per_s(self) -> float:
        """Over the window."""
        return (self._marks[-1][1] - self._marks[0][1]) / self._seconds

    @property
    def data_wait(self) -> float:
        """Share in [0, 1] over the window."""
        return (self._marks[-1][2] - self._marks[0][2]) / self._seconds

    @property
    def _seconds(self) -> float:
        return max(self._marks[-1][0] - self._marks[0][0], 1e-9)
