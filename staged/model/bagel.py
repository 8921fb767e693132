"""BAGEL: a decoder with two experts, a vision tower (ViT) and latents, over one layout.

Letters: T tokens, C hidden size, V vocabulary, Z numbers a latent token, P numbers a patch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from staged.model.attention import Attend
from staged.model.config import BagelConfig
from staged.model.cross_entropy import WordHead
from staged.model.layout import Layout
from staged.model.positions import extrapolated_position_ids, sincos_table, time_sinusoids
from staged.model.transformer import FinalNorm, Layer, rope_tables
from staged.model.vision import VisionTower, table


class TwoLayerMLP(nn.Module):
    """Linear, activation, linear."""

    def __init__(self, inputs: int, width: int, *, approximate_gelu: bool) -> None:
        """Make the weights; the activation is tanh-GELU or SiLU."""
        super().__init__()
        self.fc1 = nn.Linear(inputs, width)
        self.fc2 = nn.Linear(width, width)
        self.approximate_gelu = approximate_gelu

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) to (..., width)."""
        x = self.fc1(x)
        x = self.fc2(F.gelu(x, approximate="tanh") if self.approximate_gelu else F.silu(x))
        return x


@dataclass(frozen=True)
class Inputs:
    """What fills a layout's image tokens, in the layout's order.

    Attributes:
        latents: (num_latent, Z) x_t of noised copies, latents of clean ones.
        timesteps: (num_latent,) float32 in [0, 1]; 0 for clean copies.
        patches: (num_vision, P) flattened pixels in [-1, 1].
    """

    latents: Tensor
    timesteps: Tensor
    patches: Tensor


@dataclass(frozen=True)
class Hidden:
    """Final hidden states of both experts, normed.

    Attributes:
        und: (num_und, C) text and marker tokens, then ViT tokens.
        gen: (num_latent, C) latent tokens.
    """

    und: Tensor
    gen: Tensor


class Bagel(nn.Module):
    """The unified model without its autoencoder. BAGEL, arXiv:2505.14683."""

    latent_positions: Tensor
    vision_positions: Tensor

    def __init__(self, config: BagelConfig) -> None:
        """Make every weight, uninitialised in effect: load a checkpoint or call `init_weights`."""
        super().__init__()
        self.config = config
        decoder = config.transformer
        width = decoder.hidden_size
        self.embed_tokens = table(decoder.vocab_size, width)
        self.layers = nn.ModuleList(Layer(decoder, i) for i in range(decoder.num_layers))
        self.final_norm = FinalNorm(decoder)
        self.lm_head = WordHead(width, decoder.vocab_size)
        self.vision = VisionTower(config.vision)
        self.connector = TwoLayerMLP(config.vision.hidden_size, width, approximate_gelu=True)
        self.latent_in = nn.Linear(config.latent_token_dim, width)
        self.latent_out = nn.Linear(width, config.latent_token_dim)
        self.time_embed = TwoLayerMLP(256, width, approximate_gelu=False)
        # Frozen, yet part of the published files; filled by `init_weights` or the loader.
        for name, side in (
            ("latent_positions", config.max_latent_size),
            ("vision_positions", config.vit_max_patches_per_side),
        ):
            self.register_buffer(name, torch.empty(side * side, width))

    def init_positions(self) -> None:
        """Compute the two frozen position tables."""
        width = self.config.transformer.hidden_size
        self.latent_positions.copy_(sincos_table(width, self.config.max_latent_size))
        self.vision_positions.copy_(sincos_table(width, self.config.vit_max_patches_per_side))

    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Draw fresh weights: normal 0.02, zero biases, unit norms, and a zero velocity head.

        Projections back into the residual stream are scaled down with depth (GPT-2's rule).
        """
        for name, module in self.named_modules():
            if name == "vision" or name.startswith("vision."):
                continue
            if isinstance(module, nn.Linear | nn.Embedding):
                deep = name.endswith(("o_proj", "down_proj"))
                std = 0.02 * ((2 * len(self.layers)) ** -0.5 if deep else 1.0)
                nn.init.normal_(module.weight, std=std, generator=generator)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
            if isinstance(module, nn.RMSNorm):
                nn.init.ones_(module.weight)
        # Velocities begin at 0, the mean of what they are to become.
        nn.init.zeros_(self.latent_out.weight)
        self.vision.init_weights(generator)
        self.init_positions()

    def compile_experts(self) -> None:
        """Fuse what surrounds attention; numbers of tokens stay free to vary."""
        for layer in self.layers:
            assert isinstance(layer, Layer)
            layer.und.compile_parts()
            layer.gen.compile_parts()
            layer.compiled = True

    def embed(self, layout: Layout, inputs: Inputs) -> Tensor:
        """Input embeddings of a layout.

        Returns:
            (T, C) in expert order.
        """
        parts = [self.embed_tokens(layout.token_ids)]
        # Sharded training needs every parameter to take part in every step on every rank. Where a
        # token of text is written, towers that look at nothing would take a sixth of the time.
        all_take_part = not torch.is_inference_mode_enabled()
        if layout.vision_grids or all_take_part:
            parts.append(self._seen(layout.vision_grids, inputs.patches))
        if layout.latent_grids or all_take_part:
            parts.append(self._drawn(layout.latent_grids, inputs))
        return torch.cat([part.to(parts[0].dtype) for part in parts])

    def _seen(self, grids: Sequence[tuple[int, int]], patches: Tensor) -> Tensor:
        """Embeddings of images that are looked at."""
        config, device = self.config, patches.device
        places = _grid_positions(grids, config.vision.positions_per_side, device)
        rows = _grid_positions(grids, config.vit_max_patches_per_side, device)
        features = self.vision(patches, places, [h * w for h, w in grids])
        vision: Tensor = self.connector(features) + self.vision_positions[rows]
        return vision

    def _drawn(self, grids: Sequence[tuple[int, int]], inputs: Inputs) -> Tensor:
        """Embeddings of images that are drawn."""
        cells = _grid_positions(grids, self.config.max_latent_size, inputs.latents.device)
        latents: Tensor = (
            self.latent_in(inputs.latents)
            # Times are float32 until here: bfloat16 would move one near 1 by up to .002, which is a
            # third of a step where there are 49 of them, shifted by 3.
            + self.time_embed(time_sinusoids(inputs.timesteps).to(inputs.latents.dtype))
            + self.latent_positions[cells]
        )
        return latents

    def forward(
        self, layout: Layout, inputs: Inputs, attend: Attend, num_layers: int | None = None
    ) -> Hidden:
        """Run the decoder over a layout.

        Args:
            layout: What the tokens are; on the model's device.
            inputs: What fills the image tokens.
            attend: Attention over a pack or over caches.
            num_layers: Of the first layers alone, to try shapes; None for all.
        """
        x = self.embed(layout, inputs)
        decoder = self.config.transformer
        rope = rope_tables(
            layout.position_ids[layout.expert_order()],
            decoder.head_dim,
            decoder.rope_theta,
            x.dtype,
        )
        num_und = layout.num_und
        for layer in self.layers[:num_layers]:
            x = layer(x, num_und, rope, attend)
        und, gen = x.split([num_und, len(x) - num_und])
        return Hidden(und=self.final_norm.und(und), gen=self.final_norm.gen(gen))

    def logits(self, hidden: Tensor) -> Tensor:
        """(n, C) und hidden states to (n, V)."""
        logits: Tensor = self.lm_head(hidden)
        return logits

    def cross_entropy(
        self, hidden: Tensor, labels: Tensor, *, max_logits_mib: int = 1024
    ) -> Tensor:
        """(n, C) und hidden states and (n,) labels to (n,) float32 nats."""
        losses: Tensor = self.lm_head(hidden, labels, max_logits_mib)
        return losses

    def velocity(self, hidden: Tensor) -> Tensor:
        """(n, C) gen hidden states to (n, Z) velocity, `noise - latents`."""
        velocity: Tensor = self.latent_out(hidden)
        return velocity


def _grid_positions(grids: Iterable[tuple[int, int]], side: int, device: torch.device) -> Tensor:
    parts = [_one_grid(height, width, side, device) for height, width in grids]
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.int64, device=device)


# Every flow step asks for the same few, and must not wait for the one before it: they stay where
# they are needed.
@lru_cache(maxsize=1024)
def _one_grid(height: int, width: int, side: int, device: torch.device) -> Tensor:
    return extrapolated_position_ids(height, width, side).to(device)
