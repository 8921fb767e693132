"""Packs in step order, built ahead by another process.

Building a pack is plain Python work: in a thread it would compete for the interpreter with the
step that it shall not hold up. What comes out does not depend on who built it, or when.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch.utils.data import DataLoader, Dataset

from staged.model.layout import SpecialTokens
from train.examples import Examples
from train.packing import Pack, build_pack
from train.plan import PackPlan
from train.settings import TrainSettings

_AHEAD = 4


@dataclass(frozen=True)
class StepPacks(Dataset[Pack]):
    """The pack of each step, by number."""

    examples: Examples
    plan: PackPlan
    special: SpecialTokens
    settings: TrainSettings

    def __getitem__(self, step: int) -> Pack:
        """Draw and assemble the pack of a step."""
        settings = self.settings
        return build_pack(
            self.examples,
            [sample for sample, _ in self.plan.pack(step)],
            special=self.special,
            dropout=settings.dropout,
            timestep_shift=settings.timestep_shift,
            seed=settings.seed,
            step=step,
        )

    def from_step(self, step: int) -> Iterator[Pack]:
        """Packs from a step to the end of the run."""
        workers = self.settings.num_workers
        loader = DataLoader(
            self,
            batch_size=None,
            sampler=range(step, self.settings.num_steps),
            num_workers=workers,
            prefetch_factor=_AHEAD if workers else None,
        )
        return iter(loader)
