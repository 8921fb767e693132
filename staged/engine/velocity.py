"""The velocities of images on their way, in as many branches as the guidance of each needs.

Letters: n latent tokens, Z numbers a latent token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary, ref

import torch
from torch import Tensor

from staged.engine.context import ChunkAttention, Context
from staged.engine.graphs import Graphs, Network
from staged.model.bagel import Bagel, Inputs
from staged.model.flow import guide
from staged.model.flows import Guidance
from staged.model.layout import Grids, Layout, SpecialTokens, lay_out
from staged.sequence import noised_copy

Grid = tuple[int, int]
"""Rows and columns of latent tokens."""


@dataclass(frozen=True, kw_only=True, eq=False)  # by identity: plans are kept for it
class GuidedImage:
    """What an image is drawn by.

    Attributes:
        branches: The whole context, the same without the last text, and with texts only; the last
            is not read where the context has no images.
        grid: Its latent tokens.
        guidance: What is made of the branches.
    """

    branches: Sequence[Context]
    grid: Grid
    guidance: Guidance

    def num_branches(self, t: float) -> int:
        """Branches that its velocity is made of at a time: one outside the guidance's interval."""
        return self.max_branches if self.guidance.at(t) else 1

    def guided(self, velocities: Tensor) -> Tensor:
        """Make one velocity of (branches, n, Z), by the guidance; see `num_branches`."""
        if len(velocities) == 1:
            return velocities[0]
        full, without_text, *rest = velocities[:, None]
        return guide(full, without_text, rest[0] if rest else None, self.guidance)[0]

    @property
    def max_branches(self) -> int:
        """Branches within the interval."""
        return self.guidance.num_branches(has_images=self.branches[0].has_images)


_Team = tuple[tuple[ref[GuidedImage], int], ...]
"""Images, and branches of each."""


class Velocities:
    """Velocities of images in their contexts, those that are asked for at once in one call."""

    def __init__(self, model: Bagel, special: SpecialTokens, graphs: Graphs) -> None:
        """Ask a model.

        Args:
            model: Whose velocities they are.
            special: Its framing tokens.
            graphs: Let what is asked again and again be replayed.
        """
        self._model, self._special, self._graphs = model, special, graphs
        self._like = model.embed_tokens.weight
        self._no_patches = self._like.new_empty(0, model.config.vision.patch_dim)
        # Of what was last asked for with an image in front: it serves every step until an image
        # comes, goes, or needs other branches. Images are held weakly, and so are not kept, nor
        # their contexts, when nobody draws them any more.
        self._plans = WeakKeyDictionary[GuidedImage, tuple[_Team, Network]]()

    def __call__(
        self, images: Sequence[GuidedImage], x_t: Sequence[Tensor], times: Sequence[float]
    ) -> list[Tensor]:
        """Ask for the velocities of some images, each at a time of its own.

        Args:
            images: What they are drawn by.
            x_t: (n, Z) float32 of each.
            times: Of each.

        Returns:
            (branches, n, Z) float32 of each, with as many branches as it needs at its time.
        """
        counts = [image.num_branches(t) for image, t in zip(images, times, strict=True)]
        network = self._plan(images, counts)
        rows = [count * len(x) for count, x in zip(counts, x_t, strict=True)]
        # Narrowed for the network alone; see `staged.engine.drawing`.
        tokens = [x.to(self._like.dtype).repeat(n, 1) for x, n in zip(x_t, counts, strict=True)]
        # Widened before guidance, which multiplies the differences of nearly equal numbers.
        velocities = network(torch.cat(tokens), self._times(times, rows)).float().split(rows)
        return [
            some.view(count, *x.shape)
            for some, count, x in zip(velocities, counts, x_t, strict=True)
        ]

    def _plan(self, images: Sequence[GuidedImage], counts: Sequence[int]) -> Network:
        team = tuple((ref(image), count) for image, count in zip(images, counts, strict=True))
        known = self._plans.get(images[0])
        if known is None or known[0] != team:
            shapes = [(image.grid, count) for image, count in zip(images, counts, strict=True)]
            branches = [
                branch
                for image, count in zip(images, counts, strict=True)
                for branch in image.branches[:count]
            ]
            positions = [branch.position for branch in branches]
            layout = noised_layout(shapes, self._special, positions).to(self._like.device)
            network = self._network(layout, ChunkAttention(branches, layout))
            known = team, self._graphs.replaying(network)
            self._plans[images[0]] = known
        return known[1]

    def _network(self, layout: Layout, attention: ChunkAttention) -> Network:
        def network(latents: Tensor, times: Tensor) -> Tensor:
            hidden = self._model(layout, Inputs(latents, times, self._no_patches), attention)
            return self._model.velocity(hidden.gen)

        return network

    def _times(self, times: Sequence[float], rows: Sequence[int]) -> Tensor:
        device = self._like.device
        return torch.cat(
            [torch.full((n,), t, device=device) for t, n in zip(times, rows, strict=True)]
        )


def noised_layout(
    shapes: Sequence[tuple[Grid, int]], special: SpecialTokens, positions: Sequence[int]
) -> Layout:
    """Lay out the noised copies of images, a sample for each branch of each.

    Args:
        shapes: Of each image its latent tokens and the number of its branches.
        special: Framing tokens.
        positions: Where each branch goes on.
    """
    copies = [
        [noised_copy(Grids(latent=grid, vision=(0, 0)))]
        for grid, count in shapes
        for _ in range(count)
    ]
    return lay_out(copies, special, first_positions=positions)
