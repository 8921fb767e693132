"""Random samples of a cell, right ones and wrong ones: chance picks, nobody else."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eval.miniature.line import SampleScore
from eval.paper.cell import DrawnCell
from staged.roles import Pixels
from staged.trajectory import Sketch, Trajectory

SCALE = 2
"""Pixels of a sheet for one of a picture."""
_GAP_PX, _MAX_STEPS = 6, 10
_MAX_REASONS = 2


@dataclass(frozen=True, kw_only=True)
class ChosenSamples:
    """Samples of a cell that are shown.

    Attributes:
        cell: Its name.
        label: What tables call it.
        correct: Whether all of them are right, or all of them wrong.
        scored: Their scores.
        trajectories: How each came about, images loaded.
    """

    cell: str
    label: str
    correct: bool
    scored: tuple[SampleScore, ...]
    trajectories: tuple[Trajectory, ...]

    @property
    def words(self) -> str:
        """Whose, and which."""
        return f"{self.label}: {'right' if self.correct else 'wrong'}"

    @property
    def in_steps(self) -> bool:
        """Whether any of them has more than one picture."""
        return any(len(pictures_of(trajectory)) > 1 for trajectory in self.trajectories)

    def captions(self) -> list[str]:
        """Prompt of each, and of a wrong one why it is wrong."""
        return [
            item.prompt + ("" if item.correct else f": {'; '.join(item.reasons[:_MAX_REASONS])}")
            for item in self.scored
        ]


def chosen(cell: DrawnCell, *, number: int) -> list[ChosenSamples]:
    """Choose some right and some wrong samples of a cell; the same each time.

    Args:
        cell: Whose.
        number: How many of either, at most.
    """
    trajectories = cell.trajectories()
    found = []
    for correct in (True, False):
        # Of those that are there to be shown: candidates of a search lie beside the chosen one.
        there = sorted(
            (s for s in cell.scored if s.correct is correct and s.key in trajectories),
            key=lambda s: s.key,
        )
        rng = np.random.default_rng(zlib.crc32(f"{cell.name}/{correct}".encode()))
        scored = tuple(there[i] for i in sorted(rng.permutation(len(there))[:number].tolist()))
        if scored:
            shown = tuple(trajectories[item.key] for item in scored)
            found.append(
                ChosenSamples(
                    cell=cell.name,
                    label=cell.label,
                    correct=correct,
                    scored=scored,
                    trajectories=shown,
                )
            )
    return found


def sheet(shown: ChosenSamples) -> Pixels:
    """Lay samples out: a row each where they were drawn in steps, otherwise all in one.

    Returns:
        (h, w, 3) uint8; of many steps the last ones.
    """
    each = [pictures_of(trajectory)[-_MAX_STEPS:] for trajectory in shown.trajectories]
    if not shown.in_steps:
        each = [[picture for pictures in each for picture in pictures]]
    return _laid_out(each)


def pictures_of(trajectory: Trajectory) -> list[Pixels]:
    """Decode the pictures of a trajectory, in the order in which they were drawn."""
    return [step.image.array() for step in trajectory.steps if isinstance(step, Sketch)]


def _laid_out(grid: Sequence[Sequence[Pixels]]) -> Pixels:
    side = max(max(picture.shape[:2]) for row in grid for picture in row) * SCALE + _GAP_PX
    columns = max(map(len, grid))
    canvas = np.full((len(grid) * side + _GAP_PX, columns * side + _GAP_PX, 3), 255, dtype=np.uint8)
    for y, row in enumerate(grid):
        for x, picture in enumerate(row):
            large = picture.repeat(SCALE, axis=0).repeat(SCALE, axis=1)
            top, left = y * side + _GAP_PX, x * side + _GAP_PX
            canvas[top : top + large.shape[0], left : left + large.shape[1]] = large
    return canvas
