"""One optimizer step of reinforcement, over the forward pass of training."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from staged.model.attention import Attend, PackedAttention
from staged.model.bagel import Bagel
from staged.model.layout import Layout
from staged.model.loss import Predictions, predictions
from train.clipping import clip_gradients
from train.ema import WeightAverage, averaged
from train.objective import Supervised, forward_in
from train.optimizer import Optimizers
from train.packing import Pack
from train.ranks import Ranks
from train.reinforce.loss import image_loss, text_divergence, text_loss
from train.reinforce.packing import RewardedPack
from train.reinforce.settings import ImageSettings, TextSettings
from train.sharding import resharded, sum_over_replicas
from train.stream import in_order


class PolicyObjective(nn.Module):
    """The model with what it predicts where it is supervised."""

    def __init__(
        self,
        model: Bagel,
        *,
        max_logits_mib: int = 1024,
        attend_to: Callable[[Layout], Attend] = PackedAttention,
    ) -> None:
        """Wrap `model`, which attends as `attend_to` plans; see `predictions`."""
        super().__init__()
        self.model, self.max_logits_mib, self._attend_to = model, max_logits_mib, attend_to

    def forward(self, pack: Pack) -> Predictions:
        """Velocities and log-likelihoods of a pack."""
        hidden = self.model(pack.layout, pack.inputs, self._attend_to(pack.layout))
        return predictions(self.model, hidden, pack.layout, max_logits_mib=self.max_logits_mib)


@dataclass
class PolicyStep:
    """Takes steps of a policy that learns from what an old one drew.

    Attributes:
        objective: The policy, cut among the ranks where there are several.
        parameters: Of its model, that are trained.
        drawing: Holds those of the policy that drew.
        optimizer: Of `parameters`.
        dtype: Of forward and backward.
        images: How pictures are learned from.
        texts: How words are.
        max_grad_norm: Gradients are scaled down to this norm.
        ranks: That share the packs of each step.
    """

    objective: PolicyObjective
    parameters: Mapping[str, nn.Parameter]
    drawing: WeightAverage
    optimizer: Optimizers
    dtype: torch.dtype
    images: ImageSettings
    texts: TextSettings
    max_grad_norm: float
    ranks: Ranks = field(default_factory=Ranks)

    def take(self, packs: Sequence[RewardedPack], lr: float) -> dict[str, float]:
        """One optimizer step over packs, one after the other; of several ranks, each takes its own.

        Args:
            packs: As many on every rank.
            lr: Of the step.

        Returns:
            The same on all ranks:
            - `image_loss`, `text_loss`, `grad_norm`.
            - `image_shift`: mean squared distance of the velocities from the old policy's.
            - `text_kl`: nats a token from the old policy. `text_nats`: mean of minus the
              log-likelihood of what the old policy wrote: its entropy, where it samples at 1.

        Raises:
            ValueError: A loss or the gradient is not finite; the weights are as before.
        """
        counts = in_order(self.ranks.gather([Supervised.of(one.pack) for one in packs]))
        step = Supervised.total(counts)
        device = next(iter(self.parameters.values())).device
        packs = [one.to(device) for one in packs]
        mine: list[dict[str, float]] = []
        for turn, (one, old) in enumerate(zip(packs, self._old(packs), strict=True), start=1):
            parts = self._losses(one, old, step)
            loss = parts["image_loss"] + self.texts.weight * parts["text_loss"]
            sum_over_replicas(self.objective, turn == len(packs))
            if loss.requires_grad:
                loss.backward()
            mine.append({name: value.item() for name, value in parts.items()})
        found: dict[str, float] = {}
        for of_pack in in_order(self.ranks.gather(mine)):
            for name, number in of_pack.items():
                found[name] = found.get(name, 0.0) + number
        found["grad_norm"] = clip_gradients(self.parameters.values(), self.max_grad_norm)
        if not all(map(math.isfinite, found.values())):
            self.optimizer.zero_grad()
            said = ", ".join(f"{name} {value}" for name, value in found.items())
            raise ValueError(
                f"a step is not finite ({said}); start another `out` with a lower optimizer.lr, a "
                "larger images.beta, or dtype=float32"
            )
        self.optimizer.step(lr)
        self.optimizer.zero_grad()
        return found

    @property
    def _sharded(self) -> bool:
        return isinstance(self.objective, FSDPModule)

    def _old(self, packs: Sequence[RewardedPack]) -> list[Predictions]:
        """What the policy that drew predicts."""
        with torch.no_grad():
            if not self._sharded:
                weights = self.drawing.tensors
                return [
                    forward_in(self.dtype, self.objective, one.pack, weights=weights)
                    for one in packs
                ]
            # A sharded layer gathers its own parameters, so the old ones take their place.
            with averaged(self.parameters, self.drawing), resharded(self.objective):
                return [
                    forward_in(self.dtype, self.objective, one.pack, sharded=True) for one in packs
                ]

    def _losses(self, one: RewardedPack, old: Predictions, step: Supervised) -> dict[str, Tensor]:
        """What a pack adds to the means over a step."""
        pack, words = one.pack, one.pack.layout.ce_weights
        new: Predictions = forward_in(self.dtype, self.objective, pack, sharded=self._sharded)
        target = pack.target[pack.layout.velocity_rows]
        drawn = image_loss(new.velocity, old.velocity, target, one.rewards, beta=self.images.beta)
        said = text_loss(
            new.ce,
            old.ce,
            one.advantages,
            clip=self.texts.clip,
            kl_weight=self.texts.kl_weight,
        )
        shift = ((new.velocity - old.velocity) ** 2).detach().mean(dim=-1)
        kl = text_divergence(new.ce, old.ce).detach()
        # Words count as in training: by the root of their block's length, so that a description
        # does not drown a verdict.
        per_latent, per_word = 1 / max(step.latents, 1e-9), 1 / max(step.words, 1e-9)
        return {
            "image_loss": (drawn * pack.velocity_weights).sum() * per_latent,
            "text_loss": (said * words).sum() * per_word,
            "image_shift": (shift * pack.velocity_weights).sum() * per_latent,
            "text_kl": (kl * words).sum() * per_word,
            "text_nats": (old.ce * words).sum() * per_word,
        }
