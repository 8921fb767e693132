"""The velocity of one image on its way, guided by as many branches as it needs.

Letters: n latent tokens, Z numbers a latent token.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from staged.engine.context import ChunkAttention, Context
from staged.model.bagel import Bagel, Inputs
from staged.model.flow import guide
from staged.model.flows import Guidance
from staged.model.layout import Grids, SpecialTokens, lay_out
from staged.sequence import noised_copy


class GuidedVelocity:
    """Velocities of an image in its context. The branches of its guidance share a call."""

    def __init__(
        self,
        model: Bagel,
        special: SpecialTokens,
        branches: Sequence[Context],
        grid: tuple[int, int],
        guidance: Guidance,
    ) -> None:
        """Plan the calls; the plan serves every step.

        Args:
            model: Whose velocity it is.
            special: Its framing tokens.
            branches: The whole context, the same without the last text, and with texts only; the
                last is not read where the context has no images.
            grid: Rows and columns of latent tokens.
            guidance: What is made of the branches.
        """
        self._model, self._guidance = model, guidance
        count = guidance.num_branches(has_images=branches[0].has_images)
        like = model.embed_tokens.weight
        self._no_patches = like.new_empty(0, model.config.vision.patch_dim)
        copy = [noised_copy(Grids(latent=grid, vision=(0, 0)))]
        self._plans = {}
        # Outside the interval of guidance the first branch is enough.
        for needed in {1, count}:
            some = branches[:needed]
            layout = lay_out(
                [copy] * needed, special, first_positions=[branch.position for branch in some]
            ).to(like.device)
            self._plans[needed] = layout, ChunkAttention(some, layout)

    def __call__(self, x_t: Tensor, t: float) -> Tensor:
        """(n, Z) float32 velocity at (x_t, t)."""
        count = max(self._plans) if self._guidance.at(t) else 1
        layout, attention = self._plans[count]
        times = torch.full((count * len(x_t),), t, device=x_t.device)
        # Narrowed for the network alone; see `Engine._draw`.
        tokens = x_t.to(self._no_patches.dtype).repeat(count, 1)
        hidden = self._model(layout, Inputs(tokens, times, self._no_patches), attention)
        # Widened before guidance, which multiplies the differences of nearly equal numbers.
        velocities = self._model.velocity(hidden.gen).float().view(count, 1, *x_t.shape)
        if count == 1:
            return velocities[0, 0]
        without_images = velocities[2] if count == 3 else None
        return guide(velocities[0], velocities[1], without_images, self._guidance)[0]
