"""What the ranks of a run of reinforcement share out: rollouts to draw, and packs to learn from.

Weights are cut among ranks to learn with, layer by layer in step with one another. Rollouts are of
different lengths, so to draw each rank holds the whole policy, and goes its own pace.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from staged.jobs.rank import Rank
from staged.model.bagel import Bagel
from staged.shards import ShardWriter
from staged.trajectory import Trajectory
from train.lora import trained_parameters
from train.reinforce.rollouts import Start, read
from train.settings import TrainSettings
from train.sharding import whole


@contextmanager
def whole_policy(model: Bagel, settings: TrainSettings) -> Iterator[Bagel]:
    """A sharded model as one that can draw alone; all ranks must open and leave it together.

    Args:
        model: As `trained_parameters` and `shard` left it.
        settings: With which it was made.

    Yields:
        A copy with all weights on this rank's device, in the same types.
    """
    with torch.device("meta"):
        copy = Bagel(model.config)
        trained_parameters(copy, settings)
    weights = {name: whole(tensor) for name, tensor in model.state_dict().items()}
    copy.load_state_dict(weights, assign=True)
    yield copy.train(model.training)


def dealt(starts: Sequence[Start], group_size: int, rank: Rank) -> list[Start]:
    """The rollouts that a rank draws: every n-th group, where n ranks share them."""
    groups = [starts[first : first + group_size] for first in range(0, len(starts), group_size)]
    return [start for group in rank.share(groups) for start in group]


def put_part(
    folder: Path, rank: Rank, starts: Sequence[Start], ended: Sequence[Trajectory]
) -> None:
    """Keep what a rank has drawn of an iteration, ungraded, where the first one finds it.

    Args:
        folder: Of the iteration.
        rank: Who drew.
        starts: What.
        ended: Their ends.
    """
    if not starts:
        return
    part = _parts(folder) / f"{rank.number:05d}"
    shutil.rmtree(part, ignore_errors=True)  # left by a part of the run that was killed
    with ShardWriter(part, title=f"rollouts of rank {rank.number}") as writer:
        for start, trajectory in zip(starts, ended, strict=True):
            writer.write(start.key, trajectory)


def take_parts(
    folder: Path, starts: Sequence[Start], group_size: int, num_ranks: int
) -> list[Trajectory]:
    """What all ranks have put, in the order of `starts`."""
    found: dict[str, Trajectory] = {}
    for number in range(num_ranks):
        mine = dealt(starts, group_size, Rank(number=number, world_size=num_ranks))
        if mine:
            drawn = read(_parts(folder) / f"{number:05d}")
            found |= zip((start.key for start in mine), drawn, strict=True)
    return [found[start.key] for start in starts]


def drop_parts(folder: Path) -> None:
    """Remove what ranks have put of an iteration: all of it is kept elsewhere."""
    shutil.rmtree(_parts(folder), ignore_errors=True)


def _parts(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.parts")
