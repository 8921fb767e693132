"""Settings of an autoencoder's training."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from staged.model.config import AutoencoderConfig
from staged.ranges import check_range


@dataclass(frozen=True, kw_only=True)
class AutoencoderJob:
    """Settings of the training.

    Attributes:
        out: Folder of the run: state, resolved settings, `ae.safetensors`, `ae.json`.
        model: Dimensions. Its scaling and shift factors are measured, not set.
        seed: Decides scenes, weights and noise.
        num_scenes: Scenes rendered once and trained on.
        num_test_scenes: Other scenes, for the final measurement.
        num_steps: Optimiser steps.
        batch_size: Images a step.
        lr: Peak learning rate; warms up, then falls along a cosine to a hundredth.
        warmup_steps: Steps of linear warm-up.
        kl_weight: Weight of the mean KL per latent against the mean L1 per channel of a pixel.
        noise: Half of the images are decoded from latents with more noise, of up to this many
            standard deviations of the latents.
        ema_decay: Decay of the averaged weights, which are what is saved.
        checkpoint_steps: Steps from one saved state to the next.
        log_steps: Steps from one printed line to the next.
        dtype: Compute in it where that is safe; `auto` is bfloat16 where the CPU multiplies it
            fast, and in a run that goes on what it began in.
        num_threads: Threads of the training; the last bits of the result depend on it.
    """

    out: Path = Path("out/autoencoder")
    model: AutoencoderConfig = field(
        default_factory=lambda: AutoencoderConfig(
            channels=64,
            multipliers=(1, 1, 1),
            num_blocks=1,
            latent_channels=4,
            scaling_factor=1.0,
            shift_factor=0.0,
        )
    )
    seed: int = 0
    num_scenes: int = 24_000
    num_test_scenes: int = 500
    num_steps: int = 7_000
    batch_size: int = 8
    lr: float = 1e-3
    warmup_steps: int = 100
    kl_weight: float = 0.002
    noise: float = 0.25
    ema_decay: float = 0.999
    checkpoint_steps: int = 500
    log_steps: int = 250
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    num_threads: int = 2

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            ValueError: A field is out of range.
        """
        check_range(self, "num_scenes", "num_test_scenes", "num_steps", "batch_size", minimum=1)
        check_range(self, "warmup_steps", "checkpoint_steps", minimum=1)
        check_range(self, "log_steps", "num_threads", minimum=1)
        check_range(self, "kl_weight", "noise", minimum=0)
        check_range(self, "seed", minimum=0, maximum=(1 << 31) - 1)
        check_range(self, "lr", minimum=0, above=True)
        check_range(self, "ema_decay", minimum=0, maximum=1, below=True)
