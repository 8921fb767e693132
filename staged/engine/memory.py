"""Bytes that reading, writing and drawing take, by a model's dimensions: known before they are.

Counted from above: what a term leaves out is less than what another counts too much, and
`tests/test_engine_memory.py` holds both against what torch allocates.

Letters: T tokens of a call, n tokens of a context.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from staged.engine.drawing import ROWS_TOGETHER
from staged.model.attention import MAX_SCORED_KEYS
from staged.model.codec import ImageSizes
from staged.model.config import BagelConfig
from staged.model.num_weights import (
    num_autoencoder_weights,
    num_expert_weights,
    num_model_weights,
)
from staged.model.quantizations import Quantization
from staged.model.transformer import MAX_MLP_TOKENS

_PIXEL_WIDTHS = 5  # activations of an autoencoder's finest level that are there at once
_VISION_WIDTHS = 8  # the same of the vision tower's stream, attention included
_STREAM_WIDTHS = 10  # and of the decoder's
_KEY_WIDTHS = 6  # copies of a chunk's keys, and of its values
_SHARE = {"cpu": 0.8}
_CUDA_SHARE = 0.92
"""Of free memory, what may be promised: allocators round up and leave gaps, kernels have workspaces
of their own, and a CPU's memory is used by others too."""


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """What a model needs.

    Attributes:
        config: Its dimensions.
        sizes: Of the images that it reads.
        dtype: In which it computes, and keeps keys and values.
        device: Where.
        num_branches: Contexts that a velocity is made of, at most.
        quantization: To what weights of its experts are rounded.
    """

    config: BagelConfig
    sizes: ImageSizes
    dtype: torch.dtype
    device: torch.device
    num_branches: int = 3
    quantization: Quantization = "none"

    @property
    def weights(self) -> int:
        """Of the model, and of the autoencoder in float32."""
        model = num_model_weights(self.config) * self.dtype.itemsize
        if self.quantization != "none":
            numbers, rows = num_expert_weights(self.config.transformer)
            scale = self.dtype if self.quantization == "int8" else torch.float32
            model += numbers * (1 - self.dtype.itemsize) + rows * scale.itemsize
        return model + num_autoencoder_weights(self.config.autoencoder) * torch.float32.itemsize

    @property
    def token(self) -> int:
        """Keys and values of a token, in all layers."""
        return self._key_row * self.config.transformer.num_layers

    @property
    def image_tokens(self) -> int:
        """Tokens of the largest image that is read, as both of its copies."""
        return self._latent_tokens + self._vision_tokens + 4  # each between two markers

    def working(self, num_cached: int) -> int:
        """Beside weights and caches, what any one call takes at most.

        Args:
            num_cached: Tokens of the longest context (n).
        """
        config = self.config
        drawn = config.max_latent_size**2 + 2
        together = ROWS_TOGETHER.get(self.device.type, 0)
        calls = (
            self._tower(self._vision_tokens),
            self._stream(self.image_tokens, drawn, num_cached),
            self._stream(max(self.num_branches * drawn, together), drawn, num_cached),
            self._autoencoder((config.max_latent_size * config.pixels_per_latent_token) ** 2),
        )
        return max(calls) + self._logits

    def tokens_in(self, room: int, longest: int) -> int:
        """Tokens that can be kept where there is so much room beside the weights.

        Args:
            room: Bytes.
            longest: Tokens of any one context, at most.
        """
        return max((room - self.working(longest)) // self.token, 0)

    def promised(self, free: int) -> int:
        """Of free bytes, those that may be used."""
        return int(free * _SHARE.get(self.device.type, _CUDA_SHARE))

    # --- parts -------------------------------------------------------------------------------

    @property
    def _key_row(self) -> int:
        """Key and value of a token in one layer."""
        decoder = self.config.transformer
        return 2 * decoder.num_kv_heads * decoder.head_dim * self.dtype.itemsize

    @property
    def _latent_tokens(self) -> int:
        return (self.sizes.latent_max // self.config.pixels_per_latent_token) ** 2

    @property
    def _vision_tokens(self) -> int:
        return (self.sizes.vision_max // self.config.vision.patch_size) ** 2

    @property
    def _logits(self) -> int:
        """Of the texts that are written side by side, once as computed and twice in float32."""
        return 16 * self.config.transformer.vocab_size * (self.dtype.itemsize + 2 * 4)

    def _stream(self, num_tokens: int, num_queries: int, num_cached: int) -> int:
        """A pass of the decoder.

        Args:
            num_tokens: Of the call (T).
            num_queries: Of them, those that attend in one call of a kernel.
            num_cached: Tokens of the longest context (n).
        """
        decoder = self.config.transformer
        width = max(decoder.hidden_size, decoder.num_heads * decoder.head_dim)
        numbers = num_tokens * (_STREAM_WIDTHS * width + 4 * decoder.head_dim)
        numbers += 3 * decoder.intermediate_size * min(num_tokens, MAX_MLP_TOKENS)
        scores = decoder.num_heads * self._scores(num_queries)
        # A context's keys and values may be gathered and stand beside the chunk's while it attends,
        # in each layer's turn.
        keys = self._key_row * (_KEY_WIDTHS // 2 * num_tokens + 2 * num_cached)
        numbers += self._beside_quantized(num_tokens)
        return numbers * self.dtype.itemsize + scores + keys + self._mask(num_cached)

    def _beside_quantized(self, num_tokens: int) -> int:
        """Numbers that a product with a quantised weight makes beside its result."""
        decoder = self.config.transformer
        widest = max(decoder.num_heads * decoder.head_dim, decoder.intermediate_size)
        if self.quantization == "int8":  # the weight, widened; the result, before it is scaled
            return (decoder.hidden_size + min(num_tokens, MAX_MLP_TOKENS)) * widest
        if self.quantization == "float8":  # rows, divided and then rounded
            at_once = num_tokens * decoder.hidden_size, min(num_tokens, MAX_MLP_TOKENS) * widest
            return 2 * max(at_once)
        return 0

    def _mask(self, num_cached: int) -> int:
        """What a text that is read may see: bool, and as kernels want it; keys for every head."""
        text = 1024
        decoder = self.config.transformer
        mask = text * (num_cached + text) * (1 + self.dtype.itemsize)
        if self.device.type == "cpu":
            return mask
        shared = decoder.num_heads // decoder.num_kv_heads
        return mask + shared * self._key_row * (num_cached + text)

    def _scores(self, num_queries: int) -> int:
        """Of one head, where they are written out; see `staged.model.attention.attend_rows`."""
        if self.device.type != "cpu" or self.dtype != torch.bfloat16:
            return 0
        most = min(num_queries, MAX_SCORED_KEYS)
        return 3 * most * MAX_SCORED_KEYS * self.dtype.itemsize

    def _tower(self, num_patches: int) -> int:
        """The vision tower."""
        vision = self.config.vision
        widths = _VISION_WIDTHS * vision.hidden_size + 2 * vision.intermediate_size
        numbers = num_patches * (widths + vision.patch_dim)
        return numbers * self.dtype.itemsize + vision.num_heads * self._scores(num_patches)

    def _autoencoder(self, num_pixels: int) -> int:
        """Encoding or decoding an image in float32."""
        config = self.config.autoencoder
        widths = [config.channels * multiplier for multiplier in config.multipliers]
        most = 0
        # A level is entered, on the way back, in the width of the coarser one.
        for level, (fine, coarse) in enumerate(zip(widths, [*widths[1:], widths[-1]], strict=True)):
            most = max(most, (_PIXEL_WIDTHS * fine + 2 * coarse) * num_pixels // 4**level)
        return most * torch.float32.itemsize
