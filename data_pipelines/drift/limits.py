"""How much drift passes, and how much of it is undone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from staged.ranges import check_range

if TYPE_CHECKING:
    from data_pipelines.drift.measure import Drift


@dataclass(frozen=True, kw_only=True)
class DriftLimits:
    """Most that an edit may do to all of a picture; null: measured, and let pass."""

    max_shift: float | None = 0.01
    """Shift, as a share of the longer side."""
    max_zoom: float | None = 0.01
    """Change of size, as a share of it."""
    max_turn_deg: float | None = 0.5
    """Turn, in degrees."""
    max_tint: float | None = 10.0
    """Change of any of red, green and blue outside the edit, in levels of 255."""
    max_contrast: float | None = 0.15
    """Change of the contrast outside the edit, as a share of it."""
    max_detail: float | None = 0.4
    """Loss or gain of the finest detail outside the edit, as a share of it."""
    min_found: float | None = None
    """Least share of the edges before that must be found again, 0 to 1: those of what a step swaps,
    moves or removes are not, so leave room for them."""
    from_first: float | None = 2.0
    """Against a trajectory's first sketch that passed, the limits of motion, colours and detail are
    so many times as wide; null: not compared."""
    realign: bool = True
    """Undo a shift, zoom or turn beyond its limit instead of refusing the drawing."""
    max_realigned: float = 0.05
    """Farthest that any corner may be moved back, as a share of the longer side."""
    min_explained: float = 0.2
    """Least share of the difference between two pictures that must go when the motion is undone."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check_range(self, "max_shift", "max_zoom", "max_realigned", minimum=0, maximum=0.2)
        check_range(self, "max_turn_deg", minimum=0, maximum=12)
        check_range(self, "max_tint", minimum=0, maximum=255)
        check_range(self, "max_contrast", "max_detail", minimum=0)
        check_range(self, "min_found", "min_explained", minimum=0, maximum=1)
        check_range(self, "from_first", minimum=1)

    def mends(self, drift: Drift) -> bool:
        """Whether a drawing is to be laid back onto the one before."""
        return (
            self.realign
            and any(name in ("shift", "zoom", "turn") for name, _ in self.exceeded(drift))
            and drift.moved <= self.max_realigned
            and drift.explained >= self.min_explained
        )

    def exceeded(self, drift: Drift, *, times: float = 1.0) -> Iterator[tuple[str, str]]:
        """Yield each limit that a drift exceeds: its name, and the measure in words.

        Args:
            drift: What was measured.
            times: As wide are the limits.
        """
        motion = drift.motion
        measured = (
            ("shift", motion.shift, self.max_shift, f"{motion.shift:.2%} of the side"),
            ("zoom", abs(motion.zoom - 1), self.max_zoom, f"{motion.zoom:.3f} times the size"),
            ("turn", abs(motion.turn_deg), self.max_turn_deg, f"{motion.turn_deg:.2f} degrees"),
            ("tint", drift.most_tint, self.max_tint, f"{drift.most_tint:.1f} of 255"),
            ("contrast", abs(drift.contrast - 1), self.max_contrast, f"{drift.contrast:.2f} times"),
            ("detail", abs(drift.detail - 1), self.max_detail, f"{drift.detail:.2f} times"),
        )
        for name, value, limit, words in measured:
            if limit is not None and value > limit * times:
                yield name, words

    def drawn_anew(self, drift: Drift) -> bool:
        """Whether too little of the picture before is found again."""
        return self.min_found is not None and drift.found < self.min_found
