"""Dimensions of a BAGEL model; `staged.model.config_files` reads and writes them."""

import math
from dataclasses import dataclass, field, fields
from typing import Any

from staged.model.config_section import MAX_DIMENSION

__all__ = ["AutoencoderConfig", "BagelConfig", "TransformerConfig", "VisionConfig"]


def _check_numbers(config: Any, **minimum: float) -> None:
    """Require sizes that are integers from 1, and finite reals above `minimum`, 0 by default."""
    for item in fields(config):
        value, place = getattr(config, item.name), f"{type(config).__name__}.{item.name}"
        least = minimum.get(item.name, 0.0)
        if item.type is int:
            if isinstance(value, bool) or not isinstance(value, int):
                raise ValueError(f"{place} is {value!r}; give an integer")
            if not 1 <= value <= MAX_DIMENSION:
                raise ValueError(f"{place} is {value}; give 1 to {MAX_DIMENSION}")
        elif item.type is float:
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"{place} is {value!r}; give a number")
            if not math.isfinite(value) or value <= least:
                raise ValueError(f"{place} is {value}; it must exceed {least}")


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """The decoder: Qwen2 with QK-norm and two experts a layer.

    Attributes:
        hidden_size: Width of the residual stream; a multiple of 4 (2-D position tables).
        intermediate_size: Width of the gated MLP.
        num_layers: Decoder layers.
        num_heads: Query heads.
        num_kv_heads: Key and value heads; divides ``num_heads``.
        head_dim: Width of one head; even (rope rotates halves).
        vocab_size: Rows of the token embedding and of the untied head.
        rope_theta: Rope base.
        rms_norm_eps: Epsilon of every RMSNorm, QK-norm included.
    """

    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    rope_theta: float = 1e6
    rms_norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            ValueError: A field is out of range or does not fit another.
        """
        _check_numbers(self)
        if self.hidden_size % 4:
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of 4")
        if self.head_dim % 2:
            raise ValueError(f"head_dim {self.head_dim} is odd; rope rotates pairs")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_heads {self.num_heads} is not a multiple of num_kv_heads {self.num_kv_heads}"
            )


@dataclass(frozen=True, kw_only=True)
class VisionConfig:
    """The SigLIP NaViT tower.

    Attributes:
        hidden_size: Width; a multiple of ``num_heads``.
        intermediate_size: Width of the MLP.
        num_layers: Layers actually built.
        num_heads: Attention heads.
        patch_size: Pixels on a patch's side.
        positions_per_side: Side of the learned position grid, in patches.
        num_channels: Colour channels.
        layer_norm_eps: Epsilon of every LayerNorm.
    """

    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    patch_size: int = 14
    positions_per_side: int = 70
    num_channels: int = 3
    layer_norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            ValueError: A field is out of range or does not fit another.
        """
        _check_numbers(self)
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"vision hidden_size {self.hidden_size} is not a multiple of its "
                f"num_heads {self.num_heads}"
            )

    @property
    def patch_dim(self) -> int:
        """Numbers in one flattened patch."""
        return self.num_channels * self.patch_size**2


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """FLUX's convolutional VAE.

    Attributes:
        channels: Width of the first level; a multiple of 32 (group norm has 32 groups).
        multipliers: Width of each level over ``channels``; each level but the last halves the side.
        num_blocks: Residual blocks a level in the encoder (the decoder has one more).
        latent_channels: Channels of the latents.
        scaling_factor: Latents are ``(mean - shift_factor) * scaling_factor``.
        shift_factor: See ``scaling_factor``.
    """

    channels: int = 128
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    num_blocks: int = 2
    latent_channels: int = 16
    scaling_factor: float = 0.3611
    shift_factor: float = 0.1159

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            ValueError: A field is out of range or does not fit another.
        """
        _check_numbers(self, shift_factor=-math.inf)
        if self.channels % 32:
            raise ValueError(f"autoencoder channels {self.channels} is not a multiple of 32")
        levels = self.multipliers
        if not isinstance(levels, tuple) or not 1 <= len(levels) <= 8:
            raise ValueError(f"autoencoder multipliers {levels!r}: give 1 to 8 integers")
        for level in levels:
            if isinstance(level, bool) or not isinstance(level, int) or not 1 <= level <= 64:
                raise ValueError(f"autoencoder multiplier {level!r}: give an integer from 1 to 64")

    @property
    def downsample(self) -> int:
        """Pixels on the side of one latent."""
        return 1 << (len(self.multipliers) - 1)


@dataclass(frozen=True, kw_only=True)
class BagelConfig:
    """A whole BAGEL.

    Attributes:
        transformer: The decoder.
        vision: The tower for understanding.
        autoencoder: The VAE for generation.
        latent_patch_size: Latents on the side of one generated token.
        max_latent_size: Side of the generated tokens' position table, in tokens.
        vit_max_patches_per_side: Side of the ViT tokens' position table, in patches.
        timestep_shift: Shift of the training time distribution; 1 leaves it unchanged.
    """

    transformer: TransformerConfig
    vision: VisionConfig
    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    latent_patch_size: int = 2
    max_latent_size: int = 64
    vit_max_patches_per_side: int = 70
    timestep_shift: float = 1.0

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            ValueError: A field is out of range.
        """
        _check_numbers(self)

    @property
    def latent_token_dim(self) -> int:
        """Numbers in one generated token: latent channels times the patch's area."""
        return self.autoencoder.latent_channels * self.latent_patch_size**2

    @property
    def pixels_per_latent_token(self) -> int:
        """Pixels on the side of one generated token."""
        return self.autoencoder.downsample * self.latent_patch_size

    def check_picture(self, height: int, width: int) -> None:
        """Make sure that a picture of so many pixels can be drawn.

        Raises:
            ValueError: A side is no multiple of a token's, or longer than there are positions for.
        """
        stride = self.pixels_per_latent_token
        longest = stride * self.max_latent_size
        if any(side % stride or not stride <= side <= longest for side in (height, width)):
            near = [min(max(round(s / stride), 1) * stride, longest) for s in (width, height)]
            raise ValueError(
                f"a picture of {width} x {height} pixels: give sides from {stride} to {longest} "
                f"that are multiples of {stride}, such as {near[0]} x {near[1]}"
            )
