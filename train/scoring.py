"""The score of a run's newest state: asked for once that is on the disk, and kept beside it.

So a signal or a kill while a command draws costs that command's work and nothing of the training,
and the next part of the run asks for the score again.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from staged import strict_json
from staged.jobs.files import sweep, write_whole
from train.interrupts import Interrupts
from train.ranks import Ranks
from train.scorer import LEFTOVER, ScorerError, score
from train.settings import ScorerSettings

SCORED = "scored"
"""Folder of the model while a command draws with it."""
_KEPT = "score.json"
_MAX_BYTES = 10_000


class Scoring:
    """Lets a command grade the states of a run."""

    def __init__(self, settings: ScorerSettings, out: Path, ranks: Ranks, fingerprint: str) -> None:
        """Name them.

        Args:
            settings: Which command, and what of its figures.
            out: The run's folder.
            ranks: That share the run.
            fingerprint: Of all that a score depends on but the weights.
        """
        self._settings, self._out, self._ranks = settings, out, ranks
        self._fingerprint = fingerprint

    def known(self, step: int) -> float | None:
        """What an earlier part was told of the state of a step; None where that is not known.

        Raises:
            ValueError: What was kept cannot be read.
        """
        return self._ranks.first(lambda: self._read(step))

    def begin(self, step: int) -> None:
        """Remove what a killed part left, and at step 0 the score of an earlier run."""
        if self._ranks.is_first:
            shutil.rmtree(self._out / SCORED, ignore_errors=True)
            sweep(self._out, lambda name: name == SCORED, everyones=True)
            for path in self._out.glob(f"{LEFTOVER}*"):
                shutil.rmtree(path, ignore_errors=True)
            if not step:
                (self._out / _KEPT).unlink(missing_ok=True)

    def grade(self, step: int, export: Callable[[Path], Path], heard: Interrupts) -> float | None:
        """Let the command draw with the model; all ranks must call it at the same point.

        Args:
            step: Steps done; from 1 on its state is kept.
            export: Writes the model to a folder.
            heard: On any rank a signal ends the command.

        Returns:
            The score; None where a signal came, or the command failed, which is told.

        Raises:
            ScorerError: It failed before the first step.
        """
        folder = export(self._out / SCORED)

        def graded(stop: Callable[[], bool]) -> float | None:
            try:
                value = score(self._settings, folder, stop)
            except ScorerError as error:
                if not step:
                    raise
                print(f"step {step}: not scored: {error}", file=sys.stderr)
                return None
            finally:
                shutil.rmtree(folder, ignore_errors=True)
            if value is not None and step:
                kept = {"step": step, "score": value, "of": self._fingerprint}
                write_whole(self._out / _KEPT, strict_json.dumps(kept).encode())
            return value

        return self._ranks.first_unless(lambda: heard.received is not None, graded)

    def _read(self, step: int) -> float | None:
        kept = kept_score(self._out) if step else None
        if kept is None or (kept.step, kept.of) != (step, self._fingerprint):
            return None
        return kept.score


@dataclass(frozen=True, kw_only=True)
class KeptScore:
    """The last score of a run.

    Attributes:
        step: Of the state that has it.
        score: As the command told it.
        of: Fingerprint of all that it depends on but the weights.
    """

    step: int
    score: float
    of: str


def kept_score(out: Path) -> KeptScore | None:
    """Read the last score that a run was told; None where there is none.

    Raises:
        ValueError: What was kept cannot be read.
    """
    path = out / _KEPT
    if not path.is_file():
        return None
    found = strict_json.read(path, max_bytes=_MAX_BYTES)
    kept = strict_json.record(found, str(path), {"step": int, "score": float, "of": str})
    return KeptScore(step=kept["step"], score=float(kept["score"]), of=kept["of"])
