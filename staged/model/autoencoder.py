"""FLUX's autoencoder: images to scaled latents and back.

b: images.  c: latent channels.  f: downsample factor, pixels on the side of one latent.
"""

import torch
from torch import Tensor, nn

from staged.model.autoencoder_halves import LatentDecoder, LatentEncoder
from staged.model.config import AutoencoderConfig
from staged.model.patches import patchify, unpatchify

__all__ = ["Autoencoder", "latents_from_tokens", "tokens_from_latents"]


class Autoencoder(nn.Module):
    """Encoder, decoder, and what their latents are shifted and scaled by."""

    def __init__(self, config: AutoencoderConfig) -> None:
        """Build encoder and decoder."""
        super().__init__()
        self.config = config
        self.encoder = LatentEncoder(config)
        self.decoder = LatentDecoder(config)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights, to which inputs are cast."""
        return next(self.parameters()).dtype

    def moments(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the posterior, before scaling and shifting.

        Args:
            images: (b, 3, height, width) in [-1, 1]; sides are multiples of f.

        Returns:
            Two tensors (b, c, height / f, width / f).

        Raises:
            ValueError: A side is not a multiple of f.
        """
        height, width = images.shape[-2:]
        factor = self.config.downsample
        if height % factor or width % factor:
            raise ValueError(
                f"an image of {width} x {height} pixels is not a multiple of the autoencoder's "
                f"{factor}; resize it with fit_size"
            )
        mean, log_variance = self.encoder(images.to(self.dtype)).chunk(2, dim=1)
        # The bounds are those of diffusers: an untrained encoder must not overflow exp().
        return mean, log_variance.clamp(-30.0, 20.0)

    def encode(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Images to latents.

        Args:
            images: (b, 3, height, width) in [-1, 1]; sides are multiples of f.
            generator: Where to draw the posterior sample from, on the images' device; without
                one the posterior's mean is taken.

        Returns:
            (b, c, height / f, width / f), shifted and scaled to about unit variance.
        """
        latents, log_variance = self.moments(images)
        if generator is not None:
            noise = torch.randn(
                latents.shape, generator=generator, device=latents.device, dtype=latents.dtype
            )
            latents = latents + torch.exp(0.5 * log_variance) * noise
        return (latents - self.config.shift_factor) * self.config.scaling_factor

    def decode(self, latents: Tensor) -> Tensor:
        """Latents, as ``encode`` gives them, to images.

        Args:
            latents: (b, c, height / f, width / f).

        Returns:
            (b, 3, height, width), about [-1, 1] and not clamped.
        """
        unscaled = latents.to(self.dtype) / self.config.scaling_factor + self.config.shift_factor
        images: Tensor = self.decoder(unscaled)
        return images


def tokens_from_latents(latents: Tensor, patch_size: int) -> Tensor:
    """Latents to generated tokens, row by row.

    Args:
        latents: (..., c, height, width) latents; sides are multiples of ``patch_size``.
        patch_size: Latents p on the side of one token.

    Returns:
        (..., n, p * p * c), each token in (row, column, channel) order.
    """
    return patchify(latents, patch_size)


def latents_from_tokens(tokens: Tensor, rows: int, columns: int, patch_size: int) -> Tensor:
    """Undo ``tokens_from_latents``.

    Args:
        tokens: (..., rows * columns, p * p * c).
        rows: Tokens down.
        columns: Tokens across.
        patch_size: Latents p on the side of one token.

    Returns:
        (..., c, rows * p, columns * p).
    """
    return unpatchify(tokens, rows, columns, patch_size)
