"""What the autoencoder's training minimises.

b: images.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from staged.model.autoencoder import Autoencoder
from train.autoencoder.settings import AutoencoderJob


@dataclass(frozen=True, kw_only=True)
class Losses:
    """Scalars of a step; `total` has a gradient."""

    total: Tensor
    reconstruction: Tensor
    kl: Tensor


def autoencoder_loss(
    autoencoder: Autoencoder, images: Tensor, job: AutoencoderJob, generator: torch.Generator
) -> Losses:
    """L1 of pictures decoded from noisy posterior samples, plus the weighted KL to N(0, 1).

    Args:
        autoencoder: Trained in place of its scaling: raw latents go straight to the decoder.
        images: (b, 3, height, width) float32 in [-1, 1].
        job: Weights and noise.
        generator: Source of the posterior sample and of the extra noise.
    """
    with torch.autocast("cpu", torch.bfloat16, enabled=job.dtype == "bfloat16"):
        mean, log_variance = (part.float() for part in autoencoder.encoder(images).chunk(2, dim=1))
        log_variance = log_variance.clamp(-20, 5)
        latents = mean + torch.exp(0.5 * log_variance) * normal_like(mean, generator)
        # Half of the pictures get no noise, the others up to `job.noise`: a flow never lands
        # exactly on a latent, which the decoder must bear without blurring those that are exact.
        share = torch.rand((len(images), 1, 1, 1), generator=generator)
        level = job.noise * (2 * share - 1).clamp(min=0) * mean.detach().std()
        latents = latents + level * normal_like(mean, generator)
        decoded = autoencoder.decoder(latents).float()
    reconstruction = (decoded - images).abs().mean()
    kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()
    return Losses(total=reconstruction + job.kl_weight * kl, reconstruction=reconstruction, kl=kl)


def normal_like(like: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal numbers in the shape of `like`, float32 on the CPU."""
    return torch.randn(like.shape, generator=generator)
