"""Packs in the order of their steps, built ahead by another process.

Building a pack is plain Python work: in a thread it would compete for the interpreter with the
step that it shall not hold up. What comes out does not depend on who built it, or when.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch.utils.data import DataLoader, Dataset

from staged.model.layout import SpecialTokens
from train.examples import Examples
from train.packing import Pack, build_pack
from train.plan import PackPlan
from train.settings import TrainSettings

_AHEAD = 4


@dataclass(frozen=True)
class PackFailure:
    """Why a pack could not be built; sent as text, for not every exception can be."""

    reason: str


@dataclass(frozen=True)
class StepPacks(Dataset[Pack | PackFailure]):
    """Packs by number: step s takes `packs_per_step` of them, from number s * packs_per_step on."""

    examples: Examples
    plan: PackPlan
    special: SpecialTokens
    settings: TrainSettings

    def __getitem__(self, number: int) -> Pack | PackFailure:
        """A pack, or why there is none."""
        try:
            return self.build(number)
        except (ValueError, OSError) as error:
            return PackFailure(str(error))

    def build(self, number: int) -> Pack:
        """Draw and assemble a pack."""
        settings = self.settings
        return build_pack(
            self.examples,
            [sample for sample, _ in self.plan.pack(number)],
            special=self.special,
            dropout=settings.dropout,
            timestep_shift=settings.timestep_shift,
            noised_copies=settings.noised_copies,
            pack_tokens=settings.pack_tokens,
            seed=settings.seed,
            number=number,
        )

    def from_step(self, step: int) -> Iterator[Pack]:
        """Packs from a step to the end of the run.

        Raises:
            ValueError: A sample cannot be read.
        """
        # Workers share what was opened here by forking; elsewhere than on Linux that is unsafe.
        each = self.settings.packs_per_step
        workers = self.settings.num_workers if sys.platform.startswith("linux") else 0
        loader = DataLoader(
            self,
            batch_size=None,
            sampler=range(step * each, self.settings.num_steps * each),
            num_workers=workers,
            prefetch_factor=_AHEAD if workers else None,
            multiprocessing_context="fork" if workers else None,
            worker_init_fn=_leave_signals_to_the_trainer,
        )
        for built in loader:
            if isinstance(built, PackFailure):
                raise ValueError(built.reason)
            yield built


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


def _leave_signals_to_the_trainer(worker: int) -> None:
    """Ctrl-C reaches every process of a terminal, but the step in progress still needs packs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
