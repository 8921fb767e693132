"""Preference pairs: in one and the same context, a sketch that was refused and one that was not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from data_pipelines.derived import write_derived
from data_pipelines.job import LEDGER
from data_pipelines.plan_sketch.build import REFUSED
from data_pipelines.refine.own import refused
from staged.jobs.records import Records
from staged.shards import Sample
from staged.trajectory import ImageRef, Sketch, Step, Trajectory

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


def pairs(sample: Sample, records: Records | None = None) -> Iterator[PreferencePair]:
    """Yield a pair for every refused sketch that was mended, and every one that was drawn again.

    The context of both is that of the refused one: nothing in it tells what will be wrong.

    Args:
        sample: Of a finished data set.
        records: Of its job, which hold the drawings that were refused before another passed;
            without them these make no pairs.
    """
    trajectory, steps = sample.trajectory, sample.trajectory.steps
    found = [(place, steps[place], steps[mended]) for place, mended in refused(trajectory)]
    found += _drawn_again(trajectory, records) if records is not None else []
    for number, (place, worse, better) in enumerate(found):
        name = f"{sample.key}-{number}"
        yield PreferencePair(
            name=name,
            preferred=_ending(trajectory, place, better, better=True, name=name),
            rejected=_ending(trajectory, place, worse, better=False, name=name),
        )


def _drawn_again(trajectory: Trajectory, records: Records) -> list[tuple[int, Step, Step]]:
    """Drawings that the gate refused, each with the sketch that passed in its place."""
    found: list[tuple[int, Step, Step]] = []
    for noted in trajectory.provenance.get(REFUSED, []):
        digest = noted["image"].partition(".")[0]
        image = ImageRef(png=records.blob(digest), name=noted["image"])
        passed = trajectory.steps[noted["place"]]
        assert isinstance(passed, Sketch)
        found.append((noted["place"], replace(passed, image=image, seed=noted["seed"]), passed))
    return found


def _ending(
    trajectory: Trajectory, place: int, last: Step, *, better: bool, name: str
) -> Trajectory:
    """What came before a refused sketch, and then one of the two."""
    sketch = replace(last, loss=better)
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
    ledger = folder / LEDGER
    records = Records(ledger) if ledger.is_dir() else None

    def of_sample(sample: Sample) -> Iterator[tuple[str, Trajectory]]:
        for pair in pairs(sample, records):
            yield f"{pair.name}-1", pair.preferred
            yield f"{pair.name}-0", pair.rejected

    nothing = "preferences: no sketch in it was refused and mended"
    return write_derived(folder, out, of_sample, what="preferences", nothing=nothing) // 2
