"""Packs of rollouts: those of training, with what each of their tokens is worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from staged.sequence import interleave
from staged.trajectory import Sketch
from train.examples import Examples
from train.packing import Pack, build_pack
from train.randomness import SampleRandom
from train.reinforce.record import RewardRecord
from train.settings import TrainSettings


@dataclass(frozen=True)
class RewardedPack:
    """One forward pass.

    Attributes:
        pack: What the model reads. Of its supervised latents those of graded pictures count 1,
            others nothing.
        rewards: (num_velocity,) float32 in [0, 1]; 1/2 is neither good nor bad.
        advantages: (num_labels,) float32; 0 where a label is of a step that nobody graded, or
            announces a picture.
    """

    pack: Pack
    rewards: Tensor
    advantages: Tensor

    def to(self, device: torch.device) -> RewardedPack:
        """The same pack on `device`."""
        return RewardedPack(
            self.pack.to(device), self.rewards.to(device), self.advantages.to(device)
        )


def without_weight(pack: RewardedPack) -> RewardedPack:
    """The same pack, of which nothing is learned: for a rank that a step has no pack for."""
    layout = pack.pack.layout
    return RewardedPack(
        pack=replace(
            pack.pack,
            layout=replace(layout, ce_weights=torch.zeros_like(layout.ce_weights)),
            velocity_weights=torch.zeros_like(pack.rewards),
        ),
        rewards=pack.rewards,
        advantages=torch.zeros_like(pack.advantages),
    )


def build_rewarded_pack(
    examples: Examples,
    samples: Sequence[int],
    randoms: Sequence[SampleRandom],
    settings: TrainSettings,
    max_advantage: float,
) -> RewardedPack:
    """Draw and assemble one pack; the same arguments give the same pack.

    Args:
        examples: Rollouts.
        samples: Their numbers.
        randoms: One for each, new.
        settings: As of training, without dropout.
        max_advantage: At which a picture's reward is 1.
    """
    pack = build_pack(
        examples,
        samples,
        randoms,
        special=examples.special,
        dropout=settings.dropout,
        timestep_shift=settings.timestep_shift,
        noised_copies=settings.noised_copies,
        pack_tokens=settings.pack_tokens,
    )
    counts: list[float] = []
    rewards: list[float] = []
    advantages: list[float] = []
    for sample in samples:
        trajectory = examples.trajectory(sample)
        worth = RewardRecord.of(trajectory).advantages
        places = interleave(
            trajectory,
            examples.encode,
            examples.special,
            examples.grids_of,
            noised_copies=settings.noised_copies,
        )
        for step in places.steps_of_velocities():
            counts.append(float(step in worth))
            rewards.append(0.5 + 0.5 * worth.get(step, 0.0) / max_advantage)
        for step in places.steps_of_labels():
            said = not isinstance(trajectory.steps[step], Sketch)
            advantages.append(worth.get(step, 0.0) if said else 0.0)
    assert len(rewards) == len(pack.layout.velocity_rows)
    assert len(advantages) == len(pack.layout.labels)
    return RewardedPack(
        pack=replace(pack, velocity_weights=torch.tensor(counts)),
        rewards=torch.tensor(rewards),
        advantages=torch.tensor(advantages),
    )
