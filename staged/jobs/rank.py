"""Which part of the work is this process's: every n-th unit, where n processes work side by side.

Nothing is exchanged between them but files, so they may run one after another, and in any number:
a unit's result depends on the unit alone.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Rank:
    """One of several equal processes.

    Attributes:
        number: Which one, from 0.
        world_size: How many there are.
    """

    number: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        """Check that there is such a process."""
        if not 0 <= self.number < self.world_size:
            raise ValueError(
                f"rank {self.number} of {self.world_size} processes; give a rank from 0 to one "
                "less than their number"
            )

    def share(self, units: Sequence[T]) -> list[T]:
        """Return the units that are this process's, in order."""
        return list(units[self.number :: self.world_size])

    def label(self, words: str) -> str:
        """Name a thing of this process, where there are others."""
        if self.world_size == 1:
            return words
        return f"{words} (process {self.number} of {self.world_size})"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Let a command be told its rank."""
    words = "(default: what torchrun set, else one process)"
    parser.add_argument("--rank", type=int, metavar="R", help=f"this process, from 0 {words}")
    parser.add_argument("--world-size", type=int, metavar="N", help=f"processes in all {words}")


def rank_of(rank: int | None, world_size: int | None) -> Rank:
    """Return the rank that was asked for; else the one of `RANK` and `WORLD_SIZE`; else all.

    Raises:
        ValueError: one of the two without the other, or no such process.
    """
    if (rank is None) != (world_size is None):
        raise ValueError(
            f"--rank {rank} with --world-size {world_size}: give both of them, or none"
        )
    if rank is None or world_size is None:
        rank, world_size = _environment("RANK", 0), _environment("WORLD_SIZE", 1)
    return Rank(number=rank, world_size=world_size)


def _environment(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.isdigit():
        raise ValueError(f"{name}={text!r} in the environment; expected a number")
    return int(text)
