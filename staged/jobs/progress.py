"""One line of progress, rewritten on a terminal and printed now and then elsewhere."""

from __future__ import annotations

import sys
import time

from staged.command_line import console


class Progress:
    """Counts work of a known size and shows rate and time left."""

    def __init__(self, label: str, total: int, *, unit: str = "", done: int = 0) -> None:
        """Start the clock.

        Args:
            label: Of the line.
            total: Units in all.
            unit: What the rate is called, such as `images/s`; none is shown without it.
            done: Units that were there before.
        """
        self.label, self.total, self.done, self.unit = label, total, done, unit
        self._first, self._began = done, time.monotonic()
        # Where it cannot be rewritten, a line stays, and fewer are wanted.
        self._every_s = 0.2 if sys.stderr.isatty() else 10.0
        self._shown: float | None = None
        self._open = False

    def advance(self, units: int = 1, note: str = "") -> None:
        """Count units and show the line when it is due."""
        self.done += units
        now = time.monotonic()
        due = self._shown is None or now - self._shown >= self._every_s
        if (due or self.done >= self.total) and not console().quiet:
            self._shown = now
            self._show(note)

    def close(self) -> None:
        """End the line where it stands, for what is printed next."""
        if self._open:
            self._open = False
            print(file=sys.stderr, flush=True)

    def rate(self) -> float:
        """Units a second since the start."""
        return (self.done - self._first) / max(time.monotonic() - self._began, 1e-9)

    def _show(self, note: str) -> None:
        left = (self.total - self.done) / max(self.rate(), 1e-9)
        pace = rate(self.rate(), self.unit) if self.unit else ""
        line = f"{self.label} {self.done}/{self.total}  {pace}{note}  ETA {duration(left)}"
        terminal = sys.stderr.isatty()
        # The rest of a longer line before this one is wiped (ANSI: erase to the end).
        self._open = terminal and self.done < self.total
        end = "\x1b[K\r" if self._open else "\n"
        print(line, end=end, file=sys.stderr, flush=True)


def rate(value: float, unit: str) -> str:
    """A rate in words, with a decimal below ten: `3.2 images/s`, `812 tokens/s`."""
    if value >= 9.95:
        return f"{value:.0f} {unit}"
    return f"{value:.1f} {unit}" if value >= 0.95 or not value else f"{value:.2g} {unit}"


def duration(seconds: float) -> str:
    """Seconds as h:mm:ss or m:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
