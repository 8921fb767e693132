"""What the ranks of a run agree on after every step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class StepEnd:
    """What ranks have to agree on after a step.

    Attributes:
        stop: Number of a signal that came, or 0; on several ranks, the largest.
        late: `max_minutes` are over.
        trace: Somebody asks for a trace of the next step.
        tokens_per_s: Of one rank; in all, their sum.
        flops_per_s: Likewise.
        data_wait: Share of the time spent waiting for data; in all, the largest.
        step_s: Seconds of a step; in all, the largest.
        memory_gib: The most memory of its own that a rank has held so far; in all, the largest.
            None where the system does not tell.
    """

    stop: int
    late: bool
    trace: bool
    tokens_per_s: float
    flops_per_s: float
    data_wait: float
    step_s: float
    memory_gib: float | None

    def figures(self, peak: float | None) -> dict[str, float]:
        """What the log keeps of it.

        Args:
            peak: Operations a second of all devices by their data sheet; None where unknown.
        """
        figures = {
            "step_s": self.step_s,
            "tokens_per_s": self.tokens_per_s,
            "data_wait": self.data_wait,
            "tflop_per_s": self.flops_per_s / 1e12,
        }
        if self.memory_gib is not None:
            figures["memory_gib"] = self.memory_gib
        return figures if peak is None else {**figures, "mfu": self.flops_per_s / peak}

    @classmethod
    def of_all(cls, ends: Sequence[StepEnd]) -> StepEnd:
        """What holds for the run."""
        return cls(
            stop=max(end.stop for end in ends),
            late=any(end.late for end in ends),
            trace=any(end.trace for end in ends),
            tokens_per_s=sum(end.tokens_per_s for end in ends),
            flops_per_s=sum(end.flops_per_s for end in ends),
            data_wait=max(end.data_wait for end in ends),
            step_s=max(end.step_s for end in ends),
            memory_gib=max((e.memory_gib for e in ends if e.memory_gib is not None), default=None),
        )
