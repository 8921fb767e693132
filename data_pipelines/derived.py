"""Data sets that are made of another one's samples alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from staged.shards import Sample, ShardWriter, read_manifest, read_shards
from staged.trajectory import Trajectory


def write_derived(
    folder: Path,
    out: Path,
    of_sample: Callable[[Sample], Iterable[tuple[str, Trajectory]]],
    *,
    what: str,
    nothing: str,
) -> int:
    """Write what comes of each sample of a data set as one of its own.

    Args:
        folder: Of the data set.
        out: Of the new one.
        of_sample: Returns the samples that come of one, with their keys.
        what: Is written; for the title.
        nothing: What is said of the data set where nothing comes of it.

    Returns:
        Samples written.

    Raises:
        ValueError: The data set gives none, is damaged, or `out` holds a finished one.
    """
    manifest = read_manifest(folder)
    number = 0
    with ShardWriter(
        out,
        title=f"{what} of {manifest.title}",
        fingerprints=manifest.fingerprints,
        settings=manifest.settings,
    ) as writer:
        for sample in read_shards(folder):
            for key, trajectory in of_sample(sample):
                writer.write(key, trajectory)
                number += 1
        if not number:
            raise ValueError(f"{folder} has no {nothing}")
    return number
