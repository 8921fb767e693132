"""Least work of generation, to set measured times against; see `staged.model.work`."""

from __future__ import annotations

from staged.model.config import TransformerConfig
from staged.model.work import attention_flops, expert_weights, linear_flops


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
