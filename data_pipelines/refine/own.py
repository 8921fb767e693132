"""Triples from trajectories of ours: sketches that were refused, and what mended them."""

from collections.abc import Iterator
from pathlib import Path

from data_pipelines.refine.triples import Triple, reflection_of
from staged.shards import ShardError, ShardIndex
from staged.tables import BadRowError
from staged.trajectory import Plan, Refinement, Sketch, Trajectory


class OwnTrajectories:
    """Every refused sketch of a data set with the sketch that took its place.

    Sketches that are in the way but were refused again make triples too, each with the next one
    that is supervised.

    Args:
        folder: A finished data set.

    Raises:
        ValueError: no data set, or a sample is damaged; names shard and key.
    """

    def __init__(self, folder: Path) -> None:
        """Look through all trajectories once."""
        self._index = ShardIndex(folder)
        self._places = [
            (number, place, mended)
            for number in range(len(self._index))
            for place, mended in refused(self._index[number].trajectory)
        ]

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._places)

    def prompt(self, number: int) -> str:
        """Read what both sketches are of."""
        sample, place, _ = self._places[number]
        return _asked(self._read(sample), place)

    def triple(self, number: int) -> Triple:
        """Read two sketches and what was said between them."""
        sample, place, mended = self._places[number]
        trajectory = self._read(sample)
        said = trajectory.steps[place + 2]
        assert isinstance(said, Refinement)
        return Triple(
            prompt=_asked(trajectory, place),
            good=_png(trajectory, mended),
            bad=_png(trajectory, place),
            reflection=reflection_of(said.instruction),
            subset=trajectory.task,
            place=f"sample {self._index.keys[sample]}, steps {place} and {mended}",
            facts={"models": trajectory.provenance.get("models", {})},
        )

    def _read(self, number: int) -> Trajectory:
        try:
            return self._index[number].trajectory
        except ShardError as error:
            raise BadRowError("damaged sample", self._index.keys[number], str(error)) from None


def refused(trajectory: Trajectory) -> Iterator[tuple[int, int]]:
    """Yield the places of each refused sketch and of the supervised one that mended it."""
    steps = trajectory.steps
    waiting: list[int] = []
    for place, step in enumerate(steps):
        if isinstance(step, Plan):
            waiting = []
        if not isinstance(step, Sketch):
            continue
        if step.loss:
            yield from ((earlier, place) for earlier in waiting)
        waiting = waiting if not step.loss else []
        if isinstance(steps[place + 2] if place + 2 < len(steps) else None, Refinement):
            waiting.append(place)


def _asked(trajectory: Trajectory, place: int) -> str:
    """What a sketch was to show: its plan's description, or the prompt."""
    plans = [step for step in trajectory.steps[:place] if isinstance(step, Plan)]
    return plans[-1].description if plans else trajectory.prompt


def _png(trajectory: Trajectory, place: int) -> bytes:
    step = trajectory.steps[place]
    assert isinstance(step, Sketch)
    return step.image.loaded
