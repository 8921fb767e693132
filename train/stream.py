"""Packs in the order of their steps, built ahead by another process.

They are numbered over all ranks, so that a run sees the same packs in the same steps however many
ranks share it.

Building a pack is plain Python work: in a thread it would compete for the interpreter with the
step that it shall not hold up. What comes out does not depend on who built it, or when.
"""

from __future__ import annotations

import ctypes
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self, TypeVar

from torch.utils.data import DataLoader, Dataset

from staged.jobs.rank import Rank
from staged.model.layout import SpecialTokens
from train.examples import Examples
from train.packing import MAX_FILLER, Pack, build_pack
from train.plan import PackPlan
from train.randomness import SampleRandom
from train.settings import TrainSettings

IDLE = -1
"""Number of a pack without samples, which a rank runs while others have one more than it."""
_AHEAD = 4
_PR_SET_PDEATHSIG = 1  # of Linux, where alone there are workers

T = TypeVar("T")


@dataclass(frozen=True)
class PackFailure:
    """Why a pack could not be built; sent as text, for not every exception can be."""

    reason: str


@dataclass(frozen=True)
class StepPacks(Dataset[Pack | PackFailure]):
    """Packs by number: step s takes `packs_per_step` of them, from number s * packs_per_step on.

    Number `IDLE` is a pack without samples.
    """

    examples: Examples
    plan: PackPlan
    special: SpecialTokens
    settings: TrainSettings

    @classmethod
    def of(cls, examples: Examples, settings: TrainSettings) -> Self:
        """The packs of a run.

        Raises:
            ValueError: There are no samples, or one is longer than a pack; names those.
        """
        plan = PackPlan(
            examples.lengths,
            examples.repeats,
            pack_tokens=settings.pack_tokens,
            reserve=MAX_FILLER,
            seed=settings.seed,
            name=examples.name,
        )
        return cls(examples, plan, examples.special, settings)

    def __getitem__(self, number: int) -> Pack | PackFailure:
        """A pack, or why there is none."""
        try:
            return self.build(number)
        except (ValueError, OSError) as error:
            return PackFailure(str(error))

    def build(self, number: int) -> Pack:
        """Draw and assemble a pack."""
        settings = self.settings
        samples = [sample for sample, _ in self.plan.pack(number)] if number != IDLE else []
        with self.examples.at_hand(samples):
            return build_pack(
                self.examples,
                samples,
                [SampleRandom(settings.seed, number, place) for place in range(len(samples))],
                special=self.special,
                dropout=settings.dropout,
                timestep_shift=settings.timestep_shift,
                noised_copies=settings.noised_copies,
                pack_tokens=settings.pack_tokens,
            )

    def from_step(self, step: int, rank: Rank | None = None) -> Iterator[Pack]:
        """A rank's packs from a step to the end of the run: in each step as many as on any rank.

        Raises:
            ValueError: A sample cannot be read.
        """
        # Workers share what was opened here by forking; elsewhere than on Linux that is unsafe.
        workers = self.settings.num_workers if sys.platform.startswith("linux") else 0
        loader = DataLoader(
            self,
            batch_size=None,
            sampler=numbers(
                range(step, self.settings.num_steps), self.settings.packs_per_step, rank or Rank()
            ),
            num_workers=workers,
            prefetch_factor=_AHEAD if workers else None,
            multiprocessing_context="fork" if workers else None,
            worker_init_fn=_prepare_worker,
        )
        for built in loader:
            if isinstance(built, PackFailure):
                raise ValueError(built.reason)
            yield built


def packs_each(packs_per_step: int, world_size: int) -> int:
    """Packs that every rank takes in a step, idle ones included."""
    return -(-packs_per_step // world_size)


def numbers(steps: Iterable[int], packs_per_step: int, rank: Rank) -> Iterator[int]:
    """Numbers of a rank's packs, step after step: every n-th of a step's, where n ranks share it.

    All ranks take part in every pass, so one for which there is no pack left takes an idle one.
    """
    for step in steps:
        for turn in range(packs_each(packs_per_step, rank.world_size)):
            place = rank.number + turn * rank.world_size
            yield step * packs_per_step + place if place < packs_per_step else IDLE


def in_order(by_rank: Sequence[Sequence[T]]) -> list[T]:
    """What ranks have of a step's packs, in the order of the packs; idle ones come last."""
    return [of_rank[turn] for turn in range(len(by_rank[0])) for of_rank in by_rank]


@contextmanager
def explaining_dead_workers() -> Iterator[None]:
    """Say what to do when a worker dies; torch then raises wherever the main thread happens to be.

    Raises:
        OSError: A worker died.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise OSError(
            f"{error} A process that builds packs has died, of too little memory perhaps; the "
            "same command continues from the last state (num_workers=0 needs least)"
        ) from error


def _prepare_worker(worker: int) -> None:
    # Ctrl-C reaches every process of a terminal, but the step in progress still needs packs.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # A killed trainer's connections are open as long as a fork of it lives, and until they end the
    # other ranks do not know that it died. torch looks after its parent every five seconds only.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
