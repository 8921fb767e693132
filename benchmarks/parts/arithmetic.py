"""Least work that the model's mathematics asks for, to set measured times against.

Only products of matrices are counted, two operations a multiply-add; a backward pass is twice the
forward one. Whatever an implementation computes beyond that (masked scores, padding, recomputation)
is not counted, so shares of a ceiling come out low rather than high.
"""

from __future__ import annotations

import torch

from staged.model.config import BagelConfig, TransformerConfig
from staged.model.layout import Layout


def expert_weights(config: TransformerConfig) -> int:
    """Matrix entries of one expert of one layer."""
    heads = (2 * config.num_heads + 2 * config.num_kv_heads) * config.head_dim
    return config.hidden_size * (heads + 3 * config.intermediate_size)


def attention_flops(config: TransformerConfig, num_pairs: int) -> int:
    """Of all layers, forward, for that many visible pairs of a query and a key."""
    return 4 * num_pairs * config.num_heads * config.head_dim * config.num_layers


def linear_flops(config: TransformerConfig, num_tokens: int) -> int:
    """Of all layers, forward."""
    return 2 * num_tokens * expert_weights(config) * config.num_layers


def flow_flops(config: TransformerConfig, num_latents: int, num_context: int) -> int:
    """Of one branch of one flow evaluation."""
    tokens = num_latents + 2
    pairs = tokens * (num_context + tokens)
    return linear_flops(config, tokens) + attention_flops(config, pairs)


def decode_bytes(config: TransformerConfig, contexts: list[int], bytes_each: int = 2) -> int:
    """Read from memory to write one token in each context: und weights, head, and the cache."""
    weights = expert_weights(config) * config.num_layers + config.hidden_size * config.vocab_size
    kept = 2 * config.num_kv_heads * config.head_dim * config.num_layers
    return bytes_each * (weights + kept * sum(contexts))


def train_flops(config: BagelConfig, layout: Layout) -> int:
    """Of a forward and backward pass over a pack, without recomputation."""
    decoder, vision = config.transformer, config.vision
    forward = linear_flops(decoder, layout.num_tokens)
    forward += attention_flops(decoder, visible_pairs(layout))
    forward += 2 * len(layout.labels) * decoder.hidden_size * decoder.vocab_size
    patches = [rows * columns for rows, columns in layout.vision_grids]
    width = vision.hidden_size
    layer = 4 * width**2 + 2 * width * vision.intermediate_size
    tower = vision.num_layers * layer + vision.patch_dim * width
    connector = width * decoder.hidden_size + decoder.hidden_size**2
    forward += 2 * sum(patches) * (tower + connector)
    forward += 4 * sum(n * n for n in patches) * width * vision.num_layers
    return 3 * forward


def visible_pairs(layout: Layout) -> int:
    """Pairs of a query and a key that it may see, over all samples of a pack."""
    masks = (layout.mask(sample) for sample in range(len(layout.sample_lens)))
    return sum(int(torch.count_nonzero(mask)) for mask in masks)
