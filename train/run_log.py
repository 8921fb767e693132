"""What a run shows of itself: a line on the terminal, `log.jsonl`, trackers."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from staged.jobs.progress import Progress, rate
from staged.lines import read_lines
from train.run_folder import cut_log
from train.trackers import Tracker


class Silence:
    """What ranks show that are not the first: nothing. As a context, like `RunLog`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing was opened."""

    def record(self, step: int, figures: dict[str, float]) -> None:
        """Keep the figures of a step."""

    def record_once(self, step: int, figures: dict[str, float]) -> None:
        """As `record`, unless it was the last that an earlier part of the run recorded."""

    def advance(self, figures: dict[str, float]) -> None:
        """Show that a step was done."""

    def picture(self, step: int, pixels: NDArray[np.uint8]) -> None:
        """Keep (h, w, 3) pixels drawn after a step."""

    def end_line(self) -> None:
        """End the line on the terminal, for what is printed next."""

    def say(self, words: str) -> None:
        """Tell on standard error."""


class RunLog(Silence):
    """Of one part of a run, as a context; what an earlier part logged beyond its state goes."""

    def __init__(
        self, out: Path, *, step: int, num_steps: int, trackers: Sequence[Tracker]
    ) -> None:
        """Open the log.

        Args:
            out: The run's folder.
            step: Steps done.
            num_steps: Of the run.
            trackers: That show it too, and are closed with it.
        """
        cut_log(out / "log.jsonl", step)
        self._progress = Progress("step", num_steps, done=step)
        self._trackers = trackers
        path = out / "log.jsonl"
        self._last = ""
        if path.is_file():
            for line in read_lines(path):
                self._last = line.text()
        self._lines = path.open("a", encoding="utf-8")

    def __exit__(self, *_: object) -> None:
        self._lines.close()
        for tracker in self._trackers:
            tracker.close()

    def record(self, step: int, figures: dict[str, float]) -> None:
        """Keep the figures of a step."""
        self._last = json.dumps({"step": step, **figures})
        self._lines.write(self._last + "\n")
        self._lines.flush()
        for tracker in self._trackers:
            tracker.record(step, figures)

    def record_once(self, step: int, figures: dict[str, float]) -> None:
        """As `record`, unless it was the last that an earlier part of the run recorded."""
        if self._last != json.dumps({"step": step, **figures}):
            self.record(step, figures)

    def advance(self, figures: dict[str, float]) -> None:
        """Show that a step was done."""
        self._progress.advance(
            note=f"mse {figures['mse']:.4f}  ce {figures['ce']:.4f}  "
            f"{rate(figures['tokens_per_s'], 'tokens/s')}"
        )

    def picture(self, step: int, pixels: NDArray[np.uint8]) -> None:
        """Keep (h, w, 3) pixels drawn after a step."""
        for tracker in self._trackers:
            tracker.picture(step, pixels)

    def end_line(self) -> None:
        """End the line on the terminal, for what is printed next."""
        self._progress.close()

    def say(self, words: str) -> None:
        """Tell on standard error."""
        print(words, file=sys.stderr)
