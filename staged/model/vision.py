"""The SigLIP NaViT tower: packed images of any size, full attention within each.

n: packed patches of all images.  d: tower width.  h: heads.  s: patches of one image.
b: images of equal length.  p: patch side, in pixels.  c: colour channels.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from staged.model.attention import attend_rows
from staged.model.config import VisionConfig
from staged.model.patches import patchify
from staged.model.recompute import RecomputingLayer

__all__ = ["VisionTower", "patchify", "table"]


class VisionTower(nn.Module):
    """Patches to features: learned positions, pre-norm blocks, a final LayerNorm, no head.

    SigLIP, arXiv:2303.15343; packing of native sizes, NaViT, arXiv:2307.06304.
    """

    def __init__(self, config: VisionConfig) -> None:
        """Build the tower with uninitialised weights; works on the meta device."""
        super().__init__()
        self.config = config
        self.patch_embedding = nn.Linear(config.patch_dim, config.hidden_size)
        self.position_embedding = table(config.positions_per_side**2, config.hidden_size)
        self.layers = nn.ModuleList(VisionBlock(config) for _ in range(config.num_layers))
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Draw fresh weights: normal 0.02, zero biases, unit norms."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02, generator=generator)
            if isinstance(module, nn.LayerNorm):
                nn.init.ones_(module.weight)
            if isinstance(module, nn.Linear | nn.LayerNorm):
                nn.init.zeros_(module.bias)

    def forward(self, patches: Tensor, position_ids: Tensor, seqlens: Sequence[int]) -> Tensor:
        """Features of packed images.

        Args:
            patches: (n, p * p * c) real, of pixels in [-1, 1]; images follow one another.
            position_ids: (n,) int64 rows of the learned position table.
            seqlens: Patches of each image; they sum to n.

        Returns:
            (n, d) in the tower's dtype.

        Raises:
            ValueError: ``seqlens`` does not sum to n.
        """
        if sum(seqlens) != len(patches):
            raise ValueError(f"seqlens {list(seqlens)} sum to {sum(seqlens)}, not {len(patches)}")
        groups = _groups_of_equal_length(seqlens, patches.device)
        order = torch.cat([position_ids.new_zeros(0), *(rows.flatten() for rows in groups)])
        places = torch.argsort(order)
        hidden = self.patch_embedding(patches) + self.position_embedding(position_ids)
        for layer in self.layers:
            hidden = layer(hidden, groups, places)
        features: Tensor = self.post_layernorm(hidden)
        return features


def table(num_rows: int, width: int) -> nn.Embedding:
    """Make an embedding, uninitialised.

    torch would fill it with normal numbers, for which the meta device imports the whole compiler:
    seconds of every command, for numbers that nobody reads.
    """
    made: nn.Embedding = nn.Embedding.from_pretrained(torch.empty(num_rows, width), freeze=False)
    return made


class VisionBlock(RecomputingLayer):
    """Pre-norm attention and tanh-GELU MLP."""

    def __init__(self, config: VisionConfig) -> None:
        """Build one layer."""
        super().__init__()
        d = config.hidden_size
        self.num_heads = config.num_heads
        self.attn_norm = nn.LayerNorm(d, eps=config.layer_norm_eps)
        self.q_proj = nn.Linear(d, d)
        self.k_proj = nn.Linear(d, d)
        self.v_proj = nn.Linear(d, d)
        self.o_proj = nn.Linear(d, d)
        self.mlp_norm = nn.LayerNorm(d, eps=config.layer_norm_eps)
        self.fc1 = nn.Linear(d, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, d)

    def forward(self, hidden: Tensor, groups: Sequence[Tensor], places: Tensor) -> Tensor:
        """One layer over packed images.

        Args:
            hidden: (n, d).
            groups: For each distinct image length s, (b, s) int64 rows of its images' tokens.
            places: (n,) int64, where each token stands when the groups are listed one by one.

        Returns:
            (n, d).
        """
        return self.recomputing(self._run, hidden, groups, places)

    def _run(self, hidden: Tensor, groups: Sequence[Tensor], places: Tensor) -> Tensor:
        normed = self.attn_norm(hidden)
        query, key, value = self.q_proj(normed), self.k_proj(normed), self.v_proj(normed)
        # Without images the sum below still names all three projections: sharded training needs
        # every parameter in every step's graph.
        attended = [query[:0] + key[:0] + value[:0]]
        for rows in groups:
            q, k, v = (
                rearrange(x[rows], "b s (h e) -> b h s e", h=self.num_heads)
                for x in (query, key, value)
            )
            out = attend_rows(q, k, v)
            attended.append(rearrange(out, "b h s e -> (b s) (h e)"))
        hidden = hidden + self.o_proj(torch.cat(attended)[places])
        activated = F.gelu(self.fc1(self.mlp_norm(hidden)), approximate="tanh")
        hidden = hidden + self.fc2(activated)
        return hidden


def _groups_of_equal_length(seqlens: Sequence[int], device: torch.device) -> list[Tensor]:
    """Token rows of the images of each length: equal images share one attention call.

    Padding to the longest would waste work on mixed sizes, and one call an image would spend a
    pack of dozens of small images on overhead.
    """
    starts: dict[int, list[int]] = {}
    start = 0
    for length in seqlens:
        starts.setdefault(length, []).append(start)
        start += length
    return [
        torch.tensor(first, device=device)[:, None] + torch.arange(length, device=device)
        for length, first in starts.items()
        if length
    ]
