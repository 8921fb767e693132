"""The same trajectories in short: one sample for each step that is learned.

A whole trajectory teaches all its steps at once, and costs as many tokens for a few decisions as
it is long. Cut up, each step that is supervised ends a sample of its own, after all that led to it,
and is what alone is supervised there: a skill can be weighed, shown often, or left out by itself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import get_args

from data_pipelines.derived import write_derived
from staged.shards import Sample
from staged.trajectory import Step, Trajectory

KINDS: tuple[str, ...] = tuple(kind.__name__.lower() for kind in get_args(Step))
"""Of steps, by name."""


def decisions(trajectory: Trajectory, kinds: Collection[str] = KINDS) -> Iterator[Trajectory]:
    """Yield a trajectory for each supervised step, which ends with it.

    Together they are supervised on what the whole one is, each under the same context.

    Args:
        trajectory: Whole, or a legal prefix.
        kinds: Of the steps that are wanted.
    """
    before: tuple[Step, ...] = ()
    for step in trajectory.steps:
        if step.loss and type(step).__name__.lower() in kinds:
            yield replace(trajectory, steps=(*before, step))
        before = (*before, replace(step, loss=False))


def write_decisions(folder: Path, out: Path, kinds: Collection[str] = KINDS) -> int:
    """Write the decisions of a data set as one of their own, as `KEY-NUMBER`.

    Every sample has its pictures with it, so those of a long trajectory are written several times.

    Args:
        folder: Of the data set.
        out: Of the new one.
        kinds: Of the steps that are wanted.

    Returns:
        How many there are.

    Raises:
        ValueError: The data set has none, is damaged, or `out` holds a finished one.
    """

    def of_sample(sample: Sample) -> Iterator[tuple[str, Trajectory]]:
        for place, decision in enumerate(decisions(sample.trajectory, kinds)):
            yield f"{sample.key}-{place}", decision

    nothing = f"supervised step of {', '.join(sorted(kinds))}"
    return write_derived(folder, out, of_sample, what="decisions", nothing=nothing)
