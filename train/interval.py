"""What a line of the log tells: means over the steps since the line before."""

from __future__ import annotations

import json
from collections.abc import Mapping

# A setting, rates over a window of their own, and a peak.
_LATEST = ("lr", "step_s", "tokens_per_s", "data_wait", "tflop_per_s", "memory_gib", "mfu")
_MAX_CHARS = 1 << 20


class IntervalMeans:
    """Figures of steps, added up until a line is written; one step alone is mostly noise.

    A figure that some steps lack, such as the loss of a task, is averaged over the others. What is
    added up belongs to a run's state, so that one that was killed writes the same lines.
    """

    def __init__(self) -> None:
        """Begin with nothing."""
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}
        self._latest: dict[str, float] = {}

    def add(self, figures: Mapping[str, float]) -> None:
        """Add those of a step."""
        for name, value in figures.items():
            if name in _LATEST:
                self._latest[name] = value
            else:
                self._sums[name] = self._sums.get(name, 0.0) + value
                self._counts[name] = self._counts.get(name, 0) + 1

    def take(self) -> dict[str, float]:
        """The means, and begin anew."""
        means = {name: total / self._counts[name] for name, total in self._sums.items()}
        found = means | self._latest
        self._sums, self._counts, self._latest = {}, {}, {}
        return found

    def state(self) -> str:
        """What is added up, for `resume`."""
        return json.dumps([self._sums, self._counts])

    def resume(self, state: str | None) -> None:
        """Go on from what was added up; a state of an older run says nothing of it.

        Raises:
            ValueError: It is none.
        """
        if state is None:
            return
        try:
            if len(state) > _MAX_CHARS:
                raise ValueError("it is too long")
            sums, counts = json.loads(state)
            self._sums = {str(name): float(value) for name, value in sums.items()}
            self._counts = {str(name): int(value) for name, value in counts.items()}
            if (
                self._sums.keys() != self._counts.keys()
                or min(self._counts.values(), default=1) < 1
            ):
                raise ValueError("sums and counts differ")
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"the state of the log cannot be read: {error}") from error
