"""Models with random weights, made on the device itself: no checkpoint travels to a benchmark."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.parts.harness import Setup
from staged.engine.engine import Engine
from staged.model.bagel import Bagel
from staged.model.codec import ImageCodec
from staged.model.config import AutoencoderConfig, BagelConfig, TransformerConfig, VisionConfig
from staged.model.config_files import read_config
from staged.model.patches import patchify, unpatchify
from staged.model.tokenizer import train_tokenizer

FULL = Path(__file__).resolve().parents[2] / "configs/bagel_7b/model"
"""BAGEL-7B-MoT's published dimensions."""


def full_config(setup: Setup) -> BagelConfig:
    """BAGEL-7B; a toy of the same shape when tiny."""
    config = read_config(FULL)
    if not setup.tiny:
        return config
    return replace(
        config,
        transformer=TransformerConfig(
            hidden_size=64,
            intermediate_size=96,
            num_layers=2,
            num_heads=4,
            num_kv_heads=2,
            head_dim=16,
            vocab_size=512,
        ),
        vision=VisionConfig(
            hidden_size=48, intermediate_size=64, num_layers=2, num_heads=3, positions_per_side=8
        ),
        max_latent_size=8,
        vit_max_patches_per_side=8,
    )


def build(config: BagelConfig, setup: Setup, dtype: torch.dtype) -> Bagel:
    """A model with random weights, none of which ever was on the host or in another type."""
    with torch.device("meta"):
        model = Bagel(config)
    model = model.to(dtype).to_empty(device=setup.device)
    torch.manual_seed(0)
    with torch.no_grad():
        model.init_weights()
        # A fresh velocity head is zero, and a product with zeros is not what is to be timed.
        model.latent_out.weight.normal_(std=0.02)
    return model


def engine(model: Bagel, setup: Setup, dtype: torch.dtype) -> Engine:
    """An engine around a random model, with a stand-in autoencoder."""
    tokenizer = train_tokenizer(["a red circle above a blue star"] * 8, 300)
    return Engine(model.eval(), codec(model.config, setup, dtype), tokenizer)


def codec(config: BagelConfig, setup: Setup, dtype: torch.dtype) -> ImageCodec:
    """A codec around the stand-in autoencoder."""
    autoencoder = LinearAutoencoder(config.autoencoder).to(setup.device, dtype)
    return ImageCodec(autoencoder.eval(), config)  # type: ignore[arg-type]


class LinearAutoencoder(nn.Module):
    """Stands in for the autoencoder where the decoder is measured, or diffusers is missing.

    Latents are fixed orthogonal projections of square blocks of pixels: learnable, and free.
    """

    def __init__(self, config: AutoencoderConfig) -> None:
        """Draw the projection; the same one every time."""
        super().__init__()
        self.config = config
        size = 3 * config.downsample**2
        random = torch.randn(
            size, config.latent_channels, generator=torch.Generator().manual_seed(0)
        )
        self.basis = nn.Parameter(torch.linalg.qr(random).Q, requires_grad=False)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights."""
        return self.basis.dtype

    def encode(self, images: Tensor) -> Tensor:
        """(b, 3, h, w) in [-1, 1] to (b, c, h / f, w / f)."""
        f = self.config.downsample
        tokens = patchify(images.to(self.dtype), f) @ self.basis
        return unpatchify(tokens, images.shape[-2] // f, images.shape[-1] // f, 1)

    def decode(self, latents: Tensor) -> Tensor:
        """(b, c, h / f, w / f) to the nearest (b, 3, h, w)."""
        rows, columns = latents.shape[-2:]
        tokens = patchify(latents.to(self.dtype), 1) @ self.basis.T
        return unpatchify(tokens, rows, columns, self.config.downsample)
