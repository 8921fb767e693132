"""One optimizer step of reinforcement, over the forward pass of training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from staged.model.attention import PackedAttention
from staged.model.bagel import Bagel
from staged.model.loss import Predictions, predictions
from train.objective import Supervised, forward_in
from train.optimizer import Optimizers
from train.packing import Pack
from train.reinforce.loss import image_loss, text_divergence, text_loss
from train.reinforce.packing import RewardedPack
from train.reinforce.settings import ImageSettings, TextSettings


class PolicyObjective(nn.Module):
    """The model with what it predicts where it is supervised."""

    def __init__(self, model: Bagel, *, max_logits_mib: int = 1024) -> None:
        """Wrap `model`; see `predictions`."""
        super().__init__()
        self.model, self.max_logits_mib = model, max_logits_mib

    def forward(self, pack: Pack) -> Predictions:
        """Velocities and log-likelihoods of a pack."""
        hidden = self.model(pack.layout, pack.inputs, PackedAttention(pack.layout))
        return predictions(self.model, hidden, pack.layout, max_logits_mib=self.max_logits_mib)


@dataclass
class PolicyStep:
    """Takes steps of a policy that learns from what an old one drew.

    Attributes:
        objective: The policy.
        parameters: Of its model, that are trained.
        old: Of the policy that drew, by the same names.
        optimizer: Of `parameters`.
        dtype: Of forward and backward.
        images: How pictures are learned from.
        texts: How words are.
        max_grad_norm: Gradients are scaled down to this norm.
    """

    objective: PolicyObjective
    parameters: Mapping[str, nn.Parameter]
    old: Mapping[str, Tensor]
    optimizer: Optimizers
    dtype: torch.dtype
    images: ImageSettings
    texts: TextSettings
    max_grad_norm: float

    def take(self, packs: Sequence[RewardedPack], lr: float) -> dict[str, float]:
        """One optimizer step over packs, one after the other.

        Returns:
            - `image_loss`, `text_loss`, `grad_norm`.
            - `image_shift`: mean squared distance of the velocities from the old policy's.
            - `text_kl`: nats a token from the old policy. `text_nats`: mean of minus the
              log-likelihood of what the old policy wrote: its entropy, where it samples at 1.

        Raises:
            ValueError: A loss or the gradient is not finite; the weights are as before.
        """
        step = Supervised.total([Supervised.of(one.pack) for one in packs])
        found: dict[str, float] = {}
        for one in packs:
            parts = self._losses(one.to(next(iter(self.parameters.values())).device), step)
            loss = parts["image_loss"] + self.texts.weight * parts["text_loss"]
            if loss.requires_grad:
                loss.backward()
            for name, value in parts.items():
                found[name] = found.get(name, 0.0) + value.item()
        norm = nn.utils.clip_grad_norm_(self.parameters.values(), self.max_grad_norm).item()
        found["grad_norm"] = norm
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

    def _losses(self, one: RewardedPack, step: Supervised) -> dict[str, Tensor]:
        """What a pack adds to the means over a step."""
        pack, words = one.pack, one.pack.layout.ce_weights
        with torch.no_grad():
            old: Predictions = forward_in(self.dtype, self.objective, pack, weights=self.old)
        new: Predictions = forward_in(self.dtype, self.objective, pack)
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
