"""One line that says how a job goes."""

import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import TextIO

from staged.jobs.budget import Spent
from staged.jobs.records import Result

_INTERVAL_S = 1.0


class Progress:
    """Shows throughput, time left, acceptance and cost, at most once a second.

    On a terminal the line is rewritten; elsewhere a new one appears each half minute.

    Args:
        total: Units of this process.
        done: Units that earlier runs finished.
        spent: What the job has cost before.
        stream: Where to write.
        clock: Seconds, monotonic; replaced in tests.
    """

    def __init__(
        self,
        *,
        total: int,
        done: int = 0,
        spent: Spent | None = None,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start the clock."""
        self.counts: Counter[str] = Counter()
        self._total, self._before = total, done
        self._stream = sys.stderr if stream is None else stream
        self._live = self._stream.isatty()
        self._interval_s = _INTERVAL_S if self._live else 30 * _INTERVAL_S
        self._clock = clock
        self._began = self._shown = clock()
        self._spent, self._usd_here = spent or Spent(), 0.0

    def add(self, result: Result, spent: Spent, *, usd_here: float) -> None:
        """Count one more end.

        Args:
            result: The end.
            spent: What the job has cost so far, in all processes.
            usd_here: What of that this process has spent.
        """
        self.counts[result.status] += 1
        self._spent, self._usd_here = spent, usd_here
        if self._clock() - self._shown >= self._interval_s:
            self._show()

    def line(self) -> str:
        """Return the line."""
        ended = self.counts.total()
        seconds = max(self._clock() - self._began, 1e-9)
        per_minute = ended / seconds * 60
        left = self._total - self._before - ended
        eta = f"{_duration(left / per_minute * 60)} left" if ended else "…"
        accepted = self.counts["accepted"]
        share = f"{accepted / ended:.0%} accepted" if ended else "none yet"
        cost = ""
        if self._spent.usd:
            each = f", ${self._usd_here / accepted:.4f} per accepted sample" if accepted else ""
            cost = f" · ${self._spent.usd:.2f}{each}"
        return (
            f"{self._before + ended}/{self._total} · {per_minute:.0f}/min · {eta} · {share}"
            f" · {self._spent.requests} requests, {self._spent.images} images{cost}"
        )

    def close(self) -> None:
        """Show the last state."""
        if self.counts:
            self._show()
            if self._live:
                print(file=self._stream)

    def _show(self) -> None:
        self._shown = self._clock()
        if self._live:
            print(f"\r\x1b[K{self.line()}", end="", file=self._stream, flush=True)
        else:
            print(self.line(), file=self._stream, flush=True)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
