"""Preference pairs: in one and the same context, a sketch that was refused and one that was not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from data_pipelines.refine.own import refused
from staged.shards import Sample, ShardWriter, read_manifest, read_shards
from staged.trajectory import Trajectory

PAIR, PREFERRED = "pair", "preferred"
"""In a trajectory's provenance: the name that the two of a pair share, and whether it is the
better one."""


@dataclass(frozen=True, kw_only=True)
class PreferencePair:
    """Two trajectories that differ in their last sketch alone.

    Attributes:
        name: Unique in the data set.
        preferred: Its last sketch is supervised; no other step is.
        rejected: The same with the sketch that was refused, unsupervised.
    """

    name: str
    preferred: Trajectory
    rejected: Trajectory


def pairs(sample: Sample) -> Iterator[PreferencePair]:
    """Yield a pair for every refused sketch that was mended.

    The context of both is that of the refused one: nothing in it tells what will be wrong.
    """
    trajectory = sample.trajectory
    for place, mended in refused(trajectory):
        name = f"{sample.key}-{place}-{mended}"
        yield PreferencePair(
            name=name,
            preferred=_ending(trajectory, place, mended, name=name),
            rejected=_ending(trajectory, place, place, name=name),
        )


def _ending(trajectory: Trajectory, place: int, shown: int, *, name: str) -> Trajectory:
    """What came before a refused sketch, and then the sketch at `shown`."""
    better = shown != place
    sketch = replace(trajectory.steps[shown], loss=better)
    before = tuple(replace(step, loss=False) for step in trajectory.steps[:place])
    facts = {**trajectory.provenance, PAIR: name, PREFERRED: better}
    return replace(trajectory, steps=(*before, sketch), provenance=facts)


def write_pairs(folder: Path, out: Path) -> int:
    """Write the pairs of a data set as one of their own, each pair's two samples in a row.

    Returns:
        Pairs.

    Raises:
        ValueError: the data set has none, is damaged, or `out` holds a finished one.
    """
    manifest = read_manifest(folder)
    number = 0
    with ShardWriter(
        out,
        title=f"preferences of {manifest.title}",
        fingerprints=manifest.fingerprints,
        settings=manifest.settings,
    ) as writer:
        for sample in read_shards(folder):
            for pair in pairs(sample):
                writer.write(f"{pair.name}-1", pair.preferred)
                writer.write(f"{pair.name}-0", pair.rejected)
                number += 1
        if not number:
            raise ValueError(f"{folder} has no preferences: no sketch in it was refused and mended")
    return number
