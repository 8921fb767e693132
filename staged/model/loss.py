"""Per-token losses of a packed forward pass, and the sums from which a step's loss is made.

Sums and counts stay apart so that a step can be normalised over all ranks and micro-batches.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from staged.model.bagel import Bagel, Hidden
from staged.model.layout import Layout


class Predictions(NamedTuple):
    """What a model says where it is supervised; a tuple, as `TokenLosses` is.

    Attributes:
        ce: (num_labels,) float32 cross entropy in nats, unweighted: minus a label's log-likelihood.
        velocity: (num_velocity, Z) float32.
    """

    ce: Tensor
    velocity: Tensor


class TokenLosses(NamedTuple):
    """Unreduced losses; a tuple, for sharded training looks into what a module returns.

    Attributes:
        ce: (num_labels,) float32 cross entropy in nats, unweighted.
        mse: (num_velocity, Z) float32 squared error of the velocity.
    """

    ce: Tensor
    mse: Tensor

    def ce_sum(self, layout: Layout) -> Tensor:
        """Weighted sum of the cross entropies; its count is `layout.ce_weights.sum()`."""
        return (self.ce * layout.ce_weights).sum()

    def mse_sum(self, weights: Tensor | None = None) -> Tensor:
        """Sum over tokens of the mean over numbers; its count is that of rows, or of `weights`.

        Args:
            weights: (num_velocity,) of the tokens; 1 each by default.
        """
        means = self.mse.mean(dim=-1)
        return (means if weights is None else means * weights).sum()


def predictions(
    model: Bagel, hidden: Hidden, layout: Layout, *, max_logits_mib: int = 1024
) -> Predictions:
    """Cross entropy of supervised tokens, and supervised velocities.

    Args:
        model: Whose heads to use.
        hidden: Of `model` over `layout`.
        layout: Says what is supervised.
        max_logits_mib: MiB of float32 logits that stand at a time.
    """
    # The head sees labelled rows alone: over 152,064 words, logits of all 33,000 tokens of a pack
    # would be 19 GiB.
    rows = layout.expert_rows()[layout.ce_index]
    velocity = model.velocity(hidden.gen[layout.velocity_rows]).float()
    return Predictions(
        ce=model.cross_entropy(hidden.und[rows], layout.labels, max_logits_mib=max_logits_mib),
        velocity=velocity,
    )


def token_losses(
    model: Bagel, hidden: Hidden, layout: Layout, target: Tensor, *, max_logits_mib: int = 1024
) -> TokenLosses:
    """Cross entropy of supervised tokens and squared error of supervised velocities.

    Args:
        model: See `predictions`, as the next two.
        hidden: Of `model` over `layout`.
        layout: Says what is supervised.
        target: (num_latent, Z) velocity at every latent token; only supervised rows are read.
        max_logits_mib: See `predictions`.
    """
    said = predictions(model, hidden, layout, max_logits_mib=max_logits_mib)
    return TokenLosses(ce=said.ce, mse=(said.velocity - target[layout.velocity_rows].float()) ** 2)
