"""A model between the miniature and BAGEL: random weights that two CPU cores can compute with."""

from __future__ import annotations

from pathlib import Path

import torch

from benchmarks.parts import models
from benchmarks.parts.harness import Setup
from staged.engine.engine import Engine
from staged.model import checkpoint
from staged.model.autoencoder import Autoencoder
from staged.model.bagel import Bagel
from staged.model.codec import ImageCodec
from staged.model.config import AutoencoderConfig, BagelConfig, TransformerConfig, VisionConfig
from staged.shapes import miniature

_ON_CPU = Setup(device=torch.device("cpu"), tiny=False)


def config() -> BagelConfig:
    """A hundred million weights (101), BAGEL's proportions, pictures of 16 x 16 latent tokens.

    Words are the miniature's: a large table of them would be weights that no step multiplies by.
    """
    return BagelConfig(
        transformer=TransformerConfig(
            hidden_size=512,
            intermediate_size=1536,
            num_layers=16,
            num_heads=8,
            num_kv_heads=2,
            head_dim=64,
            vocab_size=miniature.VOCAB_SIZE,
        ),
        vision=VisionConfig(
            hidden_size=256,
            intermediate_size=768,
            num_layers=4,
            num_heads=4,
            positions_per_side=16,
        ),
        autoencoder=AutoencoderConfig(channels=32, multipliers=(1, 1, 1), num_blocks=1),
        max_latent_size=16,
        vit_max_patches_per_side=16,
    )


def engine(dtype: torch.dtype) -> Engine:
    """An engine around it, the autoencoder in float32; the same weights every time."""
    model = _model(dtype)
    codec = ImageCodec(_autoencoder(model.config), model.config)
    return Engine(model.eval(), codec, miniature.tokenizer())


def save(folder: Path) -> Path:
    """Write it in float32 (400 MB), with the miniature's way of drawing."""
    model = _model(torch.float32)
    return checkpoint.save(
        folder,
        model=model,
        autoencoder=_autoencoder(model.config),
        tokenizer=miniature.tokenizer(),
        flows=miniature.FLOWS,
    )


def _model(dtype: torch.dtype) -> Bagel:
    return models.build(config(), _ON_CPU, dtype)


def _autoencoder(of: BagelConfig) -> Autoencoder:
    torch.manual_seed(0)
    return Autoencoder(of.autoencoder).eval()
