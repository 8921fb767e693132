"""What a run shows of itself: a line on the terminal, `log.jsonl`, TensorBoard."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray
from torch.utils.tensorboard import SummaryWriter

from staged.jobs.progress import Progress, rate
from train.run_folder import cut_log


class RunLog:
    """Of one part of a run, as a context; what an earlier part logged beyond its state goes."""

    def __init__(self, out: Path, *, step: int, num_steps: int) -> None:
        """Open the log.

        Args:
            out: The run's folder.
            step: Steps done.
            num_steps: Of the run.
        """
        cut_log(out / "log.jsonl", step)
        self._progress = Progress("step", num_steps, done=step)
        self._board = SummaryWriter(out / "tensorboard", purge_step=step and step + 1)
        self._lines = (out / "log.jsonl").open("a", encoding="utf-8")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lines.close()
        self._board.close()

    def record(self, step: int, figures: dict[str, float]) -> None:
        """Keep the figures of a step."""
        self._lines.write(json.dumps({"step": step, **figures}) + "\n")
        self._lines.flush()
        for name, value in figures.items():
            self._board.add_scalar(name, value, step)

    def advance(self, figures: dict[str, float]) -> None:
        """Show that a step was done."""
        self._progress.advance(
            note=f"mse {figures['mse']:.4f}  ce {figures['ce']:.4f}  "
            f"{rate(figures['tokens_per_s'], 'tokens/s')}"
        )

    def picture(self, step: int, pixels: NDArray[np.uint8]) -> None:
        """Keep (h, w, 3) pixels drawn after a step."""
        self._board.add_image("samples", pixels, step, dataformats="HWC")

    def end_line(self) -> None:
        """End the line on the terminal, for what is printed next."""
        self._progress.close()
