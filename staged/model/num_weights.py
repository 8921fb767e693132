"""How many numbers a model's weights are, from its dimensions: known before anything is read."""

from __future__ import annotations

from staged.model.config import AutoencoderConfig, BagelConfig, TransformerConfig, VisionConfig

_TIME_FREQUENCIES = 256


def num_model_weights(config: BagelConfig) -> int:
    """Numbers in a `Bagel`, its frozen position tables included."""
    width = config.transformer.hidden_size
    connectors = (
        _linear(config.vision.hidden_size, width)
        + _linear(width, width)
        + _linear(config.latent_token_dim, width)
        + _linear(width, config.latent_token_dim)
        + _linear(_TIME_FREQUENCIES, width)
        + _linear(width, width)
    )
    tables = (config.max_latent_size**2 + config.vit_max_patches_per_side**2) * width
    return _decoder(config.transformer) + _tower(config.vision) + connectors + tables


def num_expert_weights(config: TransformerConfig) -> tuple[int, int]:
    """Numbers in the weights of both experts' linear layers, and their rows: one each output."""
    width, heads = config.hidden_size, config.num_heads * config.head_dim
    kv_heads = config.num_kv_heads * config.head_dim
    numbers = width * (2 * heads + 2 * kv_heads + 3 * config.intermediate_size)
    rows = heads + 2 * kv_heads + 2 * width + 2 * config.intermediate_size
    return 2 * config.num_layers * numbers, 2 * config.num_layers * rows


def num_autoencoder_weights(config: AutoencoderConfig) -> int:
    """Numbers in an `Autoencoder`, encoder and decoder."""
    widths = [config.channels * multiplier for multiplier in config.multipliers]
    first, last, latents = widths[0], widths[-1], config.latent_channels
    middle = 2 * _residual(last, last) + _norm(last) + 4 * _linear(last, last)
    resamplings = sum(_convolution(width, width) for width in widths)
    encoder = _convolution(3, first) + _norm(last) + _convolution(last, 2 * latents)
    decoder = _convolution(latents, last) + _norm(first) + _convolution(first, 3)
    for before, after in zip([first, *widths[:-1]], widths, strict=True):
        encoder += _residual(before, after) + (config.num_blocks - 1) * _residual(after, after)
    for before, after in zip([last, *widths[:0:-1]], widths[::-1], strict=True):
        decoder += _residual(before, after) + config.num_blocks * _residual(after, after)
    # The last level of each is followed by none.
    encoder += resamplings - _convolution(last, last)
    decoder += resamplings - _convolution(first, first)
    return encoder + decoder + 2 * middle


def _decoder(config: TransformerConfig) -> int:
    width, heads = config.hidden_size, config.num_heads * config.head_dim
    kv_heads = config.num_kv_heads * config.head_dim
    attention = _linear(width, heads) + 2 * _linear(width, kv_heads) + heads * width
    mlp = 3 * width * config.intermediate_size
    expert = attention + mlp + 2 * width + 2 * config.head_dim
    # Two experts in each layer, two last norms, the words and the head.
    return 2 * (config.num_layers * expert + width) + 2 * config.vocab_size * width


def _tower(config: VisionConfig) -> int:
    width = config.hidden_size
    mlp = _linear(width, config.intermediate_size) + _linear(config.intermediate_size, width)
    layer = 4 * _linear(width, width) + mlp + 2 * _norm(width)
    positions = config.positions_per_side**2 * width
    return _linear(config.patch_dim, width) + positions + config.num_layers * layer + _norm(width)


def _residual(before: int, after: int) -> int:
    shortcut = _linear(before, after) if before != after else 0
    convolutions = _convolution(before, after) + _convolution(after, after)
    return _norm(before) + _norm(after) + convolutions + shortcut


def _convolution(before: int, after: int) -> int:
    return 9 * before * after + after  # 3 x 3


def _linear(before: int, after: int) -> int:
    return before * after + after


def _norm(width: int) -> int:
    return 2 * width
